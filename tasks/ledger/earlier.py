"""What earlier runs of a cluster left."""

from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.observing import REPAIRED
from tasks.ledger.tables import Episode, Occurrence
from tasks.models import Frozen, Outcome


class HandedOver(Frozen):
    """An active alarm for which the page has ended so before."""

    host: str
    serial: str
    occurred: datetime | None
    ended: str
    cleared_seen: datetime | None = None


async def earlier_runs(session: AsyncSession, episode: Episode) -> tuple[dict[str, str], list[HandedOver]]:
    """What earlier runs left: traces that ended in END in this episode, and active alarms that a person has."""
    ended = select(Occurrence).where(
        Occurrence.cluster_id == episode.cluster_id,
        Occurrence.alarm_id == episode.alarm_id,
        Occurrence.ended != "",
        or_(Occurrence.cleared_seen.is_(None), Occurrence.episode_id == episode.id),
    )
    repaired: dict[str, str] = {}
    handed_over: list[HandedOver] = []
    for each in (await session.scalars(ended.order_by(Occurrence.first_seen))).all():
        if each.episode_id == episode.id and each.ended == Outcome.END:
            repaired[each.host] = each.trace
        elif each.episode_id == episode.id and each.ended not in REPAIRED:
            repaired.pop(each.host, None)
        if each.cleared_seen is None and each.ended not in REPAIRED:
            handed_over.append(HandedOver(host=each.host, serial=each.serial, occurred=each.occurred, ended=each.ended))
    return repaired, handed_over
