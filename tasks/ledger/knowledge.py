"""What the ledger itself knows of the clusters that a sweep looks at."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import ASKED
from tasks.ledger.lifecycle import OPEN
from tasks.ledger.receiving import intakes_alive
from tasks.ledger.tables import Cluster, Episode, Occurrence, Poll, SourceRow, Wait
from tasks.ledger.ticket_life import stale_tickets

SETTLING = timedelta(minutes=10)  # an intake looks every few seconds; what lasts so long nobody looks after
MOMENT = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class Told:
    """What the ledger knows of a cluster.

    Attributes:
        active: alarm id -> hosts for which a source told of an alarm that is not cleared.
        episodes: alarm id -> the episodes that these alarms belong to.
        waiting: ids of alarms of which an episode waits for its run.
        stuck, overdue, tickets: what is wrong, a sentence each.
        heard: when a source last told of the cluster, or its alarms were last read; None: not within a month.
        connected: when its block was made; None: no intake has seen it yet.
        intake: an intake is at work.
        trouble: why its alarms could not be read the last time; empty: they could.
    """

    active: Mapping[str, Sequence[str]] = field(default_factory=dict)
    episodes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()
    stuck: Sequence[str] = ()
    overdue: Sequence[str] = ()
    tickets: Sequence[str] = ()
    heard: datetime | None = None
    connected: datetime | None = None
    intake: bool = True
    trouble: str = ""


async def clusters_called(session: AsyncSession, names: Collection[str]) -> dict[str, Cluster]:
    """What the ledger has of these blocks, by name; an intake that has not seen one yet has put nothing there."""
    mine = select(Cluster).where(Cluster.name.in_(names), Cluster.gone.is_(None))
    return {row.name: row for row in await session.scalars(mine)}


async def waiting_for_a_run(session: AsyncSession, ids: Collection[str], alarm_id: str) -> set[str]:
    """Those of these clusters of which an episode of the alarm waits for its run."""
    mine = select(Episode.cluster_id).where(
        Episode.cluster_id.in_(ids), Episode.alarm_id == alarm_id, Episode.state == "raised"
    )
    return set(await session.scalars(mine))


async def told_of(
    session: AsyncSession, clusters: Mapping[str, tuple[str, str]], told: Mapping[str, datetime], now: datetime
) -> dict[str, Told]:
    """What the ledger knows of these clusters.

    Args:
        clusters: block's name -> id in the cloud, host of its Manager.
        told: of the whole fleet, by `last_told`.

    Returns:
        Block's name -> facts, of all of them.
    """
    ids = {id_ for id_, _ in clusters.values()}
    active, episodes = _by_alarm(), _by_alarm()
    waiting: dict[str, set[str]] = defaultdict(set)
    row = Occurrence
    mine = select(row.cluster_id, row.alarm_id, row.host, row.episode_id, Episode.state)
    mine = mine.outerjoin(Episode, Episode.id == row.episode_id).where(row.cleared_seen.is_(None))
    for id_, alarm_id, host, episode, state in await session.execute(mine.where(row.cluster_id.in_(ids))):
        active[id_][alarm_id].add(host)
        if episode:
            episodes[id_][alarm_id].add(episode)
        if state == "raised":
            waiting[id_].add(alarm_id)
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
            episodes={alarm_id: tuple(sorted(which)) for alarm_id, which in episodes[id_].items()},
            waiting=frozenset(waiting[id_]),
            stuck=tuple(stuck.get(id_, ())),
            overdue=tuple(overdue.get(id_, ())),
            tickets=tuple(tickets.get(id_, ())),
            heard=max(times, default=None),
            connected=known[name].connected if name in known else None,
            intake=intake,
            trouble=poll.trouble if poll else "",
        )
    return found


def _by_alarm() -> dict[str, dict[str, set[str]]]:
    return defaultdict(lambda: defaultdict(set))


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
    asked = select(Approval, Episode).where(*ASKED, Episode.cluster_id.in_(ids), Approval.expires < now - SETTLING)
    for approval, episode in (await session.execute(asked)).all():
        what = f"the question at step {approval.step} of episode {episode.id}"
        found[episode.cluster_id].append(f"{what} is undecided, its time is over since {approval.expires:{MOMENT}} UTC")
    return found
