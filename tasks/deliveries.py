"""What was written down for ticket systems is delivered: in order, one deliverer at a time, as often as it takes."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast

from tasks import timing
from tasks.clients.ticketing import Change, Kind
from tasks.errors import ConfigurationError, OutcomeUnknown, RemoteError, Throttled
from tasks.ledger.database import Ledger
from tasks.ledger.outbox import Taken, delivered, failed, take
from tasks.ticket_systems import System

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(minutes=15)
LONGEST_ASKED = timedelta(hours=1)  # what a Retry-After may ask for

logger = logging.getLogger("runbooks")
Now = Callable[[], datetime]


async def deliver(ledger: Ledger, correlation: str, system: System, *, now: Now = timing.wall) -> timedelta | None:
    """Deliver what is due of a ticket; what its system does not take is kept for later, and so is what follows it.

    Returns:
        How long the system asks to be left alone; None: it does not.

    Raises:
        LedgerUnavailable: what came of it cannot be written down: it is delivered once more, which the system tells.
    """
    while True:
        async with ledger.writing() as session:
            taken = await take(session, correlation, now(), lease=system.lasting, pause=system.certain)
        if taken is None:
            return None
        try:
            async with asyncio.timeout(system.lasting.total_seconds() * 0.8):
                key = await system.send(_change(taken))
        except (RemoteError, ConfigurationError, TimeoutError, OSError) as error:
            asked = _asked(error)
            unknown = isinstance(error, OutcomeUnknown | TimeoutError)
            # What may have been made is searched for only when a search can be believed.
            pause = asked or max(_pause(taken.tries), system.certain(taken.kind) if unknown else timedelta(0))
            why = str(error) or f"it took longer than {system.lasting.total_seconds() * 0.8:.0f} s"
            async with ledger.writing() as session:
                await failed(session, taken, why, now() + pause)
            logger.warning("ticket %s: change %d (%s) is not delivered: %s", correlation, taken.n, taken.kind, why)
            return asked
        async with ledger.writing() as session:
            await delivered(session, taken, key, now())


def _change(taken: Taken) -> Change:
    return Change(
        correlation=taken.correlation,
        n=taken.n,
        kind=cast("Kind", taken.kind),
        title=taken.title,
        text=taken.text,
        source=taken.source,
        key=taken.key,
        part_of=taken.part_of,
        follows=taken.follows,
    )


def _pause(tries: int) -> timedelta:
    return min(FIRST_PAUSE * 2.0 ** min(tries - 1, 20), LONGEST_PAUSE)


def _asked(error: Exception) -> timedelta | None:
    """What the system asks for by Retry-After."""
    if not isinstance(error, Throttled) or error.retry_after is None:
        return None
    return min(max(timedelta(seconds=error.retry_after), timedelta(seconds=1)), LONGEST_ASKED)
