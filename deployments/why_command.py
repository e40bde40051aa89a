"""`runbooks why`: on one screen, why something was done or not."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from cyclopts import Parameter
from prefect.settings import PREFECT_API_URL
from rich.console import Console
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from deployments.ending import run_until_ended
from deployments.evidence_commands import last_episode, nothing_known
from deployments.status_commands import MOMENT, Now, stopped
from deployments.terminal import console, say
from tasks.errors import ConfigurationError, UnknownCluster, Unreachable
from tasks.ledger.approval_tables import Approval
from tasks.ledger.braking import brakes, open_breaker
from tasks.ledger.database import open_ledger
from tasks.ledger.keeping import Line, records_of
from tasks.ledger.modes import mode_changes
from tasks.ledger.openings import STATES
from tasks.ledger.tables import Cluster, Episode, Intent, Occurrence
from tasks.loading import cluster_block
from tasks.models import few

MODES = 5  # changes of a cluster's modes that are shown
MOST = 6  # lines of a kind; a screen has some thirty
T = TypeVar("T")


def why(about: Annotated[str, Parameter(name="CLUSTER|EPISODE")], /) -> int:
    """Say on one screen why the last run of a cluster did what it did, or did nothing.

    Parameters
    ----------
    about
        The name of a cluster's block, or the id of an episode: `runbooks status` shows both.
    """
    return run_until_ended(_why(about))


async def _why(about: str) -> int:
    out = console()
    async with open_ledger() as ledger, ledger.reading() as session:
        episode = await last_episode(session, about)
        now = Now([], await brakes(session), await open_breaker(session))
        if episode is None:
            if not await _is_known(session, about):
                raise nothing_known(about)
            say(out, "cluster", Text(f"{about}: no episode yet: no alarm that has a runbook was told of it"))
            stopped(out, now)
            return 0
        mine = select(Occurrence).where(Occurrence.episode_id == episode.id)
        occurrences = (await session.scalars(mine.order_by(Occurrence.first_seen, Occurrence.host))).all()
        changes = select(Intent).where(Intent.episode_id == episode.id).order_by(Intent.at, Intent.target)
        intents = (await session.scalars(changes)).all()
        asked = select(Approval).where(Approval.episode_id == episode.id).order_by(Approval.asked)
        questions = (await session.scalars(asked)).all()
        records = await records_of(session, episode.id)
        modes = await mode_changes(session, episode.cluster, MODES)
    _headed(out, episode)
    _lines(out, "alarm  ", _alarms(occurrences), episode)
    _lines(out, "changed", _changes(intents) or ["nothing was changed"], episode)
    _lines(out, "asked  ", [_asked(each) for each in questions], episode)
    last = list(records.values())[-1] if records else []
    reasons = [line for line in last if line.kind == "ended"] or last[-3:]
    _lines(out, "because", _reasons(reasons) or ["no run of it has come to a wait or an end yet"], episode)
    for change in modes:
        of = "" if change.what == "cluster" else f" of a {change.what}"
        words = f"{change.at:{MOMENT}} UTC the mode{of} became {change.new!r}, it was {change.old!r}"
        say(out, "mode   ", Text(words))
    stopped(out, now)
    return 0


async def _is_known(session: AsyncSession, cluster: str) -> bool:
    """Whether there is such a cluster, by the ledger or by Prefect; where that does not answer, by the ledger alone."""
    if await session.get(Cluster, cluster) is not None:
        return True
    if not PREFECT_API_URL.value():
        return False
    try:
        await cluster_block(cluster)
    except (UnknownCluster, Unreachable):
        return False
    except ConfigurationError:  # it is there, and cannot be used
        return True
    return True


def _headed(out: Console, episode: Episode) -> None:
    say(out, "cluster", Text(f"{episode.cluster}, ALM-{episode.alarm_id}, episode {episode.id}"))
    opened = f"{STATES[episode.state]}; opened {episode.opened:{MOMENT}} UTC by {episode.opened_by}"
    say(out, "state  ", Text(opened + (f", backlog: {episode.backlog}" if episode.backlog else "")))
    if episode.outcome:
        say(out, "outcome", Text(f"{episode.outcome}{f', ticket {episode.ticket}' if episode.ticket else ''}"))
    if episode.link:
        say(out, "run    ", Text(episode.link))


def _lines(out: Console, margin: str, lines: Sequence[str], episode: Episode) -> None:
    """As many as a screen has room for."""
    for line in lines[:MOST]:
        say(out, margin, Text(line))
    if (left := len(lines) - MOST) > 0:
        say(out, margin, Text(f"and {left} more: `runbooks evidence show {episode.id}`"))


def _alike(things: Iterable[T], key: Callable[[T], object]) -> list[list[T]]:
    """Those with the same key together, in the order of the first of each."""
    groups: dict[object, list[T]] = {}
    for each in things:
        groups.setdefault(key(each), []).append(each)
    return list(groups.values())


def _alarms(occurrences: Sequence[Occurrence]) -> list[str]:
    """Hosts with the same trace in one line."""
    lines = []
    for mine in _alike(occurrences, lambda each: (each.trace or each.ended, each.cleared_seen is None)):
        first = mine[0]
        named = [f"{each.host} serial {each.serial or '?'}" for each in mine]
        cleared = [each.cleared_seen for each in mine if each.cleared_seen]
        when = f"; cleared {_from_to(cleared)}" if cleared else ""
        lines.append(f"{_counted(named)}: {first.trace or first.ended or '-'}{when}")
    return lines


def _changes(intents: Sequence[Intent]) -> list[str]:
    """Changes of one step that came to the same in one line, with the words of the last."""
    lines = []
    for mine in _alike(intents, lambda each: (each.step, each.ended is None)):
        last = mine[-1]
        ended = last.did if last.ended else "not seen to its end"
        which = "" if len(mine) == 1 else "the last: "
        targets = _counted([each.target for each in mine])
        lines.append(f"{_from_to([each.at for each in mine])} step {last.step}, {targets}: {which}{ended}")
    return lines


def _reasons(reasons: Sequence[Line]) -> list[str]:
    """What was said of several hosts in the same words, but for their names, in one line."""
    return [
        f"{_counted([each.host for each in mine])}: {mine[0].text}"
        for mine in _alike(reasons, lambda each: each.text.replace(each.host, ""))
    ]


def _asked(question: Approval) -> str:
    said = f"{question.decision} by {question.by} ({question.channel})" if question.decision else "not answered yet"
    return f"{question.asked:{MOMENT}} UTC {question.action}, {question.kind}: {said}"


def _counted(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} ({few(names)})"


def _from_to(moments: Sequence[datetime]) -> str:
    first, last = min(moments), max(moments)
    return f"{first:{MOMENT}} UTC" if first == last else f"{first:{MOMENT}} to {last:{MOMENT}} UTC"
