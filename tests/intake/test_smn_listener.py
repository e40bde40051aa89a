"""The door for SMN: what it answers, what it hands in, and which requests leave the house."""

import asyncio
import base64
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from deployments.emulator.app import app_of
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.emulator.topics import Push
from deployments.intake import smn_endpoint
from deployments.intake.acceptance import Delivery, Reason, Receipt, Source, digest_of
from deployments.intake.settings import Smn
from deployments.intake.smn import MAX_BODY
from deployments.intake.smn_listener import routes
from tasks.errors import LedgerUnavailable
from tasks.models import Observation

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
ENDPOINT = "https://smn.emulated-1.example"
TOPIC = "urn:smn:emulated-1:project:mrs-alarms"
PEER = "198.51.100.7"
Answering = Callable[[httpx.Request], Awaitable[httpx.Response]]


@dataclass
class Ledger:
    """A desk that remembers; `down` names the methods that cannot write now."""

    log: list[str] = field(default_factory=list)
    accepted: list[Delivery] = field(default_factory=list)
    rejected: list[tuple[Source, str, Reason, str, bytes]] = field(default_factory=list)
    seen: set[tuple[Source, str]] = field(default_factory=set)
    down: set[str] = field(default_factory=set)
    burned: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def _write(self, what: str) -> None:
        if what in self.down:
            raise LedgerUnavailable("the ledger at /var/lib/ledger.db cannot be written")
        self.log.append(what)

    async def accept(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """Remember them."""
        self._write("accept")
        self.accepted += deliveries
        return [Receipt("accepted", f"{each.observation.cluster} will be looked at") for each in deliveries]

    async def reject(self, source: Source, peer: str, reason: Reason, why: str, received: bytes) -> None:
        """Remember it."""
        self._write("reject")
        self.rejected.append((source, peer, reason, why, received))

    async def heard(self, source: Source, peer: str) -> None:
        """Remember that there was something."""
        self._write("heard")

    async def first_time(self, source: Source, message_id: str) -> bool:
        """Once only."""
        self._write("first_time")
        new = (source, message_id) not in self.seen
        self.seen.add((source, message_id))
        self.burned.put_nowait(message_id)
        return new

    @property
    def reasons(self) -> list[Reason]:
        """Why things were rejected."""
        return [each[2] for each in self.rejected]


class Wire(httpx.AsyncBaseTransport):
    """Every request that leaves the intake, led to the emulator, or to what a test puts in its place."""

    def __init__(self, app: Starlette) -> None:
        self.requests: list[str] = []
        self._emulator = httpx.ASGITransport(app)
        self.instead: Answering | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Note it and lead it on."""
        self.requests.append(f"{request.method} {request.url}")
        return await (self.instead or self._emulator.handle_async_request)(request)


@dataclass
class World:
    """A door, an SMN that signs, a ledger, and the wire between."""

    region: Region
    pushes: list[Push]
    ledger: Ledger
    wire: Wire
    intake: httpx.AsyncClient
    now: list[datetime]

    async def post(self, push: Push, **changed: Any) -> tuple[int, Any]:
        """POST a push as SMN does, its body changed or not."""
        body = json.dumps(json.loads(push.body) | changed).encode() if changed else push.body
        return await self.send(body, dict(push.headers))

    async def send(self, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        """POST anything."""
        answer = await self.intake.post("/smn", content=body, headers=headers)
        assert (answer.status_code == 503) == ("retry-after" in answer.headers)
        return answer.status_code, answer.json()

    def notification(self, text: str = "ALM-12110 on prod", subject: str = "") -> Push:
        """A signed notification of the topic."""
        self.region.smn.publish(TOPIC, text, subject)
        return self.pushes.pop()

    @property
    def certificate(self) -> str:
        """The request that fetches the certificate."""
        return f"GET {ENDPOINT}/smn/{self.region.smn.certificate_id}"


@pytest.fixture(scope="module")
def smn() -> Region:
    """An SMN with one confirmed subscription."""
    region = Region()
    region.smn.now = lambda: NOW
    region.smn.address = ENDPOINT
    region.smn.confirm(region.smn.subscribe("http://127.0.0.1:1/smn", TOPIC).token)
    return region


def world_of(region: Region, **changed: Any) -> World:
    """A door before this SMN."""
    topics = changed.pop("topics", {TOPIC: ("prod", "test")})
    ledger, wire, now = Ledger(), Wire(app_of(region)), [NOW]
    pushes: list[Push] = []
    region.smn.sinks[:] = [pushes.append]
    http = httpx.AsyncClient(transport=wire, follow_redirects=False, trust_env=False)
    door = routes(Smn(endpoint=ENDPOINT, topics=topics), ledger, runbooks={"12110"}, now=lambda: now[0], http=http)
    transport = httpx.ASGITransport(Starlette(routes=door), client=(PEER, 4321))
    return World(region, pushes, ledger, wire, httpx.AsyncClient(transport=transport, base_url="http://intake"), now)


@pytest.fixture
def world(smn: Region) -> World:
    """A door before an SMN, the topic carrying the alarms of `prod` and `test`."""
    return world_of(smn)


async def test_a_notification_is_handed_in_before_it_is_answered(world: World) -> None:
    """One trigger per cluster that is meant, the id burned last, and the certificate fetched once for two messages."""
    push = world.notification("ALM-12110 raised")
    first = await world.post(push)
    second = await world.post(world.notification("ALM-12110 on test"))
    digest, excerpt = digest_of(push.body), "ALM-12110 raised"
    assert first == (200, {"status": "accepted", "why": "prod will be looked at; test will be looked at"})
    assert second == (200, {"status": "accepted", "why": "test will be looked at"})
    assert world.ledger.accepted[:2] == [
        Delivery("smn", PEER, digest, Observation(alarm_id="12110", kind="trigger", cluster=name), excerpt)
        for name in ("prod", "test")
    ]
    assert world.ledger.accepted[2].observation.cluster == "test"
    assert world.ledger.log == ["accept", "first_time"] * 2
    assert world.wire.requests == [world.certificate]


async def test_a_text_without_an_alarm_of_ours_is_received_and_recorded(world: World) -> None:
    """It is answered 200, so that SMN does not send it again."""
    status, answer = await world.post(world.notification("ALM-12007 on prod"))
    assert (status, answer["status"], answer["reason"]) == (200, "rejected", "no-runbook")
    assert (world.ledger.reasons, world.ledger.accepted, len(world.ledger.seen)) == (["no-runbook"], [], 1)


async def test_a_replay_is_refused(world: World) -> None:
    """The same message again is a 409, recorded as replayed."""
    push = world.notification()
    assert [(await world.post(push))[0] for _ in range(3)] == [200, 409, 409]
    assert world.ledger.reasons == ["replayed", "replayed"]


@pytest.mark.parametrize("console", ["", "https://console.emulated-1.example"])
async def test_a_subscription_is_confirmed(smn: Region, world: World, console: str) -> None:
    """The confirmation goes to the pinned endpoint, also where the link leads to the console, and SMN takes it."""
    smn.smn.console = console
    subscription = smn.smn.subscribe("http://127.0.0.1:2/smn", TOPIC)
    try:
        answer = await world.post(world.pushes.pop())
    finally:
        smn.smn.subscriptions.remove(subscription)
        smn.smn.console = ""
    assert answer == (200, {"status": "confirmed", "why": "the subscription is confirmed"})
    assert subscription.confirmed
    assert [url.partition("?")[0] for url in world.wire.requests] == [
        world.certificate,
        f"GET {ENDPOINT}/rest/v2/notifications/subscription/confirm",
    ]
    assert world.ledger.log == ["heard", "first_time"]


async def test_a_confirmation_for_a_foreign_topic_leaves_no_request(smn: Region) -> None:
    """Somebody else who subscribes our address to his topic gets nothing from us, not even a fetch."""
    world = world_of(smn, topics={f"{TOPIC}-2": ("prod",)})
    subscription = smn.smn.subscribe("http://127.0.0.1:2/smn", TOPIC)
    smn.smn.subscriptions.remove(subscription)
    status, answer = await world.post(world.pushes.pop())
    assert (status, answer["reason"], world.wire.requests, subscription.confirmed) == (403, "not-allowed", [], False)
    assert (world.ledger.reasons, world.ledger.seen) == (["not-allowed"], set())


async def test_a_confirmation_that_smn_refuses_is_recorded(smn: Region, world: World) -> None:
    """A link that SMN no longer takes ends in a sentence, its token in no record."""
    subscription = smn.smn.subscribe("http://127.0.0.1:2/smn", TOPIC)
    smn.smn.subscriptions.remove(subscription)
    status, answer = await world.post(world.pushes.pop())
    why = f"SMN GET confirmation: SMN answers 404: unless the SMN console shows {TOPIC} as confirmed, confirm it there,"
    assert (status, answer["why"]) == (403, f"{why} or subscribe again (a link is good for 48 hours)")
    assert subscription.token.encode() not in world.ledger.rejected[0][4]
    assert world.ledger.seen == set()


async def test_an_end_is_shown_and_never_undone(smn: Region, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A cancellation is verified, recorded without its token, logged as a warning, and its link is not followed."""
    subscription = smn.smn.subscribe("http://127.0.0.1:2/smn", TOPIC)
    smn.smn.unsubscribe("http://127.0.0.1:2/smn", TOPIC)
    with caplog.at_level(logging.WARNING, "runbooks.intake"):
        status, answer = await world.post(world.pushes.pop())
    why = f"SMN has ended our subscription of {TOPIC}: its alarms come by other sources only; if that was not meant,"
    assert (status, answer) == (
        200,
        {
            "status": "rejected",
            "reason": "event",
            "why": f"{why} subscribe it again in the SMN console, else take it from smn.topics",
        },
    )
    assert caplog.messages == [answer["why"]]
    assert world.wire.requests == [world.certificate]
    assert subscription.token.encode() not in world.ledger.rejected[0][4]


@pytest.mark.parametrize(
    ("changed", "status", "reason", "fetched"),
    [
        ({"message": "ALM-12110 on test"}, 403, "unauthenticated", True),
        ({"signature": base64.b64encode(bytes(256)).decode()}, 403, "unauthenticated", True),
        ({"signature": ""}, 400, "malformed", False),
        ({"message": None}, 400, "malformed", False),
        ({"topic_urn": "urn:smn:x"}, 400, "malformed", False),
        ({"type": "UnsubscribeConfirmation"}, 400, "malformed", False),
        ({"message_id": "another"}, 400, "malformed", False),
        ({"timestamp": "2026-01-05T10:59:59Z"}, 403, "stale", False),
        ({"signing_cert_url": f"{ENDPOINT}/smn/SMN_x_00000000.pem"}, 403, "unauthenticated", True),
        (
            {"signing_cert_url": "https://smn.emulated-1.example@evil.example/smn/SMN_x_0.pem"},
            403,
            "unauthenticated",
            False,
        ),
        ({"signing_cert_url": f"{ENDPOINT}:8443/smn/SMN_x_00000000.pem"}, 403, "unauthenticated", False),
        ({"signing_cert_url": f"{ENDPOINT.upper()}/smn/SMN_x_00000000.pem"}, 403, "unauthenticated", False),
        ({"signing_cert_url": f"{ENDPOINT}/smn/../smn/SMN_x_00000000.pem"}, 403, "unauthenticated", False),
    ],
)
async def test_what_is_not_right_is_refused_and_burns_nothing(
    world: World, changed: dict[str, Any], status: int, reason: Reason, fetched: bool
) -> None:
    """Each refusal has its status and reason, and after it the true message with that id is still taken."""
    push = world.notification()
    answered, answer = await world.post(push, **changed)
    assert (answered, answer["status"], answer["reason"]) == (status, "rejected", reason)
    assert [each[:4] for each in world.ledger.rejected] == [("smn", PEER, reason, answer["why"])]
    assert (len(world.wire.requests), world.ledger.accepted, world.ledger.seen) == (int(fetched), [], set())
    assert (await world.post(push))[0] == 200


async def test_a_confirmation_link_to_another_host_leaves_no_request(world: World, smn: Region) -> None:
    """Even a link that SMN signed is followed nowhere else, and the message id is not burned."""
    smn.smn.console = f"{ENDPOINT}@evil.example"
    try:
        subscription = smn.smn.subscribe("http://127.0.0.1:2/smn", TOPIC)
    finally:
        smn.smn.console = ""
    smn.smn.subscriptions.remove(subscription)
    status, answer = await world.post(world.pushes.pop())
    assert (status, answer["reason"]) == (403, "unauthenticated")
    assert (world.wire.requests, world.ledger.seen) == ([world.certificate], set())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(world: World, status: int) -> None:
    """An SMN that sends us elsewhere for its certificate is not believed."""

    async def elsewhere(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"Location": "https://evil.example/cert.pem"})

    world.wire.instead = elsewhere
    answered, answer = await world.post(world.notification())
    assert (answered, answer["reason"]) == (403, "unauthenticated")
    assert (world.wire.requests, world.ledger.accepted) == ([world.certificate], [])


