"""What the intake asks of SMN: certificates and confirmations, each within a time and a size, no redirect followed."""

import asyncio
from datetime import datetime

import httpx
from cryptography.x509 import Certificate

from deployments.intake.smn import Unusable, certificate_in, is_valid_at
from tasks.errors import Rejected, ServerTrouble, Unreachable

FETCH_SECONDS = 4.0  # SMN itself waits 5 s for our answer
FETCHES_AT_ONCE = 4
MOST_CERTIFICATES = 8
LONGEST_ANSWER = 64 * 1024


class SmnEndpoint:
    """GETs at SMN: its certificates, kept, and confirmations. The caller has checked every address."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._slots = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._certificates: dict[str, Certificate] = {}

    async def certificate(self, url: str, now: datetime) -> Certificate:
        """The certificate at an address, fetched again only when it is no longer in force.

        Raises:
            Unusable: unauthenticated; SMN has none there, or something that is none.
            Unreachable, ServerTrouble: it may be there another time.
        """
        if known := self._known(url, now):
            return known
        try:
            # The wait for a slot counts, too: else forged messages could pile up here.
            async with asyncio.timeout(FETCH_SECONDS), self._slots:
                return self._known(url, now) or await self._fetch(url)
        except TimeoutError as error:
            raise Unreachable("SMN GET certificate", f"not at hand within {FETCH_SECONDS:g} s") from error

    def _known(self, url: str, now: datetime) -> Certificate | None:
        found = self._certificates.get(url)
        return found if found and is_valid_at(found, now) else None

    async def _fetch(self, url: str) -> Certificate:
        try:
            found = certificate_in(await self.get("certificate", url))
        except Rejected as error:
            raise Unusable("unauthenticated", f"{error}: there is no certificate at signing_cert_url") from error
        self._certificates.pop(url, None)
        while len(self._certificates) >= MOST_CERTIFICATES:
            del self._certificates[next(iter(self._certificates))]
        self._certificates[url] = found
        return found

    async def get(self, what: str, url: str) -> bytes:
        """What is at an address; no redirect is followed.

        Raises:
            Unreachable: no answer in time.
            ServerTrouble: a 429 or 5xx.
            Rejected: any other answer than 200, or one that is too long.
        """
        call = f"SMN GET {what}"
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                return await self._get(call, url)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Unreachable(call, f"no answer within {FETCH_SECONDS:g} s") from error
        except httpx.TransportError as error:
            why = f"SMN cannot be reached ({str(error) or type(error).__name__})"
            raise Unreachable(call, f"{why}: open the way to smn.endpoint, its name, port and certificate") from error
        except httpx.InvalidURL as error:
            raise Rejected(call, "the address in the message is no URL") from error

    async def _get(self, call: str, url: str) -> bytes:
        plain = {"Accept-Encoding": "identity"}
        async with self._http.stream("GET", url, headers=plain, follow_redirects=False) as answer:
            status = answer.status_code
            if status == 429 or status >= 500:
                raise ServerTrouble(call, f"SMN answers {status}", status=status)
            if status != 200:
                raise Rejected(call, f"SMN answers {status}", status=status)
            if answer.headers.get("content-encoding", "identity") != "identity":  # a little of it may be very much
                raise Rejected(call, "SMN answers with something compressed, which was not asked for")
            content = bytearray()
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > LONGEST_ANSWER:
                    raise Rejected(call, f"the answer is longer than {LONGEST_ANSWER} bytes")
            return bytes(content)
