"""One HTTP API: reads are repeated, mutations are sent once, and every failure becomes one of our errors."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import httpx
import stamina

from tasks.clients.answers import content_of, request_id
from tasks.errors import (
    ConfigurationError,
    DryRun,
    OutcomeUnknown,
    ServerTrouble,
    Throttled,
    Unreachable,
    Untrusted,
)

LONGEST_ANSWER = 64 * 1024 * 1024  # bytes; far more than a page of any list holds
OTHER_NAME = (62, 64)  # OpenSSL: the certificate is for another host name, another address

logging.getLogger("httpcore").setLevel(logging.INFO)  # its DEBUG lines show Manager's session cookies


@dataclass(frozen=True)
class Patience:
    """How long one call may take and how often a read is tried; seconds.

    A service that asks (Retry-After) for more than the longest pause is not asked again by this call.
    """

    timeout: float = 20.0
    attempts: int = 3
    first_pause: float = 0.5
    longest_pause: float = 30.0


@dataclass(frozen=True)
class Answered:
    """What a successful answer holds (None: nothing), and the service's id of the request (empty: it gave none)."""

    content: Any
    request: str


def trusting(ca_file: str, ca_pem: str = "") -> ssl.SSLContext:
    """TLS settings that verify the server, with this CA (a file or its PEM text) where one is given.

    The same CA gives the same object: each costs memory and time, and clusters that are polled are many.

    Raises:
        ConfigurationError: the file is missing or holds no certificate.
    """
    try:
        file = Path(ca_file).stat() if ca_file else None
        return _trusting(ca_file, (file.st_ino, file.st_size, file.st_mtime_ns) if file else (), ca_pem)
    except (OSError, TypeError, ValueError) as error:  # TypeError: text that is not ASCII
        where = f"file {Path(ca_file)}" if ca_file else "text in the block"
        raise ConfigurationError(f"the CA {where} cannot be used ({error}): give a PEM certificate") from error


@lru_cache(maxsize=64)
def _trusting(ca_file: str, version: tuple[int, ...], ca_pem: str) -> ssl.SSLContext:
    """`version` tells a file from the one that was there before it."""
    return ssl.create_default_context(cafile=ca_file or None, cadata=ca_pem or None)


