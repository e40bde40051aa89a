"""The HTTP application on a port of this machine, inside the loop that is running already."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Generator
from functools import partial
from typing import Any

import anyio
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from deployments.intake.settings import Http, Tls
from tasks.errors import ConfigurationError

DRAIN_SECONDS = 10
KEEP_ALIVE_SECONDS = 75  # senders and scrapers that come every minute keep their connection
SILENT_SECONDS = 15
MOST_CONNECTIONS = 1000
_ADVICE = {
    errno.EADDRINUSE: "another program holds the port; stop it or choose another port",
    errno.EACCES: "not permitted; choose a port above 1023 or grant CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one of its own or 0.0.0.0",
}


class _Protocol(H11Protocol):
    """At most so many connections at a time, and none that never asks for anything."""

    def __init__(self, *, most: int, silent: float, **more: Any) -> None:
        super().__init__(**more)
        self._most, self._silent = most, silent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.abort()
        else:
            self.loop.call_later(self._silent, self._end_if_silent)

    def _end_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """Leaves signals to the caller, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install no handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        self.listens.set()


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp, http: Http, *, most_connections: int = MOST_CONNECTIONS, silent_seconds: float = SILENT_SECONDS
) -> AsyncIterator[int]:
    """Serve while the ``async with`` block runs; yields the bound port.

    Leaving the block takes no more requests and answers those that are there, for at most ``DRAIN_SECONDS``.

    Args:
        http: its port 0 takes a free one; with `tls` it is https only.
        most_connections: further ones are closed at once.
        silent_seconds: a connection on which nothing was asked by then is closed.

    Raises:
        ConfigurationError: the certificate or its key cannot be used; says which files.
        OSError: the port cannot be had; says where and what to do.
    """
    context = _tls(http.tls) if http.tls else None
    config = uvicorn.Config(
        app,
        http=partial(_Protocol, most=most_connections, silent=silent_seconds),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,  # logging is the caller's
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can write X-Forwarded-For; the peer is who connects
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_context_factory=(lambda *_: context) if context else None,
    )
    server = _Server(config)
    with _listener(http.host, http.port) as listener:
        port = int(listener.getsockname()[1])
        running = asyncio.create_task(server.serve(sockets=[listener]))
        listens = asyncio.create_task(server.listens.wait())
        try:
            await asyncio.wait([running, listens], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                yield port
        finally:
            listens.cancel()
            server.should_exit = True
            with anyio.CancelScope(shield=True):
                await running


def _tls(tls: Tls) -> ssl.SSLContext:
    if tls.client_ca:  # not left aside in silence: somebody relies on it
        raise ConfigurationError("[http.tls] client_ca: only syslog asks for certificates of its peers; take it out")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # The password that is none: a key that needs one fails here, instead of asking at a terminal nobody sees.
        context.load_cert_chain(tls.certificate, tls.key, password=b"")
    except OSError as error:  # ssl.SSLError is one
        why = f"{tls.certificate} and {tls.key} cannot be used for TLS ({error.strerror or error})"
        raise ConfigurationError(f"{why}: name a PEM certificate chain and its key, without a password") from error
    return context


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's algorithm off only then: 40 ms per answer otherwise.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        advice = _ADVICE.get(error.errno or 0, f"{error}; check the address and the port")
        raise OSError(error.errno, f"cannot listen on {host}:{port} (http): {advice}") from error
    return listener
