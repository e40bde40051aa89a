"""What the tests stand on: a home of their own, a Prefect server where one is asked for, and the emulated region."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

from deployments.emulator.region import Region
from deployments.emulator.serve import serve


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
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
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


@asynccontextmanager
async def serving(region: Region, **options: str) -> AsyncIterator[str]:
    """The region on a free port of loopback while the block runs; its time moves only when told."""
    listening: asyncio.Queue[int] = asyncio.Queue()
    scheme = "https" if "ssl_certfile" in options else "http"
    server = asyncio.create_task(serve(region, ready=listening.put_nowait, **options))  # type: ignore[arg-type]
    try:
        yield f"{scheme}://127.0.0.1:{await listening.get()}"
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


@pytest.fixture
def served() -> Callable[..., AbstractAsyncContextManager[str]]:
    """`serving`, for tests."""
    return serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow part last; Prefect leaves connections of its own to the garbage collector, which is not our claim."""
    items.sort(key=lambda item: item.get_closest_marker("server") is not None)
    leaks = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
    for item in items:
        if item.get_closest_marker("server"):
            item.add_marker(leaks)
            if not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group("server"))  # they share one server
