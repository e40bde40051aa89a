"""Who calls the cloud: SDK-HMAC-SHA256 signatures, checked with the vendor's own signer, or a token.

Source: "Authentication" of the API references; huaweicloudsdkcore.signer. The date of a signature is compared with
the wall clock, not with emulated time: the vendor's signer stamps wall time, and emulated time may run sixty times as
fast.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl

from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from starlette.requests import Request

if TYPE_CHECKING:
    from deployments.emulator.region import Region

TOLERANCE = timedelta(minutes=15)
AUTHORIZATION = re.compile(r"SDK-HMAC-SHA256 Access=([^,\s]+), ?SignedHeaders=([^,\s]+), ?Signature=([0-9a-f]+)")


@dataclass(frozen=True)
class Keys:
    """An access key pair, as the vendor's signer wants it; `token` for temporary keys."""

    ak: str
    sk: str
    token: str = ""
    expires: datetime | None = None
    """Wall time, like the dates of signatures."""


class Denied(Exception):
    """The caller is not known: `reason` says what was wrong (token, signature or project)."""

    def __init__(self, reason: Literal["token", "signature", "project"], message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def caller(region: "Region", request: Request, body: bytes) -> str:
    """Who sent this request: `ak:<access key>` or `token`.

    Raises:
        Denied: no credentials, unknown key or token, date off by more than 15 minutes, or a signature that is not
            that of this method, path, query, signed headers and body.
    """
    token = request.headers.get("x-auth-token")
    if token is not None:
        if not hmac.compare_digest(token.encode(), region.token.encode()):
            raise Denied("token", "the token is invalid or expired")
        return "token"
    match = AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise Denied("signature", "Incorrect IAM authentication information: x-auth-token not found")
    access, signed, signature = match.groups()
    keys = _keys(region, access, request.headers.get("x-security-token", ""))
    _check_date(request.headers.get("x-sdk-date", ""), cloud_time(region))
    headers = {name: request.headers.get(name, "") for name in signed.split(";")}
    if not {"host", "x-sdk-date"} <= headers.keys():
        raise Denied("signature", "Incorrect IAM authentication information: host and x-sdk-date must be signed")
    _check_body_hash(request, headers, body)
    if not hmac.compare_digest(signature, signature_of(keys, request, headers, body)):
        raise Denied("signature", "Incorrect IAM authentication information: verify aksk signature fail")
    return f"ak:{access}"


def signature_of(keys: Keys, request: Request, headers: dict[str, str], body: bytes) -> str:
    """The signature the vendor's signer gives this request with these signed headers."""
    query: Any = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    unsigned = SdkRequest(
        method=request.method,
        schema=request.scope["scheme"],
        host=headers["host"],
        resource_path=request.scope["raw_path"].decode("latin-1"),
        query_params=query,
        header_params=headers,
        body=body,
    )
    signed = Signer(keys).sign(unsigned)
    return str(signed.header_params["Authorization"]).rpartition("Signature=")[2]


def _keys(region: "Region", access: str, token: str) -> Keys:
    if access == region.access_key:
        return Keys(region.access_key, region.secret_key)
    if access == region.reading_access_key:
        return Keys(region.reading_access_key, region.reading_secret_key)
    keys = region.temporary_keys.get(access)
    if keys is None:
        raise Denied("signature", "Incorrect IAM authentication information: the access key does not exist")
    if token != keys.token or (keys.expires and keys.expires < datetime.now(UTC)):
        raise Denied("signature", "Incorrect IAM authentication information: the security token is invalid or expired")
    return keys


def cloud_time(region: "Region") -> datetime:
    """What the clocks of the cloud's services show."""
    fault = next((each for each in region.faults if each.name == "cloud-clock-skew"), None)
    return datetime.now(UTC) + timedelta(seconds=fault.seconds(600) if fault else 0)


def _check_date(text: str, now: datetime) -> None:
    try:
        date = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Denied(
            "signature", "Incorrect IAM authentication information: x-sdk-date is missing or malformed"
        ) from None
    if abs(now - date) > TOLERANCE:
        raise Denied("signature", "Incorrect IAM authentication information: signature expired")


def _check_body_hash(request: Request, headers: dict[str, str], body: bytes) -> None:
    # A signed hash header stands for the body in the signature, so it must be the body's; the signer writes
    # UNSIGNED-PAYLOAD only for bodies that are not JSON.
    stated = headers.get("x-sdk-content-sha256")
    is_json = request.headers.get("content-type", "application/json").startswith("application/json")
    unsigned = stated == "UNSIGNED-PAYLOAD" and not is_json
    if stated is not None and not unsigned and stated != hashlib.sha256(body).hexdigest():
        raise Denied("signature", "Incorrect IAM authentication information: verify aksk signature fail")
