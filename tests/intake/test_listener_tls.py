import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from deployments.intake.framing import Broken, Counters
from deployments.intake.listener import listen
from deployments.intake.settings import Tls
from deployments.intake.sockets import Heard
from deployments.intake.tls import server_context
from tasks.errors import ConfigurationError
from tests.intake.conftest import LOOPBACK, Ear, Pki, until

pytestmark = pytest.mark.anyio

hearing = partial(listen, host=LOOPBACK, ports={"tls": 0}, allowed=[ip_network("127.0.0.0/8")])


def server(pki: Pki, client_ca: Path | None = None) -> ssl.SSLContext:
    """The listener's side of TLS."""
    return server_context(Tls(certificate=pki.certificate, key=pki.key, client_ca=client_ca))


def client(pki: Pki, *, shows: str = "nothing") -> ssl.SSLContext:
    """A client that trusts the CA, and shows its certificate, one of another CA, or nothing."""
    context = ssl.create_default_context(cafile=pki.ca)
    if shows == "certificate":
        context.load_cert_chain(pki.client_certificate, pki.client_key)
    elif shows == "stranger":
        trustme.CA().issue_cert("manager.test").configure_cert(context)
    return context


async def say(port: int, context: ssl.SSLContext, data: bytes) -> None:
    """Send bytes over a TLS connection of their own, and close it."""
    _, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
    writer.write(data)
    writer.close()
    await writer.wait_closed()


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the other side has closed the connection, or reset it; nothing is left of it afterwards."""
    try:
        return await asyncio.wait_for(reader.read(), 1) == b""
    except ConnectionError:
        return True
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b"4 <1>a5 <2>b\n\n4 <3>c", [b"<1>a", b"<2>b", b"<3>c"]),
        (b"<1>a\n<2>b\r\n4 <3>c", [b"<1>a", b"<2>b", b"<3>c"]),
        (b"4 <1>a50 <2>cut", [b"<1>a", Broken("the connection ended within the line", b"50 <2>cut")]),
    ],
)
async def test_framing(pki: Pki, stream: bytes, lines: list[bytes | Broken]) -> None:
    """Lines over TLS are counted, as RFC 5425 has it, or ended by a newline."""
    ear = Ear()
    async with hearing(on_lines=ear.take, tls=server(pki)) as ports:
        await say(ports["tls"], client(pki), stream)
        await until(lambda: len(ear.heard) == len(lines))
    assert ear.heard == [(line, LOOPBACK) for line in lines]


async def test_cut_off(pki: Pki) -> None:
    """Without TLS's own goodbye a last line that nothing ends is not taken for a whole one."""
    ear, seen = Ear(), Counters()

    def send(port: int) -> None:
        with client(pki).wrap_socket(socket.create_connection((LOOPBACK, port)), server_hostname=LOOPBACK) as peer:
            peer.sendall(b"<1>a\n<2>cut")

    async with hearing(on_lines=ear.take, counters=seen, tls=server(pki)) as ports:
        await asyncio.to_thread(send, ports["tls"])
        await until(lambda: len(ear.heard) == 2)
    lines = [b"<1>a", Broken("the connection ended within the line", b"<2>cut")]
    assert (ear.heard, seen) == ([(line, LOOPBACK) for line in lines], Counters(received=1, malformed=1))


async def test_back_pressure(pki: Pki) -> None:
    """While lines are being handled little more is read, and afterwards nothing of the closed connection is missing."""
    ear, seen, lines = Ear(is_open=False), Counters(), 4_000
    async with hearing(on_lines=ear.take, counters=seen, tls=server(pki)) as ports:
        _, writer = await asyncio.open_connection(LOOPBACK, ports["tls"], ssl=client(pki))

        async def send() -> None:
            for _ in range(lines):
                writer.write(b"<1>" + b"x" * 8_000 + b"\n")
                await writer.drain()
            writer.close()

        sending = asyncio.create_task(send())
        await asyncio.sleep(0.5)
        assert not sending.done()
        assert 0 < seen.received <= 8
        ear.open.set()
        await until(lambda: len(ear.heard) == lines)
        await writer.wait_closed()
    assert seen == Counters(received=lines)


@pytest.mark.parametrize(("shows", "heard"), [("certificate", True), ("nothing", False), ("stranger", False)])
async def test_client_certificates(pki: Pki, shows: str, heard: bool) -> None:
    """With a client CA a peer is heard if it shows a certificate of that CA; else it is turned away and counted."""
    ear, seen = Ear(), Counters()
    async with hearing(on_lines=ear.take, counters=seen, tls=server(pki, client_ca=pki.ca)) as ports:
        try:
            await say(ports["tls"], client(pki, shows=shows), b"4 <1>a")
        except OSError:
            assert not heard
        await until(lambda: seen in (Counters(received=1), Counters(handshakes_failed=1)))
    assert (ear.heard, seen.handshakes_failed) == ([(b"<1>a", LOOPBACK)] if heard else [], 0 if heard else 1)


