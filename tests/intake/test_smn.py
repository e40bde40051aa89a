"""SMN messages: what is read, what is verified, and where the intake would go for a certificate or a confirmation."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.emulator.region import Region
from deployments.emulator.topics import Push
from deployments.intake.settings import Smn
from deployments.intake.smn import (
    Message,
    Unusable,
    certificate_in,
    check_origin,
    confirmation_url,
    observations_in,
    parse_message,
    string_to_sign,
    verify,
    without_secrets,
)
from tasks.models import Observation

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
ENDPOINT = "https://smn.eu-de.otc.t-systems.com"
TOPIC = "urn:smn:eu-de:0a419ac94f80f2c62f14c01e34000000:mrs-alarms"
SETTINGS = Smn(endpoint=ENDPOINT, topics={TOPIC: ("prod", "prod-2", "test")})
CERTIFICATE_URL = f"{ENDPOINT}/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem"
KINDS = ["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]


def fields(**changed: Any) -> dict[str, Any]:
    """A Notification as the user guide shows it, unsigned."""
    return {
        "signature": "c2lnbmF0dXJl",
        "subject": "SMN",
        "topic_urn": TOPIC,
        "message_id": "d84bd6629ef04513ad2e37bffd6e17cb",
        "signature_version": "v1",
        "type": "Notification",
        "message": "ALM-12110 on prod",
        "unsubscribe_url": "https://console.otc.t-systems.com/smn/subscription/unsubscribe?subscription_urn=x",
        "signing_cert_url": CERTIFICATE_URL,
        "timestamp": "2026-01-05T12:00:00Z",
    } | changed


def headers_of(message: dict[str, Any]) -> dict[str, str]:
    """The headers SMN sends along."""
    return {
        "x-smn-message-type": message["type"],
        "x-smn-message-id": message["message_id"],
        "x-smn-topic-urn": message["topic_urn"],
    }


def message_of(**changed: Any) -> Message:
    """The message these fields make."""
    return Message.model_validate(fields(**changed))


def refusal(act: Callable[[], object]) -> tuple[str, str]:
    """The reason and the sentence with which something is refused."""
    with pytest.raises(Unusable) as caught:
        act()
    return caught.value.reason, caught.value.why


@pytest.fixture(scope="module")
def pushes() -> list[Push]:
    """One message of each kind, signed by the emulator."""
    region = Region()
    region.smn.now = lambda: NOW
    region.smn.address = ENDPOINT
    sent: list[Push] = []
    region.smn.sinks.append(sent.append)
    region.smn.confirm(region.smn.subscribe("http://127.0.0.1:1/smn", TOPIC).token)
    region.smn.publish(TOPIC, "ALM-12110 ist zurück\nzweite Zeile", "Zürich")
    region.smn.unsubscribe("http://127.0.0.1:1/smn", TOPIC)
    return [sent[1], sent[0], sent[2], Push("", {}, region.smn.certificate)]


def read(push: Push) -> Message:
    """A push as the intake reads it."""
    return parse_message(push.body, {name.lower(): value for name, value in push.headers.items()})


@pytest.fixture
def openssl() -> str:
    """The path of the openssl command, which shares no code with the intake or the emulator."""
    path = shutil.which("openssl")
    if path is None and "CI" in os.environ:
        pytest.fail("openssl is not installed, and CI must not go without it")
    if path is None:
        pytest.skip("openssl is not installed")
    return path


@pytest.mark.parametrize("subject", ["SMN", "", None])
def test_what_openssl_signed_by_the_document_is_verified(openssl: str, tmp_path: Path, subject: str | None) -> None:
    """A message signed on the command line, by the rule of the user guide, is right, and with another text wrong."""
    key, pem = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {pem} -days 2 -subj /CN=smn"
    subprocess.run([openssl, *request.split()], check=True, capture_output=True)
    message_id, stamp = "88c726942175432bac921eafd0036163", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    signed = f"message\nMy test message ü\nmessage_id\n{message_id}\n"
    signed += f"subject\n{subject}\n" if subject else ""
    signed += f"timestamp\n{stamp}\ntopic_urn\n{TOPIC}\ntype\nNotification\n"
    done = subprocess.run(
        [openssl, "dgst", "-sha256", "-sign", key], input=signed.encode(), check=True, capture_output=True
    )
    sent = fields(message="My test message ü", message_id=message_id, subject=subject, timestamp=stamp)
    sent["signature"] = base64.b64encode(done.stdout).decode()
    message = parse_message(json.dumps(sent).encode(), headers_of(sent))
    certificate = certificate_in(pem.read_bytes())
    verify(message, certificate, datetime.now(UTC))
    other = message.model_copy(update={"message": "My test message u"})
    assert refusal(lambda: verify(other, certificate, datetime.now(UTC)))[0] == "unauthenticated"


def test_the_string_to_sign_is_the_documents() -> None:
    """Key and value take a line each, keys sorted, the last line ended too, and confirmations sign their link."""
    notification = message_of(message="My test message", subject="demo")
    confirmation = message_of(type="SubscriptionConfirmation", message="m", subscribe_url="https://x/?a")
    assert string_to_sign(notification) == (
        b"message\nMy test message\nmessage_id\nd84bd6629ef04513ad2e37bffd6e17cb\nsubject\ndemo\n"
        b"timestamp\n2026-01-05T12:00:00Z\ntopic_urn\n" + TOPIC.encode() + b"\ntype\nNotification\n"
    )
    assert string_to_sign(confirmation) == (
        b"message\nm\nmessage_id\nd84bd6629ef04513ad2e37bffd6e17cb\nsubscribe_url\nhttps://x/?a\n"
        b"timestamp\n2026-01-05T12:00:00Z\ntopic_urn\n" + TOPIC.encode() + b"\ntype\nSubscriptionConfirmation\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_refused(pushes: list[Push], kind: str) -> None:
    """The emulator's messages are right, and no bit of a signed field or of the signature can be changed."""
    message, certificate = read(pushes[KINDS.index(kind)]), certificate_in(pushes[3].body)
    verify(message, certificate, NOW)
    names = ["message", "message_id", "timestamp", "topic_urn", "type"]
    names.append("subject" if kind == "Notification" else "subscribe_url")
    changed = [
        {name: text[:at] + chr(ord(text[at]) ^ 1 << bit) + text[at + 1 :]}
        for name in names
        if (text := getattr(message, name))
        for at in range(len(text))
        for bit in range(7)
        if name != "type"
    ]
    changed += [{"type": other} for other in KINDS if other != kind]
    signature = base64.b64decode(message.signature)
    for at in range(len(signature)):
        flipped = bytes([*signature[:at], signature[at] ^ 1 << at % 8, *signature[at + 1 :]])
        changed.append({"signature": base64.b64encode(flipped).decode()})
    assert len(changed) > 1000
    for change in changed:
        with pytest.raises(Unusable, match="signature of this SMN message is not right"):
            verify(message.model_copy(update=change), certificate, NOW)


