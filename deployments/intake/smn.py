"""SMN messages: read, checked and verified. No I/O: the listener fetches certificates and confirms subscriptions.

SMN signs with one certificate per region, whoever's topic it is. So the signature only says "from SMN"; that a message
is meant for us is said by its topic, which is signed too. The text of an alarm's notification is not published: it
only tells that Manager's alarm list is worth reading now.

Source: SMN user guide, "HTTP or HTTPS Message Format" (smn_ug_a9002) and "Message Signature Verification"
(smn_ug_a9003); SMN API, "Confirming a Subscription".
"""

import re
from base64 import b64decode
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from deployments.intake.acceptance import Reason
from deployments.intake.settings import Smn
from tasks.models import Observation

# SMN takes texts of 256 KB; in JSON a text full of quotes or escapes is up to twice as long.
MAX_BODY = 2 * 256 * 1024 + 16 * 1024
CONFIRM_PATH = "/rest/v2/notifications/subscription/confirm"
CONSOLE_CONFIRM_PATH = "/smn/subscription/confirm"
SMALLEST_KEY = 2048

_CERTIFICATE_PATH = r"/smn/SMN_[A-Za-z0-9-]{1,64}_[0-9A-Fa-f-]{8,64}\.pem"
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")
# Only ASCII letters bound a number or a name: Chinese texts put neither spaces nor anything else around them.
_NUMBER = re.compile(r"(?<![0-9A-Za-z_])(?<![0-9]\.)[0-9]{1,10}(?![0-9A-Za-z_])(?!\.[0-9])")
_CAPABILITY = re.compile(rb"\b(token|subscription_urn)(=|\\u003d)[^&\"\s]*", re.IGNORECASE)
_SIGNED: Mapping[str, tuple[str, ...]] = {
    "Notification": ("message", "message_id", "subject", "timestamp", "topic_urn", "type"),
    "SubscriptionConfirmation": ("message", "message_id", "subscribe_url", "timestamp", "topic_urn", "type"),
    "UnsubscribeConfirmation": ("message", "message_id", "subscribe_url", "timestamp", "topic_urn", "type"),
}


class Unusable(ValueError):
    """A message that is not taken: the reason, and a sentence that says what was wrong and what to do."""

    def __init__(self, reason: Reason, why: str) -> None:
        super().__init__(why)
        self.reason: Reason = reason
        self.why = why


def _time(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise ValueError("write it like 2024-07-10T09:43:44Z")
    datetime.fromisoformat(text)
    return text


# Every signed field but the text is one line: else a text could be cut so that it reads as other fields.
Word = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,512}$")]
Url = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,2048}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\r\n]*$")]


class Message(BaseModel):
    """What SMN pushes, its texts exactly as they were signed; fields that are not used here are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    type: Literal["SubscriptionConfirmation", "Notification", "UnsubscribeConfirmation"]
    topic_urn: Word
    message_id: Word
    message: str
    timestamp: Annotated[str, AfterValidator(_time)]
    subject: Line | None = None
    subscribe_url: Url | None = None
    signing_cert_url: Url
    signature_version: Annotated[str, StringConstraints(pattern="^[vV]1$")]
    signature: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9+/]{1,2048}={0,2}$")]

    @model_validator(mode="after")
    def _has_its_link(self) -> Self:
        if self.type != "Notification" and self.subscribe_url is None:
            raise ValueError(f"a {self.type} comes with a subscribe_url")
        return self

    @property
    def sent(self) -> datetime:
        """When SMN sent it first, by SMN's clock: a repeated message keeps its time."""
        return datetime.fromisoformat(self.timestamp).astimezone(UTC)


def parse_message(body: bytes, headers: Mapping[str, str]) -> Message:
    """Read a message and hold it against its headers.

    Args:
        headers: with lower-case names, or a mapping in which case does not matter.

    Raises:
        Unusable: malformed.
    """
    try:
        message = Message.model_validate_json(body)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_input=False))
        raise Unusable("malformed", f"no SMN message: {'; '.join(faults)}"[:500]) from None
    for header, value in (
        ("x-smn-message-type", message.type),
        ("x-smn-message-id", message.message_id),
        ("x-smn-topic-urn", message.topic_urn),
    ):
        if headers.get(header) != value:
            why = f"the header {header} and the body of the SMN message differ: pass it on as SMN sent it"
            raise Unusable("malformed", why)
    return message


def check_origin(message: Message, smn: Smn, now: datetime) -> None:
    """Refuse what need not even be verified: a foreign topic, a certificate from elsewhere, another time.

    Raises:
        Unusable: not-allowed, unauthenticated or stale.
    """
    if message.topic_urn not in smn.topics:
        why = "the topic of this SMN message is not in the intake's settings: list it in smn.topics, or unsubscribe"
        raise Unusable("not-allowed", why)
    if not re.fullmatch(re.escape(_origin(smn.endpoint)) + _CERTIFICATE_PATH, message.signing_cert_url):
        why = f"signing_cert_url is not {_origin(smn.endpoint)}/smn/SMN_<region>_<id>.pem: if that is not the SMN of"
        raise Unusable("unauthenticated", f"{why} the topic's region, correct smn.endpoint in the intake's settings")
    off = (now - message.sent).total_seconds()
    if abs(off) > smn.max_age:
        why = f"the SMN message was sent {abs(off):.0f} s {'ago' if off > 0 else 'ahead of us'}, {smn.max_age:g} s are"
        raise Unusable("stale", f"{why} allowed: look whether this machine's clock is right")


