"""HTTP trouble on demand, whatever the route, and how a connection is dropped."""

import asyncio
import re
import socket
import struct
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import httpx
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from deployments.emulator.region import Region

KINDS = ("latency", "status", "reset", "truncated", "wrong-type", "lost-session", "answer-lost")
TRANSPORT = "emulator.transport"
"""Key of the ASGI scope under which `serve` puts the connection's transport."""


@dataclass(slots=True, eq=False)
class Rule:
    """One kind of trouble for matching requests, `times` times (None: until removed)."""

    method: str
    route: str
    kind: str
    times: int | None
    options: dict[str, object] = field(default_factory=dict)

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is meant; `{...}` and `*` in the route stand for anything."""
        glob = re.sub(r"\{[^}]*\}", "*", self.route)
        return self.times != 0 and self.method in ("*", method) and fnmatchcase(path, glob)


class Trouble:
    """The rules that hold now; the first one added that matches is taken."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def add(self, method: str, route_glob: str, kind: str, times: int | None = 1, **options: object) -> Rule:
        """Ask for trouble. Method `*` means any.

        Kinds: latency (`seconds` of wall time, then answers), status (`status` 429/500/502..., `retry_after`; does
        not act), reset (does not act), truncated and wrong-type (act, then spoil the body or label it text/html),
        lost-session (Manager forgets its sessions and answers 302), answer-lost (acts, then drops the connection).

        Raises:
            ValueError: no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"no trouble is called {kind!r}; known: {', '.join(KINDS)}")
        rule = Rule(method.upper(), route_glob, kind, times, options)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Remove every rule."""
        self.rules.clear()

    def take(self, method: str, path: str) -> Rule | None:
        """The rule for a request, counted down; None without trouble."""
        for rule in self.rules:
            if rule.matches(method, path):
                if rule.times is not None:
                    rule.times -= 1
                    if rule.times == 0:
                        self.rules.remove(rule)
                return rule
        return None


class Dropped(Exception):
    """Raised by a face that refuses the connection (a Manager during an OMS switchover)."""


class TroubleMiddleware:
    """Applies the rules of a region to every request but those under /emulator/."""

    def __init__(self, app: ASGIApp, region: "Region") -> None:
        self._app = app
        self._region = region

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, with trouble if a rule asks for it."""
        if scope["type"] != "http" or scope["path"].startswith("/emulator/"):
            await self._app(scope, receive, send)
            return
        rule = self._region.trouble.take(scope["method"], scope["path"])
        try:
            if rule is None:
                await self._app(scope, receive, send)
            else:
                await self._apply(rule, scope, receive, send)
        except Dropped:
            await drop(scope, receive, reset=True)

    async def _apply(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        match rule.kind:
            case "reset":
                await drop(scope, receive, reset=True)
            case "answer-lost":
                await _answer(self._app, scope, receive)
                await drop(scope, receive, reset=False)
            case "latency":
                await asyncio.sleep(float(str(rule.options.get("seconds", 1))))
                await self._app(scope, receive, send)
            case "status":
                await _failure(rule)(scope, receive, send)
            case "lost-session":
                found = [cluster for cluster in self._region.clusters.values() if f"/{cluster.id}/" in scope["path"]]
                for cluster in found:
                    cluster.sessions.clear()
                login = "".join(f"/managers/{cluster.id}" for cluster in found) + "/cas/login"
                await RedirectResponse(login, status_code=302)(scope, receive, send)
            case _:
                await self._spoil(rule.kind, scope, receive, send)

    async def _spoil(self, kind: str, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await _answer(self._app, scope, receive)
        if kind == "truncated":
            answer = Response(answer.body[: len(answer.body) // 2], answer.status_code, dict(answer.headers))
            answer.headers["content-length"] = str(len(answer.body))
        else:
            answer.headers["content-type"] = "text/html; charset=utf-8"
        await answer(scope, receive, send)


async def drop(scope: Scope, receive: Receive, *, reset: bool) -> None:
    """End the connection without an answer.

    Served by `serve`, the connection really breaks: with `reset` by a TCP RST (httpx: ReadError), else by an orderly
    end (httpx: RemoteProtocolError). Under `httpx.ASGITransport` there is no connection, so the same exceptions are
    raised here and come out of the client.

    Raises:
        httpx.ReadError, httpx.RemoteProtocolError: only without a transport.
    """
    transport = scope.get("extensions", {}).get(TRANSPORT)
    if transport is None:
        if reset:
            raise httpx.ReadError("connection reset by the emulator")
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
    if reset and (connection := transport.get_extra_info("socket")) is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    # Until the server has noticed, it would answer 500 for an application that returns without an answer.
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(app: ASGIApp, scope: Scope, receive: Receive) -> Response:
    status, headers, body = 500, dict[str, str](), b""

    async def collect(message: Message) -> None:
        nonlocal status, headers, body
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            body += message.get("body", b"")

    await app(scope, receive, collect)
    return Response(body, status, headers)


def _failure(rule: Rule) -> Response:
    status = int(str(rule.options.get("status", 500)))
    retry_after = rule.options.get("retry_after")
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status == 429:
        body = '{"error_code":"APIG.0308","error_msg":"The throttling threshold has been reached"}'
        return Response(body, status, headers, "application/json")
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
    return HTMLResponse(page, status, headers)
