"""What a look at Manager's alarm list makes of it: raised, cleared by whom, or not to be told."""

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from deployments.emulator.region import Region
from deployments.intake.polling import Poller
from tasks.ledger.tables import Occurrence
from tests.intake.polled import World, look, polled_region

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(anyio_backend: str) -> AsyncIterator[World]:
    """One cluster of three hosts."""
    async with polled_region(Region(hosts=3)) as world:
        yield world


@pytest.fixture
async def poller(world: World) -> Poller:
    """Reads it."""
    return await world.poller()


async def pass_minutes(world: World, poller: Poller, minutes: int = 1) -> None:
    """Time passes, and every minute the list is read."""
    for _ in range(minutes):
        world.region.advance(60)
        await look(poller)


async def test_a_raise_nobody_delivered_opens_an_episode(world: World, poller: Poller) -> None:
    """The first look finds it, with all that Manager says about it."""
    alarm = world.raised()
    await look(poller)
    assert await world.episodes() == [("mrs-001", "raised", "poll", False)]
    occurred = datetime.fromtimestamp(alarm.occurred_ms / 1000, UTC)
    found: list[Occurrence] = await world.rows(Occurrence)
    assert [(each.host, each.serial, each.occurred) for each in found] == [("node-core1", "1001", occurred)]


async def test_a_look_is_one_request(world: World, poller: Poller) -> None:
    """The session is opened once and kept."""
    world.raised()
    await look(poller)
    await pass_minutes(world, poller, 3)
    assert world.asked() == ["session/status", "alarms", "alarms", "alarms", "alarms"]


async def test_every_runbooks_alarm_is_looked_for(world: World) -> None:
    """With two runbooks two lists are read."""
    poller = await world.poller(runbooks=("12110", "45192"))
    world.raised()
    assert world.region.alarms.raise_alarm(world.host(), "45192")
    await look(poller)
    assert sorted(each.alarm_id for each in await world.rows(Occurrence)) == ["12110", "45192"]
    assert world.asked() == ["session/status", "alarms", "alarms"]


async def test_a_known_alarm_is_told_again_every_ten_minutes(world: World, poller: Poller) -> None:
    """Not every minute, and yet the ledger knows that it was still there."""
    world.raised()
    await look(poller)
    await pass_minutes(world, poller, 9)
    assert await world.observations() == [("poll", "raised", False)]
    await pass_minutes(world, poller)
    assert await world.observations() == [("poll", "raised", False), ("poll", "raised", True)]
    assert [each.last_seen for each in await world.rows(Occurrence)] == [world.region.now]


async def test_a_quiet_cluster_writes_nothing_but_its_look(world: World, poller: Poller) -> None:
    """No observation; when the list was read is known."""
    await look(poller)
    await pass_minutes(world, poller)
    poll = await world.poll()
    assert (await world.observations(), poll.answered, poll.offered, poll.trouble) == ([], world.region.now, True, "")


@pytest.mark.parametrize("who", ["auto", "person"])
async def test_a_clear_nobody_delivered_clears(world: World, poller: Poller, who: str) -> None:
    """The serial number's state in the history says by whom, and the run that waits is woken."""
    alarm = world.raised()
    await look(poller)
    await world.held()
    if who == "auto":
        world.region.alarms.clear(alarm, "Auto")
    else:
        world.region.clear_alarm(alarm.serial)
    world.asked()
    await pass_minutes(world, poller)
    cleared = [(each.cleared_by, each.cleared, each.cleared_seen) for each in await world.rows(Occurrence)]
    at = datetime.fromtimestamp(alarm.cleared_ms / 1000, UTC)
    assert cleared == [(who, at, world.region.now)]
    assert await world.episodes() == [("mrs-001", "running", "poll", True)]
    assert world.asked() == ["alarms", "alarms"]
    await pass_minutes(world, poller)
    assert world.asked() == ["alarms"]


async def test_nobody_is_woken_where_nobody_waits(world: World, poller: Poller) -> None:
    """An episode without a run has nothing to wake."""
    alarm = world.raised()
    await look(poller)
    world.region.alarms.clear(alarm, "Auto")
    await pass_minutes(world, poller)
    assert await world.episodes() == [("mrs-001", "raised", "poll", False)]


