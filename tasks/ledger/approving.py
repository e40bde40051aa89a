"""A person is asked, and decides once: whoever is first counts, a person, the clock, or another person."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.approval_tables import Approval
from tasks.ledger.episodes import Holding
from tasks.ledger.lifecycle import OPEN
from tasks.ledger.tables import Episode

# What a person is being asked: undecided, of an open episode, and of the run that holds it.
ASKED = (
    Approval.episode_id == Episode.id,
    Approval.run == Episode.holder,
    Approval.decision == "",
    Episode.state.in_(OPEN),
)

Question = Literal["approve", "by hand"]
Decided = Literal["approved", "rejected", "expired", "done", "could not"]


@dataclass(frozen=True)
class Decision:
    """What somebody said.

    Attributes:
        by: who; `channel` is how that is known, in words.
        not_before: an approval counts from then on; None: at once.
    """

    decided: Decided
    by: str
    channel: str
    comment: str = ""
    not_before: datetime | None = None


async def question_of(session: AsyncSession, holding: Holding, step: str, kind: Question) -> Approval | None:
    """What the attempt asked at this step, and what came of it; None: it has not asked."""
    return await session.get(Approval, (holding.attempt, step, kind))


async def put(session: AsyncSession, holding: Holding, question: Approval) -> Approval:
    """Write the question down before it is put; put again it gets the next number, and keeps its time."""
    there = await session.get(Approval, (holding.attempt, question.step, question.kind))
    if there is None:
        session.add(question)
        there = question
    else:
        there.targets, there.why, there.four_eyes = question.targets, question.why, question.four_eyes
    there.n += 1
    there.key = f"{there.kind.replace(' ', '-')}-{there.step}-{there.n}"
    return there


async def decide(session: AsyncSession, question: Approval, decision: Decision, now: datetime) -> bool:
    """Write down what was decided; False: it was decided before, or its time is over. Whoever writes does so alone."""
    row = await session.get(Approval, (question.attempt, question.step, question.kind))
    if row is None or row.decision or (decision.decided != "expired" and row.expires <= now):
        return False
    row.decision, row.by, row.channel = decision.decided, decision.by, decision.channel
    row.comment, row.not_before, row.decided = decision.comment, decision.not_before, now
    return True


async def open_questions(session: AsyncSession) -> list[Approval]:
    """What persons are being asked, of episodes that are open, the oldest first."""
    return list((await session.scalars(select(Approval).where(*ASKED).order_by(Approval.asked))).all())


async def answered(session: AsyncSession) -> list[Approval]:
    """Questions that were decided while their run is still a row that waits for that."""
    asked = select(Approval).join(Episode, Episode.id == Approval.episode_id)
    mine = asked.where(Approval.decision != "", Episode.state == "waiting", Episode.holder == Approval.run)
    return list((await session.scalars(mine)).all())
