"""rsyslog stands between Manager and us in many a network: what it forwards is read as what Manager sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployments.intake.framing import Counters
from deployments.intake.listener import Protocol
from deployments.intake.settings import Syslog, Tls
from deployments.intake.syslog_listener import listening
from tasks.models import Observation
from tests.intake.conftest import LOOPBACK, Desk, Naps, Pki, send, until

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC).replace(microsecond=0)  # rsyslog takes the year that RFC 3164 leaves out from its own clock
RAISED = Observation(
    alarm_id="12110",
    kind="raised",
    cluster="prod",
    host="node-master1",
    occurred=NOW - timedelta(seconds=3),
    sent=NOW,
)
TRADITIONAL, ISO, RFC5424 = (
    "RSYSLOG_TraditionalForwardFormat",
    "RSYSLOG_ForwardFormat",
    "RSYSLOG_SyslogProtocol23Format",
)
UDP = 'protocol="udp"'
TCP = 'protocol="tcp" TCP_Framing="traditional"'
COUNTED = 'protocol="tcp" TCP_Framing="octet-counted"'
TLS = f'{COUNTED} StreamDriverMode="1" StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="localhost"'


def line(serial: str, identifier: str = "MRS Manager") -> bytes:
    """A line as Manager sends it."""
    report = f"prod|12110|Failed|{serial}|0|{RAISED.occurred:%Y-%m-%d %H:%M:%S}|--|1|HostName=node-master1|-1|2|||"
    return f"<134>{NOW:%b} {NOW.day:2} {NOW:%H:%M:%S} oms1 {identifier}: {report}\n".encode()


@asynccontextmanager
async def relay(rsyslogd: str, home: Path, forward: str, settings: str = "") -> AsyncIterator[int]:
    """A rsyslog of the test's own that passes everything on; yields the TCP port it hears Manager on."""
    configuration, port = home / "rsyslog.conf", home / "port"
    configuration.write_text(
        f"""
        global(workDirectory="{home}" {settings})
        module(load="imtcp")
        input(type="imtcp" address="{LOOPBACK}" port="0" listenPortFileName="{port}")
        action(type="omfwd" target="{LOOPBACK}" {forward} action.resumeRetryCount="-1" action.resumeInterval="1")
        """
    )
    process = await asyncio.create_subprocess_exec(
        rsyslogd, "-n", "-f", configuration, "-i", home / "rsyslog.pid", env={"TZ": "UTC"}
    )
    try:
        await until(lambda: port.exists() and port.read_text().strip().isdecimal(), seconds=10)
        yield int(port.read_text())
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def trust(pki: Pki, *, shows_certificate: bool) -> str:
    """rsyslog's settings for TLS."""
    own = f'DefaultNetstreamDriverCertFile="{pki.client_certificate}" DefaultNetstreamDriverKeyFile="{pki.client_key}"'
    return f'DefaultNetstreamDriverCAFile="{pki.ca}" {own if shows_certificate else ""}'


@pytest.mark.parametrize(
    ("protocol", "action", "template", "identifier"),
    [
        ("udp", UDP, TRADITIONAL, "MRS Manager"),
        ("udp", UDP, ISO, "MRS Manager"),
        ("udp", UDP, RFC5424, "MRS"),
        ("tcp", TCP, TRADITIONAL, "MRS Manager"),
        ("tcp", TCP, ISO, "MRS Manager"),
        ("tcp", COUNTED, TRADITIONAL, "MRS Manager"),
        ("tcp", COUNTED, RFC5424, "MRS"),
    ],
)
async def test_forwarded(
    rsyslogd: str, tmp_path: Path, protocol: Protocol, action: str, template: str, identifier: str
) -> None:
    """What rsyslog forwards, by UDP or TCP, in any of its framings and formats, is read as what Manager sent."""
    desk, counters = Desk(), Counters()
    async with listening(Syslog(port=0, protocols=(protocol,), zone="UTC"), desk, counters) as ports:
        forward = f'port="{ports[protocol]}" {action} template="{template}"'
        async with relay(rsyslogd, tmp_path, forward) as port:
            await send(port, b"".join(line(str(number), identifier) for number in range(100)))
            await until(lambda: len(desk.serials) == 100, seconds=15)
    assert [each.observation for batch in desk.accepted for each in batch] == [
        replace(RAISED, serial=str(number)) for number in range(100)
    ]
    assert (desk.rejected, counters) == ([], Counters(received=100))


@pytest.mark.parametrize("driver", ["ossl", "gtls"])
@pytest.mark.parametrize("mutual", [False, True])
async def test_forwarded_by_tls(rsyslogd_with_tls: str, tmp_path: Path, pki: Pki, driver: str, mutual: bool) -> None:
    """What rsyslog forwards by TLS arrives, with either of its TLS libraries, with and without a certificate."""
    desk, counters = Desk(), Counters()
    tls = Tls(certificate=pki.certificate, key=pki.key, client_ca=pki.ca if mutual else None)
    async with listening(Syslog(port=0, protocols=(), tls_port=0, tls=tls), desk, counters) as ports:
        forward = f'port="{ports["tls"]}" {TLS} StreamDriver="{driver}" template="{TRADITIONAL}"'
        async with relay(rsyslogd_with_tls, tmp_path, forward, trust(pki, shows_certificate=mutual)) as port:
            await send(port, b"".join(line(str(number)) for number in range(100)))
            await until(lambda: len(desk.serials) == 100, seconds=15)
    assert [each.observation for batch in desk.accepted for each in batch] == [
        replace(RAISED, serial=str(number)) for number in range(100)
    ]
    assert (desk.rejected, counters) == ([], Counters(received=100))


async def test_without_certificate(rsyslogd_with_tls: str, tmp_path: Path, pki: Pki) -> None:
    """A rsyslog that shows no certificate where one is asked for is not heard, and that is counted."""
    desk, counters = Desk(), Counters()
    tls = Tls(certificate=pki.certificate, key=pki.key, client_ca=pki.ca)
    async with listening(Syslog(port=0, protocols=(), tls_port=0, tls=tls), desk, counters) as ports:
        forward = f'port="{ports["tls"]}" {TLS} StreamDriver="ossl" template="{TRADITIONAL}"'
        async with relay(rsyslogd_with_tls, tmp_path, forward, trust(pki, shows_certificate=False)) as port:
            await send(port, line("1"))
            await until(lambda: counters.handshakes_failed > 0, seconds=15)
    assert (desk.accepted, counters) == ([], Counters(handshakes_failed=counters.handshakes_failed))


async def test_outage(rsyslogd: str, tmp_path: Path) -> None:
    """While the ledger is down rsyslog is made to wait, and afterwards every line has been handed in once, in order."""
    desk, counters, many = Desk(), Counters(), 5_000
    desk.down = {"accept"}
    async with listening(Syslog(port=0, protocols=("tcp",)), desk, counters, sleep=Naps().take) as ports:
        forward = f'port="{ports["tcp"]}" {COUNTED} template="{TRADITIONAL}"'
        async with relay(rsyslogd, tmp_path, forward) as port:
            await send(port, b"".join(line(str(number)) for number in range(many)))
            await until(lambda: counters.received > 0, seconds=15)
            await asyncio.sleep(0.5)
            assert (desk.accepted, counters.received <= 500) == ([], True)
            desk.down.clear()
            await until(lambda: len(desk.serials) >= many, seconds=15)
    assert desk.serials == [str(number) for number in range(many)]
