"""A report without a host makes the list be read at once, and is followed even where it cannot be read."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from deployments.emulator.region import Region
from tasks.ledger.episodes import settle
from tasks.ledger.polling import open_unread
from tasks.ledger.tables import Cluster
from tasks.models import Outcome
from tests.intake.polled import World, look, pass_seconds, polled_region

pytestmark = pytest.mark.anyio
ONE = {"profile": "assumed"}
DOCUMENTED = {"profile": "documented"}


@pytest.fixture
async def world(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[World]:
    """One cluster, in the profile that the test says."""
    async with polled_region(Region(**request.param)) as world:
        yield world


@pytest.mark.parametrize("world", [DOCUMENTED], indirect=True)
async def test_a_list_that_is_not_offered_is_asked_for_rarely(world: World) -> None:
    """Said twice, it is believed for a quarter of an hour."""
    poller = await world.poller()
    await look(poller)
    await pass_seconds(world, 3600, poller, step=30)
    assert world.asked().count("alarms") == 2 + 3
    poll = await world.poll()
    assert (poll.offered, poll.answered) == (False, None)
    assert poll.trouble.startswith("Manager GET alarms: HTTP 501")
    assert await world.episodes() == []


@pytest.mark.parametrize("world", [DOCUMENTED], indirect=True)
async def test_a_report_is_followed_where_no_list_is_offered(world: World) -> None:
    """The list is asked for at once, and without it the episode is opened, once."""
    poller = await world.poller()
    await look(poller)
    await pass_seconds(world, 120, poller, step=30)
    world.asked()
    await world.told("", kind="trigger")
    await look(poller)
    assert world.asked() == ["alarms"]
    assert await world.episodes() == [("mrs-001", "raised", "smn", False)]
    assert [(each.n, each.run) for each in await world.episodes_whole()] == [(1, None)]
    assert (await world.poll()).triggered is None
    await world.told("", kind="trigger")
    await look(poller)
    await world.held()
    await world.told("", kind="trigger")
    await look(poller)
    assert await world.episodes() == [("mrs-001", "running", "smn", False)]


@pytest.mark.parametrize("world", [ONE], indirect=True)
async def test_a_report_makes_the_list_be_read_at_once(world: World) -> None:
    """Not in a minute; what it holds is what counts, and an empty list opens nothing."""
    poller = await world.poller()
    await look(poller)
    await world.told("", kind="trigger")
    await look(poller)
    assert world.asked() == ["session/status", "alarms", "alarms"]
    assert (await world.episodes(), (await world.poll()).triggered) == ([], None)
    world.raised()
    await world.told("", kind="trigger")
    await look(poller)
    assert await world.episodes() == [("mrs-001", "raised", "poll", False)]


@pytest.mark.parametrize("world", [ONE], indirect=True)
async def test_a_report_is_followed_when_manager_stays_away(world: World) -> None:
    """A quarter of an hour after it, not before, the episode is opened without the list."""
    poller = await world.poller()
    await look(poller)
    world.trouble.add("GET", "/managers/*", "reset", times=None)
    await world.told("", kind="trigger")
    told = world.region.now
    await pass_seconds(world, 14 * 60 + 55, poller, step=5)
    assert (await world.episodes(), (await world.poll()).triggered) == ([], told)
    await pass_seconds(world, 65, poller, step=5)
    assert await world.episodes() == [("mrs-001", "raised", "smn", False)]
    assert (await world.poll()).triggered is None


@pytest.mark.parametrize("world", [ONE], indirect=True)
async def test_a_report_in_an_outage_that_passes_needs_no_guess(world: World) -> None:
    """Manager is back after five minutes, and the list says what there is."""
    poller = await world.poller()
    await look(poller)
    world.trouble.add("GET", "/managers/*", "reset", times=None)
    await world.told("", kind="trigger")
    await pass_seconds(world, 300, poller, step=30)
    world.trouble.clear()
    await pass_seconds(world, 60, poller, step=30)
    assert (await world.episodes(), (await world.poll()).triggered) == ([], None)


@pytest.mark.parametrize("world", [ONE], indirect=True)
@pytest.mark.parametrize(
    ("outcome", "state"), [(Outcome.END, "raised"), (Outcome.CLEARED, "raised"), (Outcome.ESCALATE, "verifying")]
)
async def test_a_report_may_be_a_relapse(world: World, outcome: Outcome, state: str) -> None:
    """After a repair it makes the episode go on; what a person has is left to the person."""
    await world.told("node-core1")
    holding = await world.held()
    now = world.region.now
    async with world.ledger.writing() as session:
        await settle(session, holding, (), outcome, "", now)
        cluster = await session.get(Cluster, "mrs-001")
        assert cluster is not None
        await open_unread(session, cluster, "12110", "smn", now)
    assert await world.episodes() == [("mrs-001", state, "webhook", False)]
    async with world.ledger.writing() as session:
        later = await open_unread(session, cluster, "12110", "smn", now + timedelta(minutes=25))
    assert (later is not None) == (state == "verifying")  # the verifying one is over by then, and another is opened


@pytest.mark.parametrize("world", [DOCUMENTED], indirect=True)
async def test_a_report_during_a_look_is_not_put_off(world: World) -> None:
    """The look that finds no list once more does not let it wait for a quarter of an hour."""
    poller = await world.poller()
    await look(poller)
    world.trouble.add("GET", "*/alarms", "latency", seconds=0.3)
    world.region.advance(60)
    await poller.turn()
    await world.told("", kind="trigger")
    await poller.finish()
    await poller.turn()
    assert await world.episodes() == []
    await look(poller)
    assert await world.episodes() == [("mrs-001", "raised", "smn", False)]
