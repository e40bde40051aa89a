"""What attempts have learned, what they set out to change, and what they were told meanwhile."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.episodes import Holding
from tasks.ledger.tables import Intent, Learned, Occurrence


async def learned(session: AsyncSession, attempt: str, key: str) -> str | None:
    """What the attempt learned under this key, as JSON; None: nothing yet."""
    row = await session.get(Learned, (attempt, key))
    return row.value if row else None


async def learn(session: AsyncSession, attempt: str, key: str, value: str, now: datetime) -> str:
    """Keep it, unless another process of the run did so before: then what that one learned counts."""
    known = await learned(session, attempt, key)
    if known is not None:
        return known
    session.add(Learned(attempt=attempt, key=key, value=value, at=now))
    return value


async def intent_of(session: AsyncSession, holding: Holding, step: str, target: str) -> Intent | None:
    """What the attempt set out to change there before, whether it has seen the end of that or not; None: nothing."""
    return await session.get(Intent, (holding.attempt, step, target))


async def command_known(session: AsyncSession, holding: Holding, step: str, target: str, command: str) -> None:
    """Manager answered with the command's id."""
    mine = update(Intent).where(Intent.attempt == holding.attempt, Intent.step == step, Intent.target == target)
    await session.execute(mine.values(command=command))


async def intent_ended(
    session: AsyncSession, holding: Holding, step: str, target: str, did: str, now: datetime
) -> None:
    """It was seen how the change ended."""
    mine = update(Intent).where(Intent.attempt == holding.attempt, Intent.step == step, Intent.target == target)
    await session.execute(mine.where(Intent.ended.is_(None)).values(ended=now, did=did))


async def begun_elsewhere(session: AsyncSession, cluster_id: str, attempt: str, since: datetime) -> Intent | None:
    """A change of this cluster that another attempt began since then and has not seen the end of; None: none."""
    others = select(Intent).where(
        Intent.cluster_id == cluster_id, Intent.attempt != attempt, Intent.ended.is_(None), Intent.at > since
    )
    return (await session.scalars(others.order_by(Intent.at))).first()


async def count_intents(
    session: AsyncSession, since: datetime, *, steps: Sequence[str], cluster_id: str = "", target: str = ""
) -> int:
    """How many changes were begun since then: of these steps, in this cluster (all), of this target (all)."""
    mine = select(func.count()).select_from(Intent).where(Intent.at > since, Intent.step.in_(steps))
    if cluster_id:
        mine = mine.where(Intent.cluster_id == cluster_id)
    if target:
        mine = mine.where(Intent.target == target)
    return int(await session.scalar(mine) or 0)


async def told_of(session: AsyncSession, holding: Holding) -> dict[str, Occurrence]:
    """Host name -> the newest occurrence of the episode that a source has told of."""
    mine = select(Occurrence).where(Occurrence.episode_id == holding.episode)
    return {each.host: each for each in await session.scalars(mine.order_by(Occurrence.first_seen))}
