"""The face of SMN, certificates and confirmations, and the sender of what it pushes.

Source: SMN API reference, "Confirming a Subscription" (errors are `{"message"}`), and its SDK for the certificate.
Neither route asks for credentials here; whether the real confirm route does is not published clearly.
"""

import ssl
import threading
import time
from collections import deque

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.emulator.region import Region
from deployments.emulator.routes import ServedRoute
from deployments.emulator.topics import CONFIRM_PATH, Push

# Source: SMN FAQ "Does SMN Ensure That Messages Are Received": 5 s for an answer; six more tries where the endpoint
# cannot be reached or answers 5xx, none after any other answer; the interval varies. That it takes an endpoint out
# for 5 to 10 minutes after several failures is not emulated.
TIMEOUT = 5.0
REPETITIONS = 6


class Smn:
    """Handlers over a region."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def routes(self) -> list[ServedRoute]:
        """What this face serves."""
        return [
            ServedRoute("GET", "/smn/{certificate_id}", "smn", "CONFIRMED", self.certificate),
            ServedRoute("GET", CONFIRM_PATH, "smn", "CONFIRMED", self.confirm),
        ]

    async def certificate(self, request: Request) -> Response:
        """Source: DownloadHttpCert."""
        topics = self._region.smn
        if request.path_params["certificate_id"] != topics.certificate_id:
            return JSONResponse({"message": "no such certificate"}, 404)
        return Response(topics.certificate, media_type="application/x-pem-file")

    async def confirm(self, request: Request) -> Response:
        """Source: ConfirmSubscription: `token`, and optionally `topic_urn` and `endpoint`."""
        query = request.query_params
        try:
            subscription = self._region.smn.confirm(query.get("token", ""))
        except LookupError as error:
            return JSONResponse({"message": str(error)}, 404)
        if query.get("topic_urn", subscription.topic) != subscription.topic:
            return JSONResponse({"message": "the token is for another topic"}, 400)
        return JSONResponse({"request_id": subscription.token[:32], "subscription_urn": subscription.urn})


class SmnSender:
    """Sends pushes, one after the other; a sink for the topics. What is never taken is only counted in `lost`.

    It works in a thread, which lives while there is something to send: the region may be moved on by a loop or by
    none, and must not wait for a receiver in either.

    Args:
        pause: seconds before a failed push has its next turn, behind all others.
    """

    def __init__(self, *, pause: float = 1.0, verify: ssl.SSLContext | bool = True) -> None:
        self._pause = pause
        self._verify = verify
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, Push]] = deque()
        self._thread: threading.Thread | None = None
        self.lost = 0

    def __call__(self, push: Push) -> None:
        """Have a push sent; returns at once."""
        with self._lock:
            self._waiting.append((0, push))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="emulated-smn", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        with httpx.Client(timeout=TIMEOUT, verify=self._verify, trust_env=False) as http:
            while (turn := self._next()) is not None:
                repetition, push = turn
                if self._is_final(http, push):
                    continue
                if repetition == REPETITIONS:
                    self.lost += 1
                    continue
                time.sleep(self._pause)
                with self._lock:
                    self._waiting.append((repetition + 1, push))

    def _next(self) -> tuple[int, Push] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._thread = None
            return None

    def _is_final(self, http: httpx.Client, push: Push) -> bool:
        try:
            answer = http.post(push.endpoint, headers=dict(push.headers), content=push.body)
        except httpx.TransportError:
            return False
        if answer.status_code < 500 and not answer.is_success:
            self.lost += 1
        return answer.status_code < 500
