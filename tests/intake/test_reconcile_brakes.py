"""What each look of the reconciler says of breaker, brakes and overdue waits: to people once, to Prometheus always."""

import logging
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from deployments.intake.dispatch import Dispatcher
from deployments.intake.metrics import Metrics
from deployments.intake.prefect_server import PrefectAway
from deployments.intake.reconcile import Reconciler
from deployments.intake.ticket_desk import TicketDesk
from tasks import timing
from tasks.ledger.braking import brake, open_breaker, release, reset_breaker, trip_if_shared
from tasks.ledger.database import Ledger
from tasks.ledger.outbox import file
from tasks.ledger.tables import Episode, Wait
from tasks.ticket_files import id_of, tickets
from tasks.tickets import incident
from tests.intake.standing import a_cluster, connect, seen, told

pytestmark = pytest.mark.anyio
CLOSED = "http://127.0.0.1:9/api"
WHY = "2 of 2 clusters alarmed within 15 minutes: their cause may be a shared one"


class Standing:
    """A clock that stands still."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self._at = timing.wall() + ahead

    def now(self) -> datetime:
        """The same moment each time."""
        return self._at

    async def sleep(self, seconds: float) -> None:
        """Nobody sleeps here."""
        raise AssertionError(f"somebody sleeps for {seconds} seconds")


class Looks:
    """A reconciler whose Prefect is away, and what it logs."""

    def __init__(self, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
        self.ledger, self._caplog = ledger, caplog
        self._metrics = Metrics()
        self._reconciler = Reconciler(ledger, Dispatcher(ledger, self._metrics), self._metrics, "this intake")

    async def look(self) -> list[tuple[str, str]]:
        """One look; level and words of what was logged in it."""
        self._caplog.clear()
        at_once = {"transport": httpx.AsyncHTTPTransport(retries=0)}
        async with PrefectClient(CLOSED, httpx_settings=at_once) as client:
            with suppress(PrefectAway):  # a run that waits is looked for, last of all
                await self._reconciler.reconcile(client)
        return [(each.levelname, each.getMessage()) for each in self._caplog.records]

    def measured(self, name: str) -> float | None:
        """A number as Prometheus reads it."""
        return self._metrics.registry.get_sample_value(f"runbooks_{name}")

    async def trip(self, *names: str) -> str:
        """The breaker trips, for the fleet is these clusters, and all of them alarm; returns its id."""
        clusters = [a_cluster(name) for name in names]
        await connect(self.ledger, *clusters)
        for cluster in clusters:
            await seen(self.ledger, cluster, told(occurred=None))  # now
        async with self.ledger.writing() as session:
            assert await trip_if_shared(session, clusters[0].cluster_id, timing.wall(), 1)
        async with self.ledger.reading() as session:
            tripped = await open_breaker(session)
        assert tripped is not None
        return tripped.id

    async def reset(self) -> None:
        """A person lets changes go on."""
        async with self.ledger.writing() as session:
            assert await reset_breaker(session, "mended", "anna", timing.wall())

    async def overdue(self, seconds: float) -> None:
        """The only run that waits should have gone on so many seconds ago; negative: it should not yet."""
        async with self.ledger.writing() as session:
            await session.merge(an_episode_that_waits())
            deadline = timing.now() - timedelta(seconds=seconds)
            await session.merge(Wait(attempt="a", step="3", episode_id="e", deadline=deadline))


def an_episode_that_waits() -> Episode:
    """An episode whose run waits."""
    now = timing.now()
    return Episode(
        id="e",
        cluster_id="c",
        cluster="block",
        alarm_id="12110",
        state="waiting",
        opened=now,
        opened_by="syslog",
        raised=now,
        holder="a run",
    )


@pytest.fixture
def looks(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> Looks:
    """A reconciler that has not looked yet."""
    caplog.set_level(logging.WARNING, "runbooks.intake")
    return Looks(ledger, caplog)


def tripped_says(ticket: str) -> list[tuple[str, str]]:
    """What is logged of a breaker that has tripped."""
    end = "`runbooks breaker reset --reason TEXT` lets changes go on"
    return [("WARNING", f"the breaker has tripped ({WHY}): nothing is changed; ticket {ticket}; {end}")]


async def test_a_breaker_that_tripped_is_told_once(looks: Looks) -> None:
    """A breaker that has tripped is one incident ticket and one warning, however often it is looked at."""
    assert (await looks.look(), looks.measured("breaker_open"), tickets()) == ([], 0, [])
    id_ = await looks.trip("beta", "alpha")
    said = await looks.look()
    (ticket,) = tickets()
    assert said == tripped_says(ticket.id)
    assert (ticket.correlation, ticket.run) == (f"incident/{id_}", "")
    assert ticket.title == "Incident: many clusters alarm together; nothing is changed"
    assert f"together\n\n{WHY}.\n\nThe clusters:\n\n- alpha\n- beta\n\nAll runs go on diagnosing" in ticket.body
    assert (await looks.look(), looks.measured("breaker_open"), tickets()) == ([], 1, [ticket])


async def test_each_time_it_trips_is_an_incident(looks: Looks) -> None:
    """A breaker that was reset is no longer open, and the next time that it trips is an incident of its own."""
    await looks.trip("alpha", "beta")
    await looks.look()
    await looks.reset()
    assert (await looks.look(), looks.measured("breaker_open"), len(tickets())) == ([], 0, 1)
    second = await looks.trip("gamma", "delta")
    said = await looks.look()
    (ticket,) = [each for each in tickets() if each.correlation == f"incident/{second}"]
    assert (said, looks.measured("breaker_open"), len(tickets())) == (tripped_says(ticket.id), 1, 2)


async def test_a_ticket_that_a_run_has_filed_is_left_as_it_is(looks: Looks) -> None:
    """Where a run that met the breaker was first its ticket is the incident's, and it is named in the warning."""
    filing = incident(await looks.trip("alpha", "beta"), "what a run has met")
    async with looks.ledger.writing() as session:
        await file(session, filing, timing.now())
    said = await looks.look()
    (ticket,) = tickets()
    assert (said, ticket.body) == (tripped_says(ticket.id), filing.text)


