"""Sockets that lines arrive on: UDP, TCP and TLS. Each is read on when what came before has been handled."""

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import islice

from deployments.intake.framing import Broken, Counters, Frames, too_long
from deployments.intake.tls import Secured

Heard = tuple[bytes | Broken, str]
Read = Callable[[int], Awaitable[bytes]]  # at least one byte, at most so many; none at the end
OnLines = Callable[[Sequence[Heard]], Awaitable[None]]

_MOST_LINES = 500
_MOST_DATAGRAMS = 1_000
_READ = 64 * 1024
_DATAGRAM_BUFFER = 4 * 1024 * 1024
_SO_RXQ_OVFL = 40  # Linux: tells with a datagram how many were dropped before it; Python has no name for it

logger = logging.getLogger("runbooks.intake")


@dataclass
class Sink:
    """Where lines go, and what all protocols share."""

    on_lines: OnLines
    allowed: Sequence[IPv4Network | IPv6Network]
    counters: Counters
    max_line: int

    def __post_init__(self) -> None:
        self.peer = lru_cache(4096)(self._peer)

    def _peer(self, address: str) -> str:
        """Return the peer's address, an IPv4 one as such also on an IPv6 socket; empty if it may not send."""
        ip = ip_address(address)
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return str(ip) if any(ip in network for network in self.allowed) else ""

    async def deliver(self, heard: Sequence[Heard]) -> None:
        """Count what was heard and hand it on."""
        broken = sum(isinstance(line, Broken) for line, _ in heard)
        self.counters.malformed += broken
        self.counters.received += len(heard) - broken
        await self.on_lines(heard)


class Datagrams:
    """A UDP socket; one datagram is one line (RFC 5426)."""

    def __init__(self, sink: Sink, group: asyncio.TaskGroup, bound: socket.socket, queue_size: int) -> None:
        self._sink = sink
        self._group = group
        self._socket = bound
        self._queue: asyncio.Queue[Heard] = asyncio.Queue(queue_size)
        self._lost = 0
        self._loop = asyncio.get_running_loop()
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _DATAGRAM_BUFFER)
        if sys.platform == "linux":
            bound.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)

    def start(self) -> None:
        """Begin to hear."""
        self._loop.add_reader(self._socket, self._receive)
        self._pump = self._group.create_task(self._hand_on())

    def close(self) -> None:
        """Stop hearing; what waits in the queue is dropped and counted."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._pump.cancel()
        self._sink.counters.dropped += self._queue.qsize()

    def _receive(self) -> None:
        counters = self._sink.counters
        for _ in range(_MOST_DATAGRAMS):
            try:
                data, notes, flags, address = self._socket.recvmsg(self._sink.max_line + 2, socket.CMSG_SPACE(4))
            except OSError:  # nothing more, or an ICMP error that belongs to nobody
                return
            for level, kind, value in notes:
                if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                    lost, self._lost = self._lost, int.from_bytes(value, sys.byteorder)
                    counters.lost += self._lost - lost
            line, peer = data.rstrip(b"\r\n"), self._sink.peer(address[0])
            if not peer:
                counters.not_allowed += 1
            elif line and self._queue.full():
                counters.dropped += 1
            elif flags & socket.MSG_TRUNC or len(line) > self._sink.max_line:
                self._queue.put_nowait((too_long(self._sink.max_line, line), peer))
            elif line:
                self._queue.put_nowait((line, peer))

    async def _hand_on(self) -> None:
        while True:
            heard = [await self._queue.get()]
            while len(heard) < _MOST_DATAGRAMS and not self._queue.empty():
                heard.append(self._queue.get_nowait())
            await self._sink.deliver(heard)


class Streams:
    """A TCP or TLS port, each connection a task that reads on only when its last lines are done.

    Sockets instead of asyncio's server, which loses the connections it is just accepting when it is closed.
    """

    def __init__(
        self,
        sink: Sink,
        group: asyncio.TaskGroup,
        listening: socket.socket,
        max_connections: int,
        tls: ssl.SSLContext | None,
        handshake_timeout: float,
    ) -> None:
        self._sink = sink
        self._group = group
        self._listening = listening
        self._max_connections = max_connections
        self._tls = tls
        self._handshake_timeout = handshake_timeout
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to accept connections."""
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Close all connections; what is being done with their lines is cancelled."""
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        try:
            connection, address = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no file or memory left: ask again later, for the peer keeps waiting
            self._loop.remove_reader(self._listening)
            self._loop.call_later(1, self._resume)
            return
        peer = self._sink.peer(address[0])
        if not peer:
            self._sink.counters.not_allowed += 1
            connection.close()
            return
        if len(self._tasks) >= self._max_connections:
            self._sink.counters.refused += 1
            connection.close()
            return
        connection.setblocking(False)
        # A peer that vanished without a word gives its place back, after the kernel's keepalive time.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        task = self._group.create_task(self._serve(connection, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: connection.close())  # a task cancelled before it began runs no `finally`

    def _resume(self) -> None:
        if self._listening.fileno() >= 0:
            self.start()

    async def _serve(self, connection: socket.socket, peer: str) -> None:
        read: Read = partial(self._loop.sock_recv, connection)
        if self._tls is not None:
            secured = Secured(connection, self._tls)
            try:
                async with asyncio.timeout(self._handshake_timeout):
                    await secured.shake_hands()
            except OSError as error:  # ssl.SSLError and TimeoutError are
                self._sink.counters.handshakes_failed += 1
                logger.info("no TLS with %s: %s", peer, str(error) or "it took too long")
                return
            read = secured.read
        await self._read_on(read, peer)

    async def _read_on(self, read: Read, peer: str) -> None:
        frames = Frames(self._sink.max_line)
        while data := await _received(read):
            lines = frames.feed(data)
            while some := [(line, peer) for line in islice(lines, _MOST_LINES)]:
                await self._sink.deliver(some)
            await asyncio.sleep(0)  # reading gives nobody a turn while there is something to read
        if last := frames.rest(cut=data is None):
            await self._sink.deliver([(last, peer)])


async def _received(read: Read) -> bytes | None:
    """Return what arrived, empty at the end, None if the connection broke."""
    try:
        return await read(_READ)
    except OSError:
        return None
