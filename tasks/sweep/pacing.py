"""How many requests a sweep has under way at a time, and how many a second it sends to each endpoint."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from tasks.errors import ConfigurationError

SLOW_AFTER = 1.0  # seconds; then a request gives its place to the next one
BURST = 0.1  # seconds' worth of an endpoint's budget may be sent at once


@dataclass(frozen=True)
class Limits:
    """What a sweep may ask of the world.

    Attributes:
        at_once: requests under way, the slow ones apart.
        slow: of those that are not answered within a second as many more; so hung services hold up nobody else.
        per_second: requests to one endpoint (MRS, ECS, IAM of a cloud; a Manager).
    """

    at_once: int = 40
    slow: int = 60
    per_second: float = 50.0


def configured() -> Limits:
    """The limits that RUNBOOKS_SWEEP_AT_ONCE and RUNBOOKS_SWEEP_PER_SECOND of the worker's environment ask for.

    Raises:
        ConfigurationError: one of them is no number, or not above zero.
    """
    found = {"RUNBOOKS_SWEEP_AT_ONCE": float(Limits.at_once), "RUNBOOKS_SWEEP_PER_SECOND": Limits.per_second}
    for name, usual in found.items():
        given = os.environ.get(name, "").strip()
        try:
            found[name] = float(given or usual)
        except ValueError:
            found[name] = 0.0
        if not 1 <= found[name] <= 100_000:
            raise ConfigurationError(f"{name} is {given!r}: write a number from 1 on, for example {usual:g}")
    at_once, per_second = found.values()
    return Limits(int(at_once), int(at_once * Limits.slow / Limits.at_once), per_second)


@dataclass
class _Endpoint:
    line: asyncio.Lock = field(default_factory=asyncio.Lock)  # those who wait for it, in their order
    free: float = 0.0  # when the next may be sent, by the loop's clock


class Pace:
    """Lets requests go when it is their turn. `turn` is what `Api.turn` asks for.

    Attributes:
        sent: how many went to each endpoint so far; `most` how many were under way at the same time.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.sent: Counter[str] = Counter()
        self.most = 0
        self._quick = asyncio.Semaphore(limits.at_once)
        self._endpoints: dict[str, _Endpoint] = {}
        self._slow = self._under_way = 0

    def turn(self, endpoint: str) -> Callable[[], AbstractAsyncContextManager[object]]:
        """What to enter for each request to this endpoint."""
        return partial(self._turn, endpoint)

    @asynccontextmanager
    async def _turn(self, endpoint: str) -> AsyncIterator[None]:
        await self._wait(endpoint)
        slow = False

        def make_room() -> None:
            nonlocal slow
            if self._slow < self.limits.slow:
                slow = True
                self._slow += 1
                self._quick.release()

        timer = asyncio.get_running_loop().call_later(SLOW_AFTER, make_room)
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            yield
        finally:
            timer.cancel()
            self._under_way -= 1
            if slow:
                self._slow -= 1
            else:
                self._quick.release()

    async def _wait(self, endpoint: str) -> None:
        known = self._endpoints.setdefault(endpoint, _Endpoint())
        clock = asyncio.get_running_loop().time
        async with known.line:
            if (early := known.free - BURST - clock()) > 0:
                await asyncio.sleep(early)
            await self._quick.acquire()  # last, so that nobody who waits for one endpoint keeps a place from another
            known.free = max(known.free, clock()) + 1 / self.limits.per_second
        self.sent[endpoint] += 1
