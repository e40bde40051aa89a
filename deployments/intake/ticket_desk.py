"""Tickets live with their alarms, and whatever their systems did not take at once is delivered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from deployments.intake.metrics import Metrics
from tasks import timing
from tasks.deliveries import deliver
from tasks.errors import ConfigurationError, LedgerUnavailable, RemoteError
from tasks.ledger.database import Ledger
from tasks.ledger.outbox import backlog, due
from tasks.ledger.ticket_life import follow_alarms
from tasks.ticket_systems import System, system_named

EVERY = 5.0
AT_ONCE = 8  # tickets being delivered at the same time

logger = logging.getLogger("runbooks.intake")


class TicketDesk:
    """Looks after the tickets every few seconds. One of several may run at the same time.

    Args:
        systems: the ticket system of a block of that name.
    """

    def __init__(
        self, ledger: Ledger, metrics: Metrics, systems: Callable[[str], Awaitable[System]] = system_named
    ) -> None:
        self._ledger, self._metrics, self._systems = ledger, metrics, systems
        self._resting: dict[str, datetime] = {}  # systems that asked to be left alone, and until when
        self._trouble: dict[str, str] = {}

    async def run(self) -> None:
        """Look after them until cancelled, however long the ledger or a system is away."""
        while True:
            try:
                await self.look()
            except LedgerUnavailable as error:
                logger.warning("tickets are looked after later: %s", error)
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Follow the alarms of all tickets, deliver what is due, and measure what is left.

        Raises:
            LedgerUnavailable: the rest is left for later.
        """
        now = timing.now()
        async with self._ledger.reading() as session:
            to_change = await follow_alarms(session, now, dry=True)
        if to_change:
            async with self._ledger.writing() as session:
                await follow_alarms(session, now)
        await self._deliver(now)
        async with self._ledger.reading() as session:
            left = await backlog(session)
        self._metrics.tickets_open.set(left.open)
        self._metrics.tickets_undelivered.set(left.undelivered)
        age = (timing.now() - left.oldest).total_seconds() if left.oldest else 0.0
        self._metrics.tickets_undelivered_age.set(max(0.0, age))

    async def _deliver(self, now: datetime) -> None:
        async with self._ledger.reading() as session:
            waiting = [each for each in await due(session, now) if self._resting.get(each[1], now) <= now]
        systems = {name: await self._system(name) for name in {name for _, name in waiting}}
        places = asyncio.Semaphore(AT_ONCE)

        async def one(correlation: str, name: str, system: System) -> None:
            async with places:
                if self._resting.get(name, now) > timing.now():  # it has asked so meanwhile
                    return
                if asked := await deliver(self._ledger, correlation, system, now=timing.now):
                    self._resting[name] = timing.now() + asked

        work = [one(correlation, name, system) for correlation, name in waiting if (system := systems[name])]
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _system(self, name: str) -> System | None:
        """The system; None while its block cannot be read, which is said once."""
        try:
            system = await self._systems(name)
        except (RemoteError, ConfigurationError) as error:
            if self._trouble.get(name) != str(error):
                logger.error("tickets wait for their system %r: %s", name, error)
            self._trouble[name] = str(error)
            return None
        self._trouble.pop(name, None)
        return system
