"""The door for SMN: `POST /smn`. It reads, hands in and answers; `smn.py` judges.

SMN waits 5 seconds for an answer, repeats a message up to six times where it gets none or a 5xx, and never after any
other answer (SMN FAQ, smn_faq_0014). So a 5xx here means "again, please", and everything else is final.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.intake.acceptance import Delivery, Desk, Reason, digest_of, excerpt_of
from deployments.intake.settings import Smn
from deployments.intake.smn import (
    MAX_BODY,
    Message,
    Unusable,
    check_origin,
    confirmation_url,
    observations_in,
    parse_message,
    verify,
    without_secrets,
)
from deployments.intake.smn_endpoint import SmnEndpoint
from tasks.errors import LedgerUnavailable, Rejected, ServerTrouble, Unreachable

READ_SECONDS = 5.0
RETRY_AFTER = "30"
STATUS: dict[Reason, int] = {"malformed": 400, "replayed": 409}  # all others 403

logger = logging.getLogger("runbooks.intake")


def routes(
    settings: Smn,
    desk: Desk,
    *,
    runbooks: Collection[str],
    now: Callable[[], datetime],
    http: httpx.AsyncClient,
) -> list[Route]:
    """`POST /smn`; none where no topic is configured.

    Answers `{"status", "reason"?, "why"}`; every 2xx comes after the ledger has it, every 503 with Retry-After.

    Args:
        runbooks: the alarm ids that have one.
        http: a client that takes no proxy or CA from the environment.
    """
    if not settings.topics:
        return []
    return [Route("/smn", _Door(settings, desk, runbooks, now, http).receive, methods=["POST"])]


class _Door:
    def __init__(
        self,
        settings: Smn,
        desk: Desk,
        runbooks: Collection[str],
        now: Callable[[], datetime],
        http: httpx.AsyncClient,
    ) -> None:
        self._settings = settings
        self._desk = desk
        self._runbooks = runbooks
        self._now = now
        self._smn = SmnEndpoint(http)

    async def receive(self, request: Request) -> Response:
        """One message, whatever it is: always an answer."""
        peer = request.client.host if request.client else "unknown"
        try:
            body = await _read(request)
        except (TimeoutError, ClientDisconnect):
            return _answer(503, "unavailable", f"the body did not arrive within {READ_SECONDS:g} s: send it again")
        try:
            return await self._judge(body, request.headers, peer)
        except (LedgerUnavailable, Unreachable, ServerTrouble) as error:
            logger.warning("a message from SMN (%s) cannot be taken now, SMN will repeat it: %s", peer, error)
            return _answer(503, "unavailable", "the message cannot be taken now: send it again")

    async def _judge(self, body: bytes, headers: Mapping[str, str], peer: str) -> Response:
        if len(body) > MAX_BODY:
            why = f"the body is longer than {MAX_BODY} bytes, which no SMN message is"
            return await self._reject(peer, "malformed", why, body, status=413)
        try:
            return await self._take(parse_message(body, headers), body, peer)
        except Unusable as error:
            return await self._reject(peer, error.reason, error.why, body)

    async def _take(self, message: Message, body: bytes, peer: str) -> Response:
        """The order matters: nothing is fetched for a message that is not for us, nothing done before it is verified.

        A message id counts as seen only after what the message asks for is done and on disk. A crash between the two
        makes SMN's repetition a second look at the alarm list, where the other order would lose the message.
        """
        now = self._now()
        check_origin(message, self._settings, now)
        verify(message, await self._smn.certificate(message.signing_cert_url, now), now)
        match message.type:
            case "Notification":
                answer = await self._hand_in(message, body, peer)
            case "SubscriptionConfirmation":
                answer = await self._confirm(message, peer)
            case "UnsubscribeConfirmation":
                answer = await self._note_the_end(message, body, peer)
        if not await self._desk.first_time("smn", message.message_id):
            why = f"the SMN message {message.message_id} was taken before: nothing is to be done"
            raise Unusable("replayed", why)
        return answer

    async def _hand_in(self, message: Message, body: bytes, peer: str) -> Response:
        clusters = self._settings.topics[message.topic_urn]
        observations = observations_in(message, clusters, self._runbooks)
        if not observations:
            why = f"the SMN message {message.message_id} names no alarm with a runbook: take it from the topic's rule"
            return await self._reject(peer, "no-runbook", why, body, status=200)
        digest, excerpt = digest_of(body), excerpt_of(message.message.encode())
        receipts = await self._desk.accept(
            [Delivery("smn", peer, digest, observation, excerpt) for observation in observations]
        )
        taken = any(receipt.what != "rejected" for receipt in receipts)
        why = "; ".join(dict.fromkeys(receipt.why for receipt in receipts))
        return _answer(200, "accepted" if taken else "rejected", why)

    async def _confirm(self, message: Message, peer: str) -> Response:
        try:
            await self._smn.get("confirmation", confirmation_url(message, self._settings.endpoint))
        except Rejected as error:
            why = f"{error}: unless the SMN console shows {message.topic_urn} as confirmed, confirm it there, or"
            why += " subscribe again (a link is good for 48 hours)"
            raise Unusable("not-allowed", why) from error
        await self._desk.heard("smn", peer)
        logger.info("confirmed the subscription of %s", message.topic_urn)
        return _answer(200, "confirmed", "the subscription is confirmed")

    async def _note_the_end(self, message: Message, body: bytes, peer: str) -> Response:
        """An end is somebody's decision: it is shown, never undone."""
        why = (
            f"SMN has ended our subscription of {message.topic_urn}: its alarms come by other sources only;"
            " if that was not meant, subscribe it again in the SMN console, else take it from smn.topics"
        )
        logger.warning("%s", why)
        return await self._reject(peer, "event", why, body, status=200)

    async def _reject(self, peer: str, reason: Reason, why: str, body: bytes, status: int | None = None) -> Response:
        await self._desk.reject("smn", peer, reason, why, without_secrets(body))
        return _answer(status or STATUS.get(reason, 403), "rejected", why, reason)


async def _read(request: Request) -> bytes:
    """The body, cut off one byte after what a message may have."""
    body = bytearray()
    async with asyncio.timeout(READ_SECONDS):
        async for part in request.stream():
            body += part[: MAX_BODY + 1 - len(body)]
            if len(body) > MAX_BODY:
                break
    return bytes(body)


def _answer(status: int, what: str, why: str, reason: Reason | None = None) -> JSONResponse:
    said = {"status": what} | ({"reason": reason} if reason else {}) | {"why": why}
    return JSONResponse(said, status, {"Retry-After": RETRY_AFTER} if status == 503 else None)
