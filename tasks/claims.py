"""One acting run per cluster: the run that holds the cluster's episode acts, any other joins it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from tasks import timing
from tasks.errors import ConfigurationError, LedgerUnavailable, Refused
from tasks.ledger.database import Ledger, shared_ledger
from tasks.ledger.episodes import LEASE, Asking, Held, Holding, Part, claim, episode_of_run, renew, settle
from tasks.ledger.keeping import Line, keep
from tasks.ledger.outbox import Filing, file
from tasks.ledger.receiving import intakes_alive
from tasks.ledger.starting import MOST_RUNS, give_up
from tasks.ledger.tables import Episode
from tasks.models import Case, Outcome
from tasks.recorded import Recorded, recorded

RENEW_EVERY = LEASE.total_seconds() / 3
TRIES = (1.0, 2.0, 4.0, 8.0)  # pauses between tries to reach the ledger, seconds
Got = TypeVar("Got")

logger = logging.getLogger("runbooks")


@dataclass(frozen=True)
class _Claim:
    ledger: Ledger
    holding: Holding
    speed: float


# What is held here, by run: a second segment of the same run in this process holds by another fence.
_claims: ContextVar[Mapping[str, _Claim]] = ContextVar("claims", default={})  # noqa: B039  it is never changed


@asynccontextmanager
async def claimed(
    case: Case, asking: Asking, *, cluster_id: str, speed: float = 1, renew_every: float = RENEW_EVERY
) -> AsyncIterator[Holding | Held | None]:
    """Hold the cluster's episode for as long as the block runs, if no other run does.

    Held by a lease that is renewed while the block runs: of a process that dies it is free half a minute later.

    Args:
        cluster_id: the cluster's id in the cloud: two blocks of one cluster are one claim.
        speed: how much faster the cluster's time runs (1, but for the emulator).
        renew_every: seconds; well under the lease's.

    Yields:
        What is held, or who holds it. None: a dry run, which changes nothing and claims nothing.

    Raises:
        LedgerUnavailable, ConfigurationError: without the ledger nobody may act.
    """
    if case.dry_run:
        yield None
        return
    async with AsyncExitStack() as stack:
        ledger = await _insisting(lambda: stack.enter_async_context(shared_ledger()))
        got = await _insisting(
            lambda: _written(
                ledger, lambda session: claim(session, cluster_id, case.cluster, case.alarm_id, asking, timing.wall())
            )
        )
        if isinstance(got, Held):
            yield got
            return
        before = _claims.set({**_claims.get(), case.run: _Claim(ledger, got, speed)})
        renewing = asyncio.create_task(_renew(ledger, got, renew_every))
        try:
            yield got
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            _claims.reset(before)


@asynccontextmanager
async def holding(case: Case) -> AsyncIterator[tuple[AsyncSession, Holding]]:
    """A session of the ledger that writes, and what the run holds there. A wait for the disk, no longer.

    Raises:
        Refused: the run holds nothing: it must change nothing.
        LedgerUnavailable: the ledger does not answer.
    """
    held = _held(case)
    async with held.ledger.writing() as session:
        yield session, held.holding


def _held(case: Case) -> _Claim:
    held = _claims.get().get(case.run)
    if held is None:
        raise Refused("this run holds no claim on its cluster")
    return held


def holds(case: Case) -> bool:
    """Whether the run holds its cluster's episode here; a dry run holds none."""
    return case.run in _claims.get()


async def looked_up(case: Case, work: Callable[[AsyncSession, Holding], Awaitable[Got]]) -> Got:
    """Read something of the run in the ledger, as `noted` writes: nobody who writes is kept waiting."""

    async def once() -> Got:
        held = _held(case)
        async with held.ledger.reading() as session:
            return await work(session, held.holding)

    return await _insisting(once)


async def noted(case: Case, work: Callable[[AsyncSession, Holding], Awaitable[Got]]) -> Got:
    """Write something down for the run, insisting while the ledger does not answer for a moment.

    Raises:
        Refused, LedgerUnavailable: as in `holding`.
    """

    async def once() -> Got:
        async with holding(case) as (session, mine):
            return await work(session, mine)

    return await _insisting(once)


async def settled(case: Case, parts: Sequence[Part], outcome: Outcome, ticket: str) -> None:
    """Write down how the run ended, and let go of its episode; does nothing where it holds none.

    Args:
        parts: how the page ended for each alarm that was followed.
        ticket: the id of the run's ticket, may be empty.
    """
    held = _claims.get().get(case.run)
    if held is None:
        return
    try:
        await _insisting(
            lambda: _written(
                held.ledger,
                lambda session: settle(
                    session, held.holding, parts, outcome, ticket, timing.wall(), speed=held.speed, host=case.host
                ),
            )
        )
    except LedgerUnavailable as error:
        logger.warning("how this run ended is not in the ledger, the intake will write it from its state: %s", error)