def on_this_machine(host: str) -> bool:
    """Whether an address's host is loopback."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Api:
    """An HTTP API at one root URL. No redirects are followed; every call has a time limit.

    Args:
        name: what errors call it, for example `ECS`.
        url: the root, with or without a path.
        dry_run: `act` raises DryRun instead of sending anything.
        keep_alive: False closes each connection after its answer: for clients that are many and ask rarely.
        transport: replaces the network, for tests (`httpx.ASGITransport`).

    Attributes:
        acts_as: the technical identity, in words for the evidence: a user or the name of a block, never a key.
        clock: what time the last answer said it was there (its `Date`, to the second); None where it did not say.
        turn: entered for each request, before its time limit begins: who sends very many waits for his turn there.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        auth: httpx.Auth | None = None,
        verify: ssl.SSLContext | bool = True,
        dry_run: bool = True,
        patience: Patience | None = None,
        keep_alive: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = name
        self.dry_run = dry_run
        self.acts_as = "an unnamed login"
        self.clock: datetime | None = None
        self.patience = patience or Patience()
        self.turn: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
        try:
            self.http = httpx.AsyncClient(
                base_url=url.rstrip("/") + "/",
                auth=auth,
                verify=verify,
                # Connecting gives up first, so that a request that was never sent is known as such.
                timeout=httpx.Timeout(self.patience.timeout, connect=self.patience.timeout / 2),
                follow_redirects=False,
                trust_env=False,
                limits=httpx.Limits(max_connections=100, max_keepalive_connections=100 if keep_alive else 0),
                transport=transport,
                headers={"Accept": "application/json", "User-Agent": "mrs-runbooks"},
            )
        except httpx.InvalidURL:
            raise ConfigurationError(f"the {name} address is no URL: write it as https://host:port/path") from None
        address = self.http.base_url
        if address.scheme not in ("http", "https") or not address.host or address.userinfo or address.query:
            why = "write it as https://host:port/path, without a user, password or query"
            raise ConfigurationError(f"the {name} address cannot be used: {why}")
        if address.scheme == "http" and not on_this_machine(address.host):
            why = f"{address.host} is another machine, and what we send holds credentials"
            raise ConfigurationError(f"the {name} address must begin with https://: {why}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def read(self, path: str, *, params: dict[str, str] | None = None) -> Any:
        """GET, repeated with jittered backoff (or after Retry-After) while the trouble may pass.

        Raises:
            Unreachable, ServerTrouble: after the last attempt.
            Throttled: the same, or at once where it asks for a longer pause than ours.
            Untrusted, Rejected: at once.
            ConfigurationError: it cannot be sent.
        """
        patience = self.patience
        async for attempt in stamina.retry_context(
            on=self._pause_before_repeating,
            attempts=patience.attempts,
            timeout=patience.timeout * patience.attempts,
            wait_initial=patience.first_pause,
            wait_max=patience.longest_pause,
            wait_jitter=patience.first_pause,
        ):
            with attempt:
                return (await self._answer("GET", path, params=params)).content
        raise AssertionError("unreachable: the last attempt raises")

    async def ask(self, path: str, *, body: Any) -> Any:
        """POST a question, once: a search that changes nothing. Errors as in `read`."""
        return (await self._answer("POST", path, json=body)).content

    async def act(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        would: str,
        headers: dict[str, str] | None = None,
        plain: bool = False,
    ) -> Answered:
        """Send one mutation, once. A lost or unreadable answer is OutcomeUnknown: never send it again blindly.

        Args:
            would: what it does, as in "restart the Meta instance of node-1"; the dry run reports it.
            headers: more of them, for this request.
            plain: a successful answer need not be JSON; then it is its text.

        Raises:
            DryRun: this is a dry run; nothing was sent.
            OutcomeUnknown: it was sent and may have happened.
            Unreachable, Throttled, Rejected, ConfigurationError: it did not happen.
            ServerTrouble: neither; it is the login before it that met trouble.
        """
        if self.dry_run:
            raise DryRun(f"would {would}")
        call = f"{self.name} {method} {path}"
        try:
            return await self._answer(method, path, plain=plain, json=body, headers=headers)
        except (ServerTrouble, Unreachable) as error:
            never_sent = isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            if isinstance(error, Throttled) or never_sent or error.call != call:  # another call: the login before it
                raise
            lost = "sent, and the answer was lost" if isinstance(error, Unreachable) else "sent, and not answered for"
            raise OutcomeUnknown(call, f"{lost} ({error.why})", status=error.status, code=error.code) from error

    def _pause_before_repeating(self, error: Exception) -> bool | float:
        if isinstance(error, Throttled) and error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.patience.longest_pause else False
        return isinstance(error, Unreachable | ServerTrouble) and not isinstance(error, Untrusted)

    async def _answer(self, method: str, path: str, *, plain: bool = False, **request: Any) -> Answered:
        answer, body = await self._send(method, path, **request)
        return Answered(content_of(f"{self.name} {method} {path}", answer, body, plain=plain), request_id(answer))

    async def _send(self, method: str, path: str, **request: Any) -> tuple[httpx.Response, bytes]:
        """Send one request, once, and read its answer to the end, all within the time limit."""
        call, body = f"{self.name} {method} {path}", bytearray()
        try:
            async with (
                self.turn(),
                asyncio.timeout(self.patience.timeout),
                self.http.stream(method, path, **request) as answer,
            ):
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > LONGEST_ANSWER:
                        raise ServerTrouble(call, f"the answer is longer than {LONGEST_ANSWER >> 20} MB")
                self.clock = _date_of(answer)
                return answer, bytes(body)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Unreachable(
                call, f"no answer within {self.patience.timeout:g} s from {self.http.base_url}"
            ) from error
        except (httpx.InvalidURL, httpx.LocalProtocolError):  # they quote what was put in
            why = "an id, key or token in the block holds a line break or a character that is not allowed"
            raise ConfigurationError(f"{call}: cannot be sent: {why}") from None
        except httpx.DecodingError as error:
            raise ServerTrouble(call, "the answer cannot be decompressed") from error
        except httpx.TransportError as error:
            raise _unreachable(call, str(self.http.base_url), error) from error


def _date_of(answer: httpx.Response) -> datetime | None:
    try:
        date = parsedate_to_datetime(answer.headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)


def _unreachable(call: str, url: str, error: Exception) -> Unreachable:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            advice = "set ca_file or ca_pem in the block to the CA that signed it"
            if cause.verify_code in OTHER_NAME:
                advice = "give the address in the block by a name the certificate holds"
            return Untrusted(
                call, f"the certificate of {url} is not trusted ({cause.verify_message.rstrip('.')}): {advice}"
            )
        if isinstance(cause, ssl.SSLError):
            return Unreachable(
                call, f"{url} does not speak TLS as expected ({cause.reason}): is it an http:// address?"
            )
        cause = cause.__cause__ or cause.__context__
    hint = ""
    if url.startswith("http://") and isinstance(error, httpx.RemoteProtocolError):
        hint = ": if that port speaks TLS, its address begins with https://"
    what = str(error) or "the connection broke"
    return Unreachable(call, f"{url} cannot be reached ({what}){hint}")
