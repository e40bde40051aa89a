"""What a run set out to change: written down before, and when it was seen how it ended."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from tasks import timing
from tasks.claims import holds, looked_up, noted
from tasks.ledger.episodes import Holding, still_holds
from tasks.ledger.learning import command_known, intent_ended, intent_of
from tasks.models import Case


@dataclass(frozen=True)
class Begun:
    """A change that this run set out to make before it was begun anew: it may have been made or not.

    Attributes:
        at: when it was about to be sent, by our clock.
        before: what the target was like then, as JSON.
        command: Manager's id of it, of a bind the cloud's id of the request; empty: its answer is not known.
    """

    at: datetime
    before: str
    command: str


async def begun_before(case: Case, step: str, target: str) -> Begun | None:
    """The change of this target that was begun before; None: there is none.

    Also one that was seen to its end: a process may die just after it has written so, and what it learned dies with it.
    """
    if not holds(case):
        return None
    intent = await looked_up(case, lambda session, mine: intent_of(session, mine, step, target))
    return Begun(intent.at, intent.before, intent.command) if intent else None


async def command_is(case: Case, step: str, target: str, command: str) -> None:
    """Manager has answered with the command's id, or the cloud with that of the request."""
    if holds(case):
        await noted(case, lambda session, mine: command_known(session, mine, step, target, command))


async def seen_to_its_end(case: Case, step: str, target: str, did: str) -> None:
    """It was seen how the change ended, if one was begun; not by a run that was taken over."""

    async def write(session: AsyncSession, mine: Holding) -> None:
        if await still_holds(session, mine):
            await intent_ended(session, mine, step, target, did, timing.wall())

    if holds(case):
        await noted(case, write)
