"""What a run set out to change, as it is known to it when it is begun anew: whatever was begun is not begun again."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from tasks import timing
from tasks.claims import noted
from tasks.gates import intend
from tasks.intents import Begun, begun_before, command_is, seen_to_its_end
from tasks.ledger.database import open_ledger
from tasks.ledger.episodes import let_go
from tasks.ledger.tables import Intent
from tests.ledger.conftest import sqlite_with_schema
from tests.tasks.acting import a_block, a_case, holding, ledger_at_home

__all__ = ["ledger_at_home", "sqlite_with_schema"]  # fixtures: a ledger with nothing in it
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("ledger_at_home")]
CASE = a_case("run-17")


async def begin(target: str = "node-1") -> None:
    """Run 17 is about to restart an instance."""
    await intend(CASE, a_block(), "restart", target, target, before='{"status": "Faulty"}')


async def intents() -> list[tuple[str, str, str]]:
    """Target, command and end of every intent."""
    async with open_ledger() as ledger, ledger.reading() as session:
        rows = await session.scalars(select(Intent).order_by(Intent.at))
        return [(each.target, each.command, each.did if each.ended else "(open)") for each in rows]


async def test_what_was_begun_is_known_to_the_run_begun_anew() -> None:
    """A change that was about to be sent is known after a wait or a death: when, what was before, and its command."""
    async with holding("17"):
        found = [await begun_before(CASE, "3", "node-1")]
        await begin()
        found.append(await begun_before(CASE, "3", "node-1"))
        await noted(CASE, let_go)
    async with holding("17"):
        found.append(await begun_before(CASE, "3", "node-1"))
        await command_is(CASE, "3", "node-1", "4711")
        found.append(await begun_before(CASE, "3", "node-1"))
        elsewhere = [await begun_before(CASE, "6", "node-1"), await begun_before(CASE, "3", "node-2")]
    at = found[1].at if found[1] else timing.wall()
    about = Begun(at, '{"status": "Faulty"}', "")
    assert found == [None, about, about, Begun(at, '{"status": "Faulty"}', "4711")]
    assert (elsewhere, timedelta(0) <= timing.wall() - at < timedelta(minutes=1)) == ([None, None], True)


async def test_what_was_seen_to_its_end_is_not_begun_again() -> None:
    """A process that dies after it wrote how the change ended, and before the step was learned, leaves it known."""
    async with holding("17"):
        await begin()
        await seen_to_its_end(CASE, "3", "node-1", "restarted")
        await noted(CASE, let_go)
    async with holding("17"):
        begun = await begun_before(CASE, "3", "node-1")
        await seen_to_its_end(CASE, "3", "node-1", "restarted, seen once more")
    assert begun is not None
    assert (begun.before, begun.command) == ('{"status": "Faulty"}', "")
    assert await intents() == [("node-1", "", "restarted")]


async def test_another_run_knows_nothing_of_it() -> None:
    """What one run has begun is not taken by another for its own, which is refused while it is open."""
    other = a_case("run-18")
    async with holding("17"):
        await begin()
        await noted(CASE, let_go)
    assert await begun_before(other, "3", "node-1") is None
    assert await begun_before(CASE, "3", "node-1") is None  # it holds nothing here
    assert await intents() == [("node-1", "", "(open)")]


async def test_a_dry_run_has_begun_nothing() -> None:
    """A run that holds no episode has begun nothing, and what it says of commands and ends is not written down."""
    dry = a_case("run-17", dry_run=True)
    await intend(dry, a_block(), "restart", "node-1", "node-1")
    await command_is(dry, "3", "node-1", "4711")
    await seen_to_its_end(dry, "3", "node-1", "restarted")
    assert (await begun_before(dry, "3", "node-1"), await intents()) == (None, [])
