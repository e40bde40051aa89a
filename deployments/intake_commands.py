"""`runbooks intake`, `alarm` and `ledger`: alarms in, by themselves or by hand, and where they are kept."""

import asyncio
import getpass
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number
from prefect.settings import PREFECT_API_URL
from rich.table import Table
from rich.text import Text

from deployments.ending import collect_less, run_until_ended, serve_until_told
from deployments.intake.acceptance import Delivery, Receipt, digest_of
from deployments.intake.desk import LedgerDesk, News
from deployments.intake.directory import Directory
from deployments.intake.dispatch import RUNBOOKS
from deployments.intake.metrics import Metrics
from deployments.intake.service import intake as serving_intake
from deployments.intake.settings import read_settings
from deployments.terminal import console
from tasks.errors import ConfigurationError
from tasks.ledger.database import Ledger, check_schema, open_ledger, unchecked_ledger, upgrade_schema
from tasks.ledger.receiving import rejections
from tasks.models import Observation

intake = App(name="intake", help="Take alarms in, and start a run for each episode.")
alarm = App(name="alarm", help="Tell of an alarm by hand or from a script.")
ledger = App(name="ledger", help="The ledger: what was seen, who is at it, what came of it.")

Rows = Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))]


def prefect_is_known() -> None:
    """Make sure that a Prefect server is named.

    Raises:
        ConfigurationError: none is.
    """
    if not PREFECT_API_URL.value():
        example = "prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api"
        raise ConfigurationError(f"PREFECT_API_URL is not set: say where the Prefect server is, e.g. {example}")


@intake.default
def run_intake(*, config: Path | None = None) -> None:
    """Listen to all configured sources and start the runbook for each episode, until Ctrl-C or SIGTERM.

    Without a configuration: syslog on 127.0.0.1:5140 (UDP and TCP), HTTP on 127.0.0.1:8088 (health, readiness, metrics,
    the webhook's documentation), polling every minute.

    Parameters
    ----------
    config
        The intake's TOML file; the README shows one.
    """
    settings = read_settings(config)
    prefect_is_known()
    logging.getLogger("runbooks").setLevel(logging.INFO)  # Prefect's own begin at WARNING
    out = console()

    async def run() -> None:
        async with open_ledger() as opened, serving_intake(settings, opened) as running:
            collect_less()
            where = ", ".join(f"{name} {port}" for name, port in running.ports.items())
            hosts = f"http on {settings.http.host}, syslog on {settings.syslog.host}"
            out.print(
                f"the intake takes alarms in ({hosts}): {where}; {len(running.directory)} clusters; Ctrl-C ends it"
            )
            try:
                await asyncio.Event().wait()
            finally:
                out.print("ending: what was accepted is on disk")

    serve_until_told(run())


@intake.command
def rejected(*, last: Rows = 50) -> None:
    """List what could not be used, the last first, with the reason and how often it came.

    Parameters
    ----------
    last
        How many at most.
    """

    async def read() -> None:
        async with open_ledger() as opened, opened.reading() as session:
            rows = await rejections(session, last)
        out = console()
        if not rows:
            out.print("nothing was rejected")
            return
        table = Table("last (UTC)", "times", "source", "from", "reason", "why", "it began")
        for row in rows:
            cells = (row.source, row.peer, row.reason, row.why, row.excerpt)
            table.add_row(f"{row.last:%Y-%m-%d %H:%M:%S}", str(row.times), *(Text(cell) for cell in cells))
        out.print(table)

    run_until_ended(read())


@alarm.command(name="raise")
def raise_(
    cluster: str,
    host: str,
    /,
    *,
    id_: Annotated[str, Parameter(name="id")] = "12110",
    serial: str = "",
    occurred: datetime | None = None,
) -> int:
    """Tell that an alarm is active. A run starts for it if the intake is running, or as soon as it is.

    Parameters
    ----------
    cluster
        The name of the cluster's block.
    host
        The alarmed host, as Manager calls it.
    serial
        Manager's serial number of the alarm, if you have it.
    occurred
        When it occurred (UTC), if you know it, as 2026-11-25T03:00:00.
    """
    told = Observation(
        alarm_id=id_, kind="raised", cluster=cluster, host=host, serial=serial, occurred=_aware(occurred)
    )
    return run_until_ended(_tell(told))


@alarm.command
def clear(
    cluster: str,
    host: str,
    /,
    *,
    id_: Annotated[str, Parameter(name="id")] = "12110",
    serial: str = "",
    occurred: datetime | None = None,
    by: Literal["auto", "person"] = "person",
) -> int:
    """Tell that an alarm is cleared; parameters as for raise.

    Parameters
    ----------
    by
        person: somebody cleared it on Manager; that says nothing of its cause. auto: Manager did.
    """
    told = Observation(
        alarm_id=id_,
        kind="cleared",
        cluster=cluster,
        host=host,
        serial=serial,
        occurred=_aware(occurred),
        cleared_by=by,
    )
    return run_until_ended(_tell(told))


@ledger.command
def upgrade() -> None:
    """Bring the ledger's schema up to this version; changes nothing where it is."""

    async def run() -> None:
        async with unchecked_ledger() as opened:
            before, after = await upgrade_schema(opened)
            await check_schema(opened)
            what = "was up to date" if before == after else f"went from {before or 'nothing'} to {after}"
            console().print(f"the schema of {opened} {what} ({after})")

    run_until_ended(run())


async def _tell(told: Observation) -> int:
    async with _desk() as desk:
        peer = f"{getpass.getuser()}@{socket.gethostname()}"
        digest = digest_of(repr(told).encode())
        (receipt,) = await desk.accept([Delivery("command", peer, digest, told, repr(told)[:200])])
    return _say(receipt)


def _say(receipt: Receipt) -> int:
    """0: taken; 1: rejected."""
    console(stderr=receipt.what == "rejected").print(Text(f"{receipt.what}: {receipt.why}"))
    return 1 if receipt.what == "rejected" else 0


@asynccontextmanager
async def _desk() -> AsyncIterator[LedgerDesk]:
    """A desk of this process alone; the intake's dispatcher sees what it writes down."""
    async with open_ledger() as opened:
        directory = await _directory(opened)
        desk = LedgerDesk(opened, directory, runbooks=RUNBOOKS, metrics=Metrics(), changed=_no_events)
        writing = asyncio.create_task(desk.run())
        try:
            yield desk
        finally:
            writing.cancel()
            await asyncio.wait([writing])


async def _directory(opened: Ledger) -> Directory:
    directory = Directory(opened)
    await directory.refresh()
    return directory


def _no_events(changes: Sequence[News]) -> None:
    """The intake tells of episodes."""


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
