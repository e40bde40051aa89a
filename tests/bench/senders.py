"""Senders that cost little, so that the intake is measured and not they: HTTP and syslog over plain sockets."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import islice

from deployments.intake.acceptance import digest_of
from tests.bench.fleet import Alarm, body_of

TOKEN = "a-token-of-the-benchmark"
LOOPBACK = "127.0.0.1"
TICK = 0.005
CONNECTIONS = 32


class Poster:
    """A kept-alive connection to the webhook; opened when it is needed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Post and read the answer: status and body.

        Raises:
            OSError, EOFError: the connection broke; whether the request was taken is not known.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(LOOPBACK, self.port)
        reader, writer = self._streams
        try:
            writer.write(
                b"POST /alarms HTTP/1.1\r\nHost: intake\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (TOKEN.encode(), len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
            return int(lines[0].split()[1]), await reader.readexactly(length)
        except (OSError, EOFError):
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def at_rate(per_second: float, seconds: float, one: Callable[[float], Awaitable[None]]) -> None:
    """Begin one after the other at this rate, whether or not those before have ended; returns when all have.

    Args:
        one: gets the time (of `time.time`) at which it was due: what we are late with counts, too.
    """
    began = time.time()
    async with asyncio.TaskGroup() as group:
        for n in range(int(per_second * seconds)):
            due = began + n / per_second
            if (early := due - time.time()) > 0:
                await asyncio.sleep(early)
            group.create_task(_begin(one, due))


async def _begin(one: Callable[[float], Awaitable[None]], due: float) -> None:
    await one(due)


async def post_all(
    port: int, alarms: Iterator[Alarm], *, requests_per_second: float, seconds: float, batch: int = 1
) -> list[float]:
    """Post alarms at a steady rate over a few connections; returns the seconds from being due to the answer.

    Raises:
        RuntimeError: one was not accepted.
    """
    idle: asyncio.LifoQueue[Poster] = asyncio.LifoQueue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(Poster(port))
    latencies: list[float] = []

    async def one(due: float) -> None:
        poster = await idle.get()
        status, answer = await poster.post(body_of(list(islice(alarms, batch))))
        latencies.append(time.time() - due)
        idle.put_nowait(poster)
        if status != 200:
            raise RuntimeError(f"the webhook answers {status}: {answer[:300].decode()}")

    await at_rate(requests_per_second, seconds, one)
    while not idle.empty():
        await idle.get_nowait().close()
    return latencies


async def send_lines(
    port: int, alarms: Iterator[Alarm], *, lines_per_second: float, seconds: float
) -> dict[str, float]:
    """Send syslog lines over TCP at a steady rate; returns when each was due, by the digest of what was sent."""
    _, writer = await asyncio.open_connection(LOOPBACK, port)
    due_at: dict[str, float] = {}
    sent, began, total = 0, time.time(), int(lines_per_second * seconds)
    while sent < total:
        due = min(total, int((time.time() - began) * lines_per_second) + 1)
        if due > sent:
            lines = [alarm.line for alarm in islice(alarms, due - sent)]
            for n, line in enumerate(lines):
                due_at[digest_of(line.rstrip(b"\n"))] = began + (sent + n) / lines_per_second
            writer.write(b"".join(lines))
            await writer.drain()
            sent = due
        await asyncio.sleep(TICK)
    writer.close()
    await writer.wait_closed()
    return due_at
