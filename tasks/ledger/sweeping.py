"""Sweeps in the ledger: who is at one, what it saw, and what is to follow."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.episodes import LEASE, going_episode
from tasks.ledger.fleet_tables import Sweep, Swept
from tasks.ledger.lifecycle import needs_a_run, open_episode
from tasks.ledger.tables import Cluster, Occurrence

KEPT = timedelta(days=90)


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
