"""The intake over HTTP on a real port: TLS, connections that stay, an orderly end, and what cannot be served."""

import asyncio
import errno
import json
import logging
import re
import signal
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.intake.acceptance import Delivery, Receipt
from deployments.intake.http_server import serving
from deployments.intake.settings import Http, Tls
from tasks.errors import ConfigurationError
from tests.intake.test_app import BEARER, JSON, RAISED, Desk, application

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.1"
ON_ANY_PORT = Http(host=LOOPBACK, port=0)


@dataclass
class Authority:
    """A certificate for the loopback, in files, and a client context that trusts it."""

    tls: Tls
    context: ssl.SSLContext


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority of this test."""
    made = trustme.CA()
    issued = made.issue_cert(LOOPBACK)
    certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    context = ssl.create_default_context()
    made.configure_trust(context)
    return Authority(Tls(certificate=certificate, key=key), context)


class Connections:
    """Notes the client's port of each request: one port, one connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.ports: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note it and go on."""
        self.ports.append(scope["client"][1])
        await self._app(scope, receive, send)


@dataclass
class SlowDesk(Desk):
    """Takes a delivery only once it is let."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    let: asyncio.Event = field(default_factory=asyncio.Event)

    async def accept(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """Wait, then keep them."""
        self.asked.set()
        await self.let.wait()
        return await super().accept(deliveries)


async def test_tls_and_one_connection_for_many_requests(authority: Authority) -> None:
    """Over TLS alarms are taken, all on the one connection that the client keeps."""
    desk = Desk()
    app = Connections(application(desk))
    http = Http(host=LOOPBACK, port=0, tls=authority.tls)
    async with serving(app, http) as port, httpx.AsyncClient(verify=authority.context) as client:
        url = f"https://{LOOPBACK}:{port}"
        health = await client.get(f"{url}/health")
        taken = [await client.post(f"{url}/alarms", json=RAISED, headers=BEARER) for _ in range(3)]
    assert (health.json(), [each.status_code for each in taken]) == ({"status": "ok"}, [200, 200, 200])
    assert ([delivery.peer for (delivery,) in desk.accepted], len(set(app.ports))) == ([LOOPBACK] * 3, 1)


async def test_who_says_nothing_is_put_out() -> None:
    """A connection on which nothing is asked is closed, one that asked is not, and there are not too many at once."""
    async with serving(application(Desk()), ON_ANY_PORT, most_connections=2, silent_seconds=0.3) as port:
        url = f"http://{LOOPBACK}:{port}/health"
        async with httpx.AsyncClient() as client:
            assert (await client.get(url)).status_code == 200
            silent, writing = await asyncio.open_connection(LOOPBACK, port)
            too_many, another = await asyncio.open_connection(LOOPBACK, port)
            assert await asyncio.wait_for(too_many.read(), 5) == b""
            assert not silent.at_eof()
            assert await asyncio.wait_for(silent.read(), 5) == b""
            assert (await client.get(url)).status_code == 200
        for writer in (writing, another):
            writer.close()


async def test_with_tls_nothing_is_served_in_the_clear(authority: Authority) -> None:
    """A client without TLS gets no answer from a port with it."""
    http = Http(host=LOOPBACK, port=0, tls=authority.tls)
    async with serving(application(Desk()), http) as port, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"http://{LOOPBACK}:{port}/health")


async def test_what_forwards_names_the_peer_itself() -> None:
    """A header that claims another address is not believed, not even from this machine."""
    desk = Desk()
    async with serving(application(desk), ON_ANY_PORT) as port, httpx.AsyncClient() as client:
        headers = {**BEARER, "X-Forwarded-For": "198.51.100.1"}
        await client.post(f"http://{LOOPBACK}:{port}/alarms", json=RAISED, headers=headers)
    assert [delivery.peer for (delivery,) in desk.accepted] == [LOOPBACK]


async def test_a_request_that_is_being_answered_is_answered_to_the_end() -> None:
    """Leaving the block answers what is there, closes idle connections, and frees the port."""
    desk = SlowDesk()
    async with httpx.AsyncClient() as client, httpx.AsyncClient() as idle:
        async with serving(application(desk), ON_ANY_PORT) as port:
            url = f"http://{LOOPBACK}:{port}"
            await idle.get(f"{url}/health")
            asking = asyncio.create_task(client.post(f"{url}/alarms", json=RAISED, headers=BEARER))
            await desk.asked.wait()
            asyncio.get_running_loop().call_later(0.3, desk.let.set)
        assert (await asking).status_code == 200
    async with serving(application(desk), Http(host=LOOPBACK, port=port)) as again:
        assert again == port


async def test_a_cancelled_block_ends_in_order_too() -> None:
    """Cancelling what runs the block answers the request that is there, and frees the port."""
    desk, ports = SlowDesk(), []

    async def serve() -> None:
        async with serving(application(desk), ON_ANY_PORT) as port:
            ports.append(port)
            async with httpx.AsyncClient() as client:
                await client.get(f"http://{LOOPBACK}:{port}/health")
            ready.set()
            await asyncio.Event().wait()

    ready = asyncio.Event()
    running = asyncio.create_task(serve())
    await ready.wait()
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.post(f"http://{LOOPBACK}:{ports[0]}/alarms", json=RAISED, headers=BEARER))
        await desk.asked.wait()
        running.cancel()
        asyncio.get_running_loop().call_later(0.3, desk.let.set)
        assert (await asking).status_code == 200
    with pytest.raises(asyncio.CancelledError):
        await running
    async with serving(application(desk), Http(host=LOOPBACK, port=ports[0])) as again:
        assert again == ports[0]


async def test_signals_stay_the_caller_s() -> None:
    """Serving installs no handler of its own."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    async with serving(application(Desk()), ON_ANY_PORT):
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


