import asyncio
import logging
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from deployments.intake.acceptance import Delivery, digest_of, excerpt_of
from deployments.intake.framing import Counters
from deployments.intake.settings import Syslog
from deployments.intake.syslog_listener import listening
from tasks.errors import ConfigurationError
from tasks.models import Observation
from tests.intake.conftest import LOOPBACK, Desk, Naps, send, until

pytestmark = pytest.mark.anyio

OCCURRED = datetime(2026, 11, 22, 13, 47, 42, tzinfo=UTC)
RAISED = Observation(
    alarm_id="12110",
    kind="raised",
    cluster="prod",
    host="node-master1",
    serial="4711",
    occurred=OCCURRED,
    sent=datetime(2026, 11, 22, 13, 47, 45, tzinfo=UTC),
)


def line(serial: str = "4711", category: str = "0", body: str = "") -> bytes:
    """A line as Manager sends it, or one with this body."""
    report = f"prod|12110|Failed|{serial}|{category}|2026-11-22 13:47:42|--|1|HostName=node-master1|-1|2|||"
    return f"<134>Nov 22 13:47:45 oms1 MRS Manager: {body or report}".encode()


def delivery(received: bytes, observation: Observation) -> Delivery:
    """How a line is handed in."""
    return Delivery("syslog", LOOPBACK, digest_of(received), observation, excerpt_of(received))


def settings(**changes: object) -> Syslog:
    """The defaults on free ports."""
    return Syslog.model_validate({"port": 0, **changes})


async def test_lines() -> None:
    """Alarms and clears are handed in, a heartbeat is noted, and what cannot be read is rejected with the reason."""
    desk, counters = Desk(), Counters()
    good = [line(), line(category="1"), line(category="2")]
    bad = [line(body="no report"), b"\xff\n".strip()]
    async with listening(settings(heartbeat=" still here "), desk, counters) as ports:
        await send(ports["tcp"], b"\n".join([*good, *bad, line(body="still here"), b"<134>" + b"x" * 9_000, b""]))
        await until(lambda: len(desk.rejected) == 3)
    kinds = [RAISED, replace(RAISED, kind="cleared"), replace(RAISED, kind="event")]
    assert desk.accepted == [[delivery(*each) for each in zip(good, kinds, strict=True)]]
    assert desk.alive == [("syslog", LOOPBACK)]
    assert [each[:3] for each in desk.rejected] == [("syslog", LOOPBACK, "malformed")] * 3
    assert sorted(each[3:] for each in desk.rejected) == [
        ("no end in field dn: expected '|' after it, got 'no report'", bad[0]),
        ("the line is longer than 8192 bytes: shorten the report format", b"<134>" + b"x" * 195),
        ("wrong encoding in the line at byte 0: expected UTF-8, got b'\\xff'", bad[1]),
    ]
    assert counters == Counters(received=6, malformed=1)


async def test_datagrams() -> None:
    """By UDP an alarm arrives as by TCP."""
    desk = Desk()
    async with listening(settings(), desk, Counters()) as ports:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(line(), (LOOPBACK, ports["udp"]))
        await until(lambda: len(desk.accepted) == 1)
    assert desk.accepted == [[delivery(line(), RAISED)]]


async def test_settings_are_heeded() -> None:
    """Report format, time zone, identifier, longest line and networks are those of the configuration."""
    desk, counters = Desk(), Counters()
    configured = settings(
        protocols=["tcp"],
        template="${id} ${category} ${dn} ${occurTime}",
        zone="Asia/Shanghai",
        identifiers=["Lake House"],
        max_line=480,
        allowed=["127.0.0.1/32"],
    )
    received = b"<134>Nov 22 21:47:45 oms1 Lake House: 12110 0 prod 2026-11-22 21:47:42"
    async with listening(configured, desk, counters) as ports:
        await send(ports["tcp"], received + b"\n" + b"x" * 481 + b"\n")
        await until(lambda: len(desk.accepted) + len(desk.rejected) == 2)
    assert set(ports) == {"tcp"}
    assert desk.accepted == [[delivery(received, replace(RAISED, host="", serial=""))]]
    assert counters == Counters(received=1, malformed=1)


