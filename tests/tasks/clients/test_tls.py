"""TLS is verified, with the CA the block names, and what is wrong with it is said so that a person can mend it."""

from pathlib import Path

import pytest
import trustme

from deployments.emulator.region import Region
from tasks.clients.http import trusting
from tasks.clients.manager import Manager
from tasks.errors import ConfigurationError
from tests.conftest import serving
from tests.tasks.clients.conftest import PATIENCE, error_of

pytestmark = pytest.mark.anyio
RIGHT, WRONG = trustme.CA(), trustme.CA()


@pytest.fixture(params=["127.0.0.1", "another.name"])
def certificate(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """What the server is started with: a certificate for the name."""
    issued, chain, key = RIGHT.issue_cert(request.param), tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(chain))
    issued.private_key_pem.write_to_path(str(key))
    return {"ssl_certfile": str(chain), "ssl_keyfile": str(key)}


def manager_at(url: str, region: Region, ca: trustme.CA | None) -> Manager:
    """A client that trusts the CA, or those of the system."""
    cluster = next(iter(region.clusters.values()))
    return Manager(
        f"{url}/managers/{cluster.id}/web/api/v2",
        user=cluster.manager_user,
        password=cluster.manager_password,
        verify=trusting("", ca.cert_pem.bytes().decode() if ca else ""),
        patience=PATIENCE,
    )


@pytest.mark.parametrize("certificate", ["127.0.0.1"], indirect=True)
async def test_the_right_ca_works(certificate: dict[str, str]) -> None:
    """The session cookie is Secure, and reads go through."""
    region = Region()
    async with serving(region, **certificate) as url, manager_at(url, region, RIGHT) as manager:
        assert len(await manager.clusters()) == 1


@pytest.mark.parametrize("certificate", ["127.0.0.1"], indirect=True)
@pytest.mark.parametrize("ca", [None, WRONG], ids=["system", "wrong"])
async def test_another_ca_is_not_enough(certificate: dict[str, str], ca: trustme.CA | None) -> None:
    """The sentence names the setting; no password was sent."""
    region = Region()
    async with serving(region, **certificate) as url, manager_at(url, region, ca) as manager:
        assert await error_of(manager.clusters()) == (
            f"Untrusted: Manager GET session/status: the certificate of {manager.http.base_url} is not trusted "
            "(unable to get local issuer certificate): set ca_file or ca_pem in the block to the CA that signed it"
        )
    assert region.cluster("mrs-001").sessions == {}


@pytest.mark.parametrize("certificate", ["another.name"], indirect=True)
async def test_a_certificate_for_another_name(certificate: dict[str, str]) -> None:
    """The advice is about the address, not about the CA."""
    region = Region()
    async with serving(region, **certificate) as url, manager_at(url, region, RIGHT) as manager:
        assert await error_of(manager.clusters()) == (
            f"Untrusted: Manager GET session/status: the certificate of {manager.http.base_url} is not trusted (IP "
            "address mismatch, certificate is not valid for '127.0.0.1'): "
            "give the address in the block by a name the certificate holds"
        )


@pytest.mark.parametrize("certificate", ["127.0.0.1"], indirect=True)
async def test_http_to_a_tls_port(certificate: dict[str, str]) -> None:
    """The sentence asks for https."""
    region = Region()
    async with serving(region, **certificate) as url, manager_at(url.replace("https", "http"), region, None) as manager:
        assert await error_of(manager.clusters()) == (
            f"Unreachable: Manager GET session/status: {manager.http.base_url} cannot be reached (Server disconnected "
            "without sending a response.): if that port speaks TLS, its address begins with https://"
        )


async def test_https_to_a_plain_port() -> None:
    """The sentence asks whether it is http."""
    region = Region()
    async with serving(region) as url, manager_at(url.replace("http", "https"), region, RIGHT) as manager:
        assert await error_of(manager.clusters()) == (
            f"Unreachable: Manager GET session/status: {manager.http.base_url} does not speak TLS as expected "
            "(WRONG_VERSION_NUMBER): is it an http:// address?"
        )


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("/nowhere/ca.pem", "", r"the CA file /nowhere/ca.pem cannot be used \(.*\): give a PEM certificate"),
        ("", "no PEM", r"the CA text in the block cannot be used \(.*\): give a PEM certificate"),
        ("", "# Schlüssel", r"the CA text in the block cannot be used \(.*\): give a PEM certificate"),
        ("a\0b", "", r"the CA file a\0b cannot be used \(.*\): give a PEM certificate"),
    ],
)
def test_a_ca_that_is_none(file: str, text: str, sentence: str) -> None:
    """Missing, empty or not ASCII: an error of the configuration that says what to give."""
    with pytest.raises(ConfigurationError, match=sentence):
        trusting(file, text)


def test_a_ca_may_be_a_file(tmp_path: Path) -> None:
    """A file works as the text does, and verification stays on."""
    RIGHT.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = trusting(str(tmp_path / "ca.pem"))
    assert (context.verify_mode.name, context.check_hostname, len(context.get_ca_certs())) == ("CERT_REQUIRED", True, 1)
