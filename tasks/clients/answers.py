"""What an HTTP answer means: its content as a model, or one of our errors with the service's own words."""

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from tasks.errors import NotAuthorized, NotOffered, Rejected, ServerTrouble, SessionLost, Throttled

Model = TypeVar("Model", bound=BaseModel)

CREDENTIALS = ("Authorization", "Cookie", "X-Auth-Token", "X-Security-Token")


def content_of(call: str, answer: httpx.Response, body: bytes, *, plain: bool = False) -> Any:
    """What a successful answer holds (None: nothing); any other answer is one of our errors.

    What came of a change names the service's id of the request, where it has one: its support asks for it. Of a read
    it does not, so that the same trouble is told in the same words.

    Args:
        plain: it need not be JSON; then it is its text.
    """
    status = answer.status_code
    asked = f" (request {named})" if answer.request.method != "GET" and (named := request_id(answer)) else ""
    if answer.is_success:
        try:
            return json.loads(body) if body else None
        except (ValueError, RecursionError) as error:
            if plain:
                return body.decode("utf-8", "replace")
            kind = excerpt(answer.headers.get("content-type", "no content type"))
            raise ServerTrouble(call, f"the answer is not JSON ({kind}): {_said(answer, body)}{asked}") from error
    if answer.is_redirect:
        raise SessionLost(call, "redirected to a login page: there is no session", status=status)
    code, words = _reason(answer, body)
    why = f"HTTP {status}{f' {code}' if code else ''}: {words}{asked}"
    if status == 429:
        raise Throttled(call, why, retry_after=_retry_after(answer.headers.get("retry-after", "")))
    if status in (404, 405, 501):
        raise NotOffered(call, why, status=status, code=code)
    if status >= 500:
        raise ServerTrouble(call, why, status=status, code=code)
    raise (NotAuthorized if status in (401, 403) else Rejected)(call, why, status=status, code=code)


def request_id(answer: httpx.Response) -> str:
    """The cloud's id of the request; empty where the answer has none. Source: header `X-Request-Id`."""
    return excerpt(answer.headers.get("x-request-id", ""))


def _reason(answer: httpx.Response, body: bytes) -> tuple[str, str]:
    """The service's code and words, in any of the shapes the clouds use.

    Source: huaweicloudsdkcore's order: error_code/error_msg, errorCode/errorMsg, code/message, then one level down.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    for place in (content, *(content.values() if isinstance(content, dict) else ())):
        if isinstance(place, dict):
            for code, words in (("error_code", "error_msg"), ("errorCode", "errorMsg"), ("code", "message")):
                if isinstance(place.get(words), str):
                    named = place.get(code)
                    return excerpt(str(named)) if isinstance(named, str | int) else "", _said(answer, place[words])
    return "", _said(answer, body) or answer.reason_phrase


def _said(answer: httpx.Response, text: str | bytes) -> str:
    """What the service said, in one line; what we sent to prove who we are is taken out, should it be repeated."""
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    for header in CREDENTIALS:
        if sent := answer.request.headers.get(header):
            said = said.replace(sent, "***")
    return excerpt(said)


def _retry_after(value: str) -> float | None:
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def excerpt(text: str) -> str:
    """The first words of a foreign text in one printable line, without HTML tags."""
    words = re.sub(r"<[^<>]{0,200}>", " ", text[:4000])
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
    return line if len(line) <= 120 else line[:117] + "..."


def understood(call: str, model: type[Model], content: Any) -> Model:
    """The answer as a model.

    Raises:
        ServerTrouble: a field is not of the documented kind; names the first one.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "all of it"
        what = first["msg"].partition(" or instance of ")[0]
        raise ServerTrouble(call, f"the answer is not as described: {where}: {what}") from error
    except (ArithmeticError, OSError, RecursionError) as error:  # a time out of range, lists in lists in lists
        raise ServerTrouble(call, f"the answer is not as described: {error}") from error
