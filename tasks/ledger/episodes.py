"""Who acts: an episode is held by one run at a time, and ends when every alarm of it has come to an end."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from secrets import token_hex

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.earlier import HandedOver, earlier_runs
from tasks.ledger.lifecycle import OPEN, close, needs_a_run, open_episode
from tasks.ledger.matching import the_one
from tasks.ledger.observing import REMEMBERED, REPAIRED
from tasks.ledger.tables import Episode, Occurrence, Wait
from tasks.models import Alarm, Outcome

# Everything that tells the living from the dead is a share of it; shorter only where dying is tried out.
LEASE = timedelta(seconds=float(os.environ.get("RUNBOOKS_LEASE_SECONDS") or 30))
VERIFYING = timedelta(minutes=25)  # of the cluster's time: Meta raises after three failed polls of five minutes
HELD = ("running", "waiting")


@dataclass(frozen=True)
class Asking:
    """A run that wants to act.

    Attributes:
        run: the flow run's id; `link` leads a person to it.
        automated: an alarm started it, not a person: what was handed to a person is not begun anew.
        episode: the episode it was started for; empty: whichever is open.
    """

    run: str
    link: str
    automated: bool
    episode: str = ""


@dataclass(frozen=True)
class Holding:
    """An episode that a run holds, by the fence `token`.

    Attributes:
        attempt: the run and when it first took the episode: begun anew after a wait or a death it is the same attempt.
        hosts: those with an active alarm of the episode for which the page has not ended, as the sources told.
        repaired: host name -> the trace that ended in END, in this episode: its alarm may be a relapse.
        handed_over: active alarms for which the page has ended in a ticket before; automated runs leave them alone.
    """

    episode: str
    token: int
    hosts: Sequence[str] = ()
    repaired: Mapping[str, str] = field(default_factory=dict)
    handed_over: Sequence[HandedOver] = ()
    attempt: str = field(default="", compare=False)


@dataclass(frozen=True)
class Held:
    """The episode is another run's: `by` says which, for a person.

    Attributes:
        own: it is the very run that asks, at work in another process.
    """

    episode: str
    by: str
    own: bool = False


@dataclass(frozen=True)
class Part:
    """How the page ended for one alarm."""

    alarm: Alarm
    outcome: str
    trace: str


async def claim(
    session: AsyncSession, cluster_id: str, cluster: str, alarm_id: str, asking: Asking, now: datetime
) -> Holding | Held:
    """Take the cluster's open episode, or open one; held by a living run, or over already, it is not given.

    A holder that waits lives; one at work whose lease has ended does not. A run that comes back from a wait, or that is
    begun anew after its death, gets its episode again under a new token; while it is at work elsewhere it does not.
    """
    episode = await going_episode(session, cluster_id, alarm_id, now)
    if asking.episode and (episode is None or episode.id != asking.episode):
        over = await session.get(Episode, asking.episode)
        if over is not None:
            return Held(over.id, over.link or f"nobody any more: episode {over.id} has ended ({over.outcome})")
    if episode is None:
        episode = open_episode(session, cluster_id, cluster, alarm_id, "run", now)
        episode.n, episode.run, episode.runs = 1, asking.run, 1
    mine = episode.holder == asking.run
    at_work = episode.state == "running" and episode.lease is not None and episode.lease > now
    if at_work or (episode.state == "waiting" and not mine):
        return Held(episode.id, episode.link or str(episode.holder), own=mine)
    if episode.state == "verifying" and asking.automated:
        return Held(episode.id, episode.link or f"episode {episode.id}, which is done ({episode.outcome})")
    if not mine or episode.claimed is None:
        episode.claimed = now
        left = update(Wait).where(Wait.episode_id == episode.id, Wait.ended.is_(None))
        await session.execute(left.values(ended=now))  # of an attempt that nobody goes on with
    episode.state, episode.token = "running", episode.token + 1
    episode.holder, episode.link, episode.lease = asking.run, asking.link, now + LEASE
    episode.verify_until, episode.wake = None, False  # it looks for itself now
    if not asking.automated:
        episode.backlog = ""  # a person has decided
    await session.flush()
    hosts = await hosts_of_episode(session, episode.id)
    repaired, handed_over = await earlier_runs(session, episode)
    attempt = f"{asking.run}@{episode.claimed:%Y%m%dT%H%M%S.%f}"
    return Holding(episode.id, episode.token, hosts, repaired, handed_over if asking.automated else (), attempt)


async def renew(session: AsyncSession, holding: Holding, now: datetime) -> bool:
    """Hold on for another while; False: somebody else holds it now, and this run must not change anything more."""
    return await _as_holder(session, holding, lease=now + LEASE)


async def still_holds(session: AsyncSession, holding: Holding) -> bool:
    """Whether the fence still holds: what a segment says that was taken over no longer counts."""
    return await session.scalar(select(Episode.id).where(*_fenced(holding))) is not None


async def begin_change(session: AsyncSession, holding: Holding, now: datetime) -> bool:
    """Note that a change is about to be made; False as in `renew`."""
    return await _as_holder(session, holding, lease=now + LEASE, acted=True)


async def wait_begun(session: AsyncSession, holding: Holding, step: str, deadline: datetime) -> datetime:
    """The deadline of the attempt's wait at this step: fixed by the first who comes, whatever is asked for later."""
    wait = await session.get(Wait, (holding.attempt, step))
    if wait is None:
        wait = Wait(attempt=holding.attempt, step=step, episode_id=holding.episode, deadline=deadline)
        session.add(wait)
    return wait.deadline


