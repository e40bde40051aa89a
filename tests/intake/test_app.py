"""The intake over HTTP, in this process: the webhook, its page, health, readiness and metrics."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import settings as trials
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from standardwebhooks import Webhook as Reference
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from deployments.intake.acceptance import Delivery, Reason, Receipt, Source, digest_of
from deployments.intake.app import app_of
from deployments.intake.credentials import Credentials, key_of
from deployments.intake.settings import Settings, Webhook
from deployments.intake.webhook_listener import credentials_of, router
from tasks.errors import ConfigurationError, LedgerUnavailable
from tasks.models import Observation

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 22, 13, 50, tzinfo=UTC)
TOKEN = "a-token-of-the-tests"
SECRET = "whsec_YS1rZXktb2YtdGhlLXRlc3RzLTI0LWJ5"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PEER = "192.0.2.7"
RAISED = {"cluster": "mrs-prod", "alarm_id": "12110", "kind": "raised"}
AGAIN = "the ledger cannot be written now: send the whole request again in 30 s"
NO_KIND = "kind: it is missing: write raised or cleared"
Rejection = tuple[Source, str, Reason, str, bytes]


def new(delivery: Delivery) -> Receipt:
    """Everything is new."""
    return Receipt("accepted", f"{delivery.observation.cluster} is looked at", episode="e-1")


@dataclass
class Desk:
    """A desk in memory; `broken` makes its ledger unavailable, `judge` says what becomes of each delivery."""

    judge: Callable[[Delivery], Receipt] = new
    broken: bool = False
    accepted: list[Sequence[Delivery]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)

    async def accept(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """Keep them."""
        if self.broken:
            raise LedgerUnavailable("the ledger at db.example does not answer")
        self.accepted.append(deliveries)
        return [self.judge(delivery) for delivery in deliveries]

    async def reject(self, source: Source, peer: str, reason: Reason, why: str, received: bytes) -> None:
        """Keep it."""
        if self.broken:
            raise LedgerUnavailable("the ledger at db.example does not answer")
        self.rejected.append((source, peer, reason, why, received))

    async def heard(self, source: Source, peer: str) -> None:
        """The webhook has no heartbeat."""
        raise AssertionError("the webhook told of a heartbeat")

    async def first_time(self, source: Source, message_id: str) -> bool:
        """The webhook keeps no message ids."""
        raise AssertionError("the webhook asked whether a message id is new")


@dataclass
class Parts:
    """What is wrong with each part."""

    parts: dict[str, str] = field(default_factory=dict)

    async def ready(self) -> dict[str, str]:
        """Each part, empty if it works."""
        return self.parts


def application(
    desk: Desk,
    *,
    credentials: Credentials = Credentials(TOKEN, key_of(SECRET)),  # noqa: B008
    max_body: int = 1000,
    parts: Parts | None = None,
    registry: CollectorRegistry | None = None,
    routes: Sequence[Route] = (),
) -> FastAPI:
    """The application before a desk."""
    return app_of(
        Settings(webhook=Webhook(max_body=max_body)),
        desk,
        now=lambda: NOW,
        credentials=credentials,
        ready=(parts or Parts()).ready,
        registry=registry or CollectorRegistry(),
        routes=routes,
    )


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client of an application, without a socket; errors of the application are answers."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(PEER, 5))
    return httpx.AsyncClient(transport=transport, base_url="http://intake")


async def post(desk: Desk, content: object, headers: dict[str, str] | None = None) -> httpx.Response:
    """Report with the token to the application before this desk."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with client_of(application(desk)) as client:
        return await client.post("/alarms", content=body, headers=headers or {**BEARER, **JSON})


JSON = {"Content-Type": "application/json"}


def delivered(item: dict[str, str], **fields: str) -> Delivery:
    """What is handed in for an item."""
    received = json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode()
    seen = Observation(cluster=item["cluster"], alarm_id=item["alarm_id"], kind="raised", **fields)  # type: ignore[arg-type]
    return Delivery("webhook", PEER, digest_of(received), seen, received.decode())


def answer(status: str, why: str, reason: str | None = None, episode: str = "") -> dict[str, str | None]:
    """One alarm's answer."""
    return {"status": status, "reason": reason, "why": why, "episode": episode}


