"""The `runbooks` command as a person runs it: a process of its own, no terminal."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).with_name("runbooks"))
CLOSED = "http://127.0.0.1:9/api"


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str


Runbooks = Callable[..., Awaitable[Ended]]


def environment(home: Path, **more: str) -> dict[str, str]:
    """What a command sees: a home, a Prefect home and a temporary folder of its own."""
    own = {"RUNBOOKS_HOME": str(home / "runbooks"), "PREFECT_HOME": str(home / "prefect"), "TMPDIR": str(home)}
    return {**os.environ, "PREFECT_API_URL": CLOSED, **own, **more}


@pytest.fixture
def runbooks(tmp_path: Path) -> Runbooks:
    """`await runbooks("doctor", "a", PREFECT_API_URL=...)`: run it to its end."""

    async def run(*arguments: str, **more: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            *arguments,
            env=environment(tmp_path, **more),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(300):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Ended(process.returncode or 0, out.decode(), err.decode())

    return run


def processes_of(folder: Path) -> list[str]:
    """Command lines of all living processes that were started with this folder in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found
