"""`runbooks doctor` against the emulated region: what it prints, its exit code, and that it changes nothing."""

import itertools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from tests.conftest import serving
from tests.deployments.conftest import Ended, Runbooks

pytestmark = [pytest.mark.server, pytest.mark.anyio]

AGENCY = "MRS_ECS_DEFAULT_AGENCY"
ROUTES = ("clusters", "alarms", "alarms/masking", "hosts", "instances", "commands", "instances/restart")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Examined:
    """A region with one cluster, and `doctor()` of it."""

    region: Region
    cluster: EmulatedCluster
    doctor: Callable[[], Any]


Examine = Callable[..., AbstractAsyncContextManager[Examined]]


@pytest.fixture
def examined(prefect_server: str, runbooks: Runbooks) -> Examine:
    """`async with examined(profile, manager={...}, **block) as it`: a region, served, its block saved."""

    @asynccontextmanager
    async def make(
        profile: Any = "assumed",
        manager: dict[str, Any] | None = None,
        tls: dict[str, str] | None = None,
        cts_url: str | None = None,
        **block: Any,
    ) -> AsyncIterator[Examined]:
        region = Region(meta_hosts=1, profile=profile)
        cluster = next(iter(region.clusters.values()))
        async with serving(region, **tls or {}) as url:
            name, reached = f"examined-{next(_numbers)}", dict(manager or {})
            cts = url if cts_url is None else cts_url
            cloud = cloud_block(region, url, ca_pem=reached.pop("cloud_ca", ""), cts_url=cts)
            rights = {"source": name, "mode": "approve", "on_unbound": "escalate", "agency": AGENCY, **block}
            saved = cluster_block(cluster, manager_block(cluster, url, **reached), cloud, **rights)
            await saved.save(name)

            async def doctor() -> Ended:
                return await runbooks("doctor", name, PREFECT_API_URL=prefect_server)

            yield Examined(region, cluster, doctor)
            assert region.log == []

    return make


def rows(ended: Ended) -> dict[str, list[str]]:
    """Route -> rating, fine, what it said and what that means."""
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in ended.out.splitlines() if line[:1] == "│"
    ]
    return {re.sub(r"clusters/1/|services/meta/", "", row[0]): row[1:] for row in cells}


def said(ended: Ended) -> list[str]:
    """What is said below the table."""
    return [line for line in ended.out.splitlines() if line[:1].isalpha()]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            {"mode": "observe"},
            "Nothing will be changed: the mode is observe. The run diagnoses and says what to do by hand.",
        ),
        (
            {"mode": "approve", "on_unbound": "rebind"},
            "Nothing will be changed: the mode is approve. The run diagnoses and says what to do by hand.",
        ),
        (
            {"mode": "auto", "on_unbound": "escalate"},
            "Restarts are done by the run; an unbound cluster is handed to a person.",
        ),
        (
            {"mode": "auto", "on_unbound": "rebind"},
            f"Restarts are done by the run; an unbound cluster is bound to {AGENCY} by the run.",
        ),
    ],
    ids=["observe", "approve", "auto-escalate", "auto-rebind"],
)
async def test_where_all_answers_the_mode_decides(examined: Examine, block: dict[str, str], words: str) -> None:
    """On `assumed` every read route answers, the exit code is 0, and the last line is what the block allows."""
    async with examined(**block) as it:
        ended = await it.doctor()
    assert (ended.code, ended.err) == (0, "")
    assert [row[1] for row in rows(ended).values()] == ["yes"] * 6 + ["not called"] + ["yes"] * 6 + ["not called"]
    assert [row[0] for row in rows(ended).values()] == ["CONFIRMED"] + ["ASSUMED"] * 6 + ["CONFIRMED"] * 6 + [""]
    about = f"mode {block['mode']}, on_unbound {block.get('on_unbound', 'escalate')}, agency {AGENCY}"
    assert said(ended)[-2:] == [about, words]


@pytest.mark.parametrize("mode", ["observe", "auto"])
async def test_on_documented_manager_offers_nothing(examined: Examine, mode: str) -> None:
    """On `documented` Manager's routes do not answer: exit code 1, and nothing will be changed in any mode."""
    async with examined("documented", mode=mode, on_unbound="rebind") as it:
        ended = await it.doctor()
    assert (ended.code, ended.err) == (1, "")
    fine = [row[1] for row in rows(ended).values()]
    assert fine[1:7] == ["no"] * 5 + ["not called"]
    assert fine[7:] == ["yes"] * 6 + ["not called"]
    assert said(ended)[-1] == (
        "Nothing will be changed: no use of alarms, commands, hosts, instances. The run says what to do by hand."
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("agency-deleted", f"{AGENCY} does not exist"),
        ("agency-untrusted", f"{AGENCY} trusts op_svc_other, not op_svc_ecs"),
    ],
)
async def test_an_agency_that_cannot_be_bound_is_a_finding(examined: Examine, fault: str, words: str) -> None:
    """An agency that is missing or does not trust ECS is exit code 1, and no bind is promised."""
    async with examined(mode="auto", on_unbound="rebind") as it:
        it.region.set_fault(fault, cluster=it.cluster)
        ended = await it.doctor()
    assert (ended.code, rows(ended)["IAM GET OS-AGENCY/agencies"]) == (
        1,
        ["CONFIRMED", "no", words, "NOT: step 6 binds only a usable agency"],
    )
    assert said(ended)[-1] == "Restarts are done by the run; an unbound cluster is handed to a person."


