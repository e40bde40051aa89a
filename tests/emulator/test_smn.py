"""SMN: subscriptions, signed messages, certificates, and the sender; judged by openssl and a receiver of its own."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region
from deployments.emulator.smn import REPETITIONS, SmnSender
from deployments.emulator.topics import Push

pytestmark = pytest.mark.anyio
TOPIC = "urn:smn:emulated-1:project:mrs-alarms"
ENDPOINT = "http://127.0.0.1:1/smn"
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class Receiver:
    """An HTTP server that answers with these statuses in turn, the last one from then on, and keeps what it got."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.got: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.url = ""
        self.gate = threading.Event()
        self.gate.set()

    def wait_for(self, count: int) -> None:
        """Until so many requests came."""
        until = time.monotonic() + 5
        while len(self.got) < count:
            assert time.monotonic() < until, f"{len(self.got)} of {count} requests came"
            time.sleep(0.01)


@contextmanager
def receiver(*statuses: int) -> Iterator[Receiver]:
    """A receiver on a free loopback port."""
    kept = Receiver(list(statuses))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.gate.wait(5)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.got.append(({name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
            self.send_response(kept.statuses.pop(0) if len(kept.statuses) > 1 else kept.statuses[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http://127.0.0.1:{server.server_address[1]}/smn"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join(5)


@pytest.fixture
def pushes(region: Region) -> list[Push]:
    """What the region's SMN pushes."""
    sent: list[Push] = []
    region.smn.sinks.append(sent.append)
    region.smn.now = lambda: NOW
    region.smn.address = "http://emulator"
    return sent


@pytest.fixture
def openssl() -> str:
    """The path of the openssl command."""
    path = shutil.which("openssl")
    if path is None and "CI" in os.environ:
        pytest.fail("openssl is not installed, and CI must not go without it")
    if path is None:
        pytest.skip("openssl is not installed")
    return path


def body_of(push: Push) -> dict[str, str]:
    """The JSON of a push."""
    body: dict[str, str] = json.loads(push.body)
    return body


async def test_an_alarm_is_told_to_those_who_confirmed(region: Region, cluster: Cluster, pushes: list[Push]) -> None:
    """Raised and cleared are one Notification each, with the documented fields and headers, for confirmed endpoints."""
    cluster.hosts["node-core1"].polls_from = 40.0
    region.smn.confirm(region.smn.subscribe(ENDPOINT, TOPIC).token)
    region.smn.subscribe("http://127.0.0.1:2/", TOPIC)
    pushes.clear()
    region.set_fault("metadata-down", cluster, "node-core1")
    region.advance(900)
    region.clear_fault("metadata-down", cluster, "node-core1")
    region.advance(300)
    text = "[Major] ALM-12110 Failed to get ECS temporary AK/SK: {} on host node-core1 of cluster mrs-001 at 2026-01-05"
    assert [(push.endpoint, body_of(push)["subject"], body_of(push)["message"]) for push in pushes] == [
        (ENDPOINT, "MRS alarm raised", f"{text.format('raised')} 00:10:40 UTC."),
        (ENDPOINT, "MRS alarm cleared", f"{text.format('cleared')} 00:15:40 UTC."),
    ]
    body = body_of(pushes[0])
    assert set(body) == {
        "type", "signature", "topic_urn", "message_id", "signature_version", "message", "subject", "unsubscribe_url",
        "signing_cert_url", "timestamp",
    }  # fmt: skip
    assert (body["type"], body["topic_urn"], body["signature_version"]) == ("Notification", TOPIC, "v1")
    assert (body["timestamp"], body["signing_cert_url"]) == (
        "2026-01-05T12:00:00Z",
        f"http://emulator/smn/SMN_emulated-1_{region.project_id}.pem",
    )
    assert pushes[0].headers == {
        "Content-Type": "application/json; charset=utf-8",
        "X-SMN-MESSAGE-TYPE": "Notification",
        "X-SMN-MESSAGE-ID": body["message_id"],
        "X-SMN-TOPIC-URN": TOPIC,
    }
    assert body_of(pushes[1])["message_id"] != body["message_id"]


@pytest.mark.parametrize("subject", ["SMN", ""])
async def test_openssl_verifies_what_is_signed(
    openssl: str, tmp_path: Path, region: Region, pushes: list[Push], subject: str
) -> None:
    """The signature is that of the document's string, by the key of the certificate that is served."""
    region.smn.confirm(region.smn.subscribe(ENDPOINT, TOPIC).token)
    region.smn.publish(TOPIC, "Grüße\nzweite Zeile", subject)
    region.smn.unsubscribe(ENDPOINT, TOPIC)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app_of(region))) as client:
        served = await client.get(body_of(pushes[0])["signing_cert_url"])
        assert (await client.get("http://emulator/smn/SMN_emulated-1_0.pem")).status_code == 404
    for push, signed in zip(
        pushes,
        [
            ["message", "message_id", "subscribe_url", "timestamp", "topic_urn", "type"],
            ["message", "message_id", *(["subject"] if subject else []), "timestamp", "topic_urn", "type"],
            ["message", "message_id", "subscribe_url", "timestamp", "topic_urn", "type"],
        ],
        strict=True,
    ):
        body = body_of(push)
        text = "".join(f"{key}\n{body[key]}\n" for key in signed)
        assert verdict(openssl, tmp_path, served.content, text, body["signature"]) == "Verified OK\n"
        assert ("subject" in body) == ("subject" in signed)


def verdict(openssl: str, folder: Path, pem: bytes, text: str, signature: str) -> str:
    """What openssl says of a signature."""
    certificate, key, signed = folder / "cert.pem", folder / "key.pem", folder / "signature"
    certificate.write_bytes(pem)
    signed.write_bytes(base64.b64decode(signature))
    show = f"x509 -in {certificate} -noout -pubkey".split()
    key.write_bytes(subprocess.run([openssl, *show], check=True, capture_output=True).stdout)
    command = f"dgst -sha256 -verify {key} -signature {signed}".split()
    return subprocess.run([openssl, *command], input=text.encode(), capture_output=True).stdout.decode()


@pytest.mark.parametrize(
    ("console", "link"),
    [
        ("https://console.emulated-1.example", "https://console.emulated-1.example/smn/subscription/confirm?token={}"
         f"&topic_urn={TOPIC}&region=emulated-1&region_id=emulated-1"),
        ("", f"http://emulator/rest/v2/notifications/subscription/confirm?token={{}}&topic_urn={TOPIC}"),
    ],
)  # fmt: skip
async def test_a_subscription_is_confirmed_by_its_token(
    region: Region, pushes: list[Push], console: str, link: str
) -> None:
    """Links lead to the console, as SMN's do, or to the API, which takes the token for 48 hours."""
    region.smn.console = console
    subscription = region.smn.subscribe(ENDPOINT, TOPIC)
    invitation = body_of(pushes[0])
    assert (invitation["type"], invitation["subscribe_url"]) == (
        "SubscriptionConfirmation",
        link.format(subscription.token),
    )
    url = "http://emulator/rest/v2/notifications/subscription/confirm"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app_of(region))) as client:
        for wrong in ({}, {"token": "x"}, {"token": subscription.token, "topic_urn": "urn:smn:other"}):
            assert (await client.get(url, params=wrong)).status_code in (400, 404)
        region.smn.now = lambda: NOW + timedelta(hours=48, seconds=1)
        assert (await client.get(url, params={"token": subscription.token})).status_code == 404
        region.smn.now = lambda: NOW
        answer = await client.get(url, params={"token": subscription.token, "topic_urn": TOPIC})
    assert (answer.status_code, answer.json()["subscription_urn"]) == (200, subscription.urn)
    assert subscription.confirmed


def test_a_region_without_subscribers_has_no_key(region: Region, cluster: Cluster) -> None:
    """No key is made before something is signed, whatever alarms there are."""
    region.set_fault("crashed")
    region.advance(900)
    assert len(cluster.alarms) == 3
    assert "_key" not in vars(region.smn)
    region.smn.subscribe(ENDPOINT, TOPIC)
    assert "_key" in vars(region.smn)


def test_stamps_are_those_of_the_wall_clock() -> None:
    """A receiver holds a timestamp against its own clock, so the emulated time is not in it."""
    region, sent = Region(start=datetime(2020, 1, 1, tzinfo=UTC)), list[Push]()
    region.smn.sinks.append(sent.append)
    region.smn.subscribe(ENDPOINT, TOPIC)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(body_of(sent[0])["timestamp"])) < timedelta(seconds=60)


