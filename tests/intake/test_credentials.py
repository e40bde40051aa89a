"""Who may send to the webhook: tables, and the reference library of Standard Webhooks."""

import hmac
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from standardwebhooks import Webhook as Reference
from standardwebhooks import WebhookVerificationError

from deployments.intake.credentials import Credentials, Unauthenticated, check_signature, check_token, key_of
from tasks.errors import ConfigurationError

NOW = datetime(2026, 11, 22, 13, 50, tzinfo=UTC)
TOKEN = "a-token-of-the-tests"
SECRET = "whsec_" + b64encode(b"a-key-of-the-tests-24-by").decode()
BODY = b'{"cluster": "mrs-prod"}'


@pytest.mark.parametrize(
    "header",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer   {TOKEN} "},
        {"authorization": f"Bearer {TOKEN}", "webhook-signature": "v1,x"},
    ],
)
def test_the_token_proves_the_sender(header: dict[str, str]) -> None:
    """The right bearer token is enough, whatever else is sent."""
    assert check_token(Credentials(TOKEN, key_of(SECRET)), header)


@pytest.mark.parametrize(
    ("credentials", "header", "words"),
    [
        (Credentials(TOKEN), {}, "nothing proves who sent this: send Authorization: Bearer <token>"),
        (Credentials(TOKEN), {"authorization": "Bearer"}, "the bearer token is not the right one: "
         "send Authorization: Bearer <token>"),
        (Credentials(TOKEN), {"authorization": f"Bearer {TOKEN}x"}, "the bearer token is not the right one: "
         "send Authorization: Bearer <token>"),
        (Credentials(TOKEN), {"authorization": f"Basic {TOKEN}"}, "nothing proves who sent this: "
         "send Authorization: Bearer <token>"),
        (Credentials(TOKEN), {"webhook-id": "1", "webhook-timestamp": "1", "webhook-signature": "v1,x"},
         "nothing proves who sent this: send Authorization: Bearer <token>"),
        (Credentials("", b"k" * 16), {"authorization": "Bearer "}, "nothing proves who sent this: "
         "send the headers webhook-id, webhook-timestamp and webhook-signature"),
        (Credentials(TOKEN, b"k" * 16), {"authorization": "Bearer \xff"}, "the bearer token is not the right one: send "
         "Authorization: Bearer <token> or the headers webhook-id, webhook-timestamp and webhook-signature"),
    ],
)  # fmt: skip
def test_without_the_token_nobody_is_known(credentials: Credentials, header: dict[str, str], words: str) -> None:
    """A wrong token, none, or a signature that nobody could check is refused; the sentence says what to send."""
    with pytest.raises(Unauthenticated) as refused:
        check_token(credentials, header)
    assert (str(refused.value), refused.value.reason) == (words, "unauthenticated")


