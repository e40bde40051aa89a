"""One look at one cluster's alarm list: what is raised, what was cleared unheard, and what cannot be told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from deployments.intake.acceptance import Delivery, Desk, Receipt, digest_of, excerpt_of
from deployments.intake.history import is_listed, same_in_history
from tasks import timing
from tasks.blocks import Cluster as ClusterBlock
from tasks.clients.http import Patience
from tasks.clients.manager import Manager
from tasks.errors import (
    ConfigurationError,
    LedgerUnavailable,
    LoginSuspended,
    NotAuthorized,
    NotOffered,
    RunbookError,
    Unreachable,
    Untrusted,
)
from tasks.ledger.polling import Due
from tasks.ledger.tables import Occurrence
from tasks.models import Alarm, Observation

logger = logging.getLogger("runbooks.intake")

PATIENCE = Patience(timeout=10, attempts=1)  # the next look is the repetition
LEDGER_AGAIN = 1.0
BLOCK_KEPT = timedelta(minutes=10)
PREFECT_TIMEOUT = 10.0
PREFECT_REST = timedelta(minutes=1)
TELL_AGAIN = timedelta(minutes=10)  # a known alarm is handed in anew so rarely: that it is still there
UNCLEAR_AGAIN = timedelta(minutes=5)
MOST_FOLLOWED = 50  # of one cluster in one look; the others have their turn in the next

Load = Callable[[str], Awaitable[ClusterBlock]]
Result = Literal["read", "unclear", "not-offered", "refused", "suspended", "unreachable", "failed"]
Key = tuple[str, str, str, datetime | None]


@dataclass(frozen=True)
class Reading:
    """How a look went.

    Attributes:
        result: a word for the metrics; `unclear` is read, but what became of some active alarm cannot be told.
        offered, skew, trouble: as in `tasks.ledger.polling.polled`.
    """

    due: Due
    result: Result
    offered: bool | None = None
    skew: float | None = None
    trouble: str = ""


class Blocks:
    """Loads cluster blocks. A Prefect that is away or slow holds up only clusters whose block was never loaded."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._reloading = asyncio.Lock()
        self._rest_until: datetime | None = None

    async def load(self, name: str) -> ClusterBlock:
        """The block of that name, read anew.

        Raises:
            UnknownCluster, ConfigurationError: it is missing or wrong.
            Unreachable: Prefect does not answer, or did not a moment ago.
        """
        if self._rest_until and timing.now() < self._rest_until:
            raise Unreachable("cluster's block", "Prefect did not answer a moment ago: it is asked again in a minute")
        try:
            async with asyncio.timeout(PREFECT_TIMEOUT):
                block = await self._load(name)
        except TimeoutError as error:
            self._rest_until = timing.now() + PREFECT_REST
            raise Unreachable("cluster's block", f"Prefect does not answer within {PREFECT_TIMEOUT:g} s") from error
        except Unreachable:
            self._rest_until = timing.now() + PREFECT_REST
            raise
        self._rest_until = None
        return block

    async def reload(self, name: str) -> ClusterBlock | None:
        """As `load`, but None where that has to wait: another one is being reloaded, or Prefect is away."""
        if self._reloading.locked():
            return None
        async with self._reloading:
            try:
                return await self.load(name)
            except Unreachable:
                return None


