"""How the clusters' modes changed, as whoever reads their blocks sees it."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.fleet_tables import ModeChange

Modes = Mapping[str, str]  # of the cluster, of a restart, of a rebind: as the block says it
AT_ONCE = 5_000  # clusters that are asked about in one statement


async def note_modes(session: AsyncSession, modes: Mapping[str, Modes], now: datetime) -> list[ModeChange]:
    """Keep what is not as it was last known; returns it. The old mode of a cluster that was not known is empty.

    Args:
        modes: those of some clusters, by the names of their blocks.
    """
    names, last = list(modes), dict[tuple[str, str], str]()
    for first in range(0, len(names), AT_ONCE):
        mine = select(ModeChange).where(ModeChange.cluster.in_(names[first : first + AT_ONCE]))
        for each in await session.scalars(mine.order_by(ModeChange.at)):
            last[each.cluster, each.what] = each.new
    changes = [
        ModeChange(cluster=cluster, what=what, at=now, old=last.get((cluster, what), ""), new=mode)
        for cluster, own in modes.items()
        for what, mode in own.items()
        if last.get((cluster, what)) != mode
    ]
    session.add_all(changes)
    return changes


async def mode_changes(session: AsyncSession, cluster: str, limit: int) -> Sequence[ModeChange]:
    """The last changes of a cluster's modes, the newest last; the first sight of it is none."""
    mine = select(ModeChange).where(ModeChange.cluster == cluster, ModeChange.old != "")
    newest = mine.order_by(ModeChange.at.desc(), ModeChange.what).limit(limit)
    return (await session.scalars(newest)).all()[::-1]