def test_a_text_cannot_pass_for_other_fields(pushes: list[Push]) -> None:
    """A text that holds lines like those that are signed cannot be cut so that it passes under another id."""
    region = Region()
    region.smn.now, region.smn.address = lambda: NOW, ENDPOINT
    sent: list[Push] = []
    region.smn.confirm(region.smn.subscribe("http://127.0.0.1:1/smn", TOPIC).token)
    region.smn.sinks.append(sent.append)
    region.smn.publish(TOPIC, "harmless\nmessage_id\n12\nsubject\nALM-12110")
    cut = json.loads(sent[0].body)
    cut |= {
        "message": "harmless",
        "subject": f"ALM-12110\nmessage_id\n{cut['message_id']}",
        "message_id": "12",
    }
    whole = read(sent[0])
    assert string_to_sign(whole) == string_to_sign(whole.model_copy(update=cut))
    assert refusal(lambda: parse_message(json.dumps(cut).encode(), headers_of(cut)))[0] == "malformed"


@pytest.mark.parametrize(("days", "ok"), [(-2, False), (0, True), (3649, True), (3651, False)])
def test_a_certificate_counts_only_while_it_is_in_force(pushes: list[Push], days: int, ok: bool) -> None:
    """Before and after its time its signatures are refused, and the sentence names the time."""
    message, certificate, now = read(pushes[0]), certificate_in(pushes[3].body), NOW + timedelta(days=days)
    if ok:
        verify(message, certificate, now)
    else:
        why = "SMN's certificate is in force from 2026-01-04 to 2036-01-03 only: look whether this machine's clock is"
        assert refusal(lambda: verify(message, certificate, now)) == ("unauthenticated", f"{why} right")


