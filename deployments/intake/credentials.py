"""Who may send to the webhook: a bearer token, or a signature by the Standard Webhooks specification. No I/O."""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from tasks.errors import ConfigurationError

_PREFIX = "whsec_"
_SHORTEST_KEY = 16
_SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Unauthenticated(Exception):
    """Nothing proves who sent it. `reason` is `stale` where only the time of a good signature is wrong."""

    def __init__(self, why: str, reason: Literal["unauthenticated", "stale"] = "unauthenticated") -> None:
        super().__init__(why)
        self.reason: Literal["unauthenticated", "stale"] = reason


@dataclass(frozen=True)
class Credentials:
    """What senders must show; nothing: the webhook is off.

    Attributes:
        token: the bearer token; empty: none is accepted.
        key: the key of signatures (`key_of`); empty: none is accepted.
    """

    token: str = field(default="", repr=False)
    key: bytes = field(default=b"", repr=False)

    @property
    def ways(self) -> str:
        """What a sender may do to be let in, for a sentence."""
        token = ["Authorization: Bearer <token>"] if self.token else []
        signature = ["the headers webhook-id, webhook-timestamp and webhook-signature"] if self.key else []
        return " or ".join(token + signature)


def key_of(secret: str) -> bytes:
    """The key that a signing secret holds: `whsec_<base64>`, or any other text as it is.

    Raises:
        ConfigurationError: what follows `whsec_` is no base64, or the key is too short.
    """
    key = secret.encode()
    if secret.startswith(_PREFIX):
        encoded = secret.removeprefix(_PREFIX)
        try:
            key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except ValueError:
            why = f"the signing secret starts with {_PREFIX}, but no base64 follows: copy it whole"
            raise ConfigurationError(why) from None
    if len(key) < _SHORTEST_KEY:
        raise ConfigurationError(f"the signing secret is shorter than {_SHORTEST_KEY} bytes: make a longer one")
    return key


def check_token(credentials: Credentials, headers: Mapping[str, str]) -> bool:
    """Whether the bearer token proves the sender; False: only a signature can, once the body is there.

    Args:
        headers: with names in lower case, or a mapping that does not mind.

    Raises:
        Unauthenticated: neither is to be had, so there is no need to read the body.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    sent = scheme.lower() == "bearer"
    # Header values are bytes that were read as Latin-1; so much of them is compared, whatever differs.
    token_is_right = hmac.compare_digest(token.strip().encode("latin-1", "replace"), credentials.token.encode())
    if credentials.token and sent and token_is_right:
        return True
    if credentials.key and all(headers.get(name) for name in _SIGNED):
        return False
    wrong = "the bearer token is not the right one" if credentials.token and sent else "nothing proves who sent this"
    raise Unauthenticated(f"{wrong}: send {credentials.ways}")


def check_signature(
    credentials: Credentials, headers: Mapping[str, str], body: bytes, *, now: datetime, max_age: float
) -> None:
    """Return if one of the signatures is the one that our key makes of id, timestamp and body.

    A request that is sent again within `max_age` passes again. That is harmless: it holds the same observations, which
    are duplicates then, and start nothing. So message ids are not kept.

    Args:
        max_age: seconds the timestamp may be off, to either side.

    Raises:
        Unauthenticated: none is; or one is, but its timestamp is too far from `now` (`stale`).

    Source: Standard Webhooks, "Verifying webhook authenticity"
    (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
    """
    message_id, timestamp, signatures = (headers.get(name, "").encode("latin-1", "replace") for name in _SIGNED)
    signed = hmac.digest(credentials.key, b"%b.%b.%b" % (message_id, timestamp, body), "sha256")
    expected = b"v1," + b64encode(signed)
    fitting = [hmac.compare_digest(expected, signature) for signature in signatures.split()]
    if not credentials.key or not any(fitting):
        raise Unauthenticated("no signature fits: sign id.timestamp.body, as it is sent, with the secret set here")
    if not re.fullmatch(rb"[0-9]{1,11}", timestamp) or abs(now.timestamp() - int(timestamp)) > max_age:
        why = f"webhook-timestamp is more than {max_age:g} s off: write seconds since 1970, and set the sender's clock"
        raise Unauthenticated(why, "stale")