async def test_a_cts_that_refuses_is_a_finding(examined: Examine) -> None:
    """A CTS that refuses is exit code 1, and what it said is shown."""
    async with examined() as it:
        it.region.set_fault("cts-denied")
        ended = await it.doctor()
    assert (ended.code, rows(ended)["CTS GET traces"]) == (
        1,
        [
            "CONFIRMED",
            "no",
            "HTTP 403 CTS.0013: No permission, Please check roles.",
            "NOT: step 6 knows who changed the agency",
        ],
    )


async def test_a_cts_the_block_does_not_name_is_not_called(examined: Examine) -> None:
    """Without an address of CTS nothing is called there, and the exit code is 0."""
    async with examined(cts_url="") as it:
        ended = await it.doctor()
    assert (ended.code, rows(ended)["CTS GET traces"][1:3]) == (0, ["not called", "the cloud's block names no CTS"])


async def test_an_unreachable_manager_is_called_once(examined: Examine) -> None:
    """A Manager that refuses connections is named once; its other routes are not tried, the cloud's are."""
    async with examined(manager={"url": "http://127.0.0.1:9/web/api/v2"}) as it:
        ended = await it.doctor()
    found = rows(ended)
    assert (ended.code, ended.err) == (1, "")
    assert found["Manager GET clusters"][1:3] == [
        "no",
        "http://127.0.0.1:9/web/api/v2/ cannot be reached (All connection attempts failed)",
    ]
    manager = [row[2] for route, row in found.items() if route.startswith("Manager")]
    assert manager[1:] == ["not called: Manager cannot be reached"] * 6
    assert [row[1] for route, row in found.items() if not route.startswith("Manager")] == ["yes"] * 6 + ["not called"]


async def test_a_certificate_of_another_ca_is_not_trusted(examined: Examine, tmp_path: Path) -> None:
    """A Manager whose certificate another CA signed is not trusted, and the block's right CA is asked for."""
    ours, other = trustme.CA(), trustme.CA()
    certificate = ours.issue_cert("127.0.0.1")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    tls = {"ssl_certfile": str(chain), "ssl_keyfile": str(key)}
    right, wrong = ours.cert_pem.bytes().decode(), other.cert_pem.bytes().decode()
    async with examined(manager={"ca_pem": wrong, "cloud_ca": right}, tls=tls) as it:
        ended = await it.doctor()
    found = rows(ended)
    assert (ended.code, ended.err) == (1, "")
    assert "is not trusted" in found["Manager GET clusters"][2]
    assert "ca_file or ca_pem" in found["Manager GET clusters"][2]
    assert [row[1] for route, row in found.items() if not route.startswith("Manager")] == ["yes"] * 6 + ["not called"]


async def test_a_ca_that_is_none_is_bad_input(examined: Examine) -> None:
    """Text that is no certificate, given as the CA, is exit code 2 and one sentence."""
    async with examined(manager={"ca_pem": "[red]no certificate"}) as it:
        ended = await it.doctor()
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("error: the CA text in the block cannot be used (")


async def test_a_wrong_password_is_tried_once(examined: Examine) -> None:
    """A wrong password reaches Manager once, is a finding, and is not printed."""
    async with examined(manager={"password": "hush-hush"}) as it:
        ended = await it.doctor()
        assert it.cluster.wrong_passwords == 1
    assert (ended.code, ended.err) == (1, "")
    assert "was rejected" in rows(ended)["Manager GET clusters"][2]
    assert "hush-hush" not in ended.out


async def test_an_unknown_cluster_is_bad_input(runbooks: Runbooks, prefect_server: str) -> None:
    """A cluster without a block is exit code 2 and one sentence that says where to make one."""
    words = "there is no cluster '[x]': make it in the Prefect UI under Blocks > MRS Cluster, or check the spelling"
    assert await runbooks("doctor", "[x]", PREFECT_API_URL=prefect_server) == Ended(2, "", f"error: {words}\n")


async def test_no_secret_is_printed(examined: Examine) -> None:
    """What the doctor prints holds neither passwords nor keys of the blocks."""
    async with examined() as it:
        ended = await it.doctor()
        for secret in (it.cluster.manager_password, it.region.secret_key, it.region.access_key):
            assert secret not in ended.out