def certificate_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """A self-signed certificate."""
    name = x509.Name([])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1))
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"<html>",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----",
        certificate_of(ec.generate_private_key(ec.SECP256R1())),
        certificate_of(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - too short on purpose
    ],
    ids=["nothing", "a page", "no base64 of a certificate", "a private key", "an elliptic key's", "a key too short"],
)
def test_what_is_no_rsa_certificate_is_refused(pem: bytes) -> None:
    """Nothing but a certificate of an RSA key verifies anything."""
    assert refusal(lambda: certificate_in(pem))[0] == "unauthenticated"


@given(st.binary(max_size=400))
@example(b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(bytes(200)) + b"\n-----END CERTIFICATE-----\n")
def test_any_bytes_are_a_certificate_or_refused(pem: bytes) -> None:
    """Whatever an endpoint serves, nothing but Unusable comes out."""
    assert refusal(lambda: certificate_in(pem))[0] == "unauthenticated"


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "HttpSubscriptionUserConfirm"},
        {"type": "SubscriptionConfirmation"},  # without its link
        {"message": None},
        {"message": 12110},
        {"subject": ["SMN"]},
        {"subject": "a\nb"},
        {"message_id": ""},
        {"message_id": "a b"},
        {"message_id": "x" * 513},
        {"signature_version": "v2"},
        {"signature": "no base64!"},
        {"timestamp": "2026-13-05T12:00:00Z"},
        {"timestamp": "2026-01-05T12:00:00"},
        {"timestamp": "2026-01-05T12:00:00Z\n"},
        {"timestamp": 1767614400},
        {"signing_cert_url": f"{CERTIFICATE_URL}\n"},
    ],
)
def test_wrong_fields_are_malformed(changed: dict[str, Any]) -> None:
    """A field that is missing, of another type or of another form is named."""
    sent = fields(**changed)
    reason, why = refusal(lambda: parse_message(json.dumps(sent).encode(), headers_of(sent)))
    name = "a SubscriptionConfirmation comes with a subscribe_url" if sent["type"] == KINDS[1] else next(iter(changed))
    assert (reason, why.startswith("no SMN message: "), name in why) == ("malformed", True, True)


def test_headers_and_body_must_agree() -> None:
    """Each of the three headers must say what the body says."""
    sent = fields()
    for header in headers_of(sent):
        for wrong in ({header: "other"}, {header: ""}):
            reason, why = refusal(partial(parse_message, json.dumps(sent).encode(), headers_of(sent) | wrong))
            assert (reason, header in why) == ("malformed", True)
    assert refusal(lambda: parse_message(json.dumps(sent).encode(), {}))[0] == "malformed"
    assert parse_message(json.dumps(sent).encode(), headers_of(sent)) == message_of()


@given(
    st.binary()
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(list(fields())), st.text() | st.none() | st.integers()).map(
        lambda changed: json.dumps(fields(**changed)).encode()
    )
)
@example(b"[" * 100_000)
@example(b'{"message": "\\ud800"}')
@example(json.dumps(fields(message="\ud800")).encode())
def test_any_body_is_a_message_or_malformed(body: bytes) -> None:
    """Whatever comes, a message that can be held against a signature comes out, or Unusable."""
    try:
        read_as = string_to_sign(parse_message(body, headers_of(fields())))
    except Unusable as error:
        read_as = error.reason.encode()
    assert read_as == b"malformed" or read_as.endswith(b"\ntype\nNotification\n")