def signed(body: bytes, secret: str = SECRET, at: datetime = NOW, message_id: str = "msg_1") -> dict[str, str]:
    """The headers that the reference library makes for a body."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Reference(secret).sign(message_id, at, body.decode()),
    }


def verdict(headers: dict[str, str], body: bytes = BODY, key: bytes | None = None) -> tuple[str, str] | None:
    """None if the signature is good, else the reason and the sentence."""
    credentials = Credentials(key=key_of(SECRET) if key is None else key)
    try:
        assert not check_token(credentials, headers)
        check_signature(credentials, headers, body, now=NOW, max_age=300)
    except Unauthenticated as refused:
        return refused.reason, str(refused)
    return None


NO_FIT = ("unauthenticated", "no signature fits: sign id.timestamp.body, as it is sent, with the secret set here")
STALE = ("stale", "webhook-timestamp is more than 300 s off: write seconds since 1970, and set the sender's clock")


@trials(deadline=None)
@given(st.text(), st.binary(min_size=16, max_size=64), st.text("abc_-.0123456789", min_size=1, max_size=64))
def test_what_the_reference_library_signs_is_good(body: str, key: bytes, message_id: str) -> None:
    """Any body signed by the reference library with any key passes with that key and with no other."""
    secret = "whsec_" + b64encode(key).decode()
    headers = signed(body.encode("utf-8", "replace"), secret, message_id=message_id)
    received = body.encode("utf-8", "replace")
    assert verdict(headers, received, key_of(secret)) is None
    assert verdict(headers, received, key + b"x") == NO_FIT
    assert verdict(headers, received + b" ", key_of(secret)) == NO_FIT


def test_the_reference_library_accepts_what_we_sign() -> None:
    """Our product of the same dozen lines is what the reference library verifies, and it refuses what we refuse."""
    now = datetime.now(UTC)
    stamp = str(int(now.timestamp()))
    mac = hmac.digest(key_of(SECRET), b".".join([b"msg_1", stamp.encode(), BODY]), "sha256")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + b64encode(mac).decode(),
    }
    check_signature(Credentials(key=key_of(SECRET)), headers, BODY, now=now, max_age=300)
    assert Reference(SECRET).verify(BODY, headers) == {"cluster": "mrs-prod"}
    with pytest.raises(WebhookVerificationError):
        Reference(SECRET).verify(BODY + b" ", headers)


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(int(NOW.timestamp()) + 1)},
        {"webhook-timestamp": "1" * 5000},
        {"webhook-timestamp": "now"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1a," + "x" * 44},
        {"webhook-signature": "\xff"},
        {"webhook-signature": signed(BODY)["webhook-signature"].removeprefix("v1,")},
        {"webhook-signature": signed(BODY)["webhook-signature"].replace("v1,", "v2,")},
        {"webhook-signature": signed(BODY, "whsec_" + b64encode(b"k" * 24).decode())["webhook-signature"]},
    ],
)
def test_a_signature_of_anything_else_is_refused(changes: dict[str, str]) -> None:
    """A signature is good for its id, timestamp, body, version and key only."""
    assert verdict({**signed(BODY), **changes}) == NO_FIT


def test_one_good_signature_among_several_is_enough() -> None:
    """While a secret is being changed a sender signs with both."""
    other = signed(BODY, "whsec_" + b64encode(b"k" * 24).decode())["webhook-signature"]
    good = signed(BODY)
    assert verdict({**good, "webhook-signature": f"v1a,x {other} {good['webhook-signature']}"}) is None


@pytest.mark.parametrize(("seconds", "expected"), [(-301, STALE), (-300, None), (300, None), (301, STALE)])
def test_a_signature_is_good_for_a_while(seconds: int, expected: tuple[str, str] | None) -> None:
    """A good signature is stale once its timestamp is more than the set age off, to either side."""
    assert verdict(signed(BODY, at=NOW + timedelta(seconds=seconds))) == expected


def test_a_timestamp_that_is_no_number_is_stale_even_if_signed() -> None:
    """What is signed with a timestamp that cannot be read is refused."""
    mac = hmac.digest(key_of(SECRET), b"msg_1.soon." + BODY, "sha256")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": "soon",
        "webhook-signature": "v1," + b64encode(mac).decode(),
    }
    assert verdict(headers) == STALE


def test_a_secret_may_be_any_text() -> None:
    """A secret without the prefix is the key as it is, one with it is Base64, padded or not."""
    unpadded = "whsec_" + b64encode(b"k" * 20).decode().rstrip("=")
    assert (key_of("any text of some length ü"), key_of(unpadded), key_of(SECRET)) == (
        "any text of some length ü".encode(),
        b"k" * 20,
        b"a-key-of-the-tests-24-by",
    )


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("whsec_?" + "A" * 40, "the signing secret starts with whsec_, but no base64 follows: copy it whole"),
        ("whsec_" + "ü" * 40, "the signing secret starts with whsec_, but no base64 follows: copy it whole"),
        ("whsec_" + "A" * 12, "the signing secret is shorter than 16 bytes: make a longer one"),
        ("short", "the signing secret is shorter than 16 bytes: make a longer one"),
        ("", "the signing secret is shorter than 16 bytes: make a longer one"),
    ],
)
def test_a_secret_that_is_no_good_is_refused_at_the_start(secret: str, words: str) -> None:
    """A secret that is cut off or too short is a mistake of the configuration, told without the secret."""
    with pytest.raises(ConfigurationError) as refused:
        key_of(secret)
    assert str(refused.value) == words


def test_credentials_do_not_show_themselves() -> None:
    """Neither token nor key is in the text of the object that holds them."""
    assert repr(Credentials(TOKEN, b"k" * 16)) == "Credentials()"
