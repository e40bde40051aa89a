"""An intake in a process that can be killed and started again within a moment: forked, with all imports made."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from sqlalchemy import URL

from deployments.intake.service import intake
from deployments.intake.settings import Settings
from tasks.ledger.database import open_ledger

NOWHERE = "http://127.0.0.1:9/api"  # discard: nobody listens there


def serve(settings: Settings, url: URL, home: Path, ports: Connection) -> None:
    """Take alarms in until killed; sends the bound ports. Prefect does not answer."""

    async def run() -> None:
        async with open_ledger(url) as ledger, intake(settings, ledger, tell=lambda _: None) as running:
            ports.send(dict(running.ports))
            await asyncio.Event().wait()

    with temporary_settings({PREFECT_API_URL: NOWHERE, PREFECT_HOME: home}):
        asyncio.run(run())


def context() -> ForkServerContext:
    """What makes processes with the imports already made."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([__name__])
    return made


@asynccontextmanager
async def killable(settings: Settings, url: URL, home: Path) -> AsyncIterator[dict[str, int]]:
    """An intake on this ledger while the block runs, which ends with `kill -9`; yields its ports."""
    made = context()
    here, there = made.Pipe(duplex=False)
    process: ForkServerProcess = made.Process(target=serve, args=(settings, url, home, there), daemon=True)
    await asyncio.to_thread(process.start)
    there.close()
    try:
        yield await asyncio.to_thread(here.recv)
    finally:
        process.kill()
        await asyncio.to_thread(process.join)
        here.close()
        process.close()
