import asyncio
import errno
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network

import pytest

from deployments.intake.framing import Broken, Counters, too_long
from deployments.intake.listener import Protocol, listen
from deployments.intake.sockets import Heard
from deployments.intake.syslog import Template, parse_line
from tasks.models import Observation
from tests.intake.conftest import Ear, send, until

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.1"
HERE = [ip_network("127.0.0.0/8")]
ELSEWHERE = [ip_network("10.0.0.0/8"), ip_network("::/0")]
BODY = "prod|12110|Failed|4711|0|2026-11-22 13:47:42|--|1|HostName=node-master1|-1|2|||"
OCCURRED = datetime(2026, 11, 22, 13, 47, 42, tzinfo=UTC)
RAISED = Observation(
    alarm_id="12110", kind="raised", cluster="prod", host="node-master1", serial="4711", occurred=OCCURRED
)
TOO_LONG = Broken("the line is longer than 64 bytes: shorten the report format", b"<1>" + b"x" * 61)

CUT = "the connection ended within the line"

hearing = partial(listen, host=LOOPBACK, allowed=HERE)


@pytest.mark.parametrize("form", ["--rfc3164", "--rfc5424", "--rfc5424=notime,nohost"])
@pytest.mark.parametrize(("protocol", "framing"), [("udp", []), ("tcp", []), ("tcp", ["--octet-count"])])
async def test_logger(logger: str, protocol: Protocol, framing: list[str], form: str) -> None:
    """What util-linux logger sends, in any form and framing, arrives and is read as the alarm it is."""
    ear = Ear()
    async with hearing(ports={protocol: 0}, on_lines=ear.take) as ports:
        target = ["--server", LOOPBACK, "--port", str(ports[protocol]), f"--{protocol}"]
        sender = await asyncio.create_subprocess_exec(
            logger, *target, *framing, form, "--priority", "local0.info", "--tag", "MRS Manager", BODY
        )
        assert await sender.wait() == 0
        await until(lambda: len(ear.heard) == 1)
    [(line, peer)] = ear.heard
    assert isinstance(line, bytes)
    told = parse_line(line, Template())
    assert isinstance(told, Observation)
    assert (replace(told, sent=None), peer) == (RAISED, LOOPBACK)
    assert (told.sent is None) == ("notime" in form)


@pytest.mark.parametrize(
    ("stream", "lines", "counters"),
    [
        (b"<1>a\n<2>b\r\n\n<3>c\n", [b"<1>a", b"<2>b", b"<3>c"], Counters(received=3)),
        (b"4 <1>a5 <2>b\n\n5 <3>\nc<4>d\n", [b"<1>a", b"<2>b", b"<3>\nc", b"<4>d"], Counters(received=4)),
        (b"<1>a\n<2>no newline", [b"<1>a", b"<2>no newline"], Counters(received=2)),
        (b"<1>" + b"x" * 100 + b"\n<2>b\n", [TOO_LONG, b"<2>b"], Counters(received=1, malformed=1)),
        (b"103 <1>" + b"x" * 100 + b"4 <2>b", [too_long(64), b"<2>b"], Counters(received=1, malformed=1)),
        (b"<1>" + b"x" * 61 + b"\n64 <2>" + b"y" * 61, [b"<1>" + b"x" * 61, b"<2>" + b"y" * 61], Counters(received=2)),
        (b"<1>a\n<1>" + b"x" * 100, [b"<1>a", TOO_LONG], Counters(received=1, malformed=1)),
        (b"<1>a\n50 <2>cut", [b"<1>a", Broken(CUT, b"50 <2>cut")], Counters(received=1, malformed=1)),
        (b"2026 was a year\n<1>a\n", [b"2026 was a year", b"<1>a"], Counters(received=2)),
    ],
)
async def test_framing(stream: bytes, lines: list[bytes | Broken], counters: Counters) -> None:
    """TCP lines are counted or ended by a newline; one too long or cut short is given up and the next one read."""
    ear, seen = Ear(), Counters()
    async with hearing(ports={"tcp": 0}, on_lines=ear.take, counters=seen, max_line=64) as ports:
        await send(ports["tcp"], stream)
        await until(lambda: seen == counters and len(ear.heard) == len(lines))
    assert (ear.heard, seen) == ([(line, LOOPBACK) for line in lines], counters)