async def test_a_certificate_that_never_ends_is_refused(world: World) -> None:
    """No more of an answer is read than a certificate can be long."""
    parts = 0

    async def flood() -> AsyncIterator[bytes]:
        nonlocal parts
        while True:
            parts += 1
            yield bytes(1024)

    async def endless(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=flood())

    world.wire.instead = endless
    answered, answer = await world.post(world.notification())
    assert (answered, answer["reason"], parts) == (403, "unauthenticated", 65)


async def test_a_compressed_answer_is_refused_unopened(world: World) -> None:
    """Nothing compressed is asked for, and what comes so anyway is not unpacked."""

    async def bomb(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip at all"))

    world.wire.instead = bomb
    answered, answer = await world.post(world.notification())
    assert (answered, answer["reason"], "compressed" in answer["why"]) == (403, "unauthenticated", True)


async def trouble_500(request: httpx.Request) -> httpx.Response:
    """An SMN in trouble."""
    return httpx.Response(500)


async def trouble_429(request: httpx.Request) -> httpx.Response:
    """An SMN that throttles."""
    return httpx.Response(429)


async def trouble_refused(request: httpx.Request) -> httpx.Response:
    """An SMN that is not there."""
    raise httpx.ConnectError("connection refused")


async def trouble_slow(request: httpx.Request) -> httpx.Response:
    """An SMN whose answer does not come."""
    raise httpx.ReadTimeout("")


@pytest.mark.parametrize("trouble", [trouble_500, trouble_429, trouble_refused, trouble_slow])
@pytest.mark.parametrize("kind", ["Notification", "SubscriptionConfirmation"])
async def test_what_may_pass_is_asked_for_again(smn: Region, world: World, trouble: Answering, kind: str) -> None:
    """While SMN itself cannot be asked the answer is 503, nothing is written, and the message is taken later."""
    if kind == "Notification":
        push = world.notification()
    else:
        await world.post(world.notification())  # the certificate is at hand: it is the confirmation that fails
        smn.smn.subscribe("http://127.0.0.1:2/smn", TOPIC)
        push = world.pushes.pop()
    before = list(world.ledger.log)
    world.wire.instead = trouble
    answer = await world.post(push)
    world.wire.instead = None
    assert answer == (503, {"status": "unavailable", "why": "the message cannot be taken now: send it again"})
    assert world.ledger.log == before
    assert (await world.post(push))[0] == 200
    del smn.smn.subscriptions[1:]


async def test_an_answer_that_does_not_come_is_given_up(world: World) -> None:
    """SMN waits 5 s for us, so we do not wait longer for its certificate."""

    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError("it was waited for")

    world.wire.instead = never
    assert smn_endpoint.FETCH_SECONDS < 5
    with anyio.fail_after(smn_endpoint.FETCH_SECONDS + 1):
        assert (await world.post(world.notification()))[0] == 503


@pytest.mark.parametrize("down", ["accept", "first_time"])
async def test_without_a_ledger_nothing_is_accepted(world: World, down: str) -> None:
    """The answer is 503 and says nothing of our paths, and the repetition is taken."""
    push = world.notification()
    world.ledger.down = {down}
    answer = await world.post(push)
    world.ledger.down = set()
    assert answer == (503, {"status": "unavailable", "why": "the message cannot be taken now: send it again"})
    assert world.ledger.seen == set()
    assert (await world.post(push))[0] == 200
    assert world.ledger.accepted[-1].observation.cluster == "prod"


async def test_a_refusal_that_cannot_be_recorded_is_not_answered_as_one(world: World) -> None:
    """What was wrong must be on disk before it is said."""
    world.ledger.down = {"reject"}
    assert (await world.send(b"{", {}))[0] == 503


@pytest.mark.parametrize(("length", "status"), [(MAX_BODY, 400), (MAX_BODY + 1, 413), (MAX_BODY * 4, 413)])
async def test_a_body_has_a_limit(world: World, length: int, status: int) -> None:
    """Longer than any message of SMN is a 413, and no more of it is kept than shows that."""
    answered, answer = await world.send(b" " * length, {})
    assert (answered, answer["reason"]) == (status, "malformed")
    assert len(world.ledger.rejected[0][4]) == min(length, MAX_BODY + 1)


async def test_the_longest_text_of_smn_is_taken(world: World) -> None:
    """256 KB full of quotes and umlauts pass."""
    text = ('"ü' * 90_000)[: 256 * 1024 // 3 * 2 - 20] + " ALM-12110"
    assert (await world.post(world.notification(text)))[0] == 200


async def test_a_certificate_that_has_ended_is_fetched_anew(world: World) -> None:
    """A kept certificate is used while it is in force and no longer."""
    world.now[0] = NOW + timedelta(days=4000)
    late = world.notification()
    for _ in range(2):
        body = json.loads(late.body) | {"timestamp": f"{world.now[0]:%Y-%m-%dT%H:%M:%SZ}"}
        assert (await world.send(json.dumps(body).encode(), dict(late.headers)))[0] == 403
    assert world.wire.requests == [world.certificate] * 2
    assert world.ledger.reasons == ["unauthenticated"] * 2
    assert "in force from" in world.ledger.rejected[0][3]


async def test_many_messages_at_once_fetch_few_certificates(world: World) -> None:
    """A burst before the certificate is at hand asks SMN as often as it has slots, not once per message."""
    pushes = [world.notification() for _ in range(40)]

    async def slowly(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        return httpx.Response(200, content=world.region.smn.certificate)

    world.wire.instead = slowly
    answers = await asyncio.gather(*(world.post(push) for push in pushes))
    assert {status for status, _ in answers} == {200}
    assert len(world.wire.requests) <= smn_endpoint.FETCHES_AT_ONCE


async def test_forged_messages_do_not_push_the_certificate_out(world: World) -> None:
    """Certificates that are none are not kept, so the true one is still there afterwards."""
    push = world.notification()
    await world.post(push)
    for number in range(20):
        await world.post(world.notification(), signing_cert_url=f"{ENDPOINT}/smn/SMN_x_{number:032x}.pem")
    before = len(world.wire.requests)
    assert ((await world.post(world.notification()))[0], len(world.wire.requests)) == (200, before)


def test_without_topics_there_is_no_door() -> None:
    """SMN is off until a topic is configured."""
    http = httpx.AsyncClient()
    assert routes(Smn(), Ledger(), runbooks={"12110"}, now=lambda: NOW, http=http) == []


anything = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2)
names = st.sampled_from(["type", "message", "message_id", "topic_urn", "timestamp", "subject", "signature"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.binary(), changed=st.dictionaries(names, anything), headers=st.booleans())
@example(body=b"\xff", changed={}, headers=True)
@example(body=b"", changed={"message": "\ud800"}, headers=True)
def test_anything_gets_an_answer_and_nothing_forged_is_accepted(
    smn: Region, body: bytes, changed: dict[str, Any], headers: bool
) -> None:
    """Any bytes, and any fields in place of signed ones, end in a recorded refusal, no exception comes out."""

    async def try_it() -> None:
        world = world_of(smn)
        push = world.notification()
        forged = json.loads(push.body) | changed
        sent = body or (json.dumps(forged).encode() if changed else b"{}")
        status, answer = await world.send(sent, dict(push.headers) if headers else {})
        same = changed and not body and all(json.loads(push.body).get(key) == value for key, value in changed.items())
        assert same or ((status, answer["status"]) in [(400, "rejected"), (403, "rejected")])
        assert same or (world.ledger.log, world.ledger.accepted) == (["reject"], [])

    anyio.run(try_it)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_says_something_else(smn: Region, at: int, bit: int) -> None:
    """Whatever bit of a body changes, the intake hears what SMN said, or nothing."""

    async def try_it() -> None:
        world = world_of(smn)
        push = world.notification("ALM-12110 on test", "MRS")
        flipped = bytearray(push.body)
        flipped[at % len(flipped)] ^= 1 << bit
        status, _ = await world.send(bytes(flipped), dict(push.headers))
        said = [each.observation for each in world.ledger.accepted]
        right = [Observation(alarm_id="12110", kind="trigger", cluster="test")]
        assert (status, said) in [(200, right), (400, []), (403, [])]

    anyio.run(try_it)


async def test_an_alarm_of_the_emulator_arrives_over_the_network() -> None:
    """Subscribed, confirmed and told of an alarm by real requests, with nothing of ours between the two."""
    region, ledger = Region(hosts=1), Ledger()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    cloud = asyncio.create_task(serve(region, ready=listening.set_result))
    endpoint = f"http://127.0.0.1:{await listening}"
    smn = Smn(endpoint=endpoint, topics={TOPIC: ("mrs-001", "other")})
    async with httpx.AsyncClient(trust_env=False) as http:
        door = routes(smn, ledger, runbooks={"12110"}, now=lambda: datetime.now(UTC), http=http)
        server = uvicorn.Server(uvicorn.Config(Starlette(routes=door), lifespan="off", log_level="warning"))
        with socket.create_server(("127.0.0.1", 0)) as port:
            serving = asyncio.create_task(server.serve(sockets=[port]))
            subscribe = {"action": "smn-subscribe", "topic": TOPIC}
            subscribe["endpoint"] = f"http://127.0.0.1:{port.getsockname()[1]}/smn"
            await http.post(f"{endpoint}/emulator/actions", json=subscribe)
            with anyio.fail_after(10):
                await ledger.burned.get()
                assert region.smn.subscriptions[0].confirmed
                region.set_fault("crashed")
                region.advance(900)
                await ledger.burned.get()
            server.should_exit = True
            await serving
    cloud.cancel()
    await asyncio.wait([cloud])
    assert ledger.log == ["heard", "first_time", "accept", "first_time"]
    assert [(each.peer, each.observation) for each in ledger.accepted] == [
        ("127.0.0.1", Observation(alarm_id="12110", kind="trigger", cluster="mrs-001"))
    ]
