"""The life of a command: how it ends, by itself, by Ctrl-C or by SIGTERM, and what one that stays needs."""

import asyncio
import ctypes
import gc
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

Ended = TypeVar("Ended")


def run_until_ended(work: Coroutine[Any, Any, Ended]) -> Ended:
    """Until it ends, or until the first Ctrl-C or SIGTERM; those that follow do not disturb what is being ended."""

    async def interruptible() -> Ended:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for sent in (signal.SIGINT, signal.SIGTERM):
            if task and signal.getsignal(sent) != signal.SIG_IGN:  # as in the background of a script
                loop.add_signal_handler(sent, lambda: task.cancelling() or task.cancel())
        return await work

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def serve_until_told(work: Coroutine[Any, Any, None]) -> None:
    """The same for what runs until it is told to end: being told is how it ends well."""
    with suppress(KeyboardInterrupt):
        run_until_ended(work)


def collect_less(young: int = 50_000, older: int = 20) -> None:
    """Make the garbage collector of a process that has started up walk less, and less often.

    Else each full collection walks all of Prefect, and everything stands still for a tenth of a second.

    Args:
        young: so many new objects are walked at a time.
        older: each so many walks those that have outlived one are walked, and each so many of these walks all of them.
    """
    gc.freeze()
    gc.set_threshold(young, older, older)


def give_back() -> None:
    """Collect what is not used any more, and give its memory back to the machine where the C library does so (glibc).

    Threads have heaps of their own there, each of which else stays as large as it ever was.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