@pytest.mark.parametrize("data", [b"<1>a\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"", b"x" * 100_000])
async def test_no_tls(pki: Pki, data: bytes) -> None:
    """What is no TLS is counted and not heard, and the next peer is."""
    ear, seen = Ear(), Counters()
    async with hearing(on_lines=ear.take, counters=seen, tls=server(pki)) as ports:
        with socket.create_connection((LOOPBACK, ports["tls"])) as peer:
            peer.sendall(data)
        await until(lambda: seen.handshakes_failed == 1)
        await say(ports["tls"], client(pki), b"4 <1>a")
        await until(lambda: len(ear.heard) == 1)
    assert (ear.heard, seen) == ([(b"<1>a", LOOPBACK)], Counters(received=1, handshakes_failed=1))


async def test_silent_peer(pki: Pki) -> None:
    """A peer that never begins keeps nobody waiting, and after a time its connection is closed and counted."""
    ear, seen = Ear(), Counters()
    async with hearing(on_lines=ear.take, counters=seen, tls=server(pki), handshake_timeout=0.5) as ports:
        reader, writer = await asyncio.open_connection(LOOPBACK, ports["tls"])
        await say(ports["tls"], client(pki), b"4 <1>a")
        await until(lambda: len(ear.heard) == 1)
        assert seen == Counters(received=1)
        assert await reader.read() == b""
        assert seen == Counters(received=1, handshakes_failed=1)
        writer.close()
        await writer.wait_closed()


async def test_connections_bounded(pki: Pki) -> None:
    """TCP and TLS have as many connections each as are allowed, those still shaking hands included."""
    ear, seen = Ear(), Counters()
    async with hearing(
        ports={"tcp": 0, "tls": 0}, on_lines=ear.take, counters=seen, tls=server(pki), max_connections=1
    ) as ports:
        with (
            socket.create_connection((LOOPBACK, ports["tls"])),
            socket.create_connection((LOOPBACK, ports["tcp"])) as plain,
        ):
            plain.sendall(b"<1>a\n")
            await until(lambda: len(ear.heard) == 1)
            for port in ports.values():
                reader, writer = await asyncio.open_connection(LOOPBACK, port)
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
    assert seen == Counters(received=1, refused=2)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 5, 8, 12, 20])
async def test_accepting_closes(pki: Pki, turns: int) -> None:
    """A connection being accepted, or shaking hands, is closed when the block is left, however far it got."""
    ear = Ear()
    async with hearing(on_lines=ear.take, tls=server(pki)) as ports:
        peer = socket.create_connection((LOOPBACK, ports["tls"]))
        beginning = asyncio.create_task(asyncio.open_connection(LOOPBACK, ports["tls"], ssl=client(pki)))
        for _ in range(turns):
            await asyncio.sleep(0)
    with peer:
        peer.settimeout(1)
        try:
            end = peer.recv(1)
        except ConnectionResetError:
            end = b""
    with suppress(OSError):  # refused, or reset within the handshake
        reader, writer = await asyncio.wait_for(beginning, 1)
        assert await ended(reader, writer)
    assert (end, ear.heard) == (b"", [])


async def test_open_connection_closes(pki: Pki) -> None:
    """Leaving the block ends an open connection and frees the port, even while a line is being handled."""
    ear, seen = Ear(is_open=False), Counters()
    async with hearing(on_lines=ear.take, counters=seen, tls=server(pki)) as ports:
        reader, writer = await asyncio.open_connection(LOOPBACK, ports["tls"], ssl=client(pki))
        writer.write(b"4 <1>a")
        await until(lambda: seen.received == 1)
    assert await ended(reader, writer)
    assert ear.heard == []
    async with hearing(ports=ports, on_lines=ear.take, tls=server(pki)) as again:
        assert again == ports


async def test_failure_is_loud(pki: Pki) -> None:
    """What on_lines raises is not taken for a broken connection: it ends the block."""

    async def fail(heard: Sequence[Heard]) -> None:
        raise ssl.SSLError(f"no desk for {len(heard)}")

    async def send_one() -> None:
        async with hearing(on_lines=fail, tls=server(pki)) as ports:
            await say(ports["tls"], client(pki), b"4 <1>a")
            await asyncio.sleep(5)

    with pytest.raises(ssl.SSLError, match="no desk for 1"):
        await send_one()


def test_versions(pki: Pki) -> None:
    """Nothing older than TLS 1.2 is spoken, and a certificate is asked for only where there is a CA to judge it."""
    lone, mutual = server(pki), server(pki, client_ca=pki.ca)
    assert [each.minimum_version for each in (lone, mutual)] == [ssl.TLSVersion.TLSv1_2] * 2
    assert [each.verify_mode for each in (lone, mutual)] == [ssl.CERT_NONE, ssl.CERT_REQUIRED]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"certificate": "missing.pem"}, "No such file"),
        ({"key": "client_key"}, "KEY_VALUES_MISMATCH"),
        ({"key": "ca"}, "both are PEM files, the key without a password"),
        ({"key": "locked"}, "both are PEM files, the key without a password"),
        ({"client_ca": "missing.pem"}, "No such file"),
        ({"client_ca": "key"}, "name a PEM file"),
    ],
)
def test_wrong_files(pki: Pki, tmp_path: Path, changed: dict[str, str], expected: str) -> None:
    """A file that is missing or does not fit is refused with its path; a locked key asks nobody for a password."""
    locked = tmp_path / "locked"
    private = load_pem_private_key(pki.key.read_bytes(), None)
    locked.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    files = {"certificate": pki.certificate, "key": pki.key, "client_ca": None}
    [(option, name)] = changed.items()
    path = getattr(pki, name, tmp_path / name)
    with pytest.raises(ConfigurationError, match=expected) as refusal:
        server_context(Tls.model_validate({**files, option: path}))
    assert str(refusal.value).startswith("tls: ")
    assert str(path) in str(refusal.value)
