"""`runbooks stop`, `resume` and `breaker`: what keeps every run from changing anything, in a person's hands."""

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from deployments.ending import run_until_ended
from deployments.stop_file import remove_stop_file, stop_by_file, warn
from deployments.terminal import console, say
from tasks import timing
from tasks.brakes import stop_file
from tasks.errors import ConfigurationError, LedgerUnavailable, RunbookError, UnknownCluster
from tasks.ledger.braking import brake, brakes, open_breaker, release, reset_breaker
from tasks.ledger.database import open_ledger
from tasks.ledger.receiving import clusters
from tasks.ledger.tables import Brake, Breaker
from tasks.ledger.ticket_life import incident_of
from tasks.ledger.ticket_tables import TicketRow
from tasks.ticket_files import id_of

SOON = 5.0  # seconds that a ledger may take before the stop file is written as well
MOMENT = "%Y-%m-%d %H:%M:%S"
TRIED_AGAIN = ": it is tried again"  # what a LedgerUnavailable says for those who do; a command does not

breaker = App(name="breaker", help="The breaker: it trips when many clusters alarm together.")

Cluster = Annotated[str | None, Parameter(help="The name of its block; left out: all clusters.")]
Reason = Annotated[str, Parameter(help="Why, for everybody who meets it.")]
By = Annotated[str, Parameter(help="Who says so; left out: your login name.", show_default=False)]


@dataclass(frozen=True)
class Holds:
    """What keeps changes from being made, by the ledger: the brakes that are on, the breaker if it has tripped."""

    ledger: str
    clusters: list[str]
    brakes: list[Brake]
    breaker: Breaker | None


def stop(
    cluster: Cluster = None, /, *, reason: Reason, by: By = "", file: Annotated[bool, Parameter(negative=())] = False
) -> int:
    """Stop all changes, or those of one cluster, from now on, approved ones too. Diagnosis goes on.

    If the ledger does not answer and no cluster is named, the stop file $RUNBOOKS_HOME/STOP stops everything instead.

    Parameters
    ----------
    file
        Use the stop file in any case, and leave the ledger alone.
    """
    _name_or_nothing(cluster)
    why, who = one_line(reason, "--reason"), person(by)
    if file:
        if cluster is not None:
            raise ConfigurationError(f"the stop file stops everything: leave {cluster!r} out, or leave --file out")
        stop_by_file(why, who)
        return 0
    return _ended(_stop(cluster, why, who))


def resume(cluster: Cluster = None, /, *, reason: Reason, by: By = "") -> int:
    """Take back what `runbooks stop` has stopped, and say what is still stopped.

    Without a cluster: the brakes on all clusters and the stop file of this machine; those on single clusters stay.
    """
    _name_or_nothing(cluster)
    return _ended(_resume(cluster, one_line(reason, "--reason"), person(by)))


