"""Processes that live as long as a block of code: a Prefect server of one's own, a worker, a deploy."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

from tasks.errors import StepFailed

NO_PROXY = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
HEALTHY_WITHIN = 120.0
ON_POSTGRESQL = {
    # Connections beyond these are made anew for each request.
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "20",
    # In a storm hundreds of runs wait their turn, and to mark them Late takes a tenth of the server's time.
    "PREFECT_API_SERVICES_LATE_RUNS_AFTER_SECONDS": "300",
}
# There marking them locks the database for minutes, and nothing can be started meanwhile.
ON_SQLITE = {"PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false"}


@asynccontextmanager
async def python_process(
    arguments: Sequence[str], folder: Path, name: str, api: str, *, grace: float = 0, database: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python ARGUMENTS` in a process group of its own, which is ended, children and all, with the block.

    None of the caller's Prefect settings reach it, least of all the address of a real database.

    Args:
        folder: its PREFECT_HOME is `folder/prefect`, its output goes to `folder/NAME.log`, temporary files to `folder`.
        api: the Prefect server it talks to.
        grace: seconds it gets to end by itself when it is told to.
        database: URL of Prefect's database, for a Prefect server; empty: SQLite in its PREFECT_HOME.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        **NO_PROXY,
        "TMPDIR": str(folder),
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database
        or f"sqlite+aiosqlite:///{folder / 'prefect' / 'prefect.db'}",
        # Else the server writes each state of each task in a transaction of its own.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **(ON_POSTGRESQL if database else ON_SQLITE),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
    }
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.returncode is None and grace:
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace)
        if process.returncode is None:
            _kill_tree(process.pid)
        _kill_group(process.pid)
        await process.wait()


@asynccontextmanager
async def prefect_server(folder: Path, *, port: int = 0, grace: float = 0, database: str = "") -> AsyncIterator[str]:
    """A Prefect server of one's own; yields its API URL once it is healthy.

    Args:
        port: of loopback; 0 takes a free one.
        grace: seconds it gets to end by itself.
        database: its database's URL; empty: SQLite in `folder/prefect`.

    Raises:
        StepFailed: it ended before it was ready, or is not ready in time; carries its last words.
    """
    port = port or free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    until = time.monotonic() + HEALTHY_WITHIN
    async with (
        python_process(command, folder, "server", api, grace=grace, database=database) as server,
        httpx.AsyncClient(trust_env=False, timeout=HEALTHY_WITHIN) as http,
    ):
        while not await _healthy(http, f"{api}/health"):
            if server.returncode is not None:
                raise StepFailed(f"the Prefect server ended before it was ready: {last_words(folder, 'server')}")
            if time.monotonic() > until:
                words = last_words(folder, "server")
                raise StepFailed(f"the Prefect server was not ready within {HEALTHY_WITHIN:g} s: {words}")
            await asyncio.sleep(0.3)
        yield api


def last_words(folder: Path, name: str) -> str:
    """The last line that a process of this folder wrote."""
    lines = (folder / f"{name}.log").read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


def free_port() -> int:
    """A port of loopback that nobody uses right now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def _healthy(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).is_success
    except httpx.TransportError:
        return False


def _kill_tree(process: int) -> None:
    """Kill a process and what it started, groups and all: a worker's flow runs are in groups of their own.

    Without grace, for nothing here is to be kept: a worker that is asked waits for its runs.
    """
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)  # it starts nothing more
    for children in Path(f"/proc/{process}/task").glob("*/children"):  # Linux; elsewhere a flow run ends by itself
        for child in children.read_text().split():
            _kill_tree(int(child))
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    _kill_group(process)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
