"""A ledger on each of the databases, and a story that is told to it in few words."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, make_url, select

from tasks.ledger.approval_tables import Approval
from tasks.ledger.columns import Table
from tasks.ledger.database import DRIVERS, Ledger, open_ledger, unchecked_ledger, upgrade_schema
from tasks.ledger.episodes import Asking, Held, Holding, Part, claim, close_verified, settle
from tasks.ledger.observing import Seen, Sighting, observe
from tasks.ledger.tables import Cluster, Episode, ObservationRow, Occurrence
from tasks.ledger.ticket_tables import ChangeRow, TicketRow
from tasks.models import Alarm, Kind, Observation, Outcome
from tests.conftest import order

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
ECS_KEYS = "12110"


def with_driver(url: str) -> URL:
    """The URL as the ledger's engine takes it."""
    return make_url(url).set(drivername=DRIVERS["postgresql"])


def a_cluster(name: str = "alpha", *, speed: float = 1, connected: datetime = NOW - 30 * 24 * HOUR) -> Cluster:
    """A cluster that has been connected for a month."""
    return Cluster(name=name, cluster_id=f"id-of-{name}", source=name, speed=speed, connected=connected)


def told(
    kind: Kind,
    host: str = "node-1",
    serial: str = "",
    occurred: datetime | None = None,
    *,
    alarm: str = ECS_KEYS,
    cleared: datetime | None = None,
    sent: datetime | None = None,
) -> Observation:
    """What a source says about one alarm."""
    return Observation(
        alarm_id=alarm,
        kind=kind,
        cluster="alpha",
        host=host,
        serial=serial,
        occurred=occurred,
        cleared=cleared,
        sent=sent,
    )


def part(host: str, outcome: str, serial: str = "", occurred: datetime | None = None, trace: str = "") -> Part:
    """How the page ended for the alarm of a host."""
    alarm = Alarm(alarm_id=ECS_KEYS, location=f"HostName={host}", serial=serial, occurred=occurred)
    return Part(alarm, outcome, trace or f"1 {outcome}")


@dataclass
class Story:
    """What happens to one cluster, in one ledger, by a clock that is moved by hand."""

    ledger: Ledger
    now: datetime = NOW

    def later(self, by: timedelta) -> None:
        """Time passes."""
        self.now += by

    async def see(self, *observations: Observation, source: str = "syslog", of: Cluster | None = None) -> list[Seen]:
        """These are observed now, in one batch."""
        cluster = of or a_cluster()
        sightings = [Sighting(each, cluster, source, "192.0.2.1", "digest") for each in observations]
        async with self.ledger.writing() as session:
            return await observe(session, sightings, self.now)

    async def take(self, run: str = "run-1", *, automated: bool = True, episode: str = "") -> Holding | Held:
        """A run asks for the episode."""
        async with self.ledger.writing() as session:
            asking = Asking(run, f"https://prefect/{run}", automated, episode)
            return await claim(session, "id-of-alpha", "alpha", ECS_KEYS, asking, self.now)

    async def hold(self, run: str = "run-1", *, automated: bool = True, episode: str = "") -> Holding:
        """A run asks for the episode and gets it."""
        holding = await self.take(run, automated=automated, episode=episode)
        assert isinstance(holding, Holding)
        return holding

    async def end(
        self, holding: Holding, *parts: Part, outcome: str = Outcome.END, ticket: str = "", **about: Any
    ) -> str:
        """The run is over; returns the episode's state."""
        async with self.ledger.writing() as session:
            return await settle(session, holding, parts, outcome, ticket, self.now, **about)

    async def close_verified(self) -> list[str]:
        """Episodes without a relapse are closed; returns their ids."""
        async with self.ledger.writing() as session:
            return [each.id for each in await close_verified(session, self.now)]

    async def episodes(self) -> Sequence[Episode]:
        """All episodes, as they were opened."""
        async with self.ledger.reading() as session:
            return (await session.scalars(select(Episode).order_by(Episode.opened))).all()

    async def episode(self) -> Episode:
        """The only episode."""
        (found,) = await self.episodes()
        return found

    async def states(self) -> list[tuple[str, int]]:
        """State and number of every episode."""
        return [(each.state, each.n) for each in await self.episodes()]

    async def occurrences(self) -> Sequence[Occurrence]:
        """All occurrences, as they were first seen."""
        async with self.ledger.reading() as session:
            return (await session.scalars(select(Occurrence).order_by(Occurrence.first_seen, Occurrence.host))).all()

    async def alarms(self) -> list[tuple[str, str, bool, str]]:
        """Host, serial number, whether it is active, and how the page ended for it, of every occurrence."""
        return [(each.host, each.serial, each.cleared_seen is None, each.ended) for each in await self.occurrences()]

    async def observations(self) -> Sequence[ObservationRow]:
        """All observations, in their order."""
        async with self.ledger.reading() as session:
            return (await session.scalars(select(ObservationRow).order_by(ObservationRow.id))).all()

    async def tickets(self) -> Sequence[TicketRow]:
        """All tickets, as they were made."""
        async with self.ledger.reading() as session:
            return (await session.scalars(select(TicketRow).order_by(TicketRow.created, TicketRow.correlation))).all()

    async def changes(self) -> list[tuple[str, int, str, str]]:
        """Correlation, number, kind and text of everything that ticket systems are to be told."""
        async with self.ledger.reading() as session:
            rows = await session.scalars(select(ChangeRow).order_by(ChangeRow.correlation, ChangeRow.n))
        return [(each.correlation, each.n, each.kind, each.text) for each in rows]


def _with_schema(url: URL) -> URL:
    async def fill() -> None:
        async with unchecked_ledger(url) as ledger:
            await upgrade_schema(ledger)

    asyncio.run(fill())
    return url


@pytest.fixture(scope="session")
def sqlite_with_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema, to be copied: the migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    _with_schema(URL.create(DRIVERS["sqlite"], database=str(path)))
    return path


@pytest.fixture(scope="session")
def postgresql_with_schema(postgresql: str) -> URL:
    """A PostgreSQL database with the schema, to be emptied: to make one takes longer than most tests."""
    order(postgresql, "CREATE DATABASE ledger")
    return _with_schema(with_driver(postgresql).set(database="ledger"))


@pytest.fixture
def postgresql_ledger(postgresql_with_schema: URL) -> URL:
    """The same with nothing in it."""
    tables = [str(table.delete()) for table in reversed(Table.metadata.sorted_tables)]
    order(postgresql_with_schema.set(drivername="postgresql").render_as_string(), *tables)
    return postgresql_with_schema


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """A ledger on each of the two databases."""
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("sqlite_with_schema"), tmp_path / "ledger.db")
        return URL.create(DRIVERS["sqlite"], database=str(path))
    found: URL = request.getfixturevalue("postgresql_ledger")
    return found


@pytest.fixture
async def ledger(url: URL) -> AsyncIterator[Ledger]:
    """The open ledger, on each of the two databases."""
    async with open_ledger(url) as opened:
        yield opened


@pytest.fixture
def story(ledger: Ledger) -> Story:
    """A story that begins at noon."""
    return Story(ledger)


def a_question(holding: Holding, **about: Any) -> Approval:
    """Whether to restart an instance, as the run asks a person."""
    usual: dict[str, Any] = {
        "attempt": holding.attempt,
        "step": "3",
        "kind": "approve",
        "episode_id": holding.episode,
        "run": "run-1",
        "link": "",
        "cluster": "alpha",
        "action": "restart",
        "targets": "node-1",
        "why": "why",
        "asked": NOW,
        "expires": NOW + HOUR,
    }
    return Approval(**{**usual, **about})