async def remembered(case: Case, lines: Sequence[Line]) -> None:
    """Keep the record of the run so far with its episode; without the ledger the run's artifacts alone have it."""
    if not holds(case):
        return
    try:
        await noted(case, lambda session, mine: keep(session, mine, lines, timing.wall()))
    except LedgerUnavailable as error:
        logger.warning("the record of this run is not in the ledger: %s", error)


async def goes_on_elsewhere(case: Case) -> bool:
    """Whether another segment of this very run has taken it over: what this one says of it counts no more."""

    async def read(session: AsyncSession, mine: Holding) -> bool:
        episode = await session.get(Episode, mine.episode)
        return episode is not None and episode.token != mine.token and (episode.holder or episode.run) == case.run

    if not holds(case):
        return False
    try:
        return await looked_up(case, read)
    except LedgerUnavailable as error:
        logger.warning("whether this run goes on elsewhere cannot be read: %s", error)
        return False


async def cancel_noted(run: str) -> None:
    """A person cancels the run, and it will be stopped now: whoever finds it broken off is to end it as cancelled."""
    try:
        async with shared_ledger() as ledger, ledger.writing() as session:
            episode = await episode_of_run(session, run)
            if episode is not None and episode.holder == run:
                episode.outcome = Outcome.CANCELLED
    except (LedgerUnavailable, ConfigurationError) as error:
        logger.warning("that run %s is being cancelled is not in the ledger: %s", run, error)


async def broke_off(
    run: str,
    outcome: Outcome,
    filing: Callable[[Outcome, Recorded | None], Filing],
    *,
    deployed: bool,
    token: int | None = None,
) -> Filing | None:
    """A run broke off: end its episode with this word, unless the intake begins the run anew.

    Args:
        filing: what a person is to be told by which word, from what the ledger holds of the episode that ends so (None:
            it holds nothing, or does not answer). It is on disk with the end of the episode, or neither is and the
            intake ends it.
        deployed: the run is of a deployment, so that it can be scheduled once more.
        token: the fence by which the segment that broke off held its episode, where that is known.

    Returns:
        What a person is to be told now. None: nothing, an intake begins it anew, or another segment has gone on.
    """
    told: Filing | None = None
    try:
        async with shared_ledger() as ledger, ledger.writing() as session:
            if over := await _over(session, run, outcome, deployed=deployed, token=token):
                told = filing(*over)
                await file(session, told, timing.wall())
        return told
    except (LedgerUnavailable, ConfigurationError) as error:
        logger.warning("that run %s broke off is not in the ledger: %s", run, error)
    return told or filing(outcome, None)


async def _over(
    session: AsyncSession, run: str, outcome: Outcome, *, deployed: bool, token: int | None
) -> tuple[Outcome, Recorded | None] | None:
    """The word by which the run is over, and what there is of the episode that it ends; None: an intake begins it anew,
    or another segment of it has gone on."""
    episode = await episode_of_run(session, run)
    if episode is None or not (episode.holder == run or (episode.state == "raised" and episode.run == run)):
        return outcome, None  # it has none, or another run has it, or it was settled
    if token is not None and episode.token != token:
        return None
    word = Outcome.CANCELLED if episode.outcome == Outcome.CANCELLED else outcome
    goes_on = (deployed or not episode.acted) and episode.runs < MOST_RUNS
    if word is not Outcome.CANCELLED and goes_on and await intakes_alive(session, timing.wall()):
        return None
    acted = episode.acted
    await give_up(session, episode, word, timing.wall())
    return word, await recorded(session, episode, word, acted=acted)


async def _renew(ledger: Ledger, holding: Holding, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        try:
            async with ledger.writing() as session:
                if not await renew(session, holding, timing.wall()):
                    logger.warning("episode %s is no longer held by this run: it changes nothing more", holding.episode)
                    return
        except LedgerUnavailable as error:
            logger.warning("the claim on episode %s cannot be renewed: %s", holding.episode, error)


async def _insisting(work: Callable[[], Awaitable[Got]]) -> Got:
    """Do it, and again while the ledger does not answer for a moment."""
    for pause in TRIES:
        try:
            return await work()
        except LedgerUnavailable as error:
            logger.warning("%s", error)
            await timing.pause(pause)
    return await work()


async def _written(ledger: Ledger, work: Callable[[AsyncSession], Awaitable[Got]]) -> Got:
    async with ledger.writing() as session:
        return await work(session)
