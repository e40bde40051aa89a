import asyncio
import errno
import socket
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from deployments.intake.framing import Counters
from deployments.intake.listener import Protocol, listen
from deployments.intake.syslog import Observation, Template, parse_line

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.1"
BODY = "prod|12110|Failed|4711|0|2026-11-22 13:47:42|--|1|HostName=node-master1|-1|2|||"
OCCURRED = datetime(2026, 11, 22, 13, 47, 42, tzinfo=UTC)
PARTS = {"HostName": "node-master1"}
RAISED = Observation("12110", "raised", None, "prod", "4711", OCCURRED, None, "node-master1", PARTS, "major", "Failed")


class Desk:
    """Takes lines in, and can be told to stop taking them."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.lines: list[tuple[bytes, str]] = []
        self.open = asyncio.Event()
        if is_open:
            self.open.set()

    async def take(self, line: bytes, peer: str) -> None:
        """Keep a line, once the desk is open."""
        await self.open.wait()
        self.lines.append((line, peer))


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, for five seconds at most."""
    for _ in range(1_000):
        if is_so():
            return
        await asyncio.sleep(0.005)
    pytest.fail("waited five seconds in vain")


async def send(port: int, data: bytes) -> None:
    """Send bytes over a TCP connection of their own, and close it."""
    _, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(data)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("form", ["--rfc3164", "--rfc5424", "--rfc5424=notime,nohost"])
@pytest.mark.parametrize(("protocol", "framing"), [("udp", []), ("tcp", []), ("tcp", ["--octet-count"])])
async def test_logger(logger: str, protocol: Protocol, framing: list[str], form: str) -> None:
    """What util-linux logger sends, in any form and framing, arrives and is read as the alarm it is."""
    desk = Desk()
    async with listen(host=LOOPBACK, port=0, protocols=[protocol], on_line=desk.take) as ports:
        target = ["--server", LOOPBACK, "--port", str(ports[protocol]), f"--{protocol}"]
        sender = await asyncio.create_subprocess_exec(
            logger, *target, *framing, form, "--priority", "local0.info", "--tag", "MRS Manager", BODY
        )
        assert await sender.wait() == 0
        await until(lambda: len(desk.lines) == 1)
    assert [(parse_line(line, Template()), peer) for line, peer in desk.lines] == [(RAISED, LOOPBACK)]


@pytest.mark.parametrize(
    ("stream", "lines", "counters"),
    [
        (b"<1>a\n<2>b\r\n\n<3>c\n", [b"<1>a", b"<2>b", b"<3>c"], Counters(received=3)),
        (b"4 <1>a5 <2>b\n\n5 <3>\nc<4>d\n", [b"<1>a", b"<2>b", b"<3>\nc", b"<4>d"], Counters(received=4)),
        (b"<1>a\n<2>no newline", [b"<1>a", b"<2>no newline"], Counters(received=2)),
        (b"<1>" + b"x" * 100 + b"\n<2>b\n", [b"<2>b"], Counters(received=1, malformed=1)),
        (b"103 <1>" + b"x" * 100 + b"4 <2>b", [b"<2>b"], Counters(received=1, malformed=1)),
        (b"<1>" + b"x" * 61 + b"\n64 <2>" + b"y" * 61, [b"<1>" + b"x" * 61, b"<2>" + b"y" * 61], Counters(received=2)),
        (b"<1>a\n<2>" + b"x" * 100, [b"<1>a"], Counters(received=1, malformed=1)),
        (b"<1>a\n50 <2>cut short", [b"<1>a"], Counters(received=1, malformed=1)),
        (b"2026 was a year\n<1>a\n", [b"2026 was a year", b"<1>a"], Counters(received=2)),
    ],
)
async def test_framing(stream: bytes, lines: list[bytes], counters: Counters) -> None:
    """TCP lines are counted or ended by a newline; one too long or cut short is counted and the next one read."""
    desk, seen = Desk(), Counters()
    async with listen(host=LOOPBACK, port=0, protocols=["tcp"], on_line=desk.take, counters=seen, max_line=64) as ports:
        await send(ports["tcp"], stream)
        await until(lambda: seen == counters and len(desk.lines) == len(lines))
    assert (desk.lines, seen) == ([(line, LOOPBACK) for line in lines], counters)


async def test_broken_connection() -> None:
    """A line cut off by a reset is counted, never handed on, and the listener lives on."""
    desk, seen = Desk(), Counters()
    async with listen(host=LOOPBACK, port=0, protocols=["tcp"], on_line=desk.take, counters=seen) as ports:
        _, writer = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        writer.write(b"<1>a\n<2>cut")
        await until(lambda: len(desk.lines) == 1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()
        await until(lambda: seen.malformed == 1)
        await send(ports["tcp"], b"<3>c\n")
        await until(lambda: len(desk.lines) == 2)
    assert (desk.lines, seen) == ([(b"<1>a", LOOPBACK), (b"<3>c", LOOPBACK)], Counters(received=2, malformed=1))


async def test_back_pressure() -> None:
    """While a line is being handled its connection is not read, and afterwards nothing is missing."""
    desk, seen, lines = Desk(is_open=False), Counters(), 4_000
    async with listen(host=LOOPBACK, port=0, protocols=["tcp"], on_line=desk.take, counters=seen) as ports:
        _, writer = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        writer.write((b"<1>" + b"x" * 8_000 + b"\n") * lines)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.3)
        assert seen == Counters(received=1)
        desk.open.set()
        await until(lambda: len(desk.lines) == lines)
        writer.close()
        await writer.wait_closed()
    assert seen == Counters(received=lines)