async def wait_ended(session: AsyncSession, holding: Holding, step: str, now: datetime) -> None:
    """What the attempt waited for at this step has come, or the time is over."""
    mine = update(Wait).where(Wait.attempt == holding.attempt, Wait.step == step, Wait.ended.is_(None))
    await session.execute(mine.values(ended=now))


async def let_go(session: AsyncSession, holding: Holding) -> bool | None:
    """The run is a row from now on, and still the episode's holder. It has no lease; whoever begins it anew gets one.

    Returns:
        Whether an alarm was cleared while it was at work; None: the episode is another's.
    """
    mine = update(Episode).where(*_fenced(holding), Episode.state == "running")
    done = (await session.execute(mine.values(state="waiting", lease=None).returning(Episode.wake))).first()
    return bool(done[0]) if done else None


def _fenced(holding: Holding) -> tuple[ColumnElement[bool], ...]:
    return Episode.id == holding.episode, Episode.token == holding.token, Episode.state.in_(HELD)


async def _as_holder(session: AsyncSession, holding: Holding, **values: object) -> bool:
    changed = await session.execute(update(Episode).where(*_fenced(holding)).values(**values).returning(Episode.id))
    return changed.first() is not None


async def settle(
    session: AsyncSession,
    holding: Holding,
    parts: Sequence[Part],
    outcome: str,
    ticket: str,
    now: datetime,
    *,
    speed: float = 1,
    host: str = "",
) -> str:
    """The run is over: write down how the page ended for each alarm, and let go of the episode.

    An active alarm of the episode that the run did not follow (it came too late for it) makes the episode need another
    run. A run that followed none ends all that were known when it took the episode: it has looked for them. A cancelled
    run ends the episode.

    Args:
        speed: how much faster the cluster's time runs.
        host: the only host it was to look at; empty: all.

    Returns:
        The episode's state now; empty: it was another run's, and nothing was written.
    """
    episode = await session.get(Episode, holding.episode)
    if episode is None or episode.token != holding.token or episode.state not in HELD:
        return ""
    episode.outcome, episode.ticket = outcome, ticket or episode.ticket
    episode.run, episode.holder, episode.lease = episode.holder, None, None  # a person's run may have held it
    episode.acted = False  # what it changed is seen to its end
    mine = select(Occurrence).where(
        Occurrence.cluster_id == episode.cluster_id,
        Occurrence.alarm_id == episode.alarm_id,
        or_(
            Occurrence.cleared_seen.is_(None),
            Occurrence.last_seen > now - REMEMBERED,
            Occurrence.episode_id == episode.id,  # a run may wait for days
        ),
    )
    known = list((await session.scalars(mine)).all())
    for part in parts:
        occurrence = _occurrence_of(session, episode, part, known, now)
        occurrence.episode_id, occurrence.trace = episode.id, part.trace
        end_alarm(occurrence, part.outcome, now)
    taken = episode.claimed or now
    for occurrence in known:
        if occurrence.episode_id != episode.id or occurrence.ended:
            continue
        known_to_it = occurrence.host in holding.hosts and occurrence.first_seen <= taken  # two clocks: both must hold
        looked_for = known_to_it and host in ("", occurrence.host)
        if outcome == Outcome.CANCELLED or (not parts and looked_for):
            end_alarm(occurrence, outcome, now)
    left = [each for each in known if each.episode_id == episode.id and not each.ended]
    if outcome == Outcome.CANCELLED:
        close(episode, now, outcome)
    elif any(each.cleared_seen is None for each in left):
        needs_a_run(episode, now)
    else:
        for occurrence in left:
            occurrence.ended = Outcome.CLEARED
        episode.state, episode.verify_until, episode.wake = "verifying", now + VERIFYING / speed, False
    return episode.state


