"""`runbooks sweep`: hold the fleet against the checks from a terminal, and look at what earlier sweeps found."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from uuid import UUID

from cyclopts import App, Parameter
from cyclopts.validators import Number
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled
from prefect.utilities.urls import url_for
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from sqlalchemy.ext.asyncio import AsyncSession

from deployments.brake_commands import By, person
from deployments.ending import run_until_ended
from deployments.intake_commands import prefect_is_known
from deployments.ordering import LOOK_EVERY, NO_WORKER, NOBODY_TAKES_IT, order_run
from deployments.sweep_views import SHORTEST, Files, show_cluster, show_report, table_of, unended
from deployments.terminal import console
from tasks.errors import ConfigurationError
from tasks.fleet import read_fleet, selected
from tasks.ledger.database import Ledger, open_ledger
from tasks.ledger.fleet_tables import Sweep
from tasks.ledger.sweeping import how_many_swept, sweeps, sweeps_called
from tasks.sweep.forms import as_json, change_as_plain
from tasks.sweep.reports import MOMENT, Change, Report, report_of

DEPLOYMENT = "sweep/now"

sweep = App(name="sweep", help="Hold every cluster of the fleet against the checks. Changes nothing.")

Html = Annotated[Path | None, Parameter(help="Write a page with the whole fleet as a picture; it needs nothing else.")]
Json = Annotated[Path | None, Parameter(name="--json", help="Write everything as JSON.")]
Csv = Annotated[Path | None, Parameter(help="Write one line for each answer.")]
About = Annotated[str, Parameter(name="SWEEP", help="The first letters of its id, or `last`.")]


@sweep.default
def start(
    *,
    select: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    remediate: Annotated[bool, Parameter(negative=())] = False,
    html: Html = None,
    json_: Json = None,
    csv: Csv = None,
    by: By = "",
    detach: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Start a sweep on a worker, watch it, and show what it found.

    Exit code 0: no findings; 1: findings; 2: it could not be carried out; 130: watching was interrupted, it goes on.

    Parameters
    ----------
    select
        Only clusters that match: LABEL=VALUE, region=VALUE, cloud=BLOCK, mode=VALUE, name=GLOB; several: all of them.
        Left out: the whole fleet, and clusters that a cloud has and no block names.
    remediate
        Clusters with an active ALM-12110 that nobody is at get a run again, in the mode of their block.
    detach
        Do not watch; print the run's id and link.
    """
    prefect_is_known()
    return run_until_ended(_start(select, person(by), Files(html, json_, csv), remediate=remediate, detach=detach))


@sweep.command(name="list")
def list_(*, last: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 20) -> int:
    """List the last sweeps, the latest first."""
    found = run_until_ended(_listed(last))
    out = console()
    if not found:
        out.print("no sweeps yet: `runbooks sweep`")
        return 0
    table = Table("sweep", "started (UTC)", "ended (UTC)", "selected", "clusters", "what came of it")
    for each in found:
        ended = f"{each.ended:{MOMENT}}" if each.ended else "broken off" if each.summary else "goes on"
        about = ", ".join(each.selection.splitlines()) or "the whole fleet"
        cells = (each.id[:SHORTEST], f"{each.started:{MOMENT}}", ended, about, str(each.planned), each.summary)
        table.add_row(*map(Text, cells))
    out.print(table)
    return 0


@sweep.command
def show(about: About = "last", /, *, cluster: str = "") -> int:
    """Show what a sweep found; of one cluster every answer. Exit code 1: there are findings."""
    report = run_until_ended(_reported(about))
    out = console()
    if line := unended(report):
        out.print(Text(line))
    if cluster:
        return show_cluster(out, report, cluster)
    show_report(out, report)
    return int(bool(report.findings))


@sweep.command(name="report")
def report_(about: About = "last", /, *, html: Html = None, json_: Json = None, csv: Csv = None) -> int:
    """Write what a sweep found to files, or as JSON to standard output."""
    report, files = run_until_ended(_reported(about)), Files(html, json_, csv)
    if line := unended(report):
        console(stderr=True).print(Text(line))
    if not (html or json_ or csv):
        sys.stdout.write(as_json(report))
        return 0
    files.write(console(), report)
    return 0


@sweep.command
def diff(
    earlier: About, later: About, /, *, json_: Annotated[bool, Parameter(name="--json", negative=())] = False
) -> int:
    """Say what is different in the LATER of two sweeps: new, fixed, standing. Exit code 1: there is something new."""
    change = run_until_ended(_compared(earlier, later))
    if json_:
        sys.stdout.write(json.dumps(change_as_plain(change), ensure_ascii=False) + "\n")
        return int(bool(change.new))
    out = console()
    out.print(Text(f"{change}"))
    for title, found in change.kinds:
        if found:
            out.print(table_of(title, found))
    return int(bool(change.new))