async def test_one_batch_is_one_commit() -> None:
    """Lines that arrive while the desk writes are handed in together afterwards, in their order."""
    desk = Desk(commit=0.2)
    async with listening(settings(), desk, Counters()) as ports:
        _, writer = await asyncio.open_connection(LOOPBACK, ports["tcp"])
        for number in range(101):
            writer.write(line(str(number)) + b"\n")
            await asyncio.sleep(0.05 if number == 0 else 0)
        await until(lambda: len(desk.serials) == 101)
        writer.close()
        await writer.wait_closed()
    assert desk.serials == [str(number) for number in range(101)]
    assert [len(batch) for batch in desk.accepted] == [1, 100]


@pytest.mark.parametrize("operation", ["accept", "reject", "heard"])
async def test_ledger_down(operation: str, caplog: pytest.LogCaptureFixture) -> None:
    """While the ledger does not answer the same batch is tried again, and what was written before is not repeated."""
    desk, naps, counters = Desk(), Naps(), Counters()
    desk.down = {operation}
    lines = [line(), line(body="no report"), line(body="still here")]
    async with listening(settings(heartbeat="still here"), desk, counters, sleep=naps.take) as ports:
        await send(ports["tcp"], b"\n".join([*lines, b""]))
        await until(lambda: len(naps.taken) >= 8)
        await send(ports["tcp"], line("4712") + b"\n")
        desk.down.clear()
        await until(lambda: desk.serials in (["4711", "4712"], ["4712", "4711"]))
        await until(lambda: len(desk.rejected) == len(desk.alive) == 1)
    assert counters == Counters(received=4)
    limits = [1, 2, 4, 8, 15, 15, 15, 15]
    first = naps.taken[:8]
    assert [limit / 2 <= nap <= limit for nap, limit in zip(first, limits, strict=True)] == [True] * 8
    warnings = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert warnings == {"the ledger does not take it (the ledger is locked): what was heard waits and is tried again"}


async def test_ledger_down_loses_nothing_by_tcp() -> None:
    """Through an outage TCP peers wait and every line is handed in once; what UDP loses meanwhile is counted."""
    desk, counters, many = Desk(), Counters(), 5_000
    desk.down = {"accept"}
    async with listening(settings(queue_size=100), desk, counters, sleep=Naps().take) as ports:
        sending = asyncio.create_task(send(ports["tcp"], b"".join(line(str(n)) + b"\n" for n in range(many))))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(500):
                sender.sendto(line(f"udp {number}"), (LOOPBACK, ports["udp"]))
                await asyncio.sleep(0)
        await until(lambda: counters.dropped > 0)
        assert desk.accepted == []
        desk.down.clear()
        await until(lambda: len(desk.serials) == counters.received == many + 500 - counters.dropped)
        await sending
    by_tcp = [serial for serial in desk.serials if not serial.startswith("udp")]
    assert by_tcp == [str(number) for number in range(many)]
    assert counters == Counters(received=many + 500 - counters.dropped, dropped=counters.dropped)


async def test_mistake_is_loud() -> None:
    """An error that nobody expected ends the listener instead of being tried for ever."""
    desk = Desk()
    desk.broken = True

    async def send_one() -> None:
        async with listening(settings(), desk, Counters()) as ports:
            await send(ports["tcp"], line() + b"\n" + line(body="no report") + b"\n")
            await asyncio.sleep(5)

    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        await send_one()


async def test_no_protocol() -> None:
    """A configuration that names no way to listen is refused with what to do."""
    with pytest.raises(ConfigurationError) as refusal:
        async with listening(settings(protocols=[]), Desk(), Counters()):
            pass
    assert str(refusal.value) == ("syslog: no way to listen: name udp or tcp in protocols, or give tls_port and tls")


async def test_pace() -> None:
    """Five thousand alarms over one connection are handed in at more than 1,000 a second, with half a core to spare."""
    desk, many = Desk(commit=0.005), 5_000
    stream = b"".join(line(str(number)) + b"\n" for number in range(many))
    async with listening(settings(), desk, Counters()) as ports:
        began, busy = time.perf_counter(), time.process_time()
        await send(ports["tcp"], stream)
        await until(lambda: len(desk.serials) == many, seconds=15)
        took, busy = time.perf_counter() - began, time.process_time() - busy
    assert (took < many / 1_000, busy < many / 1_000 / 2) == (True, True), f"{took:.2f} s, {busy:.2f} s of CPU"
