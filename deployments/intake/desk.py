"""The desk of an intake process: it resolves names, and lets all that is handed in at one time share one commit."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, islice
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncSession

from deployments.intake.acceptance import Delivery, Reason, Receipt, Source, excerpt_of
from deployments.intake.directory import Directory
from deployments.intake.metrics import Metrics
from tasks import timing
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import Ledger
from tasks.ledger.observing import Seen, Sighting, observe
from tasks.ledger.receiving import Rejected, first_time, heard, reject

MOST_PER_COMMIT = 2_000
GATHER = 0.003  # seconds that the first waits for others: a commit costs more than an alarm
MOST_LETTERS = 255  # of a host's name, which is in an index
STOPPED = "the intake is being stopped: try again"
BY_BLOCK = ("smn", "poll", "command")  # sources that name a cluster by its block; the others as Manager calls it


@dataclass(frozen=True)
class News:
    """Something new that has been written down."""

    sighting: Sighting
    seen: Seen


@dataclass
class _Work:
    sightings: Sequence[Sighting] = ()
    rejected: Sequence[Rejected] = ()
    heard: Sequence[tuple[str, str]] = ()
    more: Callable[[AsyncSession, datetime], Awaitable[Any]] | None = None
    handed_in: datetime = field(default_factory=timing.now)
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def voices(self) -> set[tuple[str, str]]:
        """Who is heard by this: sources and peers."""
        return (
            {(e.source, e.peer) for e in self.sightings} | {(e.source, e.peer) for e in self.rejected} | {*self.heard}
        )


class LedgerDesk:
    """See `Desk`; use it with `run` going in a task of its own.

    Args:
        directory: which clusters there are.
        runbooks: alarm ids that have a runbook.
        changed: called after each commit with what is new; must not block.
    """

    def __init__(
        self,
        ledger: Ledger,
        directory: Directory,
        *,
        runbooks: Collection[str],
        metrics: Metrics,
        changed: Callable[[Sequence[News]], None],
    ) -> None:
        self._ledger, self._directory, self._metrics = ledger, directory, metrics
        self._runbooks, self._changed = runbooks, changed
        self._waiting: deque[_Work] = deque()
        self._in_hand: Sequence[_Work] = ()
        self._arrived = asyncio.Event()
        self._ended = False

    async def accept(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """See `Desk`."""
        resolved = [await self._resolve(delivery) for delivery in deliveries]
        sightings = [each for each in resolved if isinstance(each, Sighting)]
        rejected = [each for each in resolved if isinstance(each, Rejected)]
        seen: Sequence[Seen] = await self._written(_Work(sightings, rejected))
        found = iter(seen)
        return [_refused(each) if isinstance(each, Rejected) else _taken(next(found)) for each in resolved]

    async def reject(self, source: Source, peer: str, reason: Reason, why: str, received: bytes) -> None:
        """See `Desk`."""
        await self._written(_Work(rejected=[Rejected(source, peer, reason, why, excerpt_of(received))]))

    async def heard(self, source: Source, peer: str) -> None:
        """See `Desk`."""
        await self._written(_Work(heard=[(source, peer)]))

    async def first_time(self, source: Source, message_id: str) -> bool:
        """See `Desk`."""

        async def ask(session: AsyncSession, now: datetime) -> bool:
            return await first_time(session, source, message_id, now)

        return bool(await self._written(_Work(more=ask)))

    async def run(self) -> None:
        """Write what is handed in, commit after commit, until cancelled; what waits then is refused as unavailable."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    await asyncio.sleep(GATHER)
                    self._in_hand = self._batch()
                    await self._commit(self._in_hand)
                    self._in_hand = ()
        finally:  # nobody waits for ever, however this ends
            self._ended = True
            for work in (*self._in_hand, *self._waiting):
                _fail(work, LedgerUnavailable(STOPPED))

    def queue_age(self) -> float:
        """Seconds that the oldest delivery has been waiting for its commit; 0 where none waits."""
        oldest = next(chain(self._in_hand, self._waiting), None)
        return (timing.now() - oldest.handed_in).total_seconds() if oldest else 0.0

    async def _resolve(self, delivery: Delivery) -> Sighting | Rejected:
        told = delivery.observation

        def refused(reason: Reason, why: str) -> Rejected:
            return Rejected(delivery.source, delivery.peer, reason, why, delivery.excerpt)

        if not all(text.isprintable() for text in (told.alarm_id, told.cluster, told.host, told.serial)):
            return refused("malformed", "a field of the alarm holds a character that cannot be printed")
        if len(told.host) > MOST_LETTERS or len(told.serial) > MOST_LETTERS:
            return refused("malformed", f"the host or the serial number is longer than {MOST_LETTERS} characters")
        if told.kind == "event":
            return refused(
                "event", f"{told.alarm_id} of {told.cluster!r} is an event, not an alarm: do not send it here"
            )
        if told.alarm_id not in self._runbooks:
            known = ", ".join(self._runbooks)
            why = f"there is no runbook for alarm {told.alarm_id} of {told.cluster!r}, only for {known}"
            return refused("no-runbook", f"{why}: see its page, or do not send it here")
        if not told.host and told.kind != "trigger":
            why = f"ALM-{told.alarm_id} of {told.cluster!r} comes without a host: put ${{locationInfo}} in the format"
            return refused("no-host", f"{why} on Manager, or start the runbook by hand")
        look_up = self._directory.by_block if delivery.source in BY_BLOCK else self._directory.by_report
        found = look_up(told.cluster)
        if isinstance(found, tuple):
            await self._directory.refresh(for_unknown=True)
            found = look_up(told.cluster)
        if isinstance(found, tuple):
            return refused(*found)
        return Sighting(told, found, delivery.source, delivery.peer, delivery.digest)

    async def _written(self, work: _Work) -> Any:
        if self._ended:
            raise LedgerUnavailable(STOPPED)
        self._waiting.append(work)
        self._arrived.set()
        return await work.done

    def _batch(self) -> list[_Work]:
        batch, size = [], 0
        while self._waiting and size < MOST_PER_COMMIT:
            work = self._waiting.popleft()
            batch.append(work)
            size += 1 + len(work.sightings) + len(work.rejected)
        return batch

    async def _commit(self, batch: Sequence[_Work]) -> None:
        try:
            seen, answers = await self._write(batch)
        except LedgerUnavailable as error:
            for work in batch:
                _fail(work, error)
            return
        found = iter(seen)
        for work, answer in zip(batch, answers, strict=True):
            mine = list(islice(found, len(work.sightings)))
            self._count(work, mine)
            if not work.done.done():  # who handed it in may have gone
                work.done.set_result(answer if work.more else mine)
            if changes := [News(*each) for each in zip(work.sightings, mine, strict=True) if each[1].new]:
                self._changed(changes)

    async def _write(self, batch: Sequence[_Work]) -> tuple[Sequence[Seen], Sequence[Any]]:
        now = timing.now()
        sightings = [sighting for work in batch for sighting in work.sightings]
        rejected = [each for work in batch for each in work.rejected]
        voices = {voice for work in batch for voice in work.voices}
        async with self._ledger.writing() as session:
            seen = await observe(session, sightings, now) if sightings else []
            if rejected:
                await reject(session, rejected, now)
            await heard(session, voices, now)
            return seen, [await work.more(session, now) if work.more else None for work in batch]

    def _count(self, work: _Work, seen: Sequence[Seen]) -> None:
        now = timing.now()
        self._metrics.commit.observe((now - work.handed_in).total_seconds())
        for sighting, each in zip(work.sightings, seen, strict=True):
            counter = self._metrics.accepted if each.new else self._metrics.duplicates
            counter.labels(sighting.source).inc()
        for rejected in work.rejected:
            self._metrics.rejected.labels(rejected.source, rejected.reason).inc()
        for source, _ in work.voices:
            self._metrics.last_seen.labels(source).set(now.timestamp())


def _fail(work: _Work, error: LedgerUnavailable) -> None:
    if not work.done.done():
        work.done.set_exception(error)


def _refused(rejected: Rejected) -> Receipt:
    return Receipt("rejected", rejected.why, cast("Reason", rejected.reason))


def _taken(seen: Seen) -> Receipt:
    return Receipt("accepted" if seen.new else "duplicate", seen.why, episode=seen.episode)
