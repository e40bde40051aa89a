"""The polling source: every cluster's alarm list is read again and again, which repairs what the others lost."""

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial

import anyio
from prefect.client.orchestration import get_client
from sqlalchemy.ext.asyncio import AsyncSession

from deployments.intake.acceptance import Desk
from deployments.intake.metrics import Metrics
from deployments.intake.reading import Blocks, Load, Reader, Reading
from deployments.intake.settings import Polling
from tasks import timing
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import Ledger
from tasks.ledger.polling import Due, next_due, open_unread, polled, spread, take_due
from tasks.loading import cluster_block

logger = logging.getLogger("runbooks.intake")

TURN, SHORT_TURN = 0.5, 0.1  # seconds between two looks at what is due; the short one while all places are taken
JITTER = 0.1  # of the interval, either way
NOT_OFFERED_AGAIN = timedelta(minutes=15)
UNREAD = timedelta(minutes=15)  # a report is followed without Manager after that long
IDLE = timedelta(minutes=45)  # of a cluster that is gone, or that another intake reads


class Poller:
    """Reads the alarm lists of all clusters, each once per interval; several share the work by the ledger.

    At most `concurrency` are read at a time, and half as many of those that could not be read the last time: clusters
    that do not answer never hold up those that do.

    Args:
        desk: takes what is found.
        runbooks: alarm ids that are looked for.
        load: gives a cluster's block by its name; None: Prefect does.
        jitter: a number from 0 to 1, another one each time.
    """

    def __init__(
        self,
        ledger: Ledger,
        desk: Desk,
        settings: Polling,
        metrics: Metrics,
        *,
        runbooks: Collection[str],
        load: Load | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._ledger, self._desk, self._metrics = ledger, desk, metrics
        self._interval, self._concurrency = timedelta(seconds=settings.interval), settings.concurrency
        self._runbooks, self._jitter = tuple(runbooks), jitter
        self._from_prefect = load is None
        self._blocks = Blocks(load or cluster_block)
        self._readers: dict[str, Reader] = {}
        self._running: dict[str, tuple[Due, asyncio.Task[Reading]]] = {}
        self._done: list[Reading] = []
        self._trouble: dict[str, str] = {}
        self._spread = False
        self._sweep = timing.now() + IDLE

    async def run(self) -> None:
        """Read until cancelled. A ledger that is away is waited for."""
        try:
            if self._from_prefect:
                async with get_client() as client:  # one for all blocks: to open one costs more than to read a block
                    self._blocks = Blocks(partial(cluster_block, client=client))
                    await self._turns()
            else:
                await self._turns()
        finally:
            with anyio.CancelScope(shield=True):
                await self.aclose()

    async def aclose(self) -> None:
        """Stop reading and close the connections; what was read and not written down yet is read again."""
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for reader in self._readers.values():
            await reader.aclose()
        self._readers.clear()

    async def turn(self) -> bool:
        """Write down what has been read, and begin to read what is due; whether all places are taken.

        Raises:
            LedgerUnavailable: the ledger does not answer; nothing is lost.
        """
        now = timing.now()
        self._collect()
        if not self._spread:
            async with self._ledger.writing() as session:
                await spread(session, now, self._interval)
            self._spread = True
        async with self._ledger.reading() as session:
            first = await next_due(session)
        self._metrics.poll_overdue.set(max(0.0, (now - first).total_seconds()) if first else 0.0)
        free = self._concurrency - len(self._running)
        if self._done or (first and first <= now and free):
            troubled = sum(bool(self._trouble.get(name)) for name in self._running)
            async with self._ledger.writing() as session:
                for reading in self._done:
                    await _write(session, reading, now)
                taken = await take_due(
                    session,
                    now,
                    free,
                    lambda: now + self._interval * (1 + JITTER * (2 * self._jitter() - 1)),
                    busy=self._running,
                    troubled=max(0, (self._concurrency + 1) // 2 - troubled),
                )
            self._done.clear()
            for due in taken:
                self._running[due.cluster.name] = (due, asyncio.create_task(self.read(due)))
        if now >= self._sweep:
            await self._close_idle(now)
        return len(self._running) >= self._concurrency

    async def finish(self) -> None:
        """Return when nothing is being read."""
        if self._running:
            await asyncio.wait([task for _, task in self._running.values()])

    async def read(self, due: Due) -> Reading:
        """Read one cluster's list now."""
        name = due.cluster.name
        if name not in self._readers:
            self._readers[name] = Reader(name, self._blocks, self._desk, self._runbooks)
        return await self._readers[name].read(due)

    async def _turns(self) -> None:
        away = full = False
        while True:
            try:
                full = await self.turn()
                away = False
            except LedgerUnavailable as error:
                if not away:
                    logger.warning("no alarm lists are read: %s", error)
                away = True
            await timing.pause(SHORT_TURN if full and not away else TURN)

    def _collect(self) -> None:
        for name, (due, task) in list(self._running.items()):
            if not task.done():
                continue
            del self._running[name]
            if error := task.exception():  # one cluster's odd answer must not end the reading of all others
                logger.error("reading the alarms of %s ended in a fault of this program", name, exc_info=error)
                reading = Reading(due, "failed", trouble="a fault of the intake: its log holds more")
            else:
                reading = task.result()
            self._done.append(reading)
            self._count(name, reading)

    def _count(self, name: str, reading: Reading) -> None:
        self._metrics.polls.labels(reading.result).inc()
        if not reading.trouble:
            self._metrics.last_seen.labels("poll").set(timing.now().timestamp())
        before = self._trouble.get(name, "")
        if reading.trouble and reading.trouble != before:
            logger.warning("the alarms of %s cannot be read: %s", name, reading.trouble)
        elif before and not reading.trouble:
            logger.info("the alarms of %s can be read again", name)
        self._trouble[name] = reading.trouble

    async def _close_idle(self, now: datetime) -> None:
        """Forget clusters that were not read for long."""
        self._sweep = now + IDLE
        for name, reader in list(self._readers.items()):
            if name not in self._running and now - reader.used > IDLE:
                del self._readers[name]
                self._trouble.pop(name, None)
                await reader.aclose()


async def _write(session: AsyncSession, reading: Reading, now: datetime) -> None:
    """Write one reading down. A report that Manager could not be asked about is followed all the same, in the end."""
    due, answered = reading.due, reading.due.triggered
    name = due.cluster.name
    if reading.trouble and due.triggered is not None:
        if reading.result == "not-offered" or now - due.triggered >= UNREAD:
            episode = await open_unread(session, due.cluster, due.trigger_alarm, "smn", now)
            if episode is not None:
                logger.warning(
                    "ALM-%s of %s was reported without a host and its alarms cannot be read: episode %s follows it",
                    due.trigger_alarm,
                    name,
                    episode.id,
                )
        else:
            answered = None
    said_twice = reading.offered is False and due.offered is False
    await polled(
        session,
        name,
        now,
        offered=reading.offered,
        skew=reading.skew,
        trouble=reading.trouble,
        answered_trigger=answered,
        rest_until=now + NOT_OFFERED_AGAIN if said_twice else None,
    )
