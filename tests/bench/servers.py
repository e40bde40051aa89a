"""What the benchmark runs beside itself: the intake as its command, PostgreSQL, and what both say of themselves."""

import asyncio
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from prometheus_client.parser import text_string_to_metric_families

from deployments.processes import free_port, last_words, python_process
from tests.bench.senders import LOOPBACK, TOKEN

NOWHERE = "http://127.0.0.1:9/api"  # discard: nobody listens there
RUNBOOKS = ("-c", "from deployments.cli import main; main()")
Database = Literal["sqlite", "postgresql"]
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Intake:
    """An intake at work in a process of its own."""

    http: int
    syslog: int
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self) -> float:
        """What it holds in memory, in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1024 / 1024

    async def metrics(self) -> dict[str, float]:
        """Its /metrics: by name and labels, as `name{source=webhook}`."""
        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"http://{LOOPBACK}:{self.http}/metrics")).raise_for_status().text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """These variables while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _configure(folder: Path, http: int, syslog: int) -> None:
    (folder / "token").write_text(TOKEN)
    (folder / "intake.toml").write_text(
        f"[http]\nport = {http}\n[syslog]\nport = {syslog}\nprotocols = ['tcp']\n"
        f"[webhook]\ntoken_file = '{folder / 'token'}'\n[polling]\nenabled = false\n"
    )


@asynccontextmanager
async def intake_process(folder: Path, ledger_url: str, api: str = NOWHERE) -> AsyncIterator[Intake]:
    """`runbooks intake` with webhook and syslog on free ports, its log in the folder."""
    http, syslog = free_port(), free_port()
    _configure(folder, http, syslog)
    with environment(RUNBOOKS_HOME=str(folder), RUNBOOKS_LEDGER_URL=ledger_url):
        command = (*RUNBOOKS, "intake", "--config", str(folder / "intake.toml"))
        async with python_process(command, folder, "intake", api, grace=10) as process:
            async with httpx.AsyncClient(trust_env=False) as client:
                while not await _answers(client, http):
                    if process.returncode is not None:
                        raise RuntimeError(f"the intake ended: {last_words(folder, 'intake')}")
                    await asyncio.sleep(0.1)
            yield Intake(http, syslog, process.pid)


async def _answers(client: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await client.get(f"http://{LOOPBACK}:{port}/health")).is_success
    except httpx.TransportError:
        return False


async def upgrade(folder: Path, ledger_url: str) -> None:
    """`runbooks ledger upgrade`.

    Raises:
        RuntimeError: it failed; carries its last words.
    """
    with environment(RUNBOOKS_HOME=str(folder), RUNBOOKS_LEDGER_URL=ledger_url):
        async with python_process((*RUNBOOKS, "ledger", "upgrade"), folder, "upgrade", NOWHERE) as process:
            if await process.wait():
                raise RuntimeError(f"the ledger cannot be upgraded: {last_words(folder, 'upgrade')}")


@asynccontextmanager
async def database_files() -> AsyncIterator[tuple[Path, Path, dict[str, Any]]]:
    """Fresh files for a PostgreSQL server, in `db` of a folder that goes with the block; its superuser is `owner`.

    Yields:
        The server's program, the folder, and how its process must be started: as whom.

    Raises:
        RuntimeError: PostgreSQL is not installed, or does not make them.
    """
    bin_ = programs()
    options: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="runbooks-postgresql-"))
    try:
        if os.getuid() == 0:  # as which PostgreSQL does not run
            postgres = pwd.getpwnam("postgres")
            options = {"user": postgres.pw_uid, "group": postgres.pw_gid, "extra_groups": []}
            os.chown(folder, postgres.pw_uid, postgres.pw_gid)
        options["cwd"] = folder
        make = (bin_ / "initdb", "-D", folder / "db", "-U", "owner", "-A", "trust", "-E", "UTF8", "--locale=C")
        with (folder / "initdb.log").open("wb") as log:
            made = await asyncio.create_subprocess_exec(*make, stdout=log, stderr=log, **options)
        if await made.wait():
            raise RuntimeError(f"initdb failed: {last_words(folder, 'initdb')}")
        yield bin_ / "postgres", folder, options
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def postgresql() -> AsyncIterator[str]:
    """A PostgreSQL as in `database_server`; yields the URL of an empty database."""
    async with database_server() as (url, _):
        yield url


@asynccontextmanager
async def database_server() -> AsyncIterator[tuple[str, int]]:
    """A PostgreSQL with its own defaults, fsync and all, on a free port; yields the URL of an empty database, its pid.

    Raises:
        RuntimeError: it is not installed, or does not come up.
    """
    async with database_files() as (program, folder, options):
        port = free_port()
        where = ("-h", LOOPBACK, "-p", str(port), "-k", str(folder))
        with (folder / "server.log").open("wb") as log:
            server = await asyncio.create_subprocess_exec(
                program, "-D", folder / "db", *where, stdout=log, stderr=log, **options
            )
        try:
            while not await _listens(program.parent, port):
                if server.returncode is not None:
                    raise RuntimeError(f"PostgreSQL ended: {last_words(folder, 'server')}")
                await asyncio.sleep(0.2)
            yield f"postgresql://owner@{LOOPBACK}:{port}/postgres", server.pid
        finally:
            server.send_signal(signal.SIGINT)  # without waiting for who is connected
            await server.wait()


def programs() -> Path:
    """Where PostgreSQL's programs are.

    Raises:
        RuntimeError: it is not installed.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        raise RuntimeError("PostgreSQL is not installed (Debian package postgresql): use --database sqlite")
    return found[-1]


async def _listens(programs: Path, port: int) -> bool:
    asked = await asyncio.create_subprocess_exec(
        programs / "pg_isready", "-q", "-h", LOOPBACK, "-p", str(port), "-U", "owner", "-d", "postgres"
    )
    return await asked.wait() == 0
