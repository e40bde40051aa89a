"""What was written down is delivered: now or later, in order, and a system is left alone when it asks so."""

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from deployments.intake.metrics import Metrics
from deployments.intake.ticket_desk import TicketDesk
from tasks.clients.ticketing import Account, Change
from tasks.deliveries import deliver
from tasks.errors import ConfigurationError
from tasks.ledger.database import Ledger
from tasks.ledger.outbox import Filing, file
from tasks.ledger.ticket_life import incident_of
from tasks.ledger.ticket_tables import ChangeRow, TicketRow
from tasks.ticket_files import id_of, tickets
from tasks.ticket_systems import LOCAL, System, TicketSystem, system_of
from tasks.tickets import incident, tell
from tests.tickets.servers import HandClock, Store, Wire, request_tracker_app, webhook_app

pytestmark = pytest.mark.anyio


class Answers(httpx.AsyncBaseTransport):
    """A server that gives these answers, one after the other, and keeps what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The next answer."""
        await request.aread()
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def hook(transport: httpx.AsyncBaseTransport) -> System:
    """A webhook that is reached so."""
    return system_of("webhook", Account("http://127.0.0.1/in/here", secret="s3cret", transport=transport))


async def write(
    ledger: Ledger, clock: HandClock, correlation: str = "t", text: str = "report", source: str = "a"
) -> None:
    """Write a ticket down, or more about it."""
    async with ledger.writing() as session:
        await file(session, Filing(correlation, "title", text, source=source, system="hook"), clock.now())


async def state(ledger: Ledger, n: int = 1) -> tuple[str, bool, int, timedelta, str]:
    """Key of the ticket; of its change whether it is done, how often it was sent, how long it waits, and why."""
    async with ledger.reading() as session:
        row, change = await session.get(TicketRow, "t"), await session.get(ChangeRow, ("t", n))
    assert row
    assert change
    return row.key, change.done is not None, change.tries, change.not_before - change.at, change.error


async def test_a_webhook_is_told_with_a_key_of_its_own(ledger: Ledger, clock: HandClock) -> None:
    """Each change is one POST with a bearer token and a key of its own; the answer may name the ticket."""
    server = Answers(httpx.Response(200, json={"key": "HOOK-1"}), httpx.Response(202, text="thanks"))
    await write(ledger, clock)
    await write(ledger, clock, text="more", source="b")
    assert await deliver(ledger, "t", hook(server), now=clock.now) is None
    mark = Change("t", 1, "file", "", "").mark
    first, second = server.asked
    assert {name: first.headers[name] for name in ("authorization", "idempotency-key")} == {
        "authorization": "Bearer s3cret",
        "idempotency-key": f'"{mark}/1"',
    }
    assert (str(first.url), second.headers["idempotency-key"]) == ("http://127.0.0.1/in/here", f'"{mark}/2"')
    assert second.content.decode() == (
        '{"correlation":"t","number":2,"kind":"reopen","key":"HOOK-1","title":"title","text":"more",'
        '"part_of":"","follows":""}'
    )
    assert [(await state(ledger, n))[:3] for n in (1, 2)] == [("HOOK-1", True, 1), ("HOOK-1", True, 1)]


LOST = httpx.ReadTimeout("slow")
REFUSED = httpx.ConnectError("refused")
TROUBLE: list[tuple[httpx.Response | Exception, float, float | None, str]] = [
    (REFUSED, 5, None, "cannot be reached (refused)"),
    (httpx.Response(403, text="no"), 5, None, "HTTP 403: no"),
    (httpx.Response(500, text="oops"), 120, None, "sent, and not answered for (HTTP 500: oops)"),
    (LOST, 120, None, "sent, and the answer was lost"),
    (httpx.Response(429, headers={"Retry-After": "42"}), 42, 42, "HTTP 429"),
    (httpx.Response(429, headers={"Retry-After": "99999"}), 3600, 3600, "HTTP 429"),
    (httpx.Response(429, headers={"Retry-After": "soon"}), 5, None, "HTTP 429"),
]


@pytest.mark.parametrize(("answer", "waits", "asks", "why"), TROUBLE)
async def test_what_is_not_taken_waits(
    ledger: Ledger, clock: HandClock, answer: httpx.Response | Exception, waits: float, asks: float | None, why: str
) -> None:
    """A refusal is tried again soon, what may have been taken only when it can be searched for, and 429 says when."""
    found = httpx.Response(200, json={"items": []})
    transport = Answers(found, answer)
    system = system_of(
        "Request Tracker", Account("http://127.0.0.1", secret="s3cret", project="q", transport=transport)
    )
    await write(ledger, clock)
    asked = await deliver(ledger, "t", system, now=clock.now)
    assert asked == (timedelta(seconds=asks) if asks else None)
    key, done, tries, pause, said = await state(ledger)
    assert (key, done, tries, pause, why in said, "s3cret" in said) == (
        "",
        False,
        1,
        timedelta(seconds=waits),
        True,
        False,
    )


async def test_a_refusal_is_tried_ever_more_slowly(ledger: Ledger, clock: HandClock) -> None:
    """What is refused again and again waits twice as long each time, a quarter of an hour at most."""
    await write(ledger, clock)
    pauses = []
    for _ in range(12):
        transport = Answers(httpx.Response(400, text="no"))
        before = clock.now()
        await deliver(ledger, "t", hook(transport), now=clock.now)
        async with ledger.reading() as session:
            change = await session.get(ChangeRow, ("t", 1))
        assert change
        pauses.append((change.not_before - before).total_seconds())
        clock.time = change.not_before
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900]
    await deliver(ledger, "t", hook(Answers(httpx.Response(200))), now=clock.now)
    assert (await state(ledger))[1:3] == (True, 13)


