"""The door for the JSON webhook: `POST /alarms`. It reads and hands in; `credentials.py` and `webhook.py` judge."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Security
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from deployments.intake.acceptance import Delivery, Desk, Reason, digest_of, excerpt_of
from deployments.intake.credentials import Credentials, Unauthenticated, check_signature, check_token, key_of
from deployments.intake.settings import Webhook, secret_in
from deployments.intake.webhook import Alarms, Answer, Answers, Malformed, Problem, read_alarm, read_body

BODY_SECONDS = 10.0
OFF = "the webhook is off: name a file with its secret in [webhook] of the intake's configuration, as token_file"
OFF += " (a bearer token) or as secret_file (signatures), and start the intake again"

_REF = "#/components/schemas/{model}"
BODY_MODELS = models_json_schema([(Alarms, "validation")], ref_template=_REF)[1]["$defs"]

_EXAMPLE = {
    "cluster": "mrs-prod",
    "alarm_id": "12110",
    "kind": "raised",
    "host": "node-master1",
    "serial": "4711",
    "occurred": "2026-11-22T13:47:42+01:00",
}
_BODY = {
    "required": True,
    "description": "One alarm, or many: they are judged one by one.",
    "content": {
        "application/json": {
            "schema": {"oneOf": [{"$ref": _REF.format(model=name)} for name in ("Raised", "Cleared", "Alarms")]},
            "examples": {
                "raised": {"summary": "An alarm was raised", "value": _EXAMPLE},
                "cleared": {
                    "summary": "It cleared by itself",
                    "value": {**_EXAMPLE, "kind": "cleared", "cleared": 1795354062000, "cleared_by": "auto"},
                },
                "many": {
                    "summary": "Two hosts at once",
                    "value": {"alarms": [_EXAMPLE, {**_EXAMPLE, "host": "node-core1", "serial": "4712"}]},
                },
            },
        }
    },
}
_SIGNED = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": f"{what}; only for signed requests.",
    }
    for name, what in (("webhook-id", "An id of this request"), ("webhook-timestamp", "Seconds since 1970"))
]
_TOKEN = HTTPBearer(scheme_name="token", auto_error=False, description="The token in the file `token_file`.")
_SIGNATURE = APIKeyHeader(
    name="webhook-signature",
    scheme_name="signature",
    auto_error=False,
    description=(
        "Standard Webhooks: `v1,` and the Base64 of HMAC-SHA256 over `id.timestamp.body` with the secret in the file"
        " `secret_file`; several are separated by spaces. Id and timestamp are the headers `webhook-id` and"
        " `webhook-timestamp`."
    ),
)


def _header(name: str, kind: str, description: str) -> dict[str, Any]:
    return {"headers": {name: {"required": True, "description": description, "schema": {"type": kind}}}}


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Answers, "description": "Every alarm is on disk: each was accepted, or is a duplicate."},
    207: {"model": Answers, "description": "Some alarms are on disk, others were rejected: see each."},
    400: {"model": Problem, "description": "The body is no JSON, or JSON of another shape."},
    401: {
        "model": Problem,
        "description": "Nothing proves who sent this, or a signature is too old.",
        **_header("WWW-Authenticate", "string", "What to send."),
    },
    403: {"model": Problem, "description": "The webhook is off: no secret is configured."},
    408: {"model": Problem, "description": f"The body did not arrive within {BODY_SECONDS:g} s."},
    413: {"model": Problem, "description": "The body is too long."},
    415: {"model": Problem, "description": "The body is not declared as application/json."},
    422: {"model": Answers, "description": "No alarm was accepted: each says why."},
    500: {"model": Problem, "description": "A fault of the intake: its log holds more."},
    503: {
        "model": Problem,
        "description": "The ledger cannot be written now. Send the whole request again: what was known is a duplicate.",
        **_header("Retry-After", "integer", "Seconds to wait."),
    },
}


def credentials_of(webhook: Webhook) -> Credentials:
    """Read the files that the configuration names.

    Raises:
        ConfigurationError: one cannot be read, or what it holds is no good.
    """
    token = secret_in(webhook.token_file) if webhook.token_file else ""
    key = key_of(secret_in(webhook.secret_file)) if webhook.secret_file else b""
    return Credentials(token, key)


def router(
    settings: Webhook,
    desk: Desk,
    *,
    credentials: Credentials,
    now: Callable[[], datetime],
    body_seconds: float = BODY_SECONDS,
) -> APIRouter:
    """`POST /alarms`; every 2xx comes after the ledger has it. LedgerUnavailable passes through.

    Args:
        credentials: what senders must show (`credentials_of`).
        now: an aware time, to judge the age of signatures.
        body_seconds: how long a body may take to arrive.
    """
    made = APIRouter()
    made.add_api_route(
        "/alarms",
        _Door(settings, desk, credentials, now, body_seconds).receive,
        methods=["POST"],
        summary="Report alarms",
        operation_id="report_alarms",
        responses=_RESPONSES,
        dependencies=[Security(_TOKEN), Security(_SIGNATURE)],  # for the schema only; the door judges
        openapi_extra={"requestBody": _BODY, "parameters": _SIGNED},
    )
    return made


@dataclass(frozen=True)
class _Door:
    settings: Webhook
    desk: Desk
    credentials: Credentials
    now: Callable[[], datetime]
    body_seconds: float

    async def receive(self, request: Request) -> JSONResponse:
        """Take alarms from anything that can send JSON.

        Each alarm is answered on its own, in order. The same alarm again is a duplicate and harmless, so whoever gets
        no answer sends the request again.
        """
        if not self.credentials.ways:
            raise HTTPException(403, OFF)
        peer = request.client.host if request.client else "unknown"
        items = await self._items(request, peer)
        answers = await self._hand_in(items, peer)
        taken = [answer.status != "rejected" for answer in answers]
        status = 200 if all(taken) else 207 if any(taken) else 422
        return JSONResponse(Answers(alarms=answers).model_dump(), status)

    async def _items(self, request: Request, peer: str) -> list[object]:
        """The alarms of a request whose sender is known; nothing of any other is parsed or kept."""
        try:
            is_known = check_token(self.credentials, request.headers)
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise await self._refusal(415, peer, "malformed", "the content type is not application/json: send JSON")
            body = await self._body(request, peer)
            if not is_known:
                check_signature(self.credentials, request.headers, body, now=self.now(), max_age=self.settings.max_age)
        except Unauthenticated as error:
            scheme = "Bearer" if self.credentials.token else "Signature"
            challenge = {"WWW-Authenticate": f'{scheme} realm="alarms"'}
            raise await self._refusal(401, peer, error.reason, str(error), headers=challenge) from None
        try:
            return read_body(body)
        except Malformed as error:
            raise await self._refusal(400, peer, "malformed", str(error), body) from None

    async def _body(self, request: Request, peer: str) -> bytes:
        most, body = self.settings.max_body, bytearray()
        declared = request.headers.get("content-length", "")
        if not (declared.isdecimal() and int(declared) > most):
            try:
                async with asyncio.timeout(self.body_seconds):
                    async for part in request.stream():
                        body += part
                        if len(body) > most:
                            break
            except TimeoutError:
                why = f"the body did not arrive within {self.body_seconds:g} s: send it again"
                raise HTTPException(408, why, {"Connection": "close"}) from None
            if len(body) <= most:
                return bytes(body)
        why = f"the body is longer than {most} bytes: send fewer alarms in one request"
        raise await self._refusal(413, peer, "malformed", why, headers={"Connection": "close"})

    async def _hand_in(self, items: Sequence[object], peer: str) -> list[Answer]:
        """First what can be used, in one go; then what cannot, which is worth less if the ledger fails in between."""
        deliveries: dict[int, Delivery] = {}
        faults: dict[int, str] = {}
        for place, item in enumerate(items):
            received = to_json(item)
            try:
                observation = read_alarm(item)
            except Malformed as error:
                faults[place] = str(error)
            else:
                deliveries[place] = Delivery("webhook", peer, digest_of(received), observation, excerpt_of(received))
        receipts = await self.desk.accept(list(deliveries.values())) if deliveries else []
        answers = dict(zip(deliveries, map(Answer.of, receipts), strict=True))
        for place, why in faults.items():
            await self.desk.reject("webhook", peer, "malformed", why, to_json(items[place]))
            answers[place] = Answer(status="rejected", reason="malformed", why=why, episode="")
        return [answers[place] for place in range(len(items))]

    async def _refusal(
        self,
        status: int,
        peer: str,
        reason: Reason,
        why: str,
        received: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> HTTPException:
        await self.desk.reject("webhook", peer, reason, why, received)
        return HTTPException(status, why, headers)