@pytest.mark.parametrize("body", [RAISED, {"alarms": [RAISED]}])
async def test_an_alarm_is_handed_in_and_answered(body: object) -> None:
    """One alarm, alone or as a list of one, is one delivery, and is answered with what became of it."""
    desk = Desk()
    response = await post(desk, body)
    said = {"alarms": [answer("accepted", "mrs-prod is looked at", episode="e-1")]}
    assert (response.status_code, response.json()) == (200, said)
    assert (desk.accepted, desk.rejected) == ([[delivered(RAISED)]], [])


async def test_the_good_alarms_of_a_batch_are_not_lost() -> None:
    """All good alarms of a batch reach the desk in one call, bad ones are listed, all are answered in order."""

    def judge(delivery: Delivery) -> Receipt:
        if delivery.observation.cluster == "known":
            return Receipt("duplicate", "it is known", episode="e-2")
        if delivery.observation.cluster == "nobody":
            return Receipt("rejected", "no cluster has that name", "unknown-cluster")
        return new(delivery)

    desk = Desk(judge)
    known, nobody = {**RAISED, "cluster": "known"}, {**RAISED, "cluster": "nobody"}
    response = await post(desk, {"alarms": [{"a": "ü"}, known, 5, nobody, RAISED]})
    no_object = "it is no JSON object: write one with the keys cluster, alarm_id, kind, host, serial, occurred, "
    no_object += "cleared, cleared_by"
    said = [
        answer("rejected", NO_KIND, "malformed"),
        answer("duplicate", "it is known", episode="e-2"),
        answer("rejected", no_object, "malformed"),
        answer("rejected", "no cluster has that name", "unknown-cluster"),
        answer("accepted", "mrs-prod is looked at", episode="e-1"),
    ]
    assert (response.status_code, response.json()) == (207, {"alarms": said})
    assert desk.accepted == [[delivered(known), delivered(nobody), delivered(RAISED)]]
    assert desk.rejected == [
        ("webhook", PEER, "malformed", NO_KIND, '{"a":"ü"}'.encode()),
        ("webhook", PEER, "malformed", no_object, b"5"),
    ]


async def test_the_same_alarm_in_any_batch_has_the_same_digest() -> None:
    """What is kept of an alarm does not depend on what was sent with it, or on white space."""
    desk = Desk()
    await post(desk, {"alarms": [{**RAISED, "host": "other"}, RAISED]})
    await post(desk, json.dumps(RAISED, indent=4).encode())
    assert desk.accepted[0][1] == desk.accepted[1][0]


@pytest.mark.parametrize(
    ("receipt", "status"),
    [
        (Receipt("duplicate", "it is known", episode="e-1"), 200),
        (Receipt("rejected", "no cluster has that name", "unknown-cluster"), 422),
    ],
)
async def test_the_status_says_whether_anything_is_on_disk(receipt: Receipt, status: int) -> None:
    """All duplicates is a 200, all rejected a 422, each with its answers."""
    response = await post(Desk(lambda _: receipt), {"alarms": [RAISED, RAISED]})
    said = answer(receipt.what, receipt.why, receipt.reason, receipt.episode)
    assert (response.status_code, response.json()) == (status, {"alarms": [said, said]})


async def test_when_nothing_can_be_used_the_desk_is_asked_to_accept_nothing() -> None:
    """A batch without a good alarm is a 422, each alarm answered and listed."""
    desk = Desk()
    response = await post(desk, {"alarms": [{}, {}]})
    said = [answer("rejected", NO_KIND, "malformed")] * 2
    assert (response.status_code, response.json(), desk.accepted) == (422, {"alarms": said}, [])
    assert desk.rejected == [("webhook", PEER, "malformed", NO_KIND, b"{}")] * 2


@pytest.mark.parametrize("body", [{"alarms": [RAISED, {}]}, {}, b"no JSON"])
async def test_without_a_ledger_nothing_is_answered_as_accepted(body: object, caplog: pytest.LogCaptureFixture) -> None:
    """While the ledger cannot be written the answer is to try again later, and the log says what is wrong."""
    response = await post(Desk(broken=True), body)
    assert (response.status_code, response.json(), response.headers["Retry-After"]) == (503, {"detail": AGAIN}, "30")
    assert caplog.messages == ["a request to /alarms is to be sent again: the ledger at db.example does not answer"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "the body is no JSON (EOF while parsing an object at line 1 column 1): send one alarm as an object, or "
               "many in alarms"),
        (b"[]", "the body is JSON but no object: send one alarm as an object, or many in alarms"),
    ],
)  # fmt: skip
async def test_a_body_of_another_shape_is_listed(body: bytes, why: str) -> None:
    """A body that is no JSON of the right shape is a 400, and on the list of what was rejected."""
    desk = Desk()
    response = await post(desk, body)
    assert (response.status_code, response.json()) == (400, {"detail": why})
    assert (desk.accepted, desk.rejected) == ([], [("webhook", PEER, "malformed", why, body)])


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json5", None])
async def test_only_json_is_read(kind: str | None) -> None:
    """A body that is not declared as JSON is a 415, listed without the body."""
    desk = Desk()
    response = await post(desk, RAISED, BEARER if kind is None else {**BEARER, "Content-Type": kind})
    why = "the content type is not application/json: send JSON"
    assert (response.status_code, response.json()) == (415, {"detail": why})
    assert (desk.accepted, desk.rejected) == ([], [("webhook", PEER, "malformed", why, b"")])


