"""What stops all changes: a person's brake, and the breaker that trips when many clusters alarm together."""

from datetime import datetime, timedelta
from secrets import token_hex

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.tables import Brake, Breaker, Cluster, Episode

TOGETHER = timedelta(minutes=15)  # of the clusters' time
SHARE, AT_LEAST = 0.2, 5
SAME_ACCOUNT = 3
SMALL_FLEET, OF_SMALL_FLEET = 5, 2


async def brake(session: AsyncSession, cluster: str, reason: str, by: str, now: datetime) -> None:
    """From now on nothing is changed in the cluster of this block; empty: in none."""
    session.add(Brake(cluster=cluster, reason=reason, by=by, since=now))


async def release(session: AsyncSession, cluster: str, reason: str, by: str, now: datetime) -> int:
    """Take back the brakes of this cluster (empty: those of all clusters); returns how many there were."""
    there = update(Brake).where(Brake.cluster == cluster, Brake.released.is_(None))
    done = await session.execute(there.values(released=now, released_by=by, released_reason=reason).returning(Brake.id))
    return len(done.all())


async def brakes(session: AsyncSession) -> list[Brake]:
    """The brakes that are on, the oldest first."""
    return list((await session.scalars(select(Brake).where(Brake.released.is_(None)).order_by(Brake.id))).all())


async def braked(session: AsyncSession, cluster: str) -> str:
    """Why nothing is changed in the cluster of this block; empty: no brake is on, and no breaker has tripped.

    Two blocks of one cluster are one cluster.
    """
    ids = select(Cluster.cluster_id).where(Cluster.name == cluster)
    blocks = {"", cluster, *await session.scalars(select(Cluster.name).where(Cluster.cluster_id.in_(ids)))}
    for each in await brakes(session):
        if each.cluster in blocks:
            where = f"changes of {each.cluster}" if each.cluster else "all changes"
            since = f"{each.since:%Y-%m-%d %H:%M} UTC"
            end = f"runbooks resume {each.cluster}".strip()
            return f"{each.by} has stopped {where} since {since} ({each.reason}); `{end}` ends it"
    tripped = await open_breaker(session)
    return stops(tripped) if tripped else ""


async def open_breaker(session: AsyncSession) -> Breaker | None:
    """The breaker that has tripped and was not reset; None: none."""
    return (await session.scalars(select(Breaker).where(Breaker.reset.is_(None)))).first()


async def reset_breaker(session: AsyncSession, reason: str, by: str, now: datetime) -> Breaker | None:
    """A person says that changes may go on; returns what had tripped, None: nothing had."""
    tripped = await open_breaker(session)
    if tripped is not None:
        tripped.reset, tripped.reset_by, tripped.reset_reason = now, by, reason
    return tripped


async def trip_if_shared(session: AsyncSession, cluster_id: str, now: datetime, speed: float) -> str:
    """Trip the breaker if so many clusters alarm together that the cause must be a shared one.

    That is 20 % of the fleet and at least 5 clusters within 15 minutes, 3 clusters of one account (agencies belong to
    an account), or 2 in a fleet of fewer than 5. What a person has reset does not count again.

    Returns:
        Why nothing is changed; empty: the cause is not shared.
    """
    last = await session.scalar(select(func.max(Breaker.reset)))
    since = max(now - TOGETHER / speed, last) if last else now - TOGETHER / speed
    fleet = {row.cluster_id: row for row in await session.scalars(select(Cluster).where(Cluster.gone.is_(None)))}
    opened = await session.execute(
        select(Episode.cluster_id, Episode.cluster).where(Episode.opened > since, Episode.backlog == "").distinct()
    )
    alarmed = {id_: name for id_, name in opened if id_ in fleet}
    account = fleet[cluster_id].account if cluster_id in fleet else ""  # its own alarm may be older
    sharing = {id_: name for id_, name in alarmed.items() if account and fleet[id_].account == account}
    why = ""
    if len(fleet) < SMALL_FLEET:
        if len(alarmed) >= OF_SMALL_FLEET:
            why = f"{len(alarmed)} of {len(fleet)} clusters"
    elif len(alarmed) >= max(AT_LEAST, SHARE * len(fleet)):
        why = f"{len(alarmed)} of {len(fleet)} clusters"
    if not why and len(sharing) >= SAME_ACCOUNT:
        why, alarmed = f"{len(sharing)} clusters of account {account}", sharing
    if not why:
        return ""
    tripped = Breaker(
        id=f"{now:%Y%m%d}-{token_hex(4)}",
        since=now,
        why=f"{why} alarmed within 15 minutes: their cause may be a shared one",
        clusters="\n".join(sorted(alarmed.values())),
    )
    session.add(tripped)
    return stops(tripped)


def stops(tripped: Breaker) -> str:
    """Why nothing is changed while this breaker is open."""
    return (
        f"the breaker has tripped ({tripped.why}); see its incident ticket, `runbooks breaker reset` lets changes go on"
    )