@breaker.default
@breaker.command
def status(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """Show whether the breaker has tripped, since when, why and for which clusters; and the brakes that are on.

    Parameters
    ----------
    as_json
        One JSON object on standard output.
    """
    return _ended(_status(as_json=as_json))


@breaker.command
def reset(*, reason: Reason, by: By = "") -> int:
    """Let changes go on after the breaker has tripped. What it has counted does not count again."""
    return _ended(_reset(one_line(reason, "--reason"), person(by)))


async def _stop(cluster: str | None, reason: str, by: str) -> None:
    """Put the brake on. Where it is on everything, a ledger that is slow or away must not keep it from holding."""
    braking = asyncio.create_task(_braked(cluster, reason, by))
    filed = False
    if cluster is None:
        await asyncio.wait([braking], timeout=SOON)
        if not braking.done():
            stop_by_file(reason, by, f"the ledger has not answered for {SOON:.0f} seconds, and is tried on; meanwhile")
            filed = True
    try:
        holds = await braking
    except (RunbookError, SQLAlchemyError) as error:  # whatever is wrong with the ledger: it must stop
        if cluster is not None and isinstance(error, LedgerUnavailable):
            advice = "`runbooks stop --reason TEXT` without a cluster stops everything, if need be by a file"
            raise LedgerUnavailable(f"{cluster} is not stopped: {_words(error)}; {advice}") from error
        if cluster is not None:
            raise
        if filed:
            console().print(Text(f"{_words(error)}: the stop file alone holds"))
        else:
            stop_by_file(reason, by, f"{_words(error)}; so")
        return
    out = console()
    what = f"changes of {cluster}" if cluster else "all changes"
    out.print(Text(f"stopped: {what}; a command that was sent already is not called back"))
    if not holds.clusters:
        unused = f"the ledger {holds.ledger} knows no cluster, so no intake has used it yet"
        warn(f"{unused}: make sure that RUNBOOKS_LEDGER_URL and RUNBOOKS_HOME here are those of the workers")
    _show(out, holds)


async def _braked(cluster: str | None, reason: str, by: str) -> Holds:
    async with open_ledger() as ledger, ledger.writing() as session:
        names = [each.name for each in await clusters(session)]
        if cluster is not None and names and cluster not in names:
            what = f"the ledger knows no cluster {cluster!r}, nothing is stopped"
            raise UnknownCluster(f"{what}: name one of {', '.join(names)}, or none to stop everything")
        await brake(session, cluster or "", reason, by, timing.wall())
        return await _holds(session, str(ledger), names)


async def _resume(cluster: str | None, reason: str, by: str) -> None:
    out = console()
    try:
        async with open_ledger() as ledger, ledger.writing() as session:
            taken = await release(session, cluster or "", reason, by, timing.wall())
            holds = await _holds(session, str(ledger), [])
    except LedgerUnavailable as error:
        raise LedgerUnavailable(f"nothing is resumed: {_words(error)}") from error
    where = cluster or "all clusters"
    if taken:
        out.print(Text(f"taken back: {'the brake' if taken == 1 else f'{taken} brakes'} on {where}"))
    removed = cluster is None and remove_stop_file(out)
    if not (taken or removed):
        out.print(Text(f"{where}: no brake was on{'' if cluster else ', and no stop file is here'}"))
    _show(out, holds, head="still stopped:")


async def _status(*, as_json: bool) -> None:
    out, here = console(), stop_file()
    try:
        async with open_ledger() as ledger, ledger.reading() as session:
            holds = await _holds(session, str(ledger), [])
            filed = await session.get(TicketRow, incident_of(holds.breaker.id)) if holds.breaker else None
    except LedgerUnavailable as error:
        if here and not as_json:
            out.print(Text(here))
        raise LedgerUnavailable(_words(error)) from error
    tripped = holds.breaker
    ticket = filed.key or id_of(filed.correlation) if filed else ""
    if as_json:
        found = {
            "tripped": tripped is not None,
            "id": tripped.id if tripped else "",
            "since": tripped.since.isoformat() if tripped else None,
            "why": tripped.why if tripped else "",
            "clusters": tripped.clusters.splitlines() if tripped else [],
            "ticket": ticket,
            "brakes": [
                {"cluster": each.cluster, "since": each.since.isoformat(), "by": each.by, "reason": each.reason}
                for each in holds.brakes
            ],
            "stop_file": here,
        }
        sys.stdout.write(json.dumps(found) + "\n")
        return
    if tripped:
        out.print("the breaker has tripped: nothing is changed in any cluster, diagnosis goes on")
        say(out, "since   ", f"{tripped.since:{MOMENT}} UTC")
        say(out, "why     ", Text(tripped.why))
        say(out, "clusters", Text(", ".join(tripped.clusters.splitlines())))
        say(out, "ticket  ", Text(ticket or "none yet: an intake files it"))
    else:
        out.print("the breaker has not tripped")
    _show(out, holds)


async def _reset(reason: str, by: str) -> None:
    out = console()
    try:
        async with open_ledger() as ledger, ledger.writing() as session:
            was = await reset_breaker(session, reason, by, timing.wall())
            await session.flush()
            holds = await _holds(session, str(ledger), [])
    except LedgerUnavailable as error:
        raise LedgerUnavailable(f"nothing is reset: {_words(error)}") from error
    if was:
        out.print(Text(f"reset: the breaker that tripped at {was.since:{MOMENT}} UTC ({was.why})"))
        alarmed = ", ".join(was.clusters.splitlines())
        out.print(Text(f"runs that it has refused are over: start the runbook for those that still alarm of {alarmed}"))
    else:
        out.print("the breaker had not tripped")
    _show(out, holds, head="still stopped:")


async def _holds(session: AsyncSession, ledger: str, names: list[str]) -> Holds:
    return Holds(ledger, names, await brakes(session), await open_breaker(session))


def _show(out: Console, holds: Holds, *, head: str = "stopped now:") -> None:
    """What is stopped now, by whom and how that is ended: brakes, breaker, and the stop file of this machine."""
    table = Table("stopped", "since (UTC)", "by", "why", "what ends it")
    for each in holds.brakes:
        end = f"runbooks resume {each.cluster}".strip() + " --reason TEXT"
        cells = (each.cluster or "everything", f"{each.since:{MOMENT}}", each.by, each.reason, end)
        table.add_row(*map(Text, cells))
    if tripped := holds.breaker:
        end = "runbooks breaker reset --reason TEXT"
        table.add_row(*map(Text, ("everything", f"{tripped.since:{MOMENT}}", "the breaker", tripped.why, end)))
    here = stop_file()
    if table.row_count:
        out.print(head)
        out.print(table)
    if here:
        out.print(Text(f"{here}; `runbooks resume --reason TEXT` removes it"))
    if not (table.row_count or here):
        out.print("nothing is stopped")


def _ended(work: Coroutine[Any, Any, None]) -> int:
    """Run to the end. Interrupted, it does not say `stopped` as other commands do: 130."""
    try:
        run_until_ended(work)
    except KeyboardInterrupt:
        console(stderr=True).print("interrupted; see with `runbooks breaker status` what is stopped and what is not")
        return 130
    return 0


def _name_or_nothing(cluster: str | None) -> None:
    if cluster is not None and not cluster.strip():
        raise ConfigurationError("the cluster's name is empty: write it, or leave it out if you mean all clusters")


def one_line(text: str, option: str) -> str:
    """The text as one line.

    Raises:
        ConfigurationError: it is empty; names the option.
    """
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    if not line:
        raise ConfigurationError(f"{option} is empty: say why, for everybody who meets it")
    return line


def person(by: str) -> str:
    """Who it is by: the name that was given, else the login name."""
    if by.strip():
        return one_line(by, "--by")
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def _words(error: Exception) -> str:
    if isinstance(error, SQLAlchemyError):  # ours are sentences
        return f"the ledger cannot be used ({getattr(error, 'orig', error)})"
    return str(error).removesuffix(TRIED_AGAIN)
