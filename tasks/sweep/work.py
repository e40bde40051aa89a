"""One sweep at work in this process: its place in the ledger, its clusters, and its task runs.

Prefect sees a task run for each few hundred clusters. What was seen is in the ledger within two seconds, so a sweep
that is begun anew goes on where it was.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from secrets import token_hex
from uuid import UUID

from prefect.exceptions import Pause

from tasks import timing
from tasks.claims import RENEW_EVERY
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import Ledger, shared_ledger
from tasks.ledger.sweeping import let_sweep_go, still_at_it, take_sweep
from tasks.models import Frozen
from tasks.sharing import shared
from tasks.sweep.looking import Looker
from tasks.sweep.pacing import Pace, configured
from tasks.sweep.targets import Target

SHARD = 500  # clusters of one task run
CLUSTERS_AT_ONCE = 128  # more than requests at once, so that clusters that hang keep nobody from being looked at

logger = logging.getLogger("runbooks")


class Order(Frozen):
    """What a sweep is to do; an argument of its tasks."""

    run: str
    selection: tuple[str, ...] = ()  # empty: the whole fleet
    remediate: bool = False


@dataclass
class Work:
    """What a sweep's tasks share.

    Attributes:
        left: the clusters that are still to be looked at, by name; `all` is how many there are, `done` how many were.
        told: as `last_told`, read when it is first needed.
        notes: what else is to be said of it.
    """

    order: Order
    ledger: Ledger
    pace: Pace
    looker: Looker
    left: Mapping[str, Target] = field(default_factory=dict)
    all: int = 0
    done: int = 0
    told: Mapping[str, datetime] | None = None
    notes: list[str] = field(default_factory=list)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CLUSTERS_AT_ONCE))
    progress: UUID | None = None
    lost: bool = False

    @property
    def shards(self) -> Sequence[tuple[str, ...]]:
        """The names of what is left, some hundred each."""
        names = list(self.left)
        return [tuple(names[start : start + SHARD]) for start in range(0, len(names), SHARD)]


@asynccontextmanager
async def at_work(order: Order) -> AsyncIterator[Work]:
    """The sweep's work, begun by the first who needs it and ended by the last who leaves.

    Raises:
        Pause: another process is at this very sweep, and lives.
        LedgerUnavailable, ConfigurationError: there is no ledger to write to, or a setting cannot be used.
    """
    async with shared(("sweep", order.run), lambda stack: _begin(order, stack)) as work:
        yield work


async def _begin(order: Order, stack: AsyncExitStack) -> Work:
    pace = Pace(configured())
    ledger = await stack.enter_async_context(shared_ledger())
    holder = f"{socket.gethostname()}:{token_hex(4)}"
    if left := await _take(ledger, order, holder):  # its process may have died a moment ago
        await asyncio.sleep(left.total_seconds() + 0.1)
        if await _take(ledger, order, holder):
            raise Pause
    work = Work(order, ledger, pace, await stack.enter_async_context(Looker(pace)))
    living = asyncio.create_task(_live(work, holder))

    async def leave() -> None:
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        with suppress(LedgerUnavailable):
            async with ledger.writing() as session:
                await let_sweep_go(session, order.run, holder)

    stack.push_async_callback(leave)
    return work


async def _take(ledger: Ledger, order: Order, holder: str) -> timedelta | None:
    """As `take_sweep`."""
    async with ledger.writing() as session:
        return await take_sweep(
            session, order.run, order.selection, remediate=order.remediate, holder=holder, now=timing.wall()
        )


async def _live(work: Work, holder: str) -> None:
    """Say again and again that this process is at it."""
    while not work.lost:
        await asyncio.sleep(RENEW_EVERY)
        try:
            async with work.ledger.writing() as session:
                work.lost = not await still_at_it(session, work.order.run, holder, timing.wall())
        except LedgerUnavailable as error:
            logger.warning("that this sweep goes on is not in the ledger: %s", error)