@pytest.mark.parametrize(
    "url",
    [
        "https://smn.eu-de.otc.t-systems.com@evil.example/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        "https://user@smn.eu-de.otc.t-systems.com/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        "https://smn.eu-de.otc.t-systems.com:8443/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        "https://smn.eu-de.otc.t-systems.com.evil.example/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        "https://smn-eu-de.otc.t-systems.com/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        "https://SMN.eu-de.otc.t-systems.com/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        "HTTPS://smn.eu-de.otc.t-systems.com/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        "http://smn.eu-de.otc.t-systems.com/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        "//smn.eu-de.otc.t-systems.com/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        "https://smn.eu-de.otc.t-systems.com\\@evil.example/smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        f"{CERTIFICATE_URL}?x=1",
        f"{CERTIFICATE_URL}#x",
        f"{ENDPOINT}/smn/../smn/SMN_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        f"{ENDPOINT}/smn/SMN_eu-de_..%2f..%2fv2%2fx.pem",
        f"{ENDPOINT}/smn/smn_eu-de_3190c26a56fb435f9882e3435b000000.pem",
        f"{ENDPOINT}/v2/notifications/topics",
        "",
    ],
)
def test_a_certificate_from_elsewhere_is_refused(url: str) -> None:
    """Only the pinned scheme, host and port, and only a certificate's path, written exactly so."""
    message = message_of().model_copy(update={"signing_cert_url": url})
    reason, why = refusal(lambda: check_origin(message, SETTINGS, NOW))
    assert (reason, why.startswith(f"signing_cert_url is not {ENDPOINT}/smn/SMN_")) == ("unauthenticated", True)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (ENDPOINT, CERTIFICATE_URL),
        (f"{ENDPOINT}/", CERTIFICATE_URL),
        (f"{ENDPOINT}:443", CERTIFICATE_URL),
        (ENDPOINT.upper().replace("HTTPS", "https"), CERTIFICATE_URL),
        (ENDPOINT, f"{ENDPOINT}/smn/SMN_eu-de_12345678-1234-1234-1234-123456789abc.pem"),
        ("http://127.0.0.1:8400", "http://127.0.0.1:8400/smn/SMN_emulated-1_3190c26a56fb435f9882e3435b000000.pem"),
        ("http://[::1]:8400", "http://[::1]:8400/smn/SMN_emulated-1_3190c26a56fb435f9882e3435b000000.pem"),
    ],
)
def test_the_pinned_endpoint_is_where_certificates_come_from(endpoint: str, url: str) -> None:
    """However the settings write the endpoint, SMN's own way of writing it passes."""
    check_origin(message_of(signing_cert_url=url), Smn(endpoint=endpoint, topics=SETTINGS.topics), NOW)


def test_a_foreign_topic_is_not_allowed() -> None:
    """SMN signs for everybody, so a topic that is not listed is refused, whatever its signature."""
    message = message_of(topic_urn="urn:smn:eu-de:somebody-else:alarms")
    assert refusal(lambda: check_origin(message, SETTINGS, NOW))[0] == "not-allowed"


@pytest.mark.parametrize(("seconds", "ok"), [(-3601, False), (-3600, True), (3600, True), (3601, False)])
def test_a_message_from_another_time_is_stale(seconds: int, ok: bool) -> None:
    """Its time may be off by as much as the settings say, before or after ours."""
    now = NOW + timedelta(seconds=seconds)
    if ok:
        check_origin(message_of(), SETTINGS, now)
    else:
        when = "ago" if seconds > 0 else "ahead of us"
        why = f"the SMN message was sent 3601 s {when}, 3600 s are allowed: look whether this machine's clock is right"
        assert refusal(lambda: check_origin(message_of(), SETTINGS, now)) == ("stale", why)


@pytest.mark.parametrize(
    ("link", "url"),
    [
        (f"{ENDPOINT}/any/path?token=t&x=%2f..", f"{ENDPOINT}/any/path?token=t&x=%2f.."),
        (f"{ENDPOINT}/p?topic_urn={TOPIC}&token=t", f"{ENDPOINT}/p?topic_urn={TOPIC}&token=t"),
        (
            f"https://console.otc.t-systems.com/smn/subscription/confirm?token=ab12&topic_urn={TOPIC}&region=eu-de",
            f"{ENDPOINT}/rest/v2/notifications/subscription/confirm?topic_urn={TOPIC.replace(':', '%3A')}&token=ab12",
        ),
        (
            f"https://sa-brazil-1-console.huaweicloud.com/smn/subscription/confirm?token=a%26b&topic_urn={TOPIC}",
            f"{ENDPOINT}/rest/v2/notifications/subscription/confirm?topic_urn={TOPIC.replace(':', '%3A')}&token=a%26b",
        ),
    ],
)
def test_a_subscription_is_confirmed_at_the_pinned_endpoint(link: str, url: str) -> None:
    """A link at the endpoint is used as it is, and of a link of the console only the token, at the endpoint."""
    message = message_of(type="SubscriptionConfirmation", subscribe_url=link)
    assert confirmation_url(message, ENDPOINT) == url


