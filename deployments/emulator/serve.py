"""The emulator standing alone: a port, a ticking clock, syslog."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Generator
from typing import Literal

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from deployments.emulator.app import app_of
from deployments.emulator.region import Region
from deployments.emulator.syslog import SyslogSender
from deployments.emulator.trouble import TRANSPORT

TICK_SECONDS = 0.05


class _Protocol(H11Protocol):
    """Hands the transport to the application, so that trouble can really break a connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


class _Server(uvicorn.Server):
    """Leaves signals to the caller, and says when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_started = started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install no handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        self._tell_started()


async def serve(
    region: Region,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    speed: float | None = None,
    syslog: tuple[str, int] | None = None,
    syslog_protocol: Literal["udp", "tcp"] = "udp",
    ready: Callable[[int], None] | None = None,
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
) -> None:
    """Serve a region until cancelled.

    Args:
        port: 0 takes a free one; `ready` is called with the real one once it listens.
        speed: emulated seconds per second; None: time moves only when told (`POST /emulator/advance`).
        syslog: receiver of the alarms' syslog lines.

    Raises:
        OSError: the port cannot be had.
    """
    listener = _listener(host, port)
    clock = _WallClock(region, speed) if speed is not None else None
    app: ASGIApp = app_of(region)
    config = uvicorn.Config(
        clock.before(app) if clock else app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        date_header=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
    )
    bound = int(listener.getsockname()[1])
    server = _Server(config, lambda: ready(bound) if ready else None)
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        if syslog is not None:
            sender = stack.enter_context(SyslogSender(syslog, syslog_protocol))
            region.alarms.sinks.append(sender)
            stack.callback(region.alarms.sinks.remove, sender)
        ticking = asyncio.create_task(clock.tick()) if clock else None
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            # Not gather: a clock that fails must end the server, or time would stand still unnoticed.
            ended, _ = await asyncio.wait([serving, *([ticking] if ticking else [])], return_when="FIRST_COMPLETED")
            for task in ended:
                task.result()
        finally:
            if ticking:
                ticking.cancel()
            server.should_exit = True
            await serving


class _WallClock:
    """Moves a region's time along with the wall clock."""

    def __init__(self, region: Region, speed: float) -> None:
        self._region = region
        self._speed = speed
        self._last = time.monotonic()

    def catch_up(self) -> None:
        now = time.monotonic()
        passed, self._last = now - self._last, now
        self._region.advance(passed * self._speed)

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.catch_up()

    def before(self, app: ASGIApp) -> ASGIApp:
        async def timely(scope: Scope, receive: Receive, send: Send) -> None:
            self.catch_up()
            await app(scope, receive, send)

        return timely


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
        why = f"{error.strerror}: choose another port, or 0 for a free one"
        raise OSError(error.errno, f"the emulator cannot listen on {host}:{port}: {why}") from error
    return listener
