"""What the tests stand on: a home of their own, a Prefect server where one is asked for, and the emulated region."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
import httpx
import pytest
from prefect.events.worker import EventsWorker
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.processes import free_port


@pytest.fixture
def anyio_backend() -> str:
    """Everything that does I/O is asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def runbooks_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tickets, claims and suspended logins of this test alone."""
    home = tmp_path / "home"
    monkeypatch.setenv("RUNBOOKS_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server on a free port with a home of its own; yields its API URL."""
    with serving_prefect(tmp_path_factory.mktemp("prefect")) as url:
        yield url


@contextmanager
def serving_prefect(home: Path, **more: str) -> Iterator[str]:
    """The same while the block runs; `more` goes to its environment."""
    port = free_port()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        **more,
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/api"
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_healthy(server, url, home / "server.log")
            with temporary_settings({PREFECT_API_URL: url, PREFECT_HOME: home, PREFECT_LOGGING_TO_API_ENABLED: False}):
                yield url
        finally:
            server.terminate()
            server.wait()


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            pytest.fail(f"the Prefect server ended at once:\n{log.read_text()[-2000:]}")
        try:
            if httpx.get(f"{url}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"the Prefect server is not healthy after two minutes:\n{log.read_text()[-2000:]}")


def without(what: str) -> str:
    """Skip the test that needs it, but never in CI."""
    if "CI" in os.environ:
        pytest.fail(f"{what}, and CI must not go without it")
    pytest.skip(what)


def _postgresql_program(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(installed[-1]) if installed else "")
    return found or without(f"{name} (Debian package postgresql) is not installed")


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL does not run as root: then it is the user of its package."""
    if os.getuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        without("there is no user postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL of the tests' own on a free port, which trusts everybody; yields the URL of its first database."""
    initdb, postgres, as_user = _postgresql_program("initdb"), _postgresql_program("postgres"), _unprivileged()
    port = free_port()
    folder = tempfile.mkdtemp(prefix="runbooks-postgresql-")  # not below pytest's own, which only we may enter
    try:
        if as_user:
            os.chown(folder, as_user["user"], as_user["group"])
        make = [initdb, "-D", f"{folder}/data", "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(make, cwd=folder, capture_output=True, text=True, **as_user)
        if made.returncode:
            pytest.fail(f"initdb failed:\n{made.stderr[-2000:]}")
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "autovacuum": "off",
        }
        command = [postgres, "-D", f"{folder}/data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with Path(folder, "server.log").open("wb") as log:
            server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, **as_user)
        try:
            _wait_until_listening(server, port, Path(folder, "server.log"))
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_listening(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    url = f"postgresql://tester@127.0.0.1:{port}/postgres"
    for _ in range(300):
        if server.poll() is not None:
            pytest.fail(f"PostgreSQL ended at once:\n{log.read_text()[-2000:]}")
        try:
            order(url, "SELECT 1")
        except (OSError, asyncpg.PostgresError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"PostgreSQL does not answer after 30 seconds:\n{log.read_text()[-2000:]}")


def order(url: str, *statements: str) -> None:
    """Have PostgreSQL execute statements, each on its own."""

    async def execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


@pytest.fixture
def postgresql_database(postgresql: str) -> Iterator[str]:
    """The URL of an empty database of this test alone."""
    name = f"test_{uuid4().hex}"
    order(postgresql, f"CREATE DATABASE {name}")
    yield postgresql.removesuffix("postgres") + name
    order(postgresql, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def serving(region: Region, **options: Any) -> AsyncIterator[str]:
    """The region on a free port of loopback while the block runs; without `speed` its time moves only when told."""
    listening: asyncio.Queue[int] = asyncio.Queue()
    scheme = "https" if "ssl_certfile" in options else "http"
    server = asyncio.create_task(serve(region, ready=listening.put_nowait, **options))
    try:
        yield f"{scheme}://127.0.0.1:{await listening.get()}"
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


@pytest.fixture
def served() -> Callable[..., AbstractAsyncContextManager[str]]:
    """`serving`, for tests."""
    return serving


@pytest.fixture(scope="module", autouse=True)
def _events_go_where_the_module_sends_them() -> None:
    """Prefect's sender of events keeps the server that it began with; a module may have one of its own."""
    EventsWorker.drain_all(timeout=5)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow part last; Prefect leaves connections of its own to the garbage collector, which is not our claim."""
    items.sort(key=lambda item: item.get_closest_marker("server") is not None)
    leaks = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
    for item in items:
        if item.get_closest_marker("server"):
            item.add_marker(leaks)
            if not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group("server"))  # they share one server


@pytest.fixture(scope="session")
def request_tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Request Tracker 5 of the tests' own on a free port, with its user `root` and queue `General`; its URL."""
    programs = Path("/usr/share/request-tracker5/libexec/rt-server"), Path("/usr/sbin/rt-setup-database-5")
    if not all(program.exists() for program in programs):
        without("Request Tracker (Debian packages request-tracker5 rt5-db-sqlite rt5-standalone) is not installed")
    folder, port = tmp_path_factory.mktemp("request-tracker"), free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "rtname": "runbooks.test",
        "Organization": "runbooks.test",
        "WebPath": "",
        "WebDomain": "127.0.0.1",
        "WebPort": str(port),
        "WebBaseURL": url,
        "DatabaseType": "SQLite",
        "DatabaseName": f"{folder}/rt.db",
        "DatabaseUser": "",
        "DatabasePassword": "",
        "LogToSTDERR": "error",
        "MailCommand": "testfile",  # no mail leaves the machine
    }
    lines = [f"Set(${name}, '{value}');" for name, value in settings.items()]
    (folder / "RT_SiteConfig.pm").write_text("\n".join([*lines, "Set($LogToSyslog, undef);", "1;\n"]))
    (folder / "none").mkdir()
    environment = {
        **os.environ,
        "RT_SITE_CONFIG": f"{folder}/RT_SiteConfig.pm",
        "RT_SITE_CONFIG_DIR": f"{folder}/none",
        "TMPDIR": str(folder),
    }
    setup = [str(programs[1]), "--action", "init", "--skip-create"]
    made = subprocess.run(setup, env=environment, capture_output=True, text=True)
    if made.returncode:
        pytest.fail(f"{programs[1]} failed:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
    command = [str(programs[0]), "--server", "HTTP::Server::PSGI", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_answering(server, f"{url}/REST/2.0/rt", folder / "server.log")
            yield url
        finally:
            server.terminate()
            server.wait()


def _wait_until_answering(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            pytest.fail(f"Request Tracker ended at once:\n{log.read_text()[-2000:]}")
        try:
            if httpx.get(url, auth=("root", "password"), trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"Request Tracker does not answer after two minutes:\n{log.read_text()[-2000:]}")