@sweep.command
def resume(about: About, /) -> int:
    """Let a sweep go on that was broken off, where it was. A running intake does so by itself."""
    prefect_is_known()
    return run_until_ended(_resumed(about))


async def _start(select: Sequence[str], by: str, files: Files, *, remediate: bool, detach: bool) -> int:
    out = console()
    async with get_client() as client:
        selected(await read_fleet(client), select)  # a mistake is said before anything is started
        run = await order_sweep(client, select, by, remediate=remediate)
        out.print(Text(f"sweep {run.id}"))
        if link := url_for(run):
            out.print(Text(link))
        if detach:
            return 0
        async with open_ledger() as ledger:
            ended = await watched(client, ledger, out, run.id)
            state = ended.state
            if state is None or not state.is_completed():
                raise ConfigurationError(f"the sweep did not come to its end: {state.message if state else 'no state'}")
            report = await _report(ledger, str(run.id))
    show_report(out, report)
    if state.name == "NOTHING":
        out.print(Text(state.message or ""))
    files.write(out, report)
    return int(bool(report.findings))


async def order_sweep(client: PrefectClient, select: Sequence[str], by: str, *, remediate: bool) -> FlowRun:
    """Start a sweep on a worker, where nothing is selected of the whole fleet.

    Raises:
        ConfigurationError: Prefect does not have its deployment.
    """
    parameters = {"remediate": remediate, **({"select": list(select)} if select else {})}
    return await order_run(client, DEPLOYMENT, parameters, by)


async def watched(client: PrefectClient, ledger: Ledger, out: Console, run: UUID) -> FlowRun:
    """Show how far it is until it is over."""
    since, warned, said = asyncio.get_running_loop().time(), False, -1
    with Progress(console=out, transient=True, disable=not out.is_terminal) as progress:
        bar = progress.add_task("looking at the clusters", total=None)
        while True:
            found = await client.read_flow_run(run)
            async with ledger.reading() as session:
                row, done = await session.get(Sweep, str(run)), await how_many_swept(session, str(run))
            total = row.planned if row else 0
            progress.update(bar, total=total or None, completed=done)
            share = 10 * done // total if total else -1
            if share > said and not out.is_terminal:
                out.print(f"{done} of {total} clusters")
                said = share
            if found.state and found.state.is_final():
                return found
            waits = found.state is not None and found.state.is_scheduled()
            if waits and not warned and asyncio.get_running_loop().time() - since > NO_WORKER:
                out.print(NOBODY_TAKES_IT)
                warned = True
            await asyncio.sleep(LOOK_EVERY)


async def _listed(last: int) -> Sequence[Sweep]:
    async with open_ledger() as ledger, ledger.reading() as session:
        return await sweeps(session, last)


async def _reported(about: str) -> Report:
    async with open_ledger() as ledger:
        return await _report(ledger, about)


async def _report(ledger: Ledger, about: str) -> Report:
    async with ledger.reading() as session:
        return await report_of(session, await _sweep(session, about))


async def _sweep(session: AsyncSession, about: str) -> Sweep:
    """The one that is meant.

    Raises:
        ConfigurationError: there is none, or it may be several.
    """
    found = (await sweeps(session, 1)) if about == "last" else await sweeps_called(session, about)
    if len(found) != 1:
        what = "there is no sweep yet" if about == "last" else f"{len(found)} sweeps have an id that begins {about!r}"
        raise ConfigurationError(f"{what}: `runbooks sweep list` shows them")
    return found[0]


async def _compared(earlier: str, later: str) -> Change:
    async with open_ledger() as ledger, ledger.reading() as session:
        before, after = await _sweep(session, earlier), await _sweep(session, later)
        change = (await report_of(session, after, before)).change
    if change is None:  # it is always held against the one that is given
        raise ConfigurationError(f"sweep {earlier!r} cannot be compared")
    return change


async def _resumed(about: str) -> int:
    async with open_ledger() as ledger, ledger.reading() as session:
        row = await _sweep(session, about)
    if row.ended is not None:
        raise ConfigurationError(f"sweep {row.id} has come to its end: start another one")
    async with get_client() as client:
        try:
            run = await client.read_flow_run(UUID(row.id))
        except (ObjectNotFound, ValueError):
            raise ConfigurationError(f"Prefect has no run {row.id} any more: start another sweep") from None
        if run.deployment_id is None:
            raise ConfigurationError(f"run {row.id} is of no deployment, so no worker can go on with it")
        await client.set_flow_run_state(run.id, Scheduled(message="a person resumes it"), force=True)
    console().print(Text(f"sweep {row.id} goes on: `runbooks sweep list` shows when it has ended"))
    return 0
