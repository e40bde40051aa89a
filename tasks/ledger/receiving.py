"""What the intake keeps beside the alarms: clusters, rejections, sources, message ids, its own life."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.tables import Cluster, IntakeRow, Learned, Message, ObservationRow, Poll, Rejection, SourceRow

OUTAGE = timedelta(minutes=10)
SILENT = timedelta(seconds=60)  # an intake says every ten seconds that it lives
MOST_REJECTIONS = 10_000
KEPT = timedelta(days=30)  # observations and rejections; occurrences and episodes stay


@dataclass(frozen=True)
class Rejected:
    """Something that could not be used: why, and the beginning of it."""

    source: str
    peer: str
    reason: str
    why: str
    excerpt: str


async def reject(session: AsyncSession, rejected: Sequence[Rejected], now: datetime) -> None:
    """Keep what could not be used; the same from the same peer is counted, not kept again."""
    ids = {each: _id(each) for each in rejected}
    known = {row.id: row for row in await session.scalars(select(Rejection).where(Rejection.id.in_(ids.values())))}
    for each in rejected:
        row = known.get(ids[each])
        if row is None:
            row = known[ids[each]] = Rejection(
                id=ids[each],
                source=each.source,
                peer=each.peer,
                reason=each.reason,
                why=each.why,
                excerpt=each.excerpt,
                first=now,
                last=now,
                times=0,
            )
            session.add(row)
        row.times += 1
        row.last = now


def _id(rejected: Rejected) -> str:
    parts = (rejected.source, rejected.peer, rejected.reason, rejected.why, rejected.excerpt)
    return sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


async def rejections(session: AsyncSession, limit: int) -> list[Rejection]:
    """What could not be used, the last first."""
    return list((await session.scalars(select(Rejection).order_by(Rejection.last.desc()).limit(limit))).all())


async def heard(session: AsyncSession, voices: set[tuple[str, str]], now: datetime) -> None:
    """These sources and peers are alive."""
    for source, peer in voices:
        row = await session.get(SourceRow, (source, peer))
        if row is None:
            session.add(SourceRow(source=source, peer=peer, heard=now))
        else:
            row.heard = now


async def first_time(session: AsyncSession, source: str, message_id: str, now: datetime) -> bool:
    """Whether this id is new; from now on it is not."""
    if await session.get(Message, (source, message_id)) is not None:
        return False
    session.add(Message(source=source, id=message_id, at=now))
    await session.flush()
    return True


async def sync_clusters(session: AsyncSession, found: Sequence[Cluster], now: datetime) -> None:
    """Make the table say what Prefect's blocks say; a cluster that is missing now is marked as gone."""
    known = {row.name: row for row in await session.scalars(select(Cluster))}
    polls = set(await session.scalars(select(Poll.cluster)))
    for cluster in found:
        row = known.pop(cluster.name, None)
        if row is None:
            session.add(cluster)
        else:
            row.cluster_id, row.source, row.speed = cluster.cluster_id, cluster.source, cluster.speed
            row.connected, row.gone = cluster.connected, None
            row.account, row.agency, row.tickets = cluster.account, cluster.agency, cluster.tickets
        if cluster.name not in polls:
            session.add(Poll(cluster=cluster.name, due=now))
    for row in known.values():
        row.gone = row.gone or now


async def clusters(session: AsyncSession) -> list[Cluster]:
    """The cluster blocks as last read, without those that are gone."""
    return list((await session.scalars(select(Cluster).where(Cluster.gone.is_(None)).order_by(Cluster.name))).all())


async def intake_started(session: AsyncSession, id_: str, now: datetime) -> datetime | None:
    """An intake begins; returns since when none was alive, if that is an outage, else None."""
    last = await session.scalar(select(func.max(IntakeRow.alive)))
    gap = last if last is not None and now - last > OUTAGE else None
    session.add(IntakeRow(id=id_, started=now, alive=now, gap_from=gap))
    return gap


async def intake_alive(session: AsyncSession, id_: str, now: datetime) -> None:
    """An intake lives on."""
    await session.execute(update(IntakeRow).where(IntakeRow.id == id_).values(alive=now))


async def intakes_alive(session: AsyncSession, now: datetime) -> bool:
    """Whether an intake is at work, so that runs that died are begun anew."""
    return bool(await session.scalar(select(func.count()).where(IntakeRow.alive > now - SILENT)))


async def prune(session: AsyncSession, now: datetime) -> None:
    """Forget what is too old to be of use."""
    await session.execute(delete(ObservationRow).where(ObservationRow.at < now - KEPT))
    await session.execute(delete(Rejection).where(Rejection.last < now - KEPT))
    await session.execute(delete(Message).where(Message.at < now - KEPT))
    await session.execute(delete(SourceRow).where(SourceRow.heard < now - KEPT))  # a sender's address may be forged
    # What a run learned is of use while it lives, and an alarm that a person has may stay for long.
    await session.execute(delete(Learned).where(Learned.at < now - KEPT))
    await session.execute(delete(IntakeRow).where(IntakeRow.alive < now - KEPT))
    # By their ids, for many may be of the same moment.
    kept = select(Rejection.id).order_by(Rejection.last.desc(), Rejection.id).limit(MOST_REJECTIONS)
    await session.execute(delete(Rejection).where(Rejection.id.not_in(kept)))
