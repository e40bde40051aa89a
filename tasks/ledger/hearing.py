"""What the sources told of each cluster, and when."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.tables import Cluster, ObservationRow, Poll, SourceRow

OF_OTHERS = ("sweep", "command")  # what a sweep finds, and what people tell: of no source
OURS = ("poll", *OF_OTHERS)  # and what the intake asks for


@dataclass
class Heard:
    """What was heard of a cluster within the last month.

    Attributes:
        told: source -> when it last told of an alarm of this cluster.
        syslog: when those who told of it by syslog were last heard, whatever they said; None: nobody told.
        repeated: when syslog last told again of an alarm that was known as active.
        polled: when its alarm list was last read; `offered` whether there is one; None: never read.
    """

    told: dict[str, datetime] = field(default_factory=dict)
    syslog: datetime | None = None
    repeated: datetime | None = None
    polled: datetime | None = None
    offered: bool | None = None


async def last_told(session: AsyncSession) -> dict[str, datetime]:
    """Id of a cluster in the cloud -> when a source last told of its alarms within the last month; of the whole fleet.

    A reading of its alarm list counts, what a sweep found does not. All of it is read: no index is by cluster.
    """
    rows = select(ObservationRow.cluster_id, func.max(ObservationRow.at)).group_by(ObservationRow.cluster_id)
    rows = rows.where(ObservationRow.source.not_in(OF_OTHERS))
    return {row[0]: row[1] for row in await session.execute(rows)}


async def heard_of(session: AsyncSession, clusters: Collection[str]) -> dict[str, Heard]:
    """Id of each of these clusters in the cloud -> what was heard of it."""
    found = {each: Heard() for each in clusters}
    row = ObservationRow
    rows = select(row.cluster_id, row.source, row.peer, row.kind, row.duplicate, func.max(row.at))
    rows = rows.where(row.source.not_in(OURS))
    if len(found) == 1:
        rows = rows.where(row.cluster_id.in_(found))
    peers = {
        row.peer: row.heard for row in await session.scalars(select(SourceRow).where(SourceRow.source == "syslog"))
    }
    grouped = rows.group_by(row.cluster_id, row.source, row.peer, row.kind, row.duplicate)
    for cluster_id, source, peer, kind, duplicate, at in await session.execute(grouped):
        if (heard := found.get(cluster_id)) is None:
            continue
        heard.told[source] = max(at, heard.told.get(source, at))
        if source == "syslog":
            heard.syslog = max(at, peers.get(peer, at), heard.syslog or at)
            heard.repeated = max(at, heard.repeated or at) if duplicate and kind == "raised" else heard.repeated
    polls = select(Cluster.cluster_id, Poll.answered, Poll.offered).join(Poll, Poll.cluster == Cluster.name)
    for cluster_id, answered, offered in await session.execute(polls.order_by(Poll.answered)):
        if cluster_id in found and answered is not None:
            found[cluster_id].polled, found[cluster_id].offered = answered, offered
    return found