async def test_it_is_subscribed_over_http_and_told_of_an_alarm(region: Region, served: Callable[[Region], str]) -> None:
    """The control route subscribes, the endpoint confirms by the link it gets, and an alarm reaches it."""
    region.smn.console = ""
    with receiver(200) as endpoint:
        async with httpx.AsyncClient(base_url=served(region)) as client:
            action = {"endpoint": endpoint.url, "topic": TOPIC}
            assert (
                await client.post("/emulator/actions", json={"action": "smn-subscribe"} | action)
            ).status_code == 200
            await asyncio.to_thread(endpoint.wait_for, 1)
            before = (await client.get("/emulator/state")).json()["subscriptions"]
            assert (await client.get(endpoint.got[0][1]["subscribe_url"])).status_code == 200
            after = (await client.get("/emulator/state")).json()["subscriptions"]
            await client.post("/emulator/faults", json={"name": "crashed", "cluster": "mrs-001", "host": "node-core1"})
            await client.post("/emulator/advance", json={"seconds": 900})
            await asyncio.to_thread(endpoint.wait_for, 2)
            await client.post("/emulator/actions", json={"action": "smn-unsubscribe"} | action)
            await asyncio.to_thread(endpoint.wait_for, 3)
            pem = (await client.get(endpoint.got[1][1]["signing_cert_url"])).text
    shown = {"topic": TOPIC, "endpoint": endpoint.url}
    assert (before, after) == ([shown | {"confirmed": False}], [shown | {"confirmed": True}])
    assert [headers["x-smn-message-type"] for headers, _ in endpoint.got] == [
        "SubscriptionConfirmation",
        "Notification",
        "UnsubscribeConfirmation",
    ]
    assert pem.startswith("-----BEGIN CERTIFICATE-----")
    assert region.smn.subscriptions == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"action": "smn-subscribe", "endpoint": "ftp://127.0.0.1/", "topic": TOPIC},
        {"action": "smn-subscribe", "endpoint": "http://", "topic": TOPIC},
        {"action": "smn-subscribe", "endpoint": ENDPOINT, "topic": "alarms"},
        {"action": "smn-subscribe", "topic": TOPIC},
        {"action": "smn-unsubscribe", "endpoint": ENDPOINT, "topic": TOPIC},
    ],
)
async def test_what_cannot_be_subscribed_is_a_400(region: Region, wanted: dict[str, str]) -> None:
    """The answer says why, and nothing is subscribed."""
    transport = httpx.ASGITransport(app_of(region))
    async with httpx.AsyncClient(transport=transport, base_url="http://emulator") as client:
        answer = await client.post("/emulator/actions", json=wanted)
    assert (answer.status_code, list(answer.json()), region.smn.subscriptions) == (400, ["error"], [])


