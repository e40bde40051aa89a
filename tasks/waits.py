"""Waiting costs a row: a run that waits ends its process, and any worker begins it anew when the wait is over.

A run of a deployment sets itself to `AwaitingRetry` and leaves by `Pause`; it comes back by its deadline or because the
intake wakes it, and carries out the flow from the beginning, with what it has learned (see `tasks.journal`). A run
without a deployment (a notebook, a test) waits in place, and so do waits that are hardly longer than starting anew.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas import OrchestrationResult
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Pause, PrefectHTTPStatusError
from prefect.runtime import deployment
from prefect.settings import PREFECT_WORKER_PREFETCH_SECONDS
from prefect.states import AwaitingRetry, Cancelled

from tasks import timing
from tasks.claims import goes_on_elsewhere, holds, noted
from tasks.errors import LedgerUnavailable
from tasks.ledger.episodes import let_go, wait_begun, wait_ended
from tasks.models import Case

AHEAD = timedelta(seconds=5)  # a run must not be picked up, by a worker that looks ahead, before it has let go
WAITING = "AwaitingRetry"
NO_ERRORS = tuple(f"Finished in state {name}" for name in (WAITING, "Running", "Suspended"))
ASK_AGAIN = 5.0  # seconds, while Prefect does not answer
AWAY = (httpx.HTTPError, PrefectHTTPStatusError, OSError)
T = TypeVar("T")

logger = logging.getLogger("runbooks")


async def deadline(case: Case, step: str, until: datetime) -> datetime:
    """When the wait at this step of the page ends: what the ledger has, else `until`, fixed there from now on."""
    if not holds(case):
        return until
    return await noted(case, lambda session, mine: wait_begun(session, mine, step, until))


async def ended(case: Case, step: str) -> None:
    """The wait at this step is over."""
    if holds(case):
        await noted(case, lambda session, mine: wait_ended(session, mine, step, timing.wall()))


async def looks(case: Case, until: datetime, *, every: float, speed: float) -> AsyncIterator[datetime]:
    """Yield the time now and a last time at `until`; in between whenever the run is woken, or every `every` seconds.

    The loop body looks at the world.

    Args:
        every: seconds of the cluster's time, for a run that waits in place.
        speed: how much faster the cluster's time runs (1, but for the emulator); `until` has it already.

    Raises:
        Pause: the run is a row now, and this process has nothing more to do with it.
    """
    async for moment in timing.looks(until, every=every, speed=speed):
        yield moment
        if deployment.id and holds(case) and until - timing.now() > short():
            state = await _become_a_row(case, until)
            if state:
                raise Pause(state=state)


def short() -> timedelta:
    """What a wait must be longer than to be worth a row: as long as workers look ahead, and a little."""
    return timedelta(seconds=PREFECT_WORKER_PREFETCH_SECONDS.value()) + AHEAD


async def _become_a_row(case: Case, until: datetime) -> State[Any] | None:
    """None: it is being cancelled, so it waits here for whoever stops it.

    Raises:
        Pause: another segment of the run has taken it over.
    """
    if await goes_on_elsewhere(case):
        raise Pause  # the segment that has gone on says what becomes of the run
    async with get_client() as client:
        state = await insist(f"the wait until {until}", lambda: _wait(client, UUID(case.run), until))
        if state is None or state.name != WAITING:
            return state
        try:
            # Only now: a worker that begins it anew must not find it held, and a clear that came before must wake it.
            if await noted(case, let_go):
                await _wait(client, UUID(case.run), timing.now())
        except LedgerUnavailable as error:  # its lease ends by itself
            logger.warning("the ledger does not know that this run waits: %s", error)
        except AWAY as error:  # the intake wakes it
            logger.warning("an alarm was cleared, and Prefect does not take that now: %s", error)
        return state


async def _wait(client: PrefectClient, run: UUID, until: datetime) -> State[Any] | None:
    """Set the run to wait; None: it is no longer Running, a person cancels it."""
    found = await client.read_flow_run(run)
    now = found.state
    if now is None or (now.type is not StateType.RUNNING and now.name != WAITING):
        return None
    # With a process to its name a run that waits could not be cancelled: it would stay Cancelling for ever.
    if found.infrastructure_pid:
        patched = await client.request(
            "PATCH", "/flow_runs/{id}", path_params={"id": run}, json={"infrastructure_pid": None}
        )
        patched.raise_for_status()
    words = f"waits until {until:%Y-%m-%d %H:%M:%S} UTC, or until the alarm is cleared"
    state: State[Any] = AwaitingRetry(scheduled_time=until, message=words)
    result: OrchestrationResult[Any] = await client.set_flow_run_state(run, state)
    if result.state is None or result.state.name != WAITING:
        return None
    return await cancelled_in_between(client, run) or result.state


async def insist(what: str, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask Prefect, and again for as long as it does not take it: a run that cannot leave goes on asking."""
    while True:
        try:
            return await ask()
        except AWAY as error:
            logger.warning("Prefect does not take %s (%s): it is asked again", what, error)
            await timing.pause(ASK_AGAIN)


async def cancelled_in_between(client: PrefectClient, run: UUID) -> State[Any] | None:
    """Cancel the run if a person did so in the moment before it was set to wait; None: nobody did.

    Prefect knows no "only if it still is": the state that was asked for last counts, so its history is read.
    """
    history = sorted(await client.read_flow_run_states(run), key=lambda state: state.timestamp)
    before = next((state for state in reversed(history) if state.name != WAITING), None)
    if before is None or before.type not in (StateType.CANCELLING, StateType.CANCELLED):
        return None
    cancelled: State[Any] = Cancelled(message=before.message)
    result: OrchestrationResult[Any] = await client.set_flow_run_state(run, cancelled, force=True)
    return result.state or cancelled


class _AWaitIsNoError(logging.Filter):
    """Prefect logs the end of every segment that is not Completed as an error. That of one that waits is none, nor that
    of a second one, which leaves the run as the first one has it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno == logging.ERROR and record.getMessage().startswith(NO_ERRORS):
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return True


logging.getLogger("prefect.flow_runs").addFilter(_AWaitIsNoError())
