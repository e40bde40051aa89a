"""When each cluster's alarm list is read, what the ledger expects there, and what follows if it cannot be read."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.episodes import going_episode
from tasks.ledger.lifecycle import needs_a_run, open_episode
from tasks.ledger.observing import REPAIRED
from tasks.ledger.tables import Cluster, Episode, Occurrence, Poll


@dataclass(frozen=True)
class Due:
    """A cluster whose alarm list is to be read now.

    Attributes:
        since: when it was to be read; `triggered`: somebody asked for it, and when first.
        offered: what the reading before found.
        active: the cluster's alarms that the ledger took for active before the list is read, of all alarm ids.
    """

    cluster: Cluster
    since: datetime
    triggered: datetime | None = None
    trigger_alarm: str = ""
    offered: bool | None = None
    active: Sequence[Occurrence] = ()


async def next_due(session: AsyncSession) -> datetime | None:
    """When the next cluster is due; None: there is none at all."""
    mine = select(Poll.due).join(Cluster, Cluster.name == Poll.cluster).where(Cluster.gone.is_(None))
    return (await session.scalars(mine.order_by(Poll.due).limit(1))).first()


async def spread(session: AsyncSession, now: datetime, interval: timedelta) -> None:
    """Spread what is overdue over one interval, the first at once, so that a start does not ask everybody together.

    What somebody asked for stays due.
    """
    late = (
        select(Poll)
        .join(Cluster, Cluster.name == Poll.cluster)
        .where(Poll.due <= now, Poll.triggered.is_(None), Cluster.gone.is_(None))
        .order_by(Poll.due, Poll.cluster)
    )
    polls = (await session.scalars(late)).all()
    for n, poll in enumerate(polls):
        poll.due = now + interval * n / len(polls)


async def take_due(
    session: AsyncSession,
    now: datetime,
    limit: int,
    again: Callable[[], datetime],
    *,
    busy: Collection[str] = (),
    troubled: int | None = None,
) -> list[Due]:
    """Take clusters that are due, the longest overdue first; no other intake gets them before they are due again.

    Args:
        again: when one is due again; asked for each.
        busy: clusters that are left alone now.
        troubled: at most so many that could not be read the last time; a trigger makes one as good as the others.
    """
    mine = (
        select(Poll, Cluster)
        .join(Cluster, Cluster.name == Poll.cluster)
        .where(Poll.due <= now, Cluster.gone.is_(None), Poll.cluster.not_in(busy))
        .order_by(Poll.due)
    )
    well = or_(Poll.trouble == "", Poll.triggered.is_not(None))
    found = (await session.execute(mine.where(well).limit(limit))).all()
    left = limit - len(found)
    found = [
        *found,
        *(await session.execute(mine.where(~well).limit(min(left, limit if troubled is None else troubled)))),
    ]
    active = defaultdict(list)
    ids = {cluster.cluster_id for _, cluster in found}
    for each in await session.scalars(_active(ids)):
        active[each.cluster_id].append(each)
    taken = []
    for poll, cluster in found:
        due = Due(cluster, poll.due, poll.triggered, poll.trigger_alarm, poll.offered, active[cluster.cluster_id])
        taken.append(due)
        poll.due = again()
    return taken


async def polled(
    session: AsyncSession,
    cluster: str,
    now: datetime,
    *,
    offered: bool | None,
    skew: float | None,
    trouble: str,
    answered_trigger: datetime | None,
    rest_until: datetime | None = None,
) -> None:
    """Write down how a reading went.

    Args:
        offered: whether Manager has such a route; None: it did not come to that.
        skew: Manager's clock less ours, in seconds, if it was told.
        trouble: what went wrong; empty: nothing.
        answered_trigger: the trigger that this reading has dealt with; a later one stays.
        rest_until: do not read it before, unless somebody asks for it.
    """
    poll = await session.get(Poll, cluster)
    if poll is None:
        return
    poll.trouble = trouble
    poll.skew = skew if skew is not None else poll.skew
    if offered is not None:
        poll.offered = offered
    if not trouble:
        poll.answered = now
    if answered_trigger is not None and poll.triggered == answered_trigger:
        poll.triggered = None
    if rest_until is not None and poll.triggered is None:
        poll.due = rest_until


async def poll_at(session: AsyncSession, clusters: Sequence[str], due: datetime) -> None:
    """Read these clusters' alarms at that moment."""
    await session.execute(update(Poll).where(Poll.cluster.in_(clusters)).values(due=due))


async def active_occurrences(session: AsyncSession, cluster_id: str) -> list[Occurrence]:
    """The cluster's alarms that the ledger takes for active, of all alarm ids; may be empty."""
    return list((await session.scalars(_active({cluster_id}))).all())


async def open_unread(
    session: AsyncSession, cluster: Cluster, alarm_id: str, opened_by: str, now: datetime
) -> Episode | None:
    """Open an episode for an alarm that was reported without a host and that nobody could read on Manager.

    The run that follows looks for itself, or asks a person. In an episode that is being verified after a repair it may
    be the relapse, which makes the episode need a run once more.

    Returns:
        The episode that needs a run now; None: one is at it already, or a person has it.
    """
    episode = await going_episode(session, cluster.cluster_id, alarm_id, now)
    if episode is None:
        episode = open_episode(session, cluster.cluster_id, cluster.name, alarm_id, opened_by, now)
    elif episode.state != "verifying" or episode.outcome not in REPAIRED:
        return None
    needs_a_run(episode, now)
    return episode


def _active(cluster_ids: Collection[str]) -> Select[tuple[Occurrence]]:
    mine = select(Occurrence).where(Occurrence.cluster_id.in_(cluster_ids), Occurrence.cleared_seen.is_(None))
    return mine.order_by(Occurrence.first_seen)
