"""One HTTP API: reads are repeated, mutations are sent once, and every failure becomes one of our errors."""

import json
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from tasks.errors import (
    ConfigurationError,
    DryRun,
    NotAuthorized,
    NotOffered,
    OutcomeUnknown,
    Rejected,
    ServerTrouble,
    SessionLost,
    Throttled,
    Unreachable,
    Untrusted,
)

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Patience:
    """How long one call may take and how often a read is tried; seconds."""

    timeout: float = 20.0
    attempts: int = 3
    first_pause: float = 0.5
    longest_pause: float = 30.0


def trusting(ca_file: str, ca_pem: str = "") -> ssl.SSLContext:
    """TLS settings that verify the server, with this CA (a file or its PEM text) where one is given.

    Raises:
        ConfigurationError: the file is missing or holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None, cadata=ca_pem or None)
    except (OSError, ssl.SSLError) as error:
        where = f"file {Path(ca_file)}" if ca_file else "text in the block"
        raise ConfigurationError(f"the CA {where} cannot be used ({error}): give a PEM certificate") from error


class Api:
    """An HTTP API at one root URL. No redirects are followed; every call has a time limit.

    Args:
        name: what errors call it, for example `ECS`.
        url: the root, with or without a path.
        dry_run: `act` raises DryRun instead of sending anything.
        transport: replaces the network, for tests (`httpx.ASGITransport`).
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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = name
        self.dry_run = dry_run
        self.patience = patience or Patience()
        try:
            self.http = httpx.AsyncClient(
                base_url=url.rstrip("/") + "/",
                auth=auth,
                verify=verify,
                timeout=self.patience.timeout,
                follow_redirects=False,
                trust_env=False,
                transport=transport,
                headers={"Accept": "application/json", "User-Agent": "mrs-runbooks"},
            )
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"the {name} address {url!r} is no URL: {error}") from error

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
            Rejected: at once.
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
                return await self._answer("GET", path, params=params)
        raise AssertionError("unreachable: the last attempt raises")

    async def act(self, method: str, path: str, *, body: Any = None, would: str) -> Any:
        """Send one mutation, once. A lost or unreadable answer is OutcomeUnknown: never send it again blindly.

        Args:
            would: what it does, as in "restart the Meta instance of node-1"; the dry run reports it.

        Raises:
            DryRun: this is a dry run; nothing was sent.
            OutcomeUnknown: it was sent and may have happened.
            Unreachable, Throttled, Rejected: it did not happen.
        """
        if self.dry_run:
            raise DryRun(f"would {would}")
        call = f"{self.name} {method} {path}"
        try:
            return await self._answer(method, path, json=body)
        except (Throttled, OutcomeUnknown):
            raise
        except ServerTrouble as error:
            raise OutcomeUnknown(call, error.why, status=error.status, code=error.code) from error
        except Unreachable as error:
            if isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
                raise
            raise OutcomeUnknown(call, f"sent, and the answer was lost ({error.why})") from error

    def _pause_before_repeating(self, error: Exception) -> bool | float:
        if isinstance(error, Throttled) and error.retry_after is not None:
            return min(error.retry_after, self.patience.longest_pause)
        return isinstance(error, Unreachable | ServerTrouble) and not isinstance(error, Untrusted)

    async def _answer(self, method: str, path: str, **request: Any) -> Any:
        call = f"{self.name} {method} {path}"
        try:
            answer = await self.http.request(method, path, **request)
        except httpx.TimeoutException as error:
            raise Unreachable(
                call, f"no answer within {self.patience.timeout:g} s from {self.http.base_url}"
            ) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise _unreachable(call, str(self.http.base_url), error) from error
        return _content(call, answer)


def _unreachable(call: str, url: str, error: Exception) -> Unreachable:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Untrusted(
                call, f"the certificate of {url} is not trusted ({cause.verify_message}): name its CA in the block"
            )
        cause = cause.__cause__ or cause.__context__
    return Unreachable(call, f"{url} cannot be reached ({error or type(error).__name__})")


def _content(call: str, answer: httpx.Response) -> Any:
    status = answer.status_code
    if answer.is_success:
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            kind = answer.headers.get("content-type", "no content type")
            raise ServerTrouble(call, f"the answer is not JSON ({kind}): {_excerpt(answer.text)}") from error
    if answer.is_redirect:
        raise SessionLost(call, "redirected to a login page: there is no session", status=status)
    code, words = _reason(answer)
    why = f"HTTP {status}{f' {code}' if code else ''}: {words}"
    if status == 429:
        raise Throttled(call, why, retry_after=_retry_after(answer.headers.get("retry-after", "")))
    if status in (404, 405, 501):
        raise NotOffered(call, why, status=status, code=code)
    if status >= 500:
        raise ServerTrouble(call, why, status=status, code=code)
    raise (NotAuthorized if status in (401, 403) else Rejected)(call, why, status=status, code=code)


def _reason(answer: httpx.Response) -> tuple[str, str]:
    """The service's code and words, in any of the shapes the clouds use.

    Source: huaweicloudsdkcore's order: error_code/error_msg, errorCode/errorMsg, code/message, then one level down.
    """
    try:
        body = answer.json()
    except ValueError:
        return "", _excerpt(answer.text) or answer.reason_phrase
    for place in (body, *(body.values() if isinstance(body, dict) else ())):
        if isinstance(place, dict):
            for code, words in (("error_code", "error_msg"), ("errorCode", "errorMsg"), ("code", "message")):
                if words in place:
                    return str(place.get(code, "")), str(place[words])
    return "", _excerpt(json.dumps(body))


def _retry_after(value: str) -> float | None:
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else line[:117] + "..."


def understood(call: str, model: type[Model], content: Any) -> Model:
    """The answer as a model.

    Raises:
        ServerTrouble: a field is not of the documented kind; names the first one.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise ServerTrouble(call, f"the answer is not as described: {where}: {first['msg']}") from error