async def test_a_charset_does_not_matter() -> None:
    """The content type may carry parameters and be written in any case."""
    headers = {**BEARER, "Content-Type": "Application/JSON; charset=utf-8"}
    assert (await post(Desk(), RAISED, headers)).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_long_is_not_read_to_its_end(declared: bool) -> None:
    """A body over the limit is a 413; nothing of it is read if it says so before, else no more than the limit."""
    desk, read = Desk(), []

    async def parts() -> AsyncIterator[bytes]:
        for number in range(10):
            read.append(number)
            yield b" " * 400

    headers = {**BEARER, **JSON, **({"Content-Length": "4000"} if declared else {})}
    async with client_of(application(desk, max_body=1000)) as client:
        response = await client.post("/alarms", content=parts(), headers=headers)
    why = "the body is longer than 1000 bytes: send fewer alarms in one request"
    assert (response.status_code, response.json(), read) == (413, {"detail": why}, [] if declared else [0, 1, 2])
    assert (desk.accepted, desk.rejected) == ([], [("webhook", PEER, "malformed", why, b"")])


async def test_a_body_as_long_as_allowed_is_read() -> None:
    """The limit itself is not too long."""
    body = json.dumps(RAISED).encode()
    assert (await post(Desk(), body + b" " * (1000 - len(body)))).status_code == 200


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    """A sender that stops in the middle is told so after a while."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    app = FastAPI()
    door = router(Webhook(), Desk(), credentials=Credentials(TOKEN), now=lambda: NOW, body_seconds=0.05)
    app.include_router(door)
    async with client_of(app) as client:
        response = await client.post("/alarms", content=parts(), headers={**BEARER, **JSON})
    said = {"detail": "the body did not arrive within 0.05 s: send it again"}
    assert (response.status_code, response.json()) == (408, said)


@pytest.mark.parametrize(
    ("headers", "reason", "why"),
    [
        ({}, "unauthenticated", "nothing proves who sent this"),
        ({"Authorization": "Bearer wrong-wrong-wrong"}, "unauthenticated", "the bearer token is not the right one"),
    ],
)
async def test_who_is_not_known_is_refused_unread(headers: dict[str, str], reason: str, why: str) -> None:
    """Without a credential the body is not read, parsed or kept, and the token is in no word of the answer."""
    desk, read = Desk(), []

    async def parts() -> AsyncIterator[bytes]:
        read.append(True)
        yield b"{}"

    async with client_of(application(desk)) as client:
        response = await client.post("/alarms", content=parts(), headers={**headers, **JSON})
    why += ": send Authorization: Bearer <token> or the headers webhook-id, webhook-timestamp and webhook-signature"
    assert (response.status_code, response.json(), read) == (401, {"detail": why}, [])
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="alarms"'
    assert (desk.accepted, desk.rejected) == ([], [("webhook", PEER, reason, why, b"")])


def signed(body: bytes, at: datetime = NOW) -> dict[str, str]:
    """What the reference library sends with a body."""
    stamp = str(int(at.timestamp()))
    signature = Reference(SECRET).sign("msg_1", at, body.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": stamp, "webhook-signature": signature}


async def test_a_signed_body_is_taken_again_and_again() -> None:
    """A body signed by the reference library is taken, and once more as what it then is for the desk."""
    desk, body = Desk(), json.dumps(RAISED).encode()
    first, second = [await post(desk, body, {**signed(body), **JSON}) for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 200)
    assert desk.accepted == [[delivered(RAISED)]] * 2


async def test_a_signed_body_passes_beside_a_token_that_is_not_ours() -> None:
    """A good signature is enough where something on the way adds credentials of its own."""
    body = json.dumps(RAISED).encode()
    headers = {**signed(body), **JSON, "Authorization": "Bearer of-another-one"}
    assert (await post(Desk(), body, headers)).status_code == 200


@pytest.mark.parametrize(
    ("body", "at", "reason", "why"),
    [
        (
            b'{"a": 1}',
            NOW,
            "unauthenticated",
            "no signature fits: sign id.timestamp.body, as it is sent, with the secret set here",
        ),
        (
            b"{}",
            datetime(2026, 11, 22, 13, 44, tzinfo=UTC),
            "stale",
            "webhook-timestamp is more than 300 s off: write seconds since 1970, and set the sender's clock",
        ),
    ],
)
async def test_a_tampered_or_old_body_is_refused_unparsed(body: bytes, at: datetime, reason: str, why: str) -> None:
    """A body other than the one signed, or signed too long ago, is a 401 and nothing of it is kept."""
    desk = Desk()
    response = await post(desk, body, {**signed(b"{}", at), **JSON})
    assert (response.status_code, response.json()) == (401, {"detail": why})
    assert (desk.accepted, desk.rejected) == ([], [("webhook", PEER, reason, why, b"")])


async def test_the_challenge_names_what_is_configured() -> None:
    """Where only signatures are accepted no bearer token is asked for."""
    async with client_of(application(Desk(), credentials=Credentials(key=key_of(SECRET)))) as client:
        response = await client.post("/alarms", json=RAISED, headers=BEARER)
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Signature realm="alarms"')


async def test_the_webhook_is_off_until_a_secret_is_configured() -> None:
    """Without a secret everything is refused, an empty token included, with how to switch the webhook on."""
    desk = Desk()
    async with client_of(application(desk, credentials=Credentials())) as client:
        responses = [
            await client.post("/alarms", json=RAISED, headers=headers)
            for headers in ({}, BEARER, {"Authorization": "Bearer "}, signed(b"{}"))
        ]
    why = (
        "the webhook is off: name a file with its secret in [webhook] of the intake's configuration, as token_file"
        " (a bearer token) or as secret_file (signatures), and start the intake again"
    )
    assert [(each.status_code, each.json()) for each in responses] == [(403, {"detail": why})] * 4
    assert (desk.accepted, desk.rejected) == ([], [])


def test_credentials_come_from_the_files_that_are_named(tmp_path: Path) -> None:
    """Token and secret are what the files hold, without the line end; a bad one is told by its file."""
    token, secret = tmp_path / "token", tmp_path / "secret"
    token.write_text(f"{TOKEN}\n")
    secret.write_text(f"{SECRET}\n")
    webhook = Webhook(token_file=token, secret_file=secret)
    assert (credentials_of(webhook), credentials_of(Webhook())) == (Credentials(TOKEN, key_of(SECRET)), Credentials())
    with pytest.raises(ConfigurationError, match=re.escape(f"{tmp_path / 'none'} cannot be read")):
        credentials_of(Webhook(token_file=tmp_path / "none"))


ONE = application(Desk())


@given(st.binary(), st.binary(max_size=30), st.binary(max_size=30))
@example(b"[" * 900, BEARER["Authorization"].encode(), b"application/json")
@trials(max_examples=100, deadline=None)
async def test_any_bytes_are_answered(body: bytes, authorization: bytes, kind: bytes) -> None:
    """Whatever bytes are sent with whatever headers, the answer is JSON and no fault of ours."""
    async with client_of(ONE) as client:
        for headers in (
            [(b"authorization", authorization), (b"content-type", kind)],
            [(b"authorization", BEARER["Authorization"].encode()), (b"content-type", b"application/json")],
            [(b"webhook-id", kind), (b"webhook-timestamp", authorization), (b"webhook-signature", kind)],
        ):
            response = await client.post("/alarms", content=body, headers=headers)
            assert response.status_code in (400, 401, 413, 415, 422)
            assert set(response.json()) in ({"detail"}, {"alarms"})


async def test_health_readiness_and_metrics() -> None:
    """Health says that it answers, readiness what does not work, metrics what was counted, in Prometheus's format."""
    parts, registry = Parts({"ledger": "", "prefect": ""}), CollectorRegistry()
    Counter("alarms", "Alarms taken.", registry=registry).inc(3)
    async with client_of(application(Desk(), parts=parts, registry=registry)) as client:
        health, well = await client.get("/health"), await client.get("/ready")
        parts.parts["prefect"] = "Prefect does not answer: start it"
        unwell, metrics = await client.get("/ready"), await client.get("/metrics")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (well.status_code, well.json()) == (200, {"ledger": "", "prefect": ""})
    assert (unwell.status_code, unwell.json()) == (503, {"ledger": "", "prefect": "Prefect does not answer: start it"})
    assert metrics.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert "alarms_total 3.0" in metrics.text.splitlines()


