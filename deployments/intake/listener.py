"""The ears of the syslog intake: lines from UDP and TCP, handed on. What they mean is not decided here."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from deployments.intake.framing import Counters, Frames
from deployments.intake.syslog import MAX_LINE

Protocol = Literal["udp", "tcp"]
OnLine = Callable[[bytes, str], Awaitable[None]]

_DATAGRAM_BUFFER = 4 * 1024 * 1024
_ADVICE = {
    errno.EADDRINUSE: "another program holds the port; stop it or choose another port",
    errno.EACCES: "not permitted; choose a port above 1023 or grant CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one of its own or 0.0.0.0",
}


@dataclass
class _Sink:
    on_line: OnLine
    counters: Counters
    max_line: int

    async def deliver(self, line: bytes, peer: str) -> None:
        if line:
            self.counters.received += 1
            await self.on_line(line, peer)


class _Datagrams(asyncio.DatagramProtocol):
    """One datagram is one line (RFC 5426)."""

    def __init__(self, sink: _Sink, queue_size: int) -> None:
        self._sink = sink
        self._queue: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue(queue_size)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        line = data.rstrip(b"\r\n")
        if not line:
            return
        if len(line) > self._sink.max_line:
            self._sink.counters.malformed += 1
        elif self._queue.full():
            self._sink.counters.dropped += 1
        else:
            self._queue.put_nowait((line, str(addr[0])))

    async def pump(self) -> None:
        try:
            while True:
                await self._sink.deliver(*await self._queue.get())
        finally:
            self._sink.counters.dropped += self._queue.qsize()


class _Streams:
    """TCP connections, each a task that reads on only when its last line is done.

    Sockets instead of asyncio's server, which loses the connections it is just accepting when it is closed.
    """

    def __init__(self, sink: _Sink, listening: socket.socket, max_connections: int, group: asyncio.TaskGroup) -> None:
        self._sink = sink
        self._listening = listening
        self._max_connections = max_connections
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
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
        if len(self._tasks) >= self._max_connections:
            self._sink.counters.refused += 1
            connection.close()
            return
        connection.setblocking(False)
        # A peer that vanished without a word gives its place back, after the kernel's keepalive time.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        task = self._group.create_task(self._serve(connection, str(address[0])))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: connection.close())  # a task cancelled before it began runs no `finally`

    def _resume(self) -> None:
        if self._listening.fileno() >= 0:
            self.start()

    async def _serve(self, connection: socket.socket, peer: str) -> None:
        frames = Frames(self._sink.counters, self._sink.max_line)
        while data := await self._read(connection):
            for line in frames.feed(data):
                await self._sink.deliver(line, peer)
        await self._sink.deliver(frames.rest(cut=data is None), peer)

    async def _read(self, connection: socket.socket) -> bytes | None:
        """Return what arrived, empty at the end, None if the connection broke."""
        try:
            return await self._loop.sock_recv(connection, MAX_LINE)
        except OSError:
            return None


@contextmanager
def _explained(protocol: Protocol, host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, f"{error}; check the address and the port")
        raise OSError(error.errno, f"cannot listen on {host}:{port} ({protocol}): {advice}") from error


@asynccontextmanager
async def listen(
    *,
    host: str,
    port: int,
    protocols: Collection[Protocol],
    on_line: OnLine,
    counters: Counters | None = None,
    max_line: int = MAX_LINE,
    max_connections: int = 64,
    queue_size: int = 10_000,
) -> AsyncIterator[Mapping[Protocol, int]]:
    """Listen while the ``async with`` block runs; yields the bound port of each protocol, say ``{"udp": 5140}``.

    TCP loses nothing while ``on_line`` is busy, for its peer is made to wait; UDP keeps ``queue_size`` datagrams and
    drops the rest. Leaving the block closes every connection and cancels what ``on_line`` is doing.

    Args:
        host: the IP address to bind.
        port: the port to bind; 0 lets the system choose one per protocol.
        protocols: any of ``udp`` and ``tcp``, not empty.
        on_line: awaited with a line (bytes, no line end, not empty) and the peer's IP address. Lines of one connection
            come one after the other, those of different connections and of UDP at the same time.
        counters: counts what happens; pass one to read it.
        max_line: bytes; a longer line is counted and skipped, its connection lives on.
        max_connections: TCP connections at a time.
        queue_size: datagrams that may wait for ``on_line``.

    Raises:
        ValueError: no protocol, or an unknown one.
        OSError: the port cannot be bound; says where and what to do.
        Exception: what ``on_line`` raised, an ``ExceptionGroup`` if several did; it cancels the block, because a
            listener whose lines go nowhere must not look alive.
    """
    if not protocols or not set(protocols) <= {"udp", "tcp"}:
        raise ValueError(f"protocols: expected udp, tcp or both, got {list(protocols)}")
    sink = _Sink(on_line, Counters() if counters is None else counters, max_line)
    ports: dict[Protocol, int] = {}
    try:
        async with asyncio.TaskGroup() as group:
            with ExitStack() as opened:
                if "udp" in protocols:
                    datagrams = _Datagrams(sink, queue_size)
                    with _explained("udp", host, port):
                        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                            lambda: datagrams, (host, port)
                        )
                    opened.callback(transport.close)
                    opened.callback(group.create_task(datagrams.pump()).cancel)
                    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _DATAGRAM_BUFFER)
                    ports["udp"] = transport.get_extra_info("sockname")[1]
                if "tcp" in protocols:
                    with _explained("tcp", host, port):
                        family = socket.AF_INET6 if ":" in host else socket.AF_INET
                        listening = socket.create_server((host, port), family=family)
                    streams = _Streams(sink, listening, max_connections, group)
                    streams.start()
                    opened.callback(streams.close)
                    ports["tcp"] = listening.getsockname()[1]
                yield ports
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) > 1:
            raise
        raise errors.exceptions[0] from errors.exceptions[0].__cause__