async def test_datagrams_dropped() -> None:
    """UDP keeps as many datagrams as its queue holds, and counts those it drops and those too long."""
    desk, seen = Desk(is_open=False), Counters()
    async with listen(
        host=LOOPBACK, port=0, protocols=["udp"], on_line=desk.take, counters=seen, queue_size=2, max_line=64
    ) as ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for data in [b"<1>a", b"", b"x" * 65, b"<2>b\n", b"<3>c", b"<4>d", b"<5>e"]:
                sender.sendto(data, (LOOPBACK, ports["udp"]))
                await asyncio.sleep(0.01)
        await until(lambda: seen == Counters(received=1, malformed=1, dropped=2))
        desk.open.set()
        await until(lambda: len(desk.lines) == 3)
    assert (desk.lines, seen) == (
        [(line, LOOPBACK) for line in (b"<1>a", b"<2>b", b"<3>c")],
        Counters(received=3, malformed=1, dropped=2),
    )


async def test_connections_bounded() -> None:
    """A connection too many is closed at once, and its place is free again when another ends."""
    desk, seen = Desk(), Counters()
    async with listen(
        host=LOOPBACK, port=0, protocols=["tcp"], on_line=desk.take, counters=seen, max_connections=1
    ) as ports:
        _, first = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        first.write(b"<1>a\n")
        await until(lambda: len(desk.lines) == 1)
        reader, second = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        assert await reader.read() == b""
        first.write(b"<2>b")
        for writer in (first, second):
            writer.close()
            await writer.wait_closed()
        await until(lambda: len(desk.lines) == 2)
        await send(ports["tcp"], b"<3>c\n")
        await until(lambda: len(desk.lines) == 3)
    assert seen == Counters(received=3, refused=1)


async def test_both_protocols_close() -> None:
    """Leaving the block frees both ports and ends open connections, even while a line is being handled."""
    desk, seen = Desk(is_open=False), Counters()
    async with listen(host=LOOPBACK, port=0, protocols=["udp", "tcp"], on_line=desk.take, counters=seen) as ports:
        reader, writer = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        writer.write(b"<1>a\n")
        await until(lambda: seen.received == 1)
    assert (await reader.read(), desk.lines) == (b"", [])
    writer.close()
    await writer.wait_closed()
    for protocol in ports:
        async with listen(host=LOOPBACK, port=ports[protocol], protocols=[protocol], on_line=desk.take) as again:
            assert again == {protocol: ports[protocol]}


@pytest.mark.parametrize("turns", range(5))
async def test_accepting_closes(turns: int) -> None:
    """A connection that is just being accepted when the block is left is closed too, however far it got."""
    desk = Desk()
    async with listen(host=LOOPBACK, port=0, protocols=["tcp"], on_line=desk.take) as ports:
        peer = socket.create_connection((LOOPBACK, ports["tcp"]))
        for _ in range(turns):
            await asyncio.sleep(0)
    with peer:
        peer.settimeout(1)
        try:
            end = peer.recv(1)
        except ConnectionResetError:
            end = b""
    assert (end, desk.lines) == (b"", [])


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_port_in_use(protocol: Protocol) -> None:
    """A port in use is refused with the address and what to do about it."""
    desk = Desk()
    async with listen(host=LOOPBACK, port=0, protocols=[protocol], on_line=desk.take) as ports:
        with pytest.raises(OSError, match="cannot listen") as refusal:
            async with listen(host=LOOPBACK, port=ports[protocol], protocols=[protocol], on_line=desk.take):
                pass
    assert refusal.value.args == (
        errno.EADDRINUSE,
        f"cannot listen on 127.0.0.1:{ports[protocol]} ({protocol}): "
        "another program holds the port; stop it or choose another port",
    )


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_failure_is_loud(protocol: Protocol) -> None:
    """What on_line raises ends the block as itself: a listener whose lines go nowhere does not look alive."""

    async def fail(line: bytes, peer: str) -> None:
        raise ConnectionResetError(f"no ledger for {line.decode()} of {peer}")

    async def send_one() -> None:
        async with listen(host=LOOPBACK, port=0, protocols=[protocol], on_line=fail) as ports:
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            with socket.socket(socket.AF_INET, kind) as sender:
                sender.connect((LOOPBACK, ports[protocol]))
                sender.sendall(b"<13>x: y\n")
            await asyncio.sleep(5)

    with pytest.raises(ConnectionResetError, match=r"^no ledger for <13>x: y of 127\.0\.0\.1$"):
        await send_one()


async def test_block_failure_is_itself() -> None:
    """An error in the block leaves it unchanged."""
    desk = Desk()
    with pytest.raises(LookupError, match=r"^mine$"):
        async with listen(host=LOOPBACK, port=0, protocols=["udp", "tcp"], on_line=desk.take):
            raise LookupError("mine")


async def test_no_protocol() -> None:
    """An empty selection of protocols is an error, never everything."""
    desk = Desk()
    with pytest.raises(ValueError, match=r"^protocols: expected udp, tcp or both, got \[\]$"):
        async with listen(host=LOOPBACK, port=0, protocols=[], on_line=desk.take):
            pass
