import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_HOME
from sqlalchemy import URL

from deployments.intake.acceptance import Delivery, Reason, Receipt, Source
from deployments.intake.sockets import Heard
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import DRIVERS, Ledger, open_ledger, unchecked_ledger, upgrade_schema

LOOPBACK = "127.0.0.1"


class Ear:
    """Keeps what a listener hands on, and can be told to wait with it."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.batches: list[list[Heard]] = []
        self.open = asyncio.Event()
        if is_open:
            self.open.set()

    @property
    def heard(self) -> list[Heard]:
        """Everything that was handed on."""
        return [each for batch in self.batches for each in batch]

    async def take(self, heard: Sequence[Heard]) -> None:
        """Keep what was heard, once it is open."""
        await self.open.wait()
        self.batches.append(list(heard))


class Desk:
    """Keeps in memory what is handed in; `down` and `broken` make it fail, a commit takes as long as is said."""

    def __init__(self, *, commit: float = 0.0) -> None:
        self.accepted: list[list[Delivery]] = []
        self.rejected: list[tuple[Source, str, Reason, str, bytes]] = []
        self.alive: list[tuple[Source, str]] = []
        self.commit = commit
        self.down: set[str] = set()
        self.broken = False

    async def _commit(self, what: str) -> None:
        await asyncio.sleep(self.commit)
        if self.broken:
            raise ZeroDivisionError("a mistake of ours")
        if what in self.down:
            raise LedgerUnavailable("the ledger is locked")

    async def accept(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """See `Desk`."""
        await self._commit("accept")
        self.accepted.append(list(deliveries))
        return [Receipt("accepted", "new") for _ in deliveries]

    async def reject(self, source: Source, peer: str, reason: Reason, why: str, received: bytes) -> None:
        """See `Desk`."""
        await self._commit("reject")
        self.rejected.append((source, peer, reason, why, received))

    async def heard(self, source: Source, peer: str) -> None:
        """See `Desk`."""
        await self._commit("heard")
        self.alive.append((source, peer))

    async def first_time(self, source: Source, message_id: str) -> bool:
        """Syslog messages have no id."""
        raise AssertionError("syslog asked whether a message id is new")

    @property
    def serials(self) -> list[str]:
        """The serial numbers of all alarms that were accepted, in their order."""
        return [each.observation.serial for batch in self.accepted for each in batch]


class Naps:
    """A sleep that is over at once, and remembers how long it should have been."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def take(self, seconds: float) -> None:
        """Do as if so much time had passed."""
        self.taken.append(seconds)
        await asyncio.sleep(0.001)


async def until(is_so: Callable[[], bool], seconds: float = 5) -> None:
    """Wait until something is so, for so many seconds at most."""
    for _ in range(int(seconds / 0.005)):
        if is_so():
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"waited {seconds} seconds in vain")


async def send(port: int, data: bytes) -> None:
    """Send bytes over a TCP connection of their own, and close it."""
    _, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(data)
    writer.close()
    await writer.wait_closed()


@dataclass(frozen=True)
class Pki:
    """A certificate authority of the test's own, and PEM files of it: the server's, a client's, the CA's."""

    authority: trustme.CA
    ca: Path
    certificate: Path
    key: Path
    client_certificate: Path
    client_key: Path


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    """Certificates for a server on the loopback address and for a client called manager.test."""
    made = Pki(trustme.CA(), *(tmp_path / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "key")))
    made.authority.cert_pem.write_to_path(made.ca)
    server, client = made.authority.issue_cert("localhost", LOOPBACK), made.authority.issue_cert("manager.test")
    for issued, certificate, key in (
        (server, made.certificate, made.key),
        (client, made.client_certificate, made.client_key),
    ):
        issued.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return made


def _program(name: str, package: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None and "CI" in os.environ:
        pytest.fail(f"{name} ({package}) is not installed, and CI must not go without it")
    if path is None:
        pytest.skip(f"{name} ({package}) is not installed")
    return path


@pytest.fixture
def anyio_backend() -> str:
    """The intake runs on asyncio only."""
    return "asyncio"


@pytest.fixture
def logger() -> str:
    """The path of util-linux ``logger``, the judge of the listener that shares no code with it."""
    return _program("logger", "util-linux")


@pytest.fixture
def rsyslogd() -> str:
    """The path of ``rsyslogd``, which stands between Manager and us in many a network."""
    return _program("rsyslogd", "Debian package rsyslog")


@pytest.fixture
def rsyslogd_with_tls(rsyslogd: str) -> str:
    """The same, with both of its TLS libraries."""
    for driver, package in (("ossl", "rsyslog-openssl"), ("gtls", "rsyslog-gnutls")):
        found = any(Path("/usr").glob(f"lib*/**/rsyslog/lmnsd_{driver}.so"))
        if not found and "CI" in os.environ:
            pytest.fail(f"{package} is not installed, and CI must not go without it")
        if not found:
            pytest.skip(f"{package} is not installed")
    return rsyslogd


@pytest.fixture(scope="session")
def ledger_with_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite ledger with nothing in it, to be copied: the migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"

    async def fill() -> None:
        async with unchecked_ledger(URL.create(DRIVERS["sqlite"], database=str(path))) as made:
            await upgrade_schema(made)

    asyncio.run(fill())
    return path


@pytest.fixture
def ledger_file(ledger_with_schema: Path, tmp_path: Path) -> Path:
    """The file of an empty ledger of this test alone."""
    return Path(shutil.copy(ledger_with_schema, tmp_path / "ledger.db"))


@pytest.fixture
async def ledger(ledger_file: Path) -> AsyncIterator[Ledger]:
    """The same, open."""
    async with open_ledger(URL.create(DRIVERS["sqlite"], database=str(ledger_file))) as opened:
        yield opened


@pytest.fixture
async def client(prefect_server: str) -> AsyncIterator[PrefectClient]:
    """A client of the Prefect server."""
    async with get_client() as opened:
        yield opened


@pytest.fixture(scope="session")
def deployed(prefect_server: str) -> None:
    """The deployments of prefect.yaml are on the Prefect server."""
    deploy(prefect_server)


def deploy(api: str) -> None:
    """Make the deployments of prefect.yaml as its first lines say."""
    pool = ("work-pool", "create", "--type", "process", "mrs-runbooks", "--overwrite")
    deployments = ("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
    environment = {**os.environ, "PREFECT_API_URL": api, "PREFECT_HOME": str(PREFECT_HOME.value())}
    for command in (pool, deployments):
        prefect = [sys.executable, "-m", "prefect", *command]
        subprocess.run(prefect, cwd=Path(__file__).parents[2], env=environment, check=True, capture_output=True)
