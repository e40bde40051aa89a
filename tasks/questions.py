"""A question is put to a person by a form in the Prefect UI, and the run that asks becomes a row; and its answer.

The form is in Prefect before the run is suspended, and the question in the ledger before that: whatever dies in
between, the run begun anew finds an answer or puts the question again.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from prefect.input.actions import aread_flow_run_input
from prefect.input.run_input import keyset_from_base_key, keyset_from_paused_state
from prefect.states import Suspended
from prefect.utilities.engine import propose_state
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from tasks import timing
from tasks.artifacts import publish_open_episodes
from tasks.claims import noted
from tasks.clients.http import on_this_machine
from tasks.errors import ConfigurationError
from tasks.forms import WHAT, action_of, form_of, said, words
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import Decision, decide, put
from tasks.ledger.episodes import Holding, let_go
from tasks.loading import faults_of
from tasks.models import Case
from tasks.notifications import notify
from tasks.waits import insist

STOPPED_WITHIN = 30.0  # seconds in which a run that is being cancelled is stopped

logger = logging.getLogger("runbooks")


async def ask(case: Case, question: Callable[[Holding], Approval], told: Sequence[str]) -> NoReturn:
    """Put the question, and become a row.

    Args:
        question: what is asked by a run that holds this.
        told: who else is told, as in `notify`.

    Raises:
        Pause: always; the run is begun anew when somebody has answered, or nobody in time.
    """
    asked, state = await insist("the question", lambda: _suspended(case, question))
    if not state.is_paused():  # a person cancels the run, and somebody stops it
        await timing.pause(STOPPED_WITHIN)
        raise Pause
    if told and (not asked.link or on_this_machine(urlsplit(asked.link).hostname or "")):
        what = "the link that people are sent (%s) is of no use on another machine: set PREFECT_UI_URL of the workers"
        logger.warning(what, asked.link or "none")
    await notify(told, f"{WHAT[action_of(asked)]}? {asked.cluster}", f"{words(asked)}\n\n{asked.link}")
    await publish_open_episodes(case)  # it may be days until a run ends
    raise Pause(state=state)


async def _suspended(case: Case, question: Callable[[Holding], Approval]) -> tuple[Approval, State[Any]]:
    """The question as it was put, and the run's state then."""
    asked = await noted(case, lambda session, mine: put(session, mine, question(mine)))
    # Without a time of Prefect's own: a suspension that times out fails, and no code of ours runs.
    message = f"A person is asked, until {asked.expires:%Y-%m-%d %H:%M:%S} UTC: Resume shows what."
    suspended: State[Any] = Suspended(message=message, timeout_seconds=None, pause_key=asked.key)
    keyset = keyset_from_paused_state(suspended)
    suspended.state_details.run_input_keyset = dict(keyset.items())
    await form_of(asked).with_initial_data(description=words(asked)).asave(keyset, UUID(case.run))
    await noted(case, let_go)  # before the state, for somebody may answer at once
    async with get_client() as client:
        return asked, await propose_state(client, suspended, flow_run_id=UUID(case.run))


async def answer_to(case: Case, asked: Approval) -> Decision | None:
    """What was decided, in the ledger or by the form that the run came back from; None: nothing yet.

    Raises:
        ConfigurationError: the form says what cannot be taken: the question is to be put again.
    """
    if asked.decision:
        return _decision(asked)
    now, answer = timing.wall(), None
    try:
        answer = await _filled_in(case, asked)
    except ValidationError as error:
        if asked.expires > now:
            raise ConfigurationError(f"the answer was not taken ({faults_of(error)})") from error
    if answer is None and asked.expires > now:
        return None
    late = Decision("expired", "nobody", "the answer came too late" if answer else "the time is over")

    async def write(session: AsyncSession, mine: Holding) -> Approval | None:
        if answer is None or not await decide(session, asked, answer, now):
            await decide(session, asked, late, now)
        return await session.get(Approval, (asked.attempt, asked.step, asked.kind))

    found = await noted(case, write)
    return _decision(found) if found is not None else None


def _decision(asked: Approval) -> Decision:
    return Decision(asked.decision, asked.by, asked.channel, asked.comment, asked.not_before)  # type: ignore[arg-type]


async def _filled_in(case: Case, asked: Approval) -> Decision | None:
    """What the form says; None: nobody has filled it in, and the run goes on for another reason."""
    key = keyset_from_base_key(f"suspended-{asked.key}")["response"]
    filled = await insist("to be asked for an answer", lambda: aread_flow_run_input(key, flow_run_id=UUID(case.run)))
    return said(asked, filled) if filled else None
