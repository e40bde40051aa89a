"""The metadata service of a node, 169.254.169.254. It is never on the network: only the emulated Meta asks it.

Source: ECS "Obtaining metadata": `GET /openstack/latest/securitykey`, `GET /openstack/latest/meta_data.json`,
`PUT /meta-data/latest/api/token`. Keys are valid for 1 h and renewed 10 minutes before they end, so they change every
50 minutes. The bodies of the failures, but for the sentence about the agency, are assumptions.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deployments.emulator.agencies import Agencies
from deployments.emulator.clock import Clock
from deployments.emulator.faults import Faults
from deployments.emulator.inventory import Host, secret

KEY_PATH = "/openstack/latest/securitykey"
DATA_PATH = "/openstack/latest/meta_data.json"
TOKEN_PATH = "/meta-data/latest/api/token"  # noqa: S105 - a path
VALID_SECONDS = 3600.0
RENEWED_SECONDS = 3000.0
NO_AGENCY = "Please configure Cloud Service Agency first"


@dataclass(frozen=True)
class Credential:
    """Temporary keys of a node."""

    access: str
    secret: str = field(repr=False)
    securitytoken: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True)
class Answer:
    """An HTTP-shaped answer: status, headers, body."""

    status: int
    headers: Mapping[str, str]
    body: str


class MetadataService:
    """Answers one node's requests. `tokens` is optional (default) or required, as `http_tokens` of the ECS option."""

    def __init__(self, clock: Clock, faults: Faults, agencies: Agencies) -> None:
        self._clock = clock
        self._faults = faults
        self._agencies = agencies
        self.tokens = "optional"

    def request(self, host: Host, method: str, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Answer a request from the node.

        `metadata-down` is answered with 503; a real one would not answer at all. Header names match in any case.
        """
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if self._faults.find("metadata-down", *host.place):
            return _text(503, "Service Unavailable")
        if "x-forwarded-for" in sent:
            return _text(403, "Forbidden")
        if (method, path) == ("PUT", TOKEN_PATH):
            return self._token(host, sent.get("x-metadata-token-ttl-seconds", "21600"))
        if self.tokens == "required" and not self._accepts(host, sent.get("x-metadata-token", "")):
            return _text(401, "Unauthorized")
        if (method, path) == ("GET", KEY_PATH):
            return self._securitykey(host)
        if (method, path) == ("GET", DATA_PATH):
            return self._meta_data(host)
        return _text(404, "Not Found")

    def issue(self, host: Host, agency: str, bound_since: float, when: float) -> Credential:
        """The keys a binding gives at `when` (elapsed seconds): the same ones until the next renewal."""
        renewal = int((when - bound_since) // RENEWED_SECONDS)
        issued = bound_since + renewal * RENEWED_SECONDS
        name = (host.server_id, agency, bound_since, renewal)
        return Credential(
            access="HST" + secret(17, "access", *name),
            secret=secret(40, "secret", *name),
            securitytoken=secret(64, "token", *name),
            expires_at=self._clock.start + timedelta(seconds=issued + VALID_SECONDS),
        )

    def _securitykey(self, host: Host) -> Answer:
        agency = host.metadata.get("agency_name")
        slow = self._faults.find("agency-slow", *host.place)
        bound_late = slow is not None and host.bound_since >= slow.since
        if not agency or (slow and bound_late and self._clock.elapsed < host.bound_since + slow.seconds(900)):
            return _text(401, f"<html><body>{NO_AGENCY}</body></html>", "text/html")
        if self._faults.find("iam-down", *host.place):
            return _json(502, {"error": {"code": 502, "message": "IAM does not answer", "title": "Bad Gateway"}})
        if not self._agencies.issues_keys(agency):
            return _text(401, f"The agency {agency} cannot be used. {NO_AGENCY}")
        keys = self.issue(host, agency, host.bound_since, self._clock.elapsed)
        shown = {"access": keys.access, "secret": keys.secret, "securitytoken": keys.securitytoken}
        return _json(200, {"credential": shown | {"expires_at": f"{keys.expires_at:%Y-%m-%dT%H:%M:%S.%fZ}"}})

    def _meta_data(self, host: Host) -> Answer:
        return _json(
            200,
            {
                "uuid": host.server_id,
                "hostname": host.name,
                "name": host.name,
                "launch_index": 0,
                "meta": host.metadata,
            },
        )

    def _token(self, host: Host, ttl: str) -> Answer:
        if not ttl.isdecimal() or not 60 <= int(ttl) <= 21600:
            return _text(400, "X-Metadata-Token-Ttl-Seconds must be 60 to 21600")
        return _text(200, self._token_until(host, self._clock.elapsed + int(ttl)))

    def _token_until(self, host: Host, until: float) -> str:
        signature = hmac.new(host.server_id.encode(), repr(until).encode(), hashlib.sha256).hexdigest()
        return f"{until!r}.{signature}"

    def _accepts(self, host: Host, token: str) -> bool:
        until = token.rpartition(".")[0]
        try:
            moment = float(until)
        except ValueError:
            return False
        return moment > self._clock.elapsed and hmac.compare_digest(token, self._token_until(host, moment))


def _text(status: int, body: str, kind: str = "text/plain") -> Answer:
    return Answer(status, {"Content-Type": kind}, body)


def _json(status: int, body: object) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(body))