async def test_an_error_in_the_block_is_itself() -> None:
    """What is raised in the block ends the server and comes out unchanged."""
    with pytest.raises(LookupError, match=r"^mine$"):
        async with serving(application(Desk()), ON_ANY_PORT):
            raise LookupError("mine")


async def test_a_port_in_use_says_what_to_do() -> None:
    """A port in use is refused with the address and what to do about it."""
    async with serving(application(Desk()), ON_ANY_PORT) as port:
        with pytest.raises(OSError, match="cannot listen") as refused:
            async with serving(application(Desk()), Http(host=LOOPBACK, port=port)):
                pass
    advice = "another program holds the port; stop it or choose another port"
    assert refused.value.args == (errno.EADDRINUSE, f"cannot listen on 127.0.0.1:{port} (http): {advice}")


async def test_a_name_that_is_no_address_says_what_to_do() -> None:
    """A host that cannot be bound is refused with its name."""
    with pytest.raises(
        OSError, match=r"^\[Errno -?\d+\] cannot listen on 192\.0\.2\.1:0 \(http\): this machine has no"
    ):
        async with serving(application(Desk()), Http(host="192.0.2.1", port=0)):
            pass


@pytest.mark.parametrize("trouble", ["missing", "no PEM", "password", "client_ca"])
async def test_a_certificate_that_cannot_be_used_is_told_by_its_file(authority: Authority, trouble: str) -> None:
    """A missing file, one that is no PEM, a key with a password and a CA for clients are mistakes told at once."""
    tls = authority.tls
    if trouble == "missing":
        tls.key.unlink()
    elif trouble == "no PEM":
        tls.certificate.write_text("none")
    elif trouble == "password":
        key = load_pem_private_key(tls.key.read_bytes(), None)
        secret = BestAvailableEncryption(b"the password")
        tls.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    else:
        tls = Tls(certificate=tls.certificate, key=tls.key, client_ca=tls.certificate)
    named = "client_ca" if trouble == "client_ca" else f"{tls.certificate} and {tls.key} cannot be used for TLS"
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        async with serving(application(Desk()), Http(host=LOOPBACK, port=0, tls=tls)):
            pass


async def test_a_body_that_is_too_long_is_answered_while_it_is_sent() -> None:
    """A sender of far too much hears 413, and its connection is closed before it has sent everything."""
    desk = Desk()
    async with serving(application(desk, max_body=1000), ON_ANY_PORT) as port:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        head = f"POST /alarms HTTP/1.1\r\nHost: x\r\nContent-Length: {10**9}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Authorization: {BEARER['Authorization']}\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "detail": "the body is longer than 1000 bytes: send fewer alarms in one request"
    }


async def test_a_sender_that_goes_away_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that ends in the middle of a body leaves nothing behind: no delivery, no error in the log."""
    desk = Desk()
    async with serving(application(desk), ON_ANY_PORT) as port:
        with socket.create_connection((LOOPBACK, port)) as sender:
            head = (
                f"POST /alarms HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nContent-Type: {JSON['Content-Type']}\r\n"
            )
            sender.sendall(f"{head}Authorization: {BEARER['Authorization']}\r\n\r\n{{".encode())
        async with httpx.AsyncClient() as client:
            after = await client.post(f"http://{LOOPBACK}:{port}/alarms", json=RAISED, headers=BEARER)
    assert (after.status_code, len(desk.accepted), desk.rejected) == (200, 1, [])
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
