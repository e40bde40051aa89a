"""What is opened once for all that need it at the same time in this process: the first opens it, the last closes it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class _Shared:
    users: int = 0
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    opened: Any = None
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)


_shared: dict[tuple[asyncio.AbstractEventLoop, Hashable], _Shared] = {}


@asynccontextmanager
async def shared(what: Hashable, open_: Callable[[AsyncExitStack], Awaitable[T]]) -> AsyncIterator[T]:
    """The one that is open on this event loop, or a new one.

    Args:
        what: tells it from all others, also of other kinds.
        open_: opens it; whatever it enters on the stack is closed by the last who leaves. Its errors are raised here.
    """
    key = (asyncio.get_running_loop(), what)
    mine = _shared.setdefault(key, _Shared())
    mine.users += 1
    try:
        async with mine.opening:
            if mine.opened is None:
                mine.opened = await open_(mine.stack)
        yield mine.opened
    finally:
        mine.users -= 1
        if not mine.users:
            del _shared[key]
            await mine.stack.aclose()
