"""Thousands of calls that go wrong in every way: no ticket twice, none lost, and every word of each once, in order."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import URL
from starlette.applications import Starlette

from deployments.intake.metrics import Metrics
from deployments.intake.ticket_desk import TicketDesk
from tasks.clients.ticketing import Account, Change
from tasks.ledger.database import DRIVERS, Ledger, open_ledger
from tasks.ledger.outbox import Filing, backlog, file, note
from tasks.ledger.ticket_tables import TicketRow
from tasks.ticket_systems import Kind, System, system_of
from tests.tickets.jira_server import PROJECT, jira_app
from tests.tickets.servers import HandClock, Store, Wire, request_tracker_app, webhook_app

pytestmark = pytest.mark.anyio

CALLS = int(os.environ.get("FAULTY_CALLS", "300"))  # for each system; 10,000 take a quarter of an hour
CHANCE = 0.4
URLS: dict[Kind, str] = {
    "Request Tracker": "http://127.0.0.1",
    "Jira": "http://127.0.0.1",
    "webhook": "http://127.0.0.1/in/here",
}
APPS: dict[Kind, Callable[[Store], Starlette]] = {
    "Request Tracker": request_tracker_app,
    "Jira": jira_app,
    "webhook": webhook_app,
}


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger of this test alone, on a disk that need not be waited for where there is one."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path  # noqa: S108
    path = folder / f"{tmp_path.parent.name}-{tmp_path.name}.db"
    try:
        async with open_ledger(URL.create(DRIVERS["sqlite"], database=str(path))) as opened:
            yield opened
    finally:
        for each in folder.glob(f"{path.name}*"):
            each.unlink()


class Play:
    """Tickets are filed, commented, resolved and opened again, while every call may go wrong."""

    def __init__(self, ledger: Ledger, clock: HandClock, kind: Kind, seed: int) -> None:
        self.ledger, self.clock, self.kind, self.lot = ledger, clock, kind, Random(seed)
        lag = (lambda: self.lot.uniform(0, 480)) if kind == "Jira" else (lambda: 0.0)
        self.store = Store(clock, lag=lag)
        self.wire = Wire(APPS[kind](self.store), clock, self.lot, chance=CHANCE)
        account = Account(URLS[kind], secret="s3cret", project=PROJECT, transport=self.wire)
        self.system = system_of(kind, account)
        self.metrics = Metrics()
        self.said: dict[str, list[tuple[str, str]]] = {}
        self.twins: set[str] = set()

    async def desk(self, name: str) -> System:
        """The only system there is."""
        assert name == "the system"
        return self.system

    async def something_happens(self) -> None:
        """A new ticket, or something new about an old one."""
        if len(self.said) < 5 or self.lot.random() < 0.3:
            correlation = f"prod-1/12110/node-{len(self.said)}"
            if self.kind != "webhook" and self.lot.random() < 0.2:  # somebody has copied it before we know its key
                self.twins.add(correlation)
            await self.write("file", correlation, f"report of {correlation}")
        else:
            correlation = self.lot.choice(list(self.said))
            kind = self.lot.choice(["comment", "comment", "resolve", "reopen"])
            await self.write(kind, correlation, f"{kind} {len(self.said[correlation]) + 1} of {correlation}")

    async def write(self, kind: str, correlation: str, text: str) -> None:
        """Write it down, as runs and the intake do."""
        async with self.ledger.writing() as session:
            if kind == "file":
                filing = Filing(correlation, f"title of {correlation}", text, source="run", system="the system")
                await file(session, filing, self.clock.now())
                self.said[correlation] = []
                mark = Change(correlation, 1, "file", "", "").mark
                for _ in range(2 if correlation in self.twins else 0):
                    self.store.make(mark, f"title of {correlation}", text).searchable = self.clock.now()
            else:
                row = await session.get(TicketRow, correlation)
                assert row is not None
                assert await note(session, row, kind, text, text, self.clock.now())
        self.said[correlation].append((kind, text))

    async def waiting(self) -> int:
        """How much is not delivered."""
        async with self.ledger.reading() as session:
            return (await backlog(session)).undelivered

    def expected(self, correlation: str) -> tuple[int, str, str, list[str], str]:
        """How many tickets, with which title, text, comments and status."""
        (_, text), *rest = self.said[correlation]
        states = {"resolve": "resolved", "reopen": "open"}
        moves = [states[kind] for kind, _ in rest if kind in states]
        # A ticket that is open is not opened again: then the status stays the one it was made with.
        status = moves[-1] if "resolved" in moves else "new"
        if self.kind == "webhook" and moves:
            status = moves[-1]
        return 2 if correlation in self.twins else 1, f"title of {correlation}", text, [t for _, t in rest], status

    def found(self, correlation: str) -> tuple[int, str, str, list[str], str]:
        """The same, as the system has it; of two copies the first."""
        mark = Change(correlation, 1, "file", "", "").mark
        mine = [each for each in self.store.tickets if each.mark == mark]
        first = mine[0]
        assert not any(each.comments for each in mine[1:])
        return len(mine), first.title, first.text, [text for _, text in first.comments], first.status


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", list(APPS))
async def test_nothing_is_told_twice_and_nothing_is_lost(ledger: Ledger, clock: HandClock, kind: Kind) -> None:
    """However many calls go wrong, each ticket is there once, with every word of it once and in order."""
    play = Play(ledger, clock, kind, seed=12110)
    desks = [TicketDesk(ledger, play.metrics, play.desk) for _ in range(2)]  # two intakes
    while sum(play.wire.met.values()) < CALLS:
        if await play.waiting() < 40:
            for _ in range(play.lot.randrange(10)):
                await play.something_happens()
        await play.lot.choice(desks).look()
        await clock.move(play.lot.choice([5, 30, 120, 600]))
    assert min(play.wire.met.values()) > CALLS / 20
    play.wire.chance = 0.0
    for _ in range(500):
        await clock.move(600)
        await desks[0].look()
        if not await play.waiting():
            break
    await clock.move(600)
    assert {each: play.found(each) for each in play.said} == {each: play.expected(each) for each in play.said}
    assert len(play.store.tickets) == len(play.said) + len(play.twins)
    assert play.metrics.registry.get_sample_value("runbooks_tickets_undelivered_changes") == 0
    print(f"\n{kind}: {play.wire.met}, {len(play.said)} tickets, {sum(map(len, play.said.values()))} changes")