async def close_verified(session: AsyncSession, now: datetime) -> list[Episode]:
    """Close the episodes in which no relapse came."""
    due = select(Episode).where(Episode.state == "verifying", Episode.verify_until <= now)
    found = list((await session.scalars(due)).all())
    for episode in found:
        close(episode, now)
    return found


async def hosts_of_episode(session: AsyncSession, episode: str) -> list[str]:
    """Hosts with an active alarm of the episode for which the page has not ended, in order; may be empty."""
    mine = select(Occurrence.host).where(
        Occurrence.episode_id == episode, Occurrence.ended == "", Occurrence.cleared_seen.is_(None)
    )
    return sorted(set(await session.scalars(mine)))


async def episode_of_run(session: AsyncSession, run: str) -> Episode | None:
    """The open episode that this flow run holds or was started for."""
    mine = select(Episode).where(Episode.state.in_(OPEN), or_(Episode.holder == run, Episode.run == run))
    return (await session.scalars(mine)).first()


def end_alarm(occurrence: Occurrence, outcome: str, now: datetime) -> None:
    """The page ended so for it; what it found cleared is so for the ledger, too."""
    occurrence.ended = outcome
    if outcome in REPAIRED and occurrence.cleared_seen is None:
        occurrence.cleared_seen = now
        occurrence.cleared_by = "person" if outcome == Outcome.CLEARED_BY_PERSON else "auto"


async def going_episode(session: AsyncSession, cluster_id: str, alarm_id: str, now: datetime) -> Episode | None:
    """The cluster's open episode; one whose verification is over is closed."""
    going = select(Episode).where(
        Episode.cluster_id == cluster_id, Episode.alarm_id == alarm_id, Episode.state.in_(OPEN)
    )
    episode = (await session.scalars(going)).first()
    if episode and episode.state == "verifying" and episode.verify_until and episode.verify_until <= now:
        close(episode, now)
        await session.flush()  # before another one may be open
        return None
    return episode


def _occurrence_of(
    session: AsyncSession, episode: Episode, part: Part, known: list[Occurrence], now: datetime
) -> Occurrence:
    """The occurrence a run followed; one that no source told of is made now."""
    found = the_one(part.alarm, [each for each in known if each.host == part.alarm.host])
    if found is None:
        found = Occurrence(
            id=token_hex(8),
            cluster_id=episode.cluster_id,
            alarm_id=episode.alarm_id,
            host=part.alarm.host,
            serial=part.alarm.serial,
            occurred=part.alarm.occurred,
            first_seen=now,
            last_seen=now,
        )
        session.add(found)
        known.append(found)
    found.serial, found.occurred = found.serial or part.alarm.serial, found.occurred or part.alarm.occurred
    return found