@pytest.mark.parametrize("masked", [True, False])
async def test_what_is_not_listed_is_not_cleared(
    world: World, poller: Poller, masked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Masked or simply gone from the list: it stays active, and that is said once."""
    if masked:
        world.region.set_fault("masked", "mrs-001")
    await world.told("node-core1", serial="77", occurred=world.region.now)
    with caplog.at_level(logging.WARNING, "runbooks.intake"):
        await look(poller)
        assert world.asked() == ["session/status", "alarms", "alarms", "alarms/masking"]
        await pass_minutes(world, poller, 11)
    assert await world.occurrences() == {("node-core1", "77"): "active"}
    why = "the alarm id is masked there" if masked else "it is not in the history either"
    assert [record.message for record in caplog.records] == [
        f"ALM-12110 on node-core1 of mrs-001 is no longer listed by Manager, and {why}:"
        " it is not taken for cleared, look there"
    ]
    assert world.asked() == ["alarms"] * (11 + 2)  # every five minutes it is looked for again
    assert world.metrics.polls.labels("unclear")._value.get() == 12


async def test_a_host_that_is_gone_is_not_cleared(world: World, poller: Poller) -> None:
    """After a scale-in Manager goes on listing the alarm of the host, and so does the ledger."""
    world.raised()
    await look(poller)
    world.region.scale_in("mrs-001", "node-core1")
    await pass_minutes(world, poller, 2)
    assert await world.occurrences() == {("node-core1", "1001"): "active"}


async def test_a_recurrence_is_an_alarm_of_its_own(world: World, poller: Poller) -> None:
    """Between two looks one was cleared and another raised: both are told, and the episode goes on."""
    first = world.raised()
    await look(poller)
    world.region.alarms.clear(first, "Manual")
    world.raised()
    await pass_minutes(world, poller)
    assert await world.occurrences() == {("node-core1", "1001"): "person", ("node-core1", "1002"): "active"}
    assert await world.episodes() == [("mrs-001", "raised", "poll", False)]


async def test_an_alarm_told_without_serial_and_time_gets_them(world: World, poller: Poller) -> None:
    """The list completes what another source left out; it is one occurrence."""
    world.raised()
    await world.told("node-core1")
    await look(poller)
    assert await world.occurrences() == {("node-core1", "1001"): "active"}


@pytest.mark.parametrize("by_time", [True, False])
async def test_an_alarm_without_serial_is_found_in_the_history(world: World, poller: Poller, by_time: bool) -> None:
    """By its time, or as the only one that was active on the host when it was told."""
    alarm = world.raised()
    world.region.advance(20)
    at = datetime.fromtimestamp(alarm.occurred_ms / 1000, UTC)
    await world.told("node-core1", occurred=at if by_time else None)
    world.region.advance(20)
    world.region.alarms.clear(alarm, "Auto")
    await look(poller)
    assert list((await world.occurrences()).values()) == ["auto"]


async def test_an_alarm_that_was_over_before_it_was_told_is_left(world: World, poller: Poller) -> None:
    """Without serial number and time, a clear from before is not taken for its own."""
    world.region.alarms.clear(world.raised(), "Auto")
    world.region.advance(60)
    await world.told("node-core1")
    await look(poller)
    assert await world.occurrences() == {("node-core1", ""): "active"}


async def test_a_row_without_host_is_rejected(world: World, poller: Poller) -> None:
    """It is listed with its reason, not counted anew every minute."""
    world.raised().host.name = ""
    await look(poller)
    await pass_minutes(world, poller, 2)
    assert await world.rejections() == [("poll", "mrs-001", "no-host", 1)]
    assert await world.episodes() == []


async def test_a_switchover_passes(world: World, poller: Poller) -> None:
    """For three minutes nothing can be read, nothing is cleared by it, and then everything is caught up with."""
    alarm = world.raised()
    await look(poller)
    world.region.set_fault("oms-switchover", "mrs-001")
    await pass_minutes(world, poller, 2)
    poll = await world.poll()
    assert poll.trouble.startswith("Manager GET alarms: http://127.0.0.1:")
    assert poll.answered == world.region.now - timedelta(minutes=2)
    assert await world.occurrences() == {("node-core1", "1001"): "active"}
    world.region.alarms.clear(alarm, "Auto")
    await pass_minutes(world, poller, 2)
    assert await world.occurrences() == {("node-core1", "1001"): "auto"}
    assert (await world.poll()).trouble == ""


@pytest.mark.parametrize("hours", [-5, 3])
async def test_managers_clock_is_measured(world: World, poller: Poller, hours: int) -> None:
    """By the Date of its answers, so that a new alarm on a slow or fast clock is not taken for an old one."""
    world.region.set_fault("clock-skew", "mrs-001", seconds=hours * 3600)
    await look(poller)
    world.raised()
    await pass_minutes(world, poller)
    assert (await world.poll()).skew == hours * 3600
    assert [each.backlog for each in await world.episodes_whole()] == [""]


async def test_an_old_alarm_is_a_backlog_by_managers_clock(world: World, poller: Poller) -> None:
    """The very first look tells the alarm's age by the clock that came with the list."""
    world.region.set_fault("clock-skew", "mrs-001", seconds=-3 * 3600)
    world.raised()
    world.region.advance(2.5 * 3600)
    await look(poller)
    assert [each.backlog for each in await world.episodes_whole()] == [
        "the alarm was 2.5 hours old when it was first seen"
    ]