@pytest.mark.parametrize(
    "link",
    [
        "https://smn.eu-de.otc.t-systems.com@evil.example/?token=t",
        "https://smn.eu-de.otc.t-systems.com:444/?token=t",
        "https://smn.eu-de.otc.t-systems.com.evil.example/?token=t",
        "http://smn.eu-de.otc.t-systems.com/?token=t",
        "HTTPS://smn.eu-de.otc.t-systems.com/?token=t",
        "https://SMN.eu-de.otc.t-systems.com/?token=t",
        f"{ENDPOINT}?token=t",
        f"{ENDPOINT}/a/../b?token=t",
        f"{ENDPOINT}/a/%2E%2e/b?token=t",
        f"{ENDPOINT}//evil.example/?token=t",
        f"{ENDPOINT}/\\evil.example/?token=t",
        f"{ENDPOINT}/p?token=t#x",
        f"{ENDPOINT}/p?token=t&topic_urn=urn:smn:another",
        f"https://evil.example/other?token=t&topic_urn={TOPIC}",
        "https://console.otc.t-systems.com/smn/subscription/confirm?token=t&topic_urn=urn:smn:another",
        "https://console.otc.t-systems.com/smn/subscription/confirm?token=t",
        f"https://console.otc.t-systems.com/smn/subscription/confirm?token=t&token=u&topic_urn={TOPIC}",
        f"https://user@console.otc.t-systems.com/smn/subscription/confirm?token=t&topic_urn={TOPIC}",
        f"http://console.otc.t-systems.com/smn/subscription/confirm?token=t&topic_urn={TOPIC}",
    ],
)
def test_a_confirmation_elsewhere_is_refused(link: str) -> None:
    """A link that is neither at the endpoint nor of the console's known form is followed nowhere, and not shown."""
    message = message_of(type="SubscriptionConfirmation", subscribe_url=link)
    reason, why = refusal(lambda: confirmation_url(message, ENDPOINT))
    assert (reason, "token" in why) == ("unauthenticated", False)


@pytest.mark.parametrize(
    ("subject", "text", "found"),
    [
        ("", "ALM-12110 Failed to get ECS temporary AK/SK", "12110: prod prod-2 test"),
        ("12110", "", "12110: prod prod-2 test"),
        ("", '{"alarmId":12110,"cluster":"prod"}', "12110: prod"),
        ("", "告警12110发生在prod集群", "12110: prod"),
        ("", "alarm 12110 on prod-2.", "12110: prod-2"),
        ("test", "12110 and 45192, prod", "12110: prod test, 45192: prod test"),
        ("", "[12110,12007]", "12110: prod prod-2 test"),
        ("", "12110 on prod-25, production and protest", "12110: prod prod-2 test"),
        ("", "ALM-12111, 112110, 12110x, x12110, _12110, 12110.5, 1.12110", ""),
        ("", "", ""),
    ],
)
def test_a_text_is_a_reason_to_look(subject: str, text: str, found: str) -> None:
    """Whole alarm ids with a runbook are a trigger for each cluster of the topic, or for those the text names."""
    message = message_of(subject=subject, message=text)
    expected = [
        Observation(alarm_id=part.partition(": ")[0], kind="trigger", cluster=cluster)
        for part in filter(None, found.split(", "))
        for cluster in part.partition(": ")[2].split()
    ]
    assert observations_in(message, ("prod", "prod-2", "test"), {"12110", "45192"}) == expected


@given(st.text())
def test_any_text_gives_triggers_or_nothing(text: str) -> None:
    """A text decides which clusters are looked at, and nothing else."""
    message = message_of().model_copy(update={"message": text, "subject": text})
    for observation in observations_in(message, ("prod",), {"12110"}):
        assert observation == Observation(alarm_id="12110", kind="trigger", cluster="prod")


def test_links_are_not_shown(pushes: list[Push]) -> None:
    """What would let a reader of the list subscribe or unsubscribe is struck out, escaped or not."""
    for push in pushes[:3]:
        shown = without_secrets(push.body)
        assert b"=***" in shown
        assert not [word for word in (b"?token=", b"subscription_urn=") if word in shown.replace(word + b"***", b"")]
    assert without_secrets(b'"https://c/?token\\u003dabc\\u0026x"') == b'"https://c/?token\\u003d***"'
