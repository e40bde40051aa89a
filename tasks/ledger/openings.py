"""Which episodes are open, and what each of them waits for: what `runbooks status` and the Prefect UI show."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import ASKED
from tasks.ledger.lifecycle import OPEN
from tasks.ledger.tables import Episode, Occurrence, Wait

STATES = {
    "raised": "waits for a run",
    "running": "a run is at work",
    "waiting": "its run waits",
    "verifying": "done, a relapse would continue it",
    "closed": "over",
}


@dataclass(frozen=True)
class Open:
    """An open episode.

    Attributes:
        hosts: whose alarms it is about, cleared or not; may be empty, where a person started it.
        wait: its run's, that ends next; None: it waits for none.
        question: what a person is asked; None: nothing.
    """

    episode: Episode
    hosts: Sequence[str]
    wait: Wait | None = None
    question: Approval | None = None

    @property
    def state(self) -> str:
        """In words."""
        return "a person is asked" if self.question else STATES[self.episode.state]

    @property
    def until(self) -> datetime | None:
        """When what it waits for is over; None: nothing is."""
        if self.question:
            return self.question.expires
        return self.wait.deadline if self.wait else self.episode.verify_until

    @property
    def waits_for(self) -> str:
        """For what, and until when; empty: for nothing."""
        if self.question:
            what = f"a person: {self.question.action}, {self.question.kind}"
        elif self.wait:
            what = f"step {self.wait.step}"
        else:
            what = {"raised": "a run", "verifying": "a relapse"}.get(self.episode.state, "")
        return what + (f", until {self.until:%Y-%m-%d %H:%M:%S} UTC" if self.until else "")


async def how_many_open(session: AsyncSession) -> int:
    """How many episodes are open."""
    return int(await session.scalar(select(func.count()).where(Episode.state.in_(OPEN))) or 0)


async def open_episodes(session: AsyncSession, most: int | None = None, *, cluster_id: str | None = None) -> list[Open]:
    """The open episodes, those first of which a person is asked, then the oldest.

    Args:
        most: no more than so many; None: all.
        cluster_id: only of this cluster; None: of all.
    """
    asked = exists().where(*ASKED)
    open_ = select(Episode).where(Episode.state.in_(OPEN)).order_by(asked.desc(), Episode.opened).limit(most)
    if cluster_id is not None:
        open_ = open_.where(Episode.cluster_id == cluster_id)
    episodes = (await session.scalars(open_)).all()
    ids = [each.id for each in episodes]
    told = select(Occurrence.episode_id, Occurrence.host).where(Occurrence.episode_id.in_(ids)).distinct()
    hosts: dict[str, list[str]] = {}
    for episode, host in (await session.execute(told.order_by(Occurrence.host))).all():
        hosts.setdefault(str(episode), []).append(host)
    waiting = [each.id for each in episodes if each.state == "waiting"]
    begun = select(Wait).where(Wait.ended.is_(None), Wait.episode_id.in_(waiting)).order_by(Wait.deadline.desc())
    waits = {each.episode_id: each for each in await session.scalars(begun)}  # of several the one that ends first
    put = select(Approval).where(*ASKED, Episode.id.in_(ids))
    questions = {each.episode_id: each for each in await session.scalars(put)}
    return [Open(each, hosts.get(each.id, []), waits.get(each.id), questions.get(each.id)) for each in episodes]
