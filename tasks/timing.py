"""Time: what it is, and waiting for it. The only module that sleeps.

A wait is a deadline and a series of looks; here whoever looks stays. A run that may leave waits by `tasks.waits`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What time it is, and how to wait."""

    def now(self) -> datetime:
        """The time, aware, UTC."""

    async def sleep(self, seconds: float) -> None:
        """Return when that many seconds have gone by."""


class WallClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """The time, aware, UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Return when that many seconds have gone by."""
        await asyncio.sleep(seconds)


def wall() -> datetime:
    """Our own time, aware, UTC, whatever `clock` is: what processes tell each other in the ledger is told in this."""
    return datetime.now(UTC)


clock: ContextVar[Clock] = ContextVar("clock", default=WallClock())  # noqa: B039  it holds no state


def now() -> datetime:
    """The time, aware, UTC."""
    return clock.get().now()


async def looks(until: datetime, *, every: float, speed: float) -> AsyncIterator[datetime]:
    """Yield the time now, then every `every` seconds, and a last time at `until`. The loop body looks at the world.

    Args:
        every: seconds of the cluster's time.
        speed: how much faster the cluster's time runs (1, but for the emulator); `until` has it already.
    """
    while True:
        moment = now()
        yield moment
        if moment >= until:
            return
        left = (until - now()).total_seconds()  # a look takes time too
        await clock.get().sleep(max(0.0, min(every / speed, left)))


async def pause(seconds: float) -> None:
    """Return when that many seconds of our own time have gone by, as a service asked for."""
    await clock.get().sleep(seconds)


def later(seconds: float, *, since: datetime, speed: float) -> datetime:
    """The moment `seconds` of the cluster's time after `since`."""
    return since + timedelta(seconds=seconds / speed)
