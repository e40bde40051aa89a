"""SMN's topics: who is subscribed, and the signed messages they get. It knows nothing of HTTP.

Source: SMN user guide, "HTTP or HTTPS Message Format" and "Message Signature Verification"; a link is good for 48 h.
What MRS writes into a notification about an alarm is not published. Assumptions: the text, that a clear is pushed,
that a repeated report is not, and that one topic carries the alarms of all clusters. A real topic refuses loopback and
private addresses as endpoints; this one takes them.
"""

import base64
import json
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from deployments.emulator.alarms import DEFINITIONS, Alarms
from deployments.emulator.inventory import Alarm

LINK_HOURS = 48
CONFIRM_PATH = "/rest/v2/notifications/subscription/confirm"


@dataclass(frozen=True)
class Push:
    """One POST that SMN is to send."""

    endpoint: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, eq=False)
class Subscription:
    """An endpoint of a topic; it gets notifications once confirmed."""

    topic: str
    endpoint: str
    token: str
    urn: str
    since: datetime
    confirmed: bool = False


class Topics:
    """The topics of a region; `sinks` get every push.

    `address` is where the emulator is reached, for the links in messages. `console` is the address of the console, to
    which SMN's own confirmation links lead and which is not emulated; empty: they lead to the API's confirm route.
    `now` is the wall clock, not the emulated one: receivers hold timestamps against their own.
    """

    def __init__(self, region: str, project_id: str, alarms: Alarms) -> None:
        self.region = region
        self.address = ""
        self.console = f"https://console.{region}.example"
        self.now: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.sinks: list[Callable[[Push], None]] = []
        self.subscriptions: list[Subscription] = []
        self.certificate_id = f"SMN_{region}_{project_id}.pem"
        alarms.watchers.append(self._tell)

    @cached_property
    def _key(self) -> rsa.RSAPrivateKey:
        """Made when the first message is signed: most regions never need it."""
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @cached_property
    def certificate(self) -> bytes:
        """PEM; self-signed, where the real one is signed by a CA of Huawei's own."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Emulated-SMN")])
        builder = x509.CertificateBuilder(
            issuer_name=name,
            subject_name=name,
            public_key=self._key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=self.now() - timedelta(days=1),
            not_valid_after=self.now() + timedelta(days=3650),
        )
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def subscribe(self, endpoint: str, topic: str) -> Subscription:
        """Subscribe an endpoint; it is sent a SubscriptionConfirmation.

        Raises:
            ValueError: the endpoint is no http or https address, or the topic is no URN of SMN.
        """
        url = urlsplit(endpoint)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"an endpoint begins with http:// or https://, not {endpoint!r}")
        if not topic.startswith("urn:smn:"):
            raise ValueError(f"a topic is urn:smn:<region>:<project>:<name>, not {topic!r}")
        urn = f"{topic}:{uuid.uuid4().hex}"
        subscription = Subscription(topic, endpoint, secrets.token_hex(64), urn, self.now())
        self.subscriptions.append(subscription)
        self._push(subscription, "SubscriptionConfirmation", self._invitation(topic, "You are invited to subscribe to"))
        return subscription

    def confirm(self, token: str) -> Subscription:
        """Confirm a subscription; again is no error.

        Raises:
            LookupError: no subscription has this token, or its link is too old.
        """
        for subscription in self.subscriptions:
            if subscription.token == token and self.now() - subscription.since <= timedelta(hours=LINK_HOURS):
                subscription.confirmed = True
                return subscription
        raise LookupError("the token is not one of a subscription made in the last 48 hours")

    def unsubscribe(self, endpoint: str, topic: str) -> None:
        """End a subscription; the endpoint is sent an UnsubscribeConfirmation.

        Raises:
            LookupError: it is not subscribed.
        """
        found = [each for each in self.subscriptions if (each.endpoint, each.topic) == (endpoint, topic)]
        if not found:
            raise LookupError(f"{endpoint} is not subscribed to {topic}")
        for subscription in found:
            self.subscriptions.remove(subscription)
            text = self._invitation(topic, "You are unsubscribed from")
            self._push(subscription, "UnsubscribeConfirmation", text)

    def publish(self, topic: str, message: str, subject: str = "") -> None:
        """Send a Notification to the confirmed endpoints of a topic; an empty subject is left out."""
        for subscription in self.subscriptions:
            if subscription.topic == topic and subscription.confirmed:
                self._push(subscription, "Notification", message, subject)

    def _tell(self, alarm: Alarm) -> None:
        definition, cluster = DEFINITIONS[alarm.alarm_id], alarm.host.cluster
        what = "raised" if alarm.status == "Uncleared" else "cleared"
        when = datetime.fromtimestamp((alarm.cleared_ms or alarm.occurred_ms) / 1000, UTC)
        text = (
            f"[{definition.severity}] ALM-{alarm.alarm_id} {definition.name}: {what} on host {alarm.host.name} of"
            f" cluster {cluster.name} at {when:%Y-%m-%d %H:%M:%S} UTC."
        )
        for topic in dict.fromkeys(each.topic for each in self.subscriptions):
            self.publish(topic, text, f"MRS alarm {what}")

    def _invitation(self, topic: str, said: str) -> str:
        return f"{said} topic: {topic}. To subscribe, please visit the subscribe_url, which is valid for 48 hours."

    def _push(self, subscription: Subscription, kind: str, message: str, subject: str = "") -> None:
        stamp = f"{self.now().astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        fields = {"message": message, "message_id": uuid.uuid4().hex}
        fields |= {"timestamp": stamp, "topic_urn": subscription.topic, "type": kind}
        unsigned = {}
        if kind != "Notification":
            fields["subscribe_url"] = self._link(subscription)
        else:
            where = urlencode({"region": self.region, "subscription_urn": subscription.urn}, safe=":")
            unsigned["unsubscribe_url"] = f"{self.console or self.address}/smn/subscription/unsubscribe?{where}"
            if subject:
                fields["subject"] = subject
        text = "".join(f"{key}\n{value}\n" for key, value in sorted(fields.items()))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), SHA256())
        unsigned |= {
            "signature": base64.b64encode(signature).decode(),
            "signature_version": "v1",
            "signing_cert_url": f"{self.address}/smn/{self.certificate_id}",
        }
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "X-SMN-MESSAGE-TYPE": kind,
            "X-SMN-MESSAGE-ID": fields["message_id"],
            "X-SMN-TOPIC-URN": subscription.topic,
        }
        push = Push(subscription.endpoint, headers, json.dumps(fields | unsigned, ensure_ascii=False).encode())
        for sink in self.sinks:
            sink(push)

    def _link(self, subscription: Subscription) -> str:
        asked = {"token": subscription.token, "topic_urn": subscription.topic}
        if not self.console:
            return f"{self.address}{CONFIRM_PATH}?{urlencode(asked, safe=':')}"
        asked |= {"region": self.region, "region_id": self.region}
        return f"{self.console}/smn/subscription/confirm?{urlencode(asked, safe=':')}"