async def test_a_ticket_that_cannot_be_delivered_is_delivered_later(looks: Looks, runbooks_home: Path) -> None:
    """Where the ticket's system takes nothing the ticket is in the ledger, and delivered as soon as it can be."""
    in_the_way = runbooks_home / "tickets"
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("no folder")
    id_ = await looks.trip("alpha", "beta")
    said = await looks.look()
    assert said[-1:] == tripped_says(id_of(f"incident/{id_}"))
    assert f"change 1 (file) is not delivered: [Errno 17] File exists: '{in_the_way}'" in said[0][1]
    assert (await looks.look(), looks.measured("breaker_open")) == ([], 1)
    in_the_way.unlink()
    token = timing.clock.set(Standing(timedelta(minutes=1)))
    await TicketDesk(looks.ledger, Metrics()).look()
    timing.clock.reset(token)
    assert [each.correlation for each in tickets()] == [f"incident/{id_}"]


async def test_brakes_are_counted(looks: Looks, runbooks_home: Path) -> None:
    """Prometheus reads how many brakes are on, the stop file of this machine among them, and when they are off."""
    counted = []
    for cluster in ("", "alpha", "beta"):
        await looks.look()
        counted.append(looks.measured("brakes_on"))
        async with looks.ledger.writing() as session:
            await brake(session, cluster, "a change", "anna", timing.wall())
    (runbooks_home / "STOP").touch()
    await looks.look()
    counted.append(looks.measured("brakes_on"))
    (runbooks_home / "STOP").unlink()
    async with looks.ledger.writing() as session:
        await release(session, "", "done", "anna", timing.wall())
    await looks.look()
    counted.append(looks.measured("brakes_on"))
    assert (counted, looks.measured("breaker_open")) == ([0, 1, 2, 4, 2], 0)


OVERDUE = [
    ("in time", [-60, 0, 300], []),
    ("five minutes", [299, 301, 311, 3600], [301]),
    ("an hour", [301, 3600, 3601, 9000], [301, 3601]),
    ("an hour at first sight", [4000, 4010], [4000]),
    ("over, and again", [301, 0, 301, 311], [301, 301]),
    ("an hour, and five minutes of another", [3601, 400, 3700], [3601]),
    ("an hour, over, an hour", [3601, 300, 3601], [3601, 3601]),
]


@pytest.mark.parametrize(("times", "told_at"), [row[1:] for row in OVERDUE], ids=[row[0] for row in OVERDUE])
async def test_overdue_waits_are_told(looks: Looks, times: list[float], told_at: list[float]) -> None:
    """A wait overdue for five minutes is an error once, once more after an hour, and anew after it was over."""
    said, measured = [], []
    token = timing.clock.set(Standing())
    for seconds in times:
        await looks.overdue(seconds)
        said += await looks.look()
        measured.append(looks.measured("intake_overdue_wait_seconds"))
    timing.clock.reset(token)
    words = "a run waits {} s longer than it should: is a worker up?"
    assert said == [("ERROR", words.format(seconds)) for seconds in told_at]
    assert measured == [max(0, seconds) for seconds in times]