async def test_broken_connection() -> None:
    """A line cut off by a reset is given up, never taken for a whole one, and the listener lives on."""
    ear, seen = Ear(), Counters()
    async with hearing(ports={"tcp": 0}, on_lines=ear.take, counters=seen) as ports:
        _, writer = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        writer.write(b"<1>a\n<2>cut")
        await until(lambda: len(ear.heard) == 1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()
        await until(lambda: seen.malformed == 1)
        await send(ports["tcp"], b"<3>c\n")
        await until(lambda: len(ear.heard) == 3)
    lines = [b"<1>a", Broken(CUT, b"<2>cut"), b"<3>c"]
    assert (ear.heard, seen) == ([(line, LOOPBACK) for line in lines], Counters(received=2, malformed=1))


async def test_batches() -> None:
    """Lines that arrive together are handed on together, by TCP up to 500, by UDP whatever has been waiting."""
    ear = Ear(is_open=False)
    async with hearing(ports={"tcp": 0, "udp": 0}, on_lines=ear.take) as ports:
        await send(ports["tcp"], b"<1>a\n" * 1_200)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(1_201):
                sender.sendto(b"<%d>" % number, (LOOPBACK, ports["udp"]))
                if not number:
                    await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        ear.open.set()
        await until(lambda: len(ear.heard) == 2_401)
    tcp, udp = [[batch for batch in ear.batches if (batch[0][0] == b"<1>a") is is_tcp] for is_tcp in (True, False)]
    assert [len(batch) for batch in tcp] == [500, 500, 200]
    assert [len(batch) for batch in udp] == [1, 1_000, 200]
    assert [line for batch in udp for line, _ in batch] == [b"<%d>" % number for number in range(1_201)]


async def test_back_pressure() -> None:
    """While lines are being handled their connection is not read, and afterwards nothing is missing."""
    ear, seen, lines = Ear(is_open=False), Counters(), 4_000
    async with hearing(ports={"tcp": 0}, on_lines=ear.take, counters=seen) as ports:
        _, writer = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        writer.write((b"<1>" + b"x" * 8_000 + b"\n") * lines)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.3)
        assert seen == Counters(received=seen.received)
        assert 0 < seen.received <= 8
        ear.open.set()
        await until(lambda: len(ear.heard) == lines)
        writer.close()
        await writer.wait_closed()
    assert seen == Counters(received=lines)


async def test_datagrams_dropped() -> None:
    """UDP keeps as many datagrams as its queue holds and counts those it drops; one too long is given up."""
    ear, seen = Ear(is_open=False), Counters()
    async with hearing(ports={"udp": 0}, on_lines=ear.take, counters=seen, queue_size=2, max_line=64) as ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for data in [b"<1>a", b"", b"<1>" + b"x" * 999, b"<2>b\n", b"<3>c", b"<4>d"]:
                sender.sendto(data, (LOOPBACK, ports["udp"]))
                await asyncio.sleep(0.01)
        await until(lambda: seen == Counters(received=1, dropped=2))
        ear.open.set()
        await until(lambda: len(ear.heard) == 3)
    lines = [b"<1>a", replace(TOO_LONG, beginning=b"<1>" + b"x" * 63), b"<2>b"]
    assert (ear.heard, seen) == (
        [(line, LOOPBACK) for line in lines],
        Counters(received=2, malformed=1, dropped=2),
    )


@pytest.mark.parametrize("size", [63, 64, 65, 66, 67, 8_192])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
async def test_longest_datagram(size: int, end: bytes) -> None:
    """A datagram's line may be as long as allowed, its end not counted, and not a byte longer."""
    ear = Ear()
    async with hearing(ports={"udp": 0}, on_lines=ear.take, max_line=64) as ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x" * size + end, (LOOPBACK, ports["udp"]))
        await until(lambda: len(ear.heard) == 1)
    [(line, _)] = ear.heard
    assert (line == b"x" * size, isinstance(line, Broken)) == (size <= 64, size > 64)


async def test_datagram_with_newlines() -> None:
    """A datagram is one line whatever is in it, so one that goes on behind a newline at the limit is too long."""
    ear = Ear()
    async with hearing(ports={"udp": 0}, on_lines=ear.take, max_line=64) as ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for data in (b"<1>a\n<2>b\n", b"<1>" + b"x" * 61 + b"\r\n<2>b"):
                sender.sendto(data, (LOOPBACK, ports["udp"]))
        await until(lambda: len(ear.heard) == 2)
    assert ear.heard == [(b"<1>a\n<2>b", LOOPBACK), (TOO_LONG, LOOPBACK)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
async def test_datagrams_lost() -> None:
    """What the kernel drops while nobody reads is counted too: every datagram is handed on or counted."""
    ear, seen, sent = Ear(), Counters(), 20_000
    async with hearing(ports={"udp": 0}, on_lines=ear.take, counters=seen, queue_size=sent) as ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(sent):  # the listener gets no turn
                sender.sendto(b"x" * 1_000, (LOOPBACK, ports["udp"]))
            await until(lambda: seen.received > 100)
            await asyncio.sleep(0.2)
            sender.sendto(b"last", (LOOPBACK, ports["udp"]))
            await until(lambda: ear.heard[-1][0] == b"last")
    assert seen == Counters(received=len(ear.heard), lost=sent + 1 - len(ear.heard))
    assert seen.lost > 0


async def test_networks() -> None:
    """From a network that may not send, a connection is closed at once and a datagram left, both counted."""
    ear, seen = Ear(), Counters()
    listener = listen(host=LOOPBACK, ports={"tcp": 0, "udp": 0}, allowed=ELSEWHERE, on_lines=ear.take, counters=seen)
    async with listener as ports:
        reader, writer = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"<1>a", (LOOPBACK, ports["udp"]))
        await until(lambda: seen.not_allowed == 2)
    assert (ear.heard, seen) == ([], Counters(not_allowed=2))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("address", "peers"), [("127.0.0.1", ["127.0.0.1"] * 2), ("::1", [])])