async def test_files_of_the_machine_are_told_the_same(ledger: Ledger, clock: HandClock, runbooks_home: Path) -> None:
    """The local system keeps one file: a run's new words take the place of its old ones, those of others go on top."""
    send = LOCAL.send
    told = [
        Change("t", 1, "file", "title", "first", "run-1"),
        Change("t", 2, "comment", "title", "second", "run-1"),
        Change("t", 3, "resolve", "title", "gone", "clear"),
    ]
    for each in (*told, *told):
        assert await send(each) == id_of("t")
    (ticket,) = tickets()
    assert (ticket.body, ticket.state, ticket.change) == ("gone\n\n---\n\nEarlier:\n\nsecond", "resolved", 3)


async def test_an_incident_is_told_before_what_belongs_to_it(ledger: Ledger, runbooks_home: Path) -> None:
    """Written down together they are delivered at once, and the ticket says which incident it is part of."""
    child = Filing("t", "title", "report", source="run-1", system="", part_of=incident_of("b"))
    filed = await tell(child, incident("b", "why"))
    found = {each.correlation: each.body.partition("\n\n")[0] for each in tickets()}
    assert found == {
        "t": f"Part of incident {id_of(incident_of('b'))}.",
        incident_of("b"): "# Incident: many clusters alarm together",
    }
    assert filed.key == id_of("t")


# The desk of the intake


def measured(metrics: Metrics) -> list[float | None]:
    """Open tickets, undelivered changes, and how old the oldest of these is."""
    names = ("open", "undelivered_changes", "undelivered_age_seconds")
    return [metrics.registry.get_sample_value(f"runbooks_tickets_{name}") for name in names]


def named(system: System) -> Callable[[str], object]:
    """A directory of one system."""

    async def of(name: str) -> System:
        if name != "hook":
            raise ConfigurationError(f"there is no ticket system {name!r}")
        return system

    return of


async def test_the_desk_leaves_a_system_alone_that_asks_so(ledger: Ledger, clock: HandClock) -> None:
    """While a system wants to be left alone none of its tickets is sent, and what waits is measured."""
    wait = httpx.Response(429, headers={"Retry-After": "60"})
    server, metrics = Answers(wait, *(httpx.Response(200) for _ in range(3))), Metrics()
    desk = TicketDesk(ledger, metrics, named(hook(server)))  # type: ignore[arg-type]
    await write(ledger, clock)
    await desk.look()
    for name in ("u", "v"):
        await write(ledger, clock, name)
    await clock.move(59)
    await desk.look()
    assert (len(server.asked), measured(metrics)) == (1, [3, 3, 59])
    await clock.move(1)
    await desk.look()
    assert (len(server.asked), measured(metrics)) == (4, [3, 0, 0])


async def test_a_system_that_is_not_there_is_said_once(
    ledger: Ledger, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Tickets of a system whose block is gone wait, which is one error, and those of others are delivered."""
    caplog.set_level(logging.WARNING, "runbooks")
    store = Store(clock)
    wire = Wire(webhook_app(store), clock, Random(1))
    desk = TicketDesk(ledger, Metrics(), named(hook(wire)))  # type: ignore[arg-type]
    await write(ledger, clock)
    async with ledger.writing() as session:
        await file(session, Filing("u", "title", "x", system="gone"), clock.now())
    for _ in range(2):
        await desk.look()
        await clock.move(600)
    said = "tickets wait for their system 'gone': there is no ticket system 'gone'"
    assert [record.getMessage() for record in caplog.records] == [said]
    assert [each.text for each in store.tickets] == ["report"]


async def test_a_late_request_is_no_second_ticket(ledger: Ledger, clock: HandClock) -> None:
    """A request that the server carries out long after nobody waited for it any more is found, and not made again."""
    store = Store(clock)
    app = request_tracker_app(store)

    class Late(httpx.AsyncBaseTransport):
        """A server that takes a minute for what it makes."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            to = httpx.ASGITransport(app)
            if request.method == "GET" or store.tickets:
                return await to.handle_async_request(request)
            again = httpx.Request("POST", request.url, headers=request.headers, content=await request.aread())
            clock.put_off(60, lambda: to.handle_async_request(again))
            raise LOST

    system = system_of("Request Tracker", Account("http://127.0.0.1", secret="x", project="q", transport=Late()))
    desk = TicketDesk(ledger, Metrics(), named(system))  # type: ignore[arg-type]
    await write(ledger, clock)
    for _ in range(60):
        await desk.look()
        await clock.move(5)
    assert (len(store.tickets), (await state(ledger))[:3]) == (1, ("1", True, 2))


# The block


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"kind": "Jira", "project": "OPS"}, "secret is needed"),
        ({"kind": "Request Tracker", "secret": SecretStr("s3cret")}, "project is needed"),
        ({"kind": "webhook", "url": "https://x/y?token=s3cret"}, "has no query"),
        ({"kind": "Bugzilla"}, "Input should be"),
    ],
)
def test_a_block_that_cannot_work_is_refused(fields: dict[str, object], why: str) -> None:
    """A ticket system's block without what its kind needs is refused in a sentence that shows no secret."""
    with pytest.raises(ValidationError, match=why) as refused:
        TicketSystem.model_validate({"url": "https://x", **fields})
    assert "s3cret" not in str(refused.value)


def test_a_block_shows_no_secret() -> None:
    """Neither the block nor the account made of it shows the secret when it is printed."""
    block = TicketSystem(kind="Jira", url="https://x", user="a", secret=SecretStr("s3cret"), project="OPS")
    assert "s3cret" not in f"{block!r} {block.account()!r} {block.model_dump_json()}"
    assert block.account().secret == "s3cret"
