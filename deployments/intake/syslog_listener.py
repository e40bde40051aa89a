"""The syslog source: what the listeners hear is read and handed in at the desk, a batch at a time."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from zoneinfo import ZoneInfo

from deployments.intake.acceptance import Delivery, Desk, digest_of, excerpt_of
from deployments.intake.framing import Broken, Counters
from deployments.intake.listener import Protocol, listen
from deployments.intake.settings import Syslog
from deployments.intake.sockets import Heard
from deployments.intake.syslog import Heartbeat, Malformed, Template, parse_line
from deployments.intake.tls import server_context
from tasks.errors import ConfigurationError, LedgerUnavailable

FIRST_WAIT = 1.0
LONGEST_WAIT = 15.0

logger = logging.getLogger("runbooks.intake")

Sleep = Callable[[float], Awaitable[None]]
Write = Callable[[], Awaitable[object]]


class Reader:
    """Reads lines and hands them in; a ledger that does not answer is waited for, however long it takes.

    Args:
        sleep: waits that many seconds between two tries.
    """

    def __init__(self, settings: Syslog, desk: Desk, sleep: Sleep = asyncio.sleep) -> None:
        self._desk = desk
        self._sleep = sleep
        self._parse = partial(
            parse_line,
            template=Template(settings.template),
            zone=ZoneInfo(settings.zone),
            identifiers=settings.identifiers,
            heartbeat=settings.heartbeat,
        )

    async def take(self, heard: Sequence[Heard]) -> None:
        """Read what these peers sent and hand it in, all at once: alarms, heartbeats, and what is neither."""
        deliveries: list[Delivery] = []
        alive: set[str] = set()
        writes: list[Write] = []
        for line, peer in heard:
            if isinstance(line, Broken):
                writes.append(partial(self._desk.reject, "syslog", peer, "malformed", line.why, line.beginning))
                continue
            try:
                seen = self._parse(line)
            except Malformed as error:
                writes.append(partial(self._desk.reject, "syslog", peer, "malformed", str(error), line))
                continue
            if isinstance(seen, Heartbeat):
                alive.add(peer)
            else:
                deliveries.append(Delivery("syslog", peer, digest_of(line), seen, excerpt_of(line)))
        writes += [partial(self._desk.heard, "syslog", peer) for peer in alive]
        if deliveries:
            writes.insert(0, partial(self._desk.accept, deliveries))
        await self._written(writes)

    async def _written(self, writes: Sequence[Write]) -> None:
        wait = FIRST_WAIT
        while writes:
            # Together, so that they can share one commit.
            answers = await asyncio.gather(*(write() for write in writes), return_exceptions=True)
            failed = [answer for answer in answers if isinstance(answer, BaseException)]
            for error in failed:
                if not isinstance(error, LedgerUnavailable):
                    raise error
            writes = [
                write for write, answer in zip(writes, answers, strict=True) if isinstance(answer, LedgerUnavailable)
            ]
            if writes:
                logger.warning("the ledger does not take it (%s): what was heard waits and is tried again", failed[0])
                await self._sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - so that not all come at once
                wait = min(2 * wait, LONGEST_WAIT)


@asynccontextmanager
async def listening(
    settings: Syslog, desk: Desk, counters: Counters, *, sleep: Sleep = asyncio.sleep
) -> AsyncIterator[Mapping[Protocol, int]]:
    """Hear, read and hand in while the ``async with`` block runs; yields the bound port of each protocol.

    While the ledger does not answer, TCP and TLS peers are made to wait and lose nothing; UDP fills its queue, and
    what it loses then is counted. Whether syslog is `enabled` is for the caller to see to.

    Raises:
        ConfigurationError: no protocol is named, or a certificate cannot be used.
        OSError: a port cannot be bound; says where and what to do.
        Exception: what the desk raised, LedgerUnavailable excepted; it cancels the block.
    """
    ports: dict[Protocol, int] = dict.fromkeys(settings.protocols, settings.port)
    if settings.tls_port is not None:
        ports["tls"] = settings.tls_port
    if not ports:
        raise ConfigurationError("syslog: no way to listen: name udp or tcp in protocols, or give tls_port and tls")
    reader = Reader(settings, desk, sleep)
    async with listen(
        host=settings.host,
        ports=ports,
        allowed=settings.allowed,
        on_lines=reader.take,
        counters=counters,
        tls=server_context(settings.tls) if settings.tls else None,
        max_line=settings.max_line,
        max_connections=settings.max_connections,
        queue_size=settings.queue_size,
    ) as bound:
        yield bound
