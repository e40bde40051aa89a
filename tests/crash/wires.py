"""Wires between a worker and what it talks to, on which every message can be counted and the worker killed at one."""

import asyncio
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Self

LOOPBACK = "127.0.0.1"
Channel = Literal["cloud", "ledger", "prefect"]
When = Literal["before", "after"]
# What a worker asks Prefect whether it has a run or not, and what it tells of itself.
IDLE = re.compile(rb"/(work_pools|logs|events|health|version|csrf-token|admin|workers)\b")
POLL = b"/get_scheduled_flow_runs"
SSL_REQUEST, SSL_REQUEST_LENGTH = 80877103, 8


@dataclass(frozen=True)
class Point:
    """A moment of a run: before or after the nth message of a channel, or its first that looks like this pattern."""

    channel: Channel
    n: int
    when: When
    like: str = ""

    def __str__(self) -> str:
        return f"{self.when} {self.channel} {self.like or self.n}"


@dataclass
class Trap:
    """Counts the messages of a run, and springs at one of them, once.

    Attributes:
        point: where; None: nowhere.
        spring: what happens there; the message (or its answer) does not arrive then if it returns True.
        counts: messages so far, by channel.
        sprung: whether it has sprung; `at` is the message it sprang at.
        heard: called at each message, and with `poll` whenever the worker asks for runs.
    """

    spring: Callable[[], Awaitable[bool]]
    point: Point | None = None
    counts: Counter[str] = field(default_factory=Counter)
    sprung: bool = False
    at: str = ""
    heard: Callable[[str], None] = lambda _: None

    def reset(self, point: Point | None) -> None:
        """Another run begins."""
        self.point, self.sprung, self.at = point, False, ""
        self.counts.clear()

    def count(self, channel: Channel) -> int:
        """One more message; returns its number."""
        self.counts[channel] += 1
        self.heard(channel)
        return self.counts[channel]

    async def springs(self, channel: Channel, n: int, when: When, what: str) -> bool:
        """Whether the message ends here."""
        point = self.point
        if self.sprung or point is None or (point.channel, point.when) != (channel, when):
            return False
        if not re.search(point.like, what) if point.like else point.n != n:
            return False
        self.sprung, self.at = True, what
        return await self.spring()


class Wire(ABC):
    """A port of loopback whose connections go on to another; subclasses see the messages."""

    def __init__(self, upstream: int, trap: Trap) -> None:
        self.upstream, self.trap = upstream, trap
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, LOOPBACK, 0, limit=2**24)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._open.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection(LOOPBACK, self.upstream, limit=2**24)
        except OSError:
            writer.close()
            self._open.discard(task)
            return
        try:
            # Cancelled, it is at its end as well.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.carry((reader, writer), (up_reader, up_writer))
        finally:
            for each in (writer, up_writer):
                each.close()
            self._open.discard(task)

    @abstractmethod
    async def carry(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Carry messages both ways until one side closes."""


class HttpWire(Wire):
    """HTTP/1.1, message by message; WebSockets are carried unseen."""

    def __init__(self, upstream: int, trap: Trap, channel: Channel) -> None:
        super().__init__(upstream, trap)
        self.channel = channel

    async def carry(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Requests and their answers in turn."""
        while True:
            head, request = await _message(client[0])
            line = head.split(b"\r\n", 1)[0]
            if POLL in line:
                self.trap.heard("poll")
            counted = not (self.channel == "prefect" and IDLE.search(line))
            n = self.trap.count(self.channel) if counted else 0
            what = line.decode("latin-1").rsplit(" ", 1)[0]
            if counted and await self.trap.springs(self.channel, n, "before", what):
                return
            server[1].write(request)
            if b"upgrade: websocket" in head.lower():
                await _both_ways(client, server)
                return
            _, answer = await _message(server[0], answer_to=line)
            if counted and await self.trap.springs(self.channel, n, "after", what):
                return
            client[1].write(answer)


class LedgerWire(Wire):
    """PostgreSQL's protocol; the messages that count are commits."""

    async def carry(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Typed messages both ways, after the untyped ones of the beginning."""
        while True:
            length = await client[0].readexactly(4)
            rest = await client[0].readexactly(int.from_bytes(length) - 4)
            server[1].write(length + rest)
            if int.from_bytes(length) != SSL_REQUEST_LENGTH or int.from_bytes(rest[:4]) != SSL_REQUEST:
                break
            client[1].write(await server[0].readexactly(1))
        committing: list[int] = []

        async def asks() -> None:
            while True:
                kind, payload = await _typed(client[0])
                if kind == b"Q" and payload[4:].upper().startswith(b"COMMIT"):
                    n = self.trap.count("ledger")
                    if await self.trap.springs("ledger", n, "before", "COMMIT"):
                        return
                    committing.append(n)
                server[1].write(kind + payload)

        async def answers() -> None:
            while True:
                kind, payload = await _typed(server[0])
                if kind == b"C" and payload[4:].startswith(b"COMMIT") and committing:
                    n = committing.pop(0)
                    if await self.trap.springs("ledger", n, "after", "COMMIT"):
                        return
                client[1].write(kind + payload)

        await _first_of(asks(), answers())


async def _typed(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A message's kind, and its length and payload."""
    kind = await reader.readexactly(1)
    length = await reader.readexactly(4)
    return kind, length + await reader.readexactly(int.from_bytes(length) - 4)


async def _message(reader: asyncio.StreamReader, answer_to: bytes = b"") -> tuple[bytes, bytes]:
    """A whole HTTP message: its head, and all of it."""
    head = await reader.readuntil(b"\r\n\r\n")
    parted = (each.partition(b":") for each in head.split(b"\r\n")[1:])
    fields = {name.strip().lower(): value.strip() for name, _, value in parted}
    if answer_to and head.split(b" ", 2)[1] in (b"100", b"101", b"204", b"304"):
        return head, head
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        whole = head
        while True:
            size = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
            whole += size + chunk
            if chunk == b"\r\n":
                return head, whole
    return head, head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def _both_ways(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter], server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    await _first_of(pump(client[0], server[1]), pump(server[0], client[1]))


async def _first_of(*works: Awaitable[None]) -> None:
    """Until one ends."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