def push_to(endpoint: str, text: str = "") -> Push:
    """A push of no particular content."""
    return Push(endpoint, {"Content-Type": "application/json"}, json.dumps({"text": text}).encode())


def wait_until(done: Callable[[], bool]) -> None:
    """Give the sender's thread up to five seconds."""
    until = time.monotonic() + 5
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("statuses", "requests", "lost"),
    [([200], 1, 0), ([503, 500, 202], 3, 0), ([404], 1, 1), ([302], 1, 1), ([500], 1 + REPETITIONS, 1)],
)
def test_a_push_is_repeated_while_the_endpoint_is_in_trouble(statuses: list[int], requests: int, lost: int) -> None:
    """A 5xx is repeated six times, any other answer is final, and what nobody took is counted."""
    sender = SmnSender(pause=0.01)
    with receiver(*statuses) as endpoint:
        sender(push_to(endpoint.url))
        endpoint.wait_for(requests)
        wait_until(lambda: sender.lost == lost)
        time.sleep(0.05)
    assert (len(endpoint.got), sender.lost) == (requests, lost)


def test_an_endpoint_that_is_not_there_is_given_up() -> None:
    """Nobody listens there, so it is tried seven times and counted as lost."""
    sender = SmnSender(pause=0)
    sender(push_to(ENDPOINT))
    wait_until(lambda: sender.lost == 1)


def test_sending_does_not_hold_up_the_sender_of_the_alarm() -> None:
    """However slow a receiver is, a push is only put aside, and all arrive in their order."""
    sender = SmnSender()
    with receiver(200) as endpoint:
        endpoint.gate.clear()
        began = time.monotonic()
        for number in range(20):
            sender(push_to(endpoint.url, str(number)))
        took = time.monotonic() - began
        endpoint.gate.set()
        endpoint.wait_for(20)
    assert took < 1
    assert [body["text"] for _, body in endpoint.got] == [str(number) for number in range(20)]