async def test_mapped_addresses(address: str, peers: list[str]) -> None:
    """On an IPv6 socket that hears IPv4 as well, an IPv4 peer is known, and allowed, by its IPv4 address."""
    ear, seen = Ear(), Counters()
    async with listen(host="::", ports={"tcp": 0, "udp": 0}, allowed=HERE, on_lines=ear.take, counters=seen) as ports:
        with socket.create_connection((address, ports["tcp"])) as connection:
            connection.sendall(b"<1>a\n")
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"<2>b", (address, ports["udp"]))
        await until(lambda: seen.received + seen.not_allowed == 2)
    assert ([peer for _, peer in ear.heard], seen.not_allowed) == (peers, 2 - len(peers))


async def test_connections_bounded() -> None:
    """A connection too many is closed at once, and its place is free again when another ends."""
    ear, seen = Ear(), Counters()
    async with hearing(ports={"tcp": 0}, on_lines=ear.take, counters=seen, max_connections=1) as ports:
        _, first = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        first.write(b"<1>a\n")
        await until(lambda: len(ear.heard) == 1)
        reader, second = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        assert await reader.read() == b""
        first.write(b"<2>b")
        for writer in (first, second):
            writer.close()
            await writer.wait_closed()
        await until(lambda: len(ear.heard) == 2)
        await send(ports["tcp"], b"<3>c\n")
        await until(lambda: len(ear.heard) == 3)
    assert seen == Counters(received=3, refused=1)


async def test_both_protocols_close() -> None:
    """Leaving the block frees both ports and ends open connections, even while a line is being handled."""
    ear, seen = Ear(is_open=False), Counters()
    async with hearing(ports={"udp": 0, "tcp": 0}, on_lines=ear.take, counters=seen) as ports:
        reader, writer = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        writer.write(b"<1>a\n")
        await until(lambda: seen.received == 1)
    assert (await reader.read(), ear.heard) == (b"", [])
    writer.close()
    await writer.wait_closed()
    for protocol in ports:
        async with hearing(ports={protocol: ports[protocol]}, on_lines=ear.take) as again:
            assert again == {protocol: ports[protocol]}


@pytest.mark.parametrize("turns", range(5))
async def test_accepting_closes(turns: int) -> None:
    """A connection that is just being accepted when the block is left is closed too, however far it got."""
    ear = Ear()
    async with hearing(ports={"tcp": 0}, on_lines=ear.take) as ports:
        peer = socket.create_connection((LOOPBACK, ports["tcp"]))
        for _ in range(turns):
            await asyncio.sleep(0)
    with peer:
        peer.settimeout(1)
        try:
            end = peer.recv(1)
        except ConnectionResetError:
            end = b""
    assert (end, ear.heard) == (b"", [])


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_port_in_use(protocol: Protocol) -> None:
    """A port in use is refused with the address and what to do about it."""
    ear = Ear()
    async with hearing(ports={protocol: 0}, on_lines=ear.take) as ports:
        with pytest.raises(OSError, match="cannot listen") as refusal:
            async with hearing(ports={protocol: ports[protocol]}, on_lines=ear.take):
                pass
    assert refusal.value.args == (
        errno.EADDRINUSE,
        f"cannot listen on 127.0.0.1:{ports[protocol]} ({protocol}): "
        "another program holds the port; stop it or choose another port",
    )


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_failure_is_loud(protocol: Protocol) -> None:
    """What on_lines raises ends the block as itself: a listener whose lines go nowhere does not look alive."""

    async def fail(heard: Sequence[Heard]) -> None:
        [(line, peer)] = heard
        assert isinstance(line, bytes)
        raise ConnectionResetError(f"no ledger for {line.decode()} of {peer}")

    async def send_one() -> None:
        async with hearing(ports={protocol: 0}, on_lines=fail) as ports:
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            with socket.socket(socket.AF_INET, kind) as sender:
                sender.connect((LOOPBACK, ports[protocol]))
                sender.sendall(b"<13>x: y\n")
            await asyncio.sleep(5)

    with pytest.raises(ConnectionResetError, match=r"^no ledger for <13>x: y of 127\.0\.0\.1$"):
        await send_one()


async def test_block_failure_is_itself() -> None:
    """An error in the block leaves it unchanged."""
    ear = Ear()
    with pytest.raises(LookupError, match=r"^mine$"):
        async with hearing(ports={"udp": 0, "tcp": 0}, on_lines=ear.take):
            raise LookupError("mine")


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ({}, r"ports: expected some of udp, tcp and tls, got \[\]"),
        ({"dtls": 0}, r"ports: expected some of udp, tcp and tls, got \['dtls'\]"),
        ({"tls": 0}, r"ports: tls needs a certificate; pass it in tls"),
    ],
)
async def test_wrong_protocols(ports: dict[Protocol, int], expected: str) -> None:
    """An empty selection of protocols is an error, never everything; so is an unknown one, or TLS without a key."""
    ear = Ear()
    with pytest.raises(ValueError, match=f"^{expected}$"):
        async with hearing(ports=ports, on_lines=ear.take):
            pass
