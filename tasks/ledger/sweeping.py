"""Sweeps in the ledger: who is at one, what it saw, what the ledger itself knows of the clusters it looks at."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.episodes import LEASE, going_episode
from tasks.ledger.fleet_tables import Sweep, Swept
from tasks.ledger.lifecycle import OPEN, needs_a_run, open_episode
from tasks.ledger.receiving import intakes_alive
from tasks.ledger.tables import Cluster, Episode, Occurrence, Poll, SourceRow, Wait
from tasks.ledger.ticket_life import stale_tickets

KEPT = timedelta(days=90)
SETTLING = timedelta(minutes=10)  # an intake looks every few seconds; what lasts so long nobody looks after
MOMENT = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class Told:
    """What the ledger knows of a cluster.

    Attributes:
        active: alarm id -> hosts for which a source told of an alarm that is not cleared.
        stuck, overdue, tickets: what is wrong, a sentence each.
        heard: when a source last told of the cluster, or its alarms were last read; None: never.
        connected: when its block was made; None: no intake has seen it yet.
        intake: an intake is at work.
        trouble: why its alarms could not be read the last time; empty: they could.
    """

    active: Mapping[str, Sequence[str]] = field(default_factory=dict)
    stuck: Sequence[str] = ()
    overdue: Sequence[str] = ()
    tickets: Sequence[str] = ()
    heard: datetime | None = None
    connected: datetime | None = None
    intake: bool = True
    trouble: str = ""


async def take_sweep(
    session: AsyncSession, id_: str, selection: Sequence[str], *, remediate: bool, holder: str, now: datetime
) -> timedelta | None:
    """Begin a sweep, or go on with one whose process died.

    Returns:
        None: it is the process's now. Else another one is at it, for so long at least.
    """
    row = await session.get(Sweep, id_)
    if row is None:
        await _forget(session, now)
        session.add(
            Sweep(id=id_, selection="\n".join(selection), remediate=remediate, started=now, holder=holder, alive=now)
        )
        return None
    if row.holder not in ("", holder) and row.alive > now - LEASE:
        return row.alive + LEASE - now
    row.holder, row.alive, row.ended, row.summary, row.runs = holder, now, None, "", row.runs + 1
    return None


async def _forget(session: AsyncSession, now: datetime) -> None:
    old = select(Sweep.id).where(Sweep.started < now - KEPT)
    await session.execute(delete(Swept).where(Swept.sweep_id.in_(old)))
    await session.execute(delete(Sweep).where(Sweep.started < now - KEPT))


async def still_at_it(session: AsyncSession, id_: str, holder: str, now: datetime) -> bool:
    """Say that the process lives; False: another one goes on with the sweep."""
    mine = update(Sweep).where(Sweep.id == id_, Sweep.holder == holder).values(alive=now).returning(Sweep.id)
    return (await session.execute(mine)).first() is not None


async def let_sweep_go(session: AsyncSession, id_: str, holder: str) -> None:
    """The process leaves it, ended or not; whoever begins it anew need not wait."""
    await session.execute(update(Sweep).where(Sweep.id == id_, Sweep.holder == holder).values(holder=""))


async def planned(session: AsyncSession, id_: str, clusters: int) -> None:
    """It sets out to look at so many clusters."""
    await session.execute(update(Sweep).where(Sweep.id == id_).values(planned=clusters))


async def end_sweep(session: AsyncSession, id_: str, summary: str, now: datetime) -> None:
    """It came to its end."""
    await session.execute(update(Sweep).where(Sweep.id == id_).values(summary=summary, ended=now, alive=now))


async def broken_off(session: AsyncSession, id_: str, why: str) -> None:
    """It never came to its end, and nobody goes on with it by himself."""
    await session.execute(update(Sweep).where(Sweep.id == id_, Sweep.ended.is_(None)).values(summary=why))


async def names_swept(session: AsyncSession, id_: str) -> set[str]:
    """The clusters it has looked at already."""
    return set(await session.scalars(select(Swept.cluster).where(Swept.sweep_id == id_)))


async def how_many_swept(session: AsyncSession, id_: str) -> int:
    """How many clusters it has looked at so far."""
    return int(await session.scalar(select(func.count()).where(Swept.sweep_id == id_)) or 0)


async def swept(session: AsyncSession, id_: str) -> list[Swept]:
    """What it saw, by cluster; may be empty."""
    mine = select(Swept).where(Swept.sweep_id == id_).order_by(Swept.cluster)
    return list((await session.scalars(mine)).all())


async def sweeps(session: AsyncSession, limit: int) -> list[Sweep]:
    """The last sweeps, the latest first."""
    return list((await session.scalars(select(Sweep).order_by(Sweep.started.desc()).limit(limit))).all())


async def sweeps_called(session: AsyncSession, beginning: str) -> list[Sweep]:
    """The sweeps whose id begins so, the latest first."""
    mine = select(Sweep).where(Sweep.id.startswith(beginning, autoescape=True))
    return list((await session.scalars(mine.order_by(Sweep.started.desc()))).all())


async def sweep_before(session: AsyncSession, sweep: Sweep) -> Sweep | None:
    """The last one before it that came to its end and was about the same selection."""
    earlier = select(Sweep).where(
        Sweep.selection == sweep.selection, Sweep.started < sweep.started, Sweep.ended.is_not(None)
    )
    return (await session.scalars(earlier.order_by(Sweep.started.desc()).limit(1))).first()


async def unended(session: AsyncSession, now: datetime) -> list[Sweep]:
    """Sweeps that nobody is at, and that have neither come to their end nor been broken off."""
    left = select(Sweep).where(Sweep.ended.is_(None), Sweep.summary == "", Sweep.alive < now - LEASE)
    return list((await session.scalars(left)).all())


def written(answers: Sequence[tuple[str, str, str]]) -> str:
    """Answers (check, value, what was seen) as they are kept."""
    return json.dumps({check: (value, seen) for check, value, seen in answers}, ensure_ascii=False)


def read(answers: str) -> dict[str, tuple[str, str]]:
    """Check -> value and what was seen."""
    return {check: (value, seen) for check, (value, seen) in json.loads(answers).items()}


async def begin_again(session: AsyncSession, cluster: Cluster, alarm_id: str, now: datetime) -> str:
    """Let a run be started for a cluster with an active alarm that nobody is at: a person has asked for it.

    An episode that waits for its run is not for diagnosis only any more; where the page has ended for the active alarms
    they go into a new one, and its run begins it anew.

    Returns:
        The episode's id.
    """
    going = await going_episode(session, cluster.cluster_id, alarm_id, now)
    if going is not None:
        going.backlog = "" if going.state == "raised" else going.backlog
        return going.id
    mine = select(Occurrence).where(
        Occurrence.cluster_id == cluster.cluster_id, Occurrence.alarm_id == alarm_id, Occurrence.cleared_seen.is_(None)
    )
    active = (await session.scalars(mine)).all()
    episode = open_episode(session, cluster.cluster_id, cluster.name, alarm_id, "sweep", now)
    needs_a_run(episode, now)
    await session.flush()
    for occurrence in active:
        occurrence.episode_id, occurrence.ended, occurrence.trace = episode.id, "", ""
    return episode.id


async def clusters_called(session: AsyncSession, names: Collection[str]) -> dict[str, Cluster]:
    """What the ledger has of these blocks, by name; an intake that has not seen one yet has put nothing there."""
    mine = select(Cluster).where(Cluster.name.in_(names), Cluster.gone.is_(None))
    return {row.name: row for row in await session.scalars(mine)}


async def told_of(session: AsyncSession, clusters: Mapping[str, tuple[str, str]], now: datetime) -> dict[str, Told]:
    """What the ledger knows of these clusters.

    Args:
        clusters: block's name -> id in the cloud, host of its Manager.

    Returns:
        Block's name -> facts, of all of them.
    """
    ids = {id_ for id_, _ in clusters.values()}
    active: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in await session.execute(
        select(Occurrence.cluster_id, Occurrence.alarm_id, Occurrence.host).where(
            Occurrence.cluster_id.in_(ids), Occurrence.cleared_seen.is_(None)
        )
    ):
        active[row.cluster_id][row.alarm_id].add(row.host)
    last = select(Occurrence.cluster_id, func.max(Occurrence.last_seen)).where(Occurrence.cluster_id.in_(ids))
    told: dict[str, datetime] = {row[0]: row[1] for row in await session.execute(last.group_by(Occurrence.cluster_id))}
    polls = {row.cluster: row for row in await session.scalars(select(Poll).where(Poll.cluster.in_(clusters)))}
    hosts = {host for _, host in clusters.values()}
    beats = select(SourceRow.peer, func.max(SourceRow.heard)).where(SourceRow.peer.in_(hosts))
    heard: dict[str, datetime] = {row[0]: row[1] for row in await session.execute(beats.group_by(SourceRow.peer))}
    known = await clusters_called(session, clusters)
    stuck, overdue = await _stuck(session, ids, now), await _overdue(session, ids, now)
    tickets, intake = await stale_tickets(session, ids, now - SETTLING), await intakes_alive(session, now)
    found = {}
    for name, (id_, host) in clusters.items():
        poll = polls.get(name)
        times = [at for at in (told.get(id_), heard.get(host), poll.answered if poll else None) if at]
        found[name] = Told(
            active={alarm_id: tuple(sorted(where)) for alarm_id, where in active[id_].items()},
            stuck=tuple(stuck.get(id_, ())),
            overdue=tuple(overdue.get(id_, ())),
            tickets=tuple(tickets.get(id_, ())),
            heard=max(times, default=None),
            connected=known[name].connected if name in known else None,
            intake=intake,
            trouble=poll.trouble if poll else "",
        )
    return found


async def _stuck(session: AsyncSession, ids: Collection[str], now: datetime) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    late = now - SETTLING
    mine = select(Episode).where(
        Episode.cluster_id.in_(ids),
        Episode.state.in_(OPEN),
        or_(
            (Episode.state == "raised") & (Episode.raised < late),
            (Episode.state == "running") & (Episode.lease < late),
            (Episode.state == "verifying") & (Episode.verify_until < late),
        ),
    )
    for row in await session.scalars(mine):
        words = {
            "raised": f"waits for its run since {row.raised:{MOMENT}} UTC",
            "running": f"has a run that gave no sign of life since {row.lease or row.raised:{MOMENT}} UTC",
            "verifying": f"should have been closed at {row.verify_until or row.raised:{MOMENT}} UTC",
        }[row.state]
        found[row.cluster_id].append(f"episode {row.id} {words}")
    return found


async def _overdue(session: AsyncSession, ids: Collection[str], now: datetime) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    mine = (
        select(Wait, Episode)
        .join(Episode, Episode.id == Wait.episode_id)
        .where(
            Episode.cluster_id.in_(ids),
            Wait.ended.is_(None),
            Wait.deadline < now - SETTLING,
            Episode.state == "waiting",
        )
    )
    for wait, episode in (await session.execute(mine)).all():
        words = f"the wait at step {wait.step} of episode {episode.id} is over since {wait.deadline:{MOMENT}} UTC"
        found[episode.cluster_id].append(words)
    return found