async def test_the_page_needs_nothing_from_elsewhere() -> None:
    """The page of the API names only what is served here, asks no validator, and forbids the browser anything else."""
    async with client_of(application(Desk())) as client:
        page = await client.get("/docs")
        named = re.findall(r"(?:src|href|url)(?:=|: )[\"']([^\"']+)", page.text)
        served = {name: await client.get(name) for name in named}
        other = await client.get("/docs/index.html")
    assert {name: answer.status_code for name, answer in served.items()} == {
        "/docs/swagger-ui.css": 200,
        "/docs/favicon-32x32.png": 200,
        "/docs/swagger-ui-bundle.js": 200,
        "/openapi.json": 200,
    }
    assert "//" not in page.text.replace("// `SwaggerUIBundle` is", "")
    assert '"validatorUrl": null' in page.text
    assert set(re.findall(r"url\([\"']?([a-z]+:|/)", served["/docs/swagger-ui.css"].text)) <= {"data:"}
    assert page.headers["content-security-policy"] == (
        "default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    )
    assert other.status_code == 404


async def test_the_schema_holds_what_a_sender_needs() -> None:
    """Both ways to prove oneself, all answers and the examples are in the schema, and the examples are accepted."""
    async with client_of(application(Desk())) as client:
        schema = (await client.get("/openapi.json")).json()
        operation = schema["paths"]["/alarms"]["post"]
        examples = operation["requestBody"]["content"]["application/json"]["examples"].values()
        answers = [await client.post("/alarms", json=each["value"], headers=BEARER) for each in examples]
    assert operation["security"] == [{"token": []}, {"signature": []}]
    assert set(schema["components"]["securitySchemes"]) == {"token", "signature"}
    statuses = ["200", "207", "400", "401", "403", "408", "413", "415", "422", "500", "503"]
    assert (list(operation["responses"]), [each.status_code for each in answers]) == (statuses, [200, 200, 200])


@pytest.mark.parametrize(
    ("method", "path", "status", "why"),
    [
        ("GET", "/", 404, "there is nothing at this address: /docs shows what there is"),
        ("POST", "/alarms/", 404, "there is nothing at this address: /docs shows what there is"),
        ("GET", "/redoc", 404, "there is nothing at this address: /docs shows what there is"),
        ("GET", "/docs/..%2f..%2f__init__.py", 404, "there is nothing at this address: /docs shows what there is"),
        ("GET", "/alarms", 405, "this address takes POST only: /docs shows what there is"),
    ],
)
async def test_what_is_not_there_is_said_in_a_sentence(method: str, path: str, status: int, why: str) -> None:
    """An unknown address or method is answered with JSON that says where to look."""
    async with client_of(application(Desk())) as client:
        response = await client.request(method, path)
    assert (response.status_code, response.json()) == (status, {"detail": why})


async def test_other_sources_have_their_routes() -> None:
    """Routes that are hung in are served, and a ledger that is away is answered for them, too."""

    async def smn(request: Request) -> PlainTextResponse:
        if await request.body():
            raise LedgerUnavailable("the ledger is away")
        return PlainTextResponse("smn")

    async with client_of(application(Desk(), routes=[Route("/smn", smn, methods=["POST"])])) as client:
        served, away = await client.post("/smn"), await client.post("/smn", content=b"x")
    assert (served.status_code, served.text) == (200, "smn")
    assert (away.status_code, away.json(), away.headers["Retry-After"]) == (503, {"detail": AGAIN}, "30")


async def test_a_fault_of_ours_shows_nothing_of_us() -> None:
    """An error that nobody foresaw is a sentence, not a traceback."""

    def fail(delivery: Delivery) -> Receipt:
        raise ZeroDivisionError("the inside of the intake")

    response = await post(Desk(fail), RAISED)
    said = {"detail": "a fault of the intake: its log holds more; send it again later"}
    assert (response.status_code, response.json()) == (500, said)


async def test_secrets_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the token that is expected nor the one that was sent is logged or listed."""
    desk, sent = Desk(), "a-token-that-was-sent"
    with caplog.at_level(logging.DEBUG):
        response = await post(desk, RAISED, {"Authorization": f"Bearer {sent}", **JSON})
    said = f"{caplog.text} {desk.rejected} {response.text}"
    assert response.status_code == 401
    assert [secret for secret in (TOKEN, sent) if secret in said] == []