class Reader:
    """Reads one cluster's list, again and again; the session on Manager is kept in between."""

    def __init__(self, name: str, blocks: Blocks, desk: Desk, runbooks: Collection[str]) -> None:
        self._name, self._blocks, self._desk, self._runbooks = name, blocks, desk, runbooks
        self._manager: Manager | None = None
        self._settings: tuple[object, ...] = ()
        self._reload: datetime | None = None
        self._told: dict[Key, datetime] = {}
        self._unclear: dict[str, datetime] = {}
        self.used = timing.now()

    async def aclose(self) -> None:
        """Close the connection to Manager."""
        if self._manager is not None:
            await self._manager.aclose()

    async def read(self, due: Due) -> Reading:
        """Look once and hand in what is found. Whatever is wrong with the cluster is in the answer.

        A ledger that is away is waited for.
        """
        self.used = timing.now()
        try:
            return await self._look(await self._connected(), due)
        except NotOffered as error:
            return Reading(due, "not-offered", offered=False, trouble=str(error))
        except (NotAuthorized, LoginSuspended, Untrusted, ConfigurationError) as error:
            self._reload = None  # the block may have been corrected by the next time
            suspended = isinstance(error, LoginSuspended)
            return Reading(due, "suspended" if suspended else "refused", trouble=str(error))
        except Unreachable as error:
            return Reading(due, "unreachable", trouble=str(error))
        except RunbookError as error:
            return Reading(due, "failed", trouble=str(error))

    async def _connected(self) -> Manager:
        """A client made from the block as it was some minutes ago at most, or as long as Prefect is away."""
        now = timing.now()
        if self._manager is not None and self._reload is not None and now < self._reload:
            return self._manager
        block = await (self._blocks.load(self._name) if self._manager is None else self._blocks.reload(self._name))
        if block is not None:
            self._reload = now + BLOCK_KEPT
            settings = tuple(getattr(block.manager, field) for field in type(block.manager).model_fields)
            if self._manager is None or settings != self._settings:
                client = block.manager.get_client(dry_run=True, patience=PATIENCE, keep_alive=False)
                await self.aclose()
                self._manager, self._settings = client, settings
        assert self._manager is not None  # noqa: S101  loaded, or kept
        return self._manager

    async def _look(self, manager: Manager, due: Due) -> Reading:
        rows = [row for alarm_id in self._runbooks for row in await manager.alarms(alarm_id)]
        now, clock = timing.now(), manager.clock
        await self._tell_raised(rows, clock, now)
        clear = await self._follow(manager, rows, due, clock, now)
        skew = (clock - now).total_seconds() if clock else None
        return Reading(due, "read" if clear else "unclear", offered=True, skew=skew)

    async def _tell_raised(self, rows: Sequence[Alarm], clock: datetime | None, now: datetime) -> None:
        """Hand in what is listed, but for what was handed in some minutes ago."""
        before = {key: when for key, when in self._told.items() if now - when < TELL_AGAIN}
        new = [row for row in rows if _key(row) not in before]
        receipts = await self._accepted([self._delivery(row, "raised", clock) for row in new]) if new else []
        for row, receipt in zip(new, receipts, strict=True):
            if receipt.reason != "unknown-cluster":  # a block that is new: by the next look it will be known
                before[_key(row)] = now
        listed = {_key(row) for row in rows}
        self._told = {key: when for key, when in before.items() if key in listed}

    async def _follow(
        self, manager: Manager, rows: Sequence[Alarm], due: Due, clock: datetime | None, now: datetime
    ) -> bool:
        """Look up what was active and is not listed any more; whether that can be told of all of them."""
        gone = {each.id: each for each in due.active if each.alarm_id in self._runbooks and not is_listed(each, rows)}
        self._unclear = {id_: again for id_, again in self._unclear.items() if id_ in gone}
        todo = [each for each in gone.values() if self._unclear.get(each.id, now) <= now]
        todo.sort(key=lambda each: each.id in self._unclear)
        history: dict[str, tuple[Alarm, ...]] = {}
        for occurrence in todo[:MOST_FOLLOWED]:
            alarm_id = occurrence.alarm_id
            if occurrence.serial:
                past = await manager.alarms(alarm_id, status="all", serial=occurrence.serial)
            else:
                if alarm_id not in history:
                    history[alarm_id] = await manager.alarms(alarm_id, status="all")
                past = history[alarm_id]
            # What Manager's clock said when the alarm was first seen.
            seen = clock - (now - occurrence.first_seen) * due.cluster.speed if clock else None
            found = same_in_history(occurrence, past, seen)
            if found is None:
                await self._note_unclear(manager, occurrence, now)
            elif found.status.lower() != "uncleared":
                await self._accepted([self._delivery(found, "cleared", clock)])
                self._unclear.pop(occurrence.id, None)
        return not self._unclear

    async def _note_unclear(self, manager: Manager, occurrence: Occurrence, now: datetime) -> None:
        """Say once that an alarm is neither active nor cleared."""
        if occurrence.id not in self._unclear:
            try:
                masked = await manager.is_masked(occurrence.alarm_id)
            except NotOffered:
                masked = False
            why = "the alarm id is masked there" if masked else "it is not in the history either"
            logger.warning(
                "ALM-%s on %s of %s is no longer listed by Manager, and %s: it is not taken for cleared, look there",
                occurrence.alarm_id,
                occurrence.host,
                self._name,
                why,
            )
        self._unclear[occurrence.id] = now + UNCLEAR_AGAIN

    async def _accepted(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        while True:
            try:
                return await self._desk.accept(deliveries)
            except LedgerUnavailable:
                await timing.pause(LEDGER_AGAIN)

    def _delivery(self, row: Alarm, kind: Literal["raised", "cleared"], clock: datetime | None) -> Delivery:
        told = Observation(
            kind=kind,
            alarm_id=row.alarm_id,
            cluster=self._name,
            host=row.host,
            serial=row.serial,
            occurred=row.occurred,
            cleared=row.cleared if kind == "cleared" else None,
            cleared_by=None if kind == "raised" else "auto" if row.status.lower() == "auto" else "person",
            sent=clock,
        )
        seen = row.model_dump_json().encode()
        return Delivery("poll", self._name, digest_of(seen), told, excerpt_of(seen))


def _key(row: Alarm) -> Key:
    return row.alarm_id, row.host, row.serial, row.occurred
