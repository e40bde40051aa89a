"""What the demos play on: a Prefect server and a worker, an intake, and an emulated region, all on this machine.

Everything is started for the demo, on loopback and on free ports, in a folder of its own, and ended with it.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect.client.orchestration import PrefectClient, get_client
from rich.console import Console
from rich.markup import escape

from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.intake.desk import News
from deployments.intake.events import tell_changes
from deployments.intake.service import Running, intake
from deployments.intake.settings import Http, Settings, Syslog
from deployments.processes import NO_PROXY
from deployments.stack import prefect_stack
from tasks.ledger.database import Ledger, open_ledger

SETTINGS = Settings(http=Http(port=0), syslog=Syslog(port=0))


@dataclass(frozen=True)
class Stage:
    """What is running: Prefect with its UI at `ui`, the ledger, the intake, and the region served at `url`."""

    ui: str
    url: str
    client: PrefectClient
    ledger: Ledger
    intake: Running


@asynccontextmanager
async def staged(region: Region, *, speed: float, say: Callable[[str], None]) -> AsyncIterator[Stage]:
    """The stage while the block runs; the region's alarms reach the intake as syslog lines.

    Args:
        speed: how much faster the region's time runs.
        say: gets a sentence of progress at a time, with rich's markup.

    Raises:
        StepFailed: something did not come up; carries its last words.
    """

    def tell(changes: Sequence[News]) -> None:
        tell_changes(changes)
        for change in changes:
            say(f"[bold]{change.sighting.source}, now on disk[/]: {escape(change.seen.why)}")

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mrs-runbooks-demo-")))
        os.environ.update(NO_PROXY, RUNBOOKS_HOME=str(folder / "runbooks"), RUNBOOKS_LEDGER_URL="")
        api, _ = await stack.enter_async_context(prefect_stack(folder, say))
        client = await stack.enter_async_context(get_client())
        ledger = await stack.enter_async_context(open_ledger())
        running = await stack.enter_async_context(intake(SETTINGS, ledger, tell))
        say(f"the intake takes alarms in: {', '.join(f'{name} {port}' for name, port in running.ports.items())}")
        ready: asyncio.Queue[int] = asyncio.Queue()
        serving = asyncio.create_task(
            serve(region, speed=speed, syslog=("127.0.0.1", running.ports["udp"]), ready=ready.put_nowait)
        )
        stack.push_async_callback(_ended, serving)
        url = f"http://127.0.0.1:{await ready.get()}"
        say(f"the emulated region (cloud and Managers, profile {region.profile}) is up on {url}")
        yield Stage(api.removesuffix("/api"), url, client, ledger, running)


async def kept(console: Console, links: Sequence[str]) -> None:
    """Leave everything as it is until Ctrl-C, with these pages to look at."""
    console.print("\nEverything stays up for a look at the Prefect UI; Ctrl-C ends it:")
    for link in links:
        console.print(link)
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, enough.set)
    await enough.wait()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