def certificate_in(pem: bytes) -> x509.Certificate:
    """The certificate a PEM file holds, the first one of several.

    Raises:
        Unusable: unauthenticated; it is no certificate, or none of an RSA key of 2048 bits or more.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except (ValueError, x509.InvalidVersion):
        raise Unusable("unauthenticated", "what is at signing_cert_url is no certificate in PEM") from None
    _key_of(certificate)
    return certificate


def _key_of(certificate: x509.Certificate) -> RSAPublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey) or key.key_size < SMALLEST_KEY:
        raise Unusable("unauthenticated", f"SMN's certificate is not of an RSA key of {SMALLEST_KEY} bits or more")
    return key


def is_valid_at(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether a certificate is in force."""
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def string_to_sign(message: Message) -> bytes:
    """What SMN signed: `key`, line end, value, line end for each signed field; an empty subject is left out."""
    fields = ((name, getattr(message, name)) for name in _SIGNED[message.type])
    return "".join(f"{name}\n{value}\n" for name, value in fields if name != "subject" or value).encode()


def verify(message: Message, certificate: x509.Certificate, now: datetime) -> None:
    """Check the signature: RSA, PKCS #1 v1.5, SHA-256.

    Raises:
        Unusable: unauthenticated; the certificate is not in force, or did not sign this.
    """
    if not is_valid_at(certificate, now):
        until = f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
        why = f"SMN's certificate is in force from {until} only: look whether this machine's clock is right"
        raise Unusable("unauthenticated", why)
    key = _key_of(certificate)
    try:
        key.verify(b64decode(message.signature, validate=True), string_to_sign(message), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        why = "the signature of this SMN message is not right: it was changed on its way, or SMN did not send it"
        raise Unusable("unauthenticated", why) from None


def confirmation_url(message: Message, endpoint: str) -> str:
    """Where to confirm a subscription: always at SMN's own endpoint.

    SMN's links lead to the console (`https://<console>/smn/subscription/confirm?token=...`), which is another host
    and is never asked: the token is taken to the API's confirm route instead. That the two take the same token is
    inferred. A link that is at the endpoint already is used as it is.

    Raises:
        Unusable: unauthenticated; the link is neither of these, or names another topic.
    """
    origin, link = _origin(endpoint), message.subscribe_url or ""
    path, _, query = link.removeprefix(origin).partition("?")
    ours = link.startswith(f"{origin}/") and not re.search(r"[\\#]|//|\.\.|%2e|%2f|%5c", path, re.IGNORECASE)
    if ours and "#" not in query and parse_qs(query).get("topic_urn", [message.topic_urn]) == [message.topic_urn]:
        return link
    console = re.fullmatch(rf"https://[a-z0-9.-]+{CONSOLE_CONFIRM_PATH}\?([^#]+)", link)
    asked = parse_qs(console[1]) if console else {}
    tokens = asked.get("token", [])
    if len(tokens) != 1 or asked.get("topic_urn") != [message.topic_urn]:
        why = f"subscribe_url is neither at {origin} nor a confirmation link of the console for this topic: nothing"
        raise Unusable("unauthenticated", f"{why} was confirmed; confirm the subscription in the console")
    return f"{origin}{CONFIRM_PATH}?{urlencode({'topic_urn': message.topic_urn, 'token': tokens[0]})}"


def observations_in(message: Message, clusters: Sequence[str], runbooks: Collection[str]) -> list[Observation]:
    """What a notification is a reason to look at; empty if it names no alarm with a runbook.

    Args:
        clusters: the names of the blocks whose alarms the topic carries. Where the text names some of them, only
            these are meant.
        runbooks: the alarm ids that have one.
    """
    text = f"{message.subject or ''}\n{message.message}"
    alarms = sorted(set(_NUMBER.findall(text)) & set(runbooks))
    named = [name for name in clusters if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.ASCII)]
    return [
        Observation(alarm_id=alarm, kind="trigger", cluster=cluster)
        for alarm in alarms
        for cluster in named or clusters
    ]


def without_secrets(body: bytes) -> bytes:
    """A message as it may be shown: who has its links' tokens can subscribe and unsubscribe."""
    return _CAPABILITY.sub(rb"\1\2***", body)


def _origin(endpoint: str) -> str:
    """Scheme, host and port, in the one way SMN writes them."""
    url = urlsplit(endpoint)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    default = {"https": 443, "http": 80}[url.scheme]
    return f"{url.scheme}://{host}" + ("" if url.port in (None, default) else f":{url.port}")
