"""Which routes answer for a cluster: kept when they are asked, read by the gate of those who need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.fleet_tables import RouteAnswer
from tasks.ledger.tables import Intent

MOST_SAID = 200  # letters


@dataclass(frozen=True)
class Asked:
    """A route that was asked.

    Attributes:
        call: service, method and path; another call is another route.
        answered: with something of use.
        said: its answer in a few words.
    """

    name: str
    call: str
    rating: str
    answered: bool
    said: str


async def keep_answers(session: AsyncSession, cluster: str, asked: Sequence[Asked], now: datetime) -> None:
    """Write down what these routes of a cluster answered; one that answered before by the same call has answered."""
    for each in asked:
        row = await session.get(RouteAnswer, (cluster, each.name))
        if row is None:
            row = RouteAnswer(cluster=cluster, name=each.name, call=each.call, rating=each.rating, asked=now, said="")
            session.add(row)
        if row.call != each.call:
            row.call, row.answered = each.call, None
        row.rating, row.asked, row.said = each.rating, now, each.said[:MOST_SAID]
        row.answered = now if each.answered else row.answered


async def answers_of(session: AsyncSession, cluster: str) -> dict[str, RouteAnswer]:
    """The routes of this cluster that were ever asked, by name."""
    mine = select(RouteAnswer).where(RouteAnswer.cluster == cluster)
    return {row.name: row for row in await session.scalars(mine)}


async def never_answered(session: AsyncSession, cluster: str, calls: Mapping[str, str]) -> list[RouteAnswer]:
    """Those of these routes that were asked by this very call and never answered, in this order.

    Args:
        calls: name -> service, method and path.
    """
    known = await answers_of(session, cluster)
    asked = [known[name] for name, call in calls.items() if name in known and known[name].call == call]
    return [row for row in asked if row.answered is None]


async def forget_answers(session: AsyncSession, cluster: str) -> None:
    """Forget what the routes of this cluster answered, as if they had never been asked."""
    await session.execute(delete(RouteAnswer).where(RouteAnswer.cluster == cluster))


async def was_restarted(session: AsyncSession, cluster_id: str) -> bool:
    """Whether Manager has ever taken a restart of ours in this cluster: it named the command."""
    mine = select(func.count()).select_from(Intent)
    taken = mine.where(Intent.cluster_id == cluster_id, Intent.step == "3", Intent.command != "")
    return bool(await session.scalar(taken))
