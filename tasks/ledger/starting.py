"""Which episodes need a run, a wake or a look, and what became of that."""

from datetime import datetime, timedelta

from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.episodes import LEASE, Holding, end_alarm
from tasks.ledger.lifecycle import close, needs_a_run
from tasks.ledger.tables import Episode, Occurrence, Wait
from tasks.models import Outcome

SETTLING = LEASE  # a run is not looked for before
LATE = LEASE / 6  # after its lease a holder has so long to renew
LATELY = timedelta(minutes=10)
MOST_RUNS = 5  # times that a run is begun, deaths and all; then a person is told


async def to_start(session: AsyncSession, limit: int) -> list[Episode]:
    """Episodes whose current run does not exist yet, the oldest first."""
    waiting = select(Episode).where(Episode.state == "raised", Episode.run.is_(None))
    return list((await session.scalars(waiting.order_by(Episode.raised).limit(limit))).all())


def run_key(episode: str, n: int) -> str:
    """By which Prefect knows the run of an episode's number; it takes a key for one run only."""
    return f"{episode}:{n}"


async def started_by_alarm(session: AsyncSession, holding: Holding, key: str) -> bool:
    """Whether a run of this key was started for the alarms of the episode that it holds, and not by a person.

    The run that an episode names says nothing of that: a person's run is written there, too.
    """
    episode = await session.get(Episode, holding.episode)
    return episode is not None and key in {run_key(episode.id, n) for n in range(1, episode.n + 1)}


async def started(session: AsyncSession, episode: str, n: int, run: str) -> bool:
    """Write down the run of an episode's number; False: it is at another number by now."""
    mine = update(Episode).where(Episode.id == episode, Episode.n == n, Episode.state != "closed")
    runs = case((Episode.run.is_(None), Episode.runs + 1), else_=Episode.runs)  # two dispatchers are told of one run
    done = await session.execute(mine.values(run=run, runs=runs).returning(Episode.id))
    return done.first() is not None


async def to_wake(session: AsyncSession, now: datetime) -> list[Episode]:
    """Episodes for which a clear came while their run waits, or was about to when it died. One at work looks itself."""
    rests = or_(Episode.state == "waiting", and_(Episode.state == "running", Episode.lease < now))
    return list((await session.scalars(select(Episode).where(Episode.wake, rests))).all())


async def woken(session: AsyncSession, seen: Episode) -> None:
    """The clear has been passed on; one that came after the run was at work again stays."""
    await session.execute(update(Episode).where(Episode.id == seen.id, Episode.token == seen.token).values(wake=False))


async def overdue(session: AsyncSession, now: datetime) -> timedelta:
    """How long ago the oldest wait should have ended whose run still waits; zero where none is overdue."""
    waits = select(func.min(Wait.deadline)).join(Episode, Episode.id == Wait.episode_id)
    oldest = await session.scalar(waits.where(Wait.ended.is_(None), Episode.state == "waiting"))
    return max(now - oldest, timedelta(0)) if oldest else timedelta(0)


async def suspects(session: AsyncSession, now: datetime) -> list[Episode]:
    """Episodes whose run may be dead: it was started and holds nothing yet, its lease or its wait is over."""
    idle = and_(Episode.state == "raised", Episode.run.is_not(None), Episode.raised < now - SETTLING)
    lost = and_(Episode.state == "running", Episode.lease < now - LATE)
    over = select(Wait.episode_id).where(Wait.ended.is_(None), Wait.deadline < now)
    late = and_(Episode.state == "waiting", Episode.id.in_(over))
    return list((await session.scalars(select(Episode).where(or_(idle, lost, late)))).all())


async def waiting(session: AsyncSession, *, after: str, most: int) -> list[Episode]:
    """So many of the episodes whose run waits, in the order of their ids: a run that waits may be cancelled or gone.

    Args:
        after: only those with a greater id.
    """
    rest = select(Episode).where(Episode.state == "waiting", Episode.id > after).order_by(Episode.id).limit(most)
    return list((await session.scalars(rest)).all())


async def through(session: AsyncSession, now: datetime) -> list[Episode]:
    """Episodes whose run came to its end a while ago: its state should say so, unless its worker died right then."""
    ended = and_(Episode.state == "verifying", Episode.run.is_not(None), Episode.outcome != "")
    lately = and_(Episode.state == "closed", Episode.closed > now - LATELY, Episode.run.is_not(None))
    return list((await session.scalars(select(Episode).where(or_(ended, lately)))).all())


async def traces_of(session: AsyncSession, episode: str) -> dict[str, str]:
    """Host name -> the trace that the page has left for it in this episode, the last one of each host."""
    mine = select(Occurrence).where(Occurrence.episode_id == episode, Occurrence.trace != "")
    return {each.host: each.trace for each in await session.scalars(mine.order_by(Occurrence.first_seen))}


async def start_again(session: AsyncSession, seen: Episode, now: datetime, *, same_run: bool) -> bool:
    """The episode's run is dead: it needs one again. False: it is no longer as it was seen.

    Args:
        same_run: the run (`holder`, else `run`) exists and is scheduled anew: it goes on where it was. Else the episode
            gets the next number, and begins the page.
    """
    row = await _still(session, seen)
    if row is None:
        return False
    if same_run:
        row.run, row.runs = row.holder or row.run, row.runs + 1  # a person's run may have held it
        row.state, row.raised, row.lease = "waiting" if row.holder else "raised", now, None
        row.token += bool(row.holder)  # the segment may only have stood still: it changes nothing more
    else:
        runs = row.runs
        needs_a_run(row, now)
        row.runs = runs
    return True


async def give_up(session: AsyncSession, seen: Episode, outcome: Outcome, now: datetime) -> bool:
    """The run is over and has not settled its episode: its alarms end with this word. False: it is not as it was seen.

    The episode is closed, unless the run came to an end of the page and an active alarm came too late for it: another
    run follows then.
    """
    row = await _still(session, seen)
    if row is None:
        return False
    taken, late, ended_well = row.claimed or now, False, outcome not in (Outcome.ERROR, Outcome.CANCELLED)
    mine = select(Occurrence).where(Occurrence.episode_id == row.id, Occurrence.ended == "")
    for occurrence in await session.scalars(mine):
        if ended_well and occurrence.cleared_seen is None and occurrence.first_seen > taken:
            late = True
        else:
            end_alarm(occurrence, outcome, now)
    row.acted = False
    if late:
        row.outcome = outcome
        needs_a_run(row, now)
    else:
        close(row, now, outcome)
    return True


async def _still(session: AsyncSession, seen: Episode) -> Episode | None:
    """The episode, if nobody has taken it up, renewed its lease or started a run of it meanwhile."""
    row = await session.get(Episode, seen.id)
    same = row is not None and (row.state, row.n, row.runs, row.token, row.lease) == (
        seen.state,
        seen.n,
        seen.runs,
        seen.token,
        seen.lease,
    )
    return row if same else None
