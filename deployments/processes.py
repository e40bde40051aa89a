"""Processes that live as long as a block of code: a Prefect server of one's own, a worker, a deploy."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tasks.errors import StepFailed


@asynccontextmanager
async def python_process(
    arguments: Sequence[str], folder: Path, name: str, api: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python ARGUMENTS` in a process group of its own, which is ended, children and all, with the block.

    Args:
        folder: its PREFECT_HOME is `folder/prefect`, its output goes to `folder/NAME.log`.
        api: the Prefect server it talks to.
    """
    environment = {
        **os.environ,
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
    }
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait([asyncio.create_task(process.wait())], timeout=10)
        _kill_group(process.pid)
        await process.wait()


@asynccontextmanager
async def prefect_server(folder: Path) -> AsyncIterator[str]:
    """A Prefect server on a free port of loopback, with SQLite in `folder/prefect`; yields its API URL once healthy.

    Raises:
        StepFailed: it ended before it was ready; carries its last words.
    """
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    command = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    async with python_process(command, folder, "server", api) as server, httpx.AsyncClient() as http:
        while not await _healthy(http, f"{api}/health"):
            if server.returncode is not None:
                last = (folder / "server.log").read_text()[-800:]
                raise StepFailed(f"the Prefect server ended before it was ready; its last words:\n{last}")
            await asyncio.sleep(0.3)
        yield api


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


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
