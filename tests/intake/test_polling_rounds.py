"""Whose list is read when: nobody is asked too often, nobody is kept waiting, and no report is lost."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from deployments.emulator.region import Region
from deployments.intake.acceptance import Delivery, Receipt
from tasks.blocks import Cluster as ClusterBlock
from tasks.errors import LedgerUnavailable, Unreachable
from tasks.ledger.database import Ledger
from tasks.ledger.tables import Poll
from tests.intake.conftest import Desk, until
from tests.intake.polled import World, look, pass_seconds, polled_region

pytestmark = pytest.mark.anyio


class Shaky(Ledger):
    """A ledger that does not answer while it is `down`."""

    down, refused = False, 0

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Refuse, or read."""
        if self.down:
            self.refused += 1
            raise LedgerUnavailable("the ledger is away")
        async with super().reading() as session:
            yield session


class Forgetful(Desk):
    """A desk that does not know the cluster the first two times."""

    async def accept(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """Reject, or take."""
        taken = await super().accept(deliveries)
        return taken if len(self.accepted) > 2 else [Receipt("rejected", "no such block", "unknown-cluster")]


@pytest.fixture
async def world(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[World]:
    """Ten clusters, or as many and whichever profile the test says."""
    settings = {"clusters": 10, "hosts": 3, **getattr(request, "param", {})}
    async with polled_region(Region(**settings)) as world:
        yield world


ONE = {"clusters": 1}


async def test_a_start_asks_one_after_the_other(world: World) -> None:
    """All are overdue, and yet they are asked evenly over one interval, the first at once."""
    poller = await world.poller()
    start = world.region.now
    await look(poller)
    await pass_seconds(world, 59, poller)
    first = sorted((times[0] - start).total_seconds() for times in poller.reads.values())
    assert first == [0, 6, 12, 18, 24, 30, 36, 42, 48, 54]


async def test_jitter_keeps_within_a_tenth(world: World) -> None:
    """From one look to the next it is 54 to 66 seconds, and not always the same."""
    poller = await world.poller(jitter=random.Random(7).random)
    await look(poller)
    await pass_seconds(world, 300, poller)
    gaps = {(b - a).total_seconds() for times in poller.reads.values() for a, b in pairwise(times)}
    assert 54 <= min(gaps) < 57
    assert 63 < max(gaps) <= 67  # a turn is a second here


async def test_two_intakes_share_the_work(world: World) -> None:
    """On one ledger each cluster is read once per interval, by either of them."""
    pollers = [await world.poller(concurrency=1), await world.poller(concurrency=1)]
    for second in range(240):
        await look(*(pollers if second // 6 % 2 else reversed(pollers)))
        world.region.advance(1)
    counts = [sum(len(times) for times in poller.reads.values()) for poller in pollers]
    each = {name: len(pollers[0].reads[name]) + len(pollers[1].reads[name]) for name in world.blocks}
    assert each == dict.fromkeys(world.blocks, 4)
    assert min(counts) > 0


@pytest.mark.parametrize("world", [{"clusters": 3}], indirect=True)
async def test_a_hung_cluster_delays_no_other(world: World) -> None:
    """While one does not answer, the others are read again and again, and it is not asked twice at a time."""
    hung = world.region.cluster("mrs-001")
    world.trouble.add("GET", f"*{hung.id}*", "latency", times=None, seconds=30)
    poller = await world.poller()
    for _ in range(180):
        await poller.turn()
        await asyncio.sleep(0.01)
        world.region.advance(1)
    assert world.metrics.polls.labels("read")._value.get() == 6
    assert {name: len(reads) for name, reads in poller.reads.items()} == {"mrs-001": 1, "mrs-002": 3, "mrs-003": 3}
    assert (await world.poll("mrs-002")).trouble == ""


async def test_many_hung_clusters_leave_room(world: World) -> None:
    """Those that failed the last time get half of the places, so that the others are read even if all of them hang."""
    bad = [each for each in world.blocks if each > "mrs-004"]
    for name in bad:
        world.trouble.add("GET", f"*{world.blocks[name].cluster_id}*", "reset", times=None)
    poller = await world.poller(concurrency=4)
    await look(poller)
    await pass_seconds(world, 60, poller, step=6)
    world.trouble.clear()
    for name in bad:
        world.trouble.add("GET", f"*{world.blocks[name].cluster_id}*", "latency", times=None, seconds=30)
    poller.reads.clear()
    world.region.advance(70)
    for _ in range(200):
        await poller.turn()
        await asyncio.sleep(0.005)
    read = sorted(poller.reads)
    assert read[:4] == ["mrs-001", "mrs-002", "mrs-003", "mrs-004"]
    assert len(read) == 4 + 2


@pytest.mark.parametrize("world", [{"clusters": 2}], indirect=True)
async def test_a_wrong_password_is_sent_once(world: World) -> None:
    """The login is suspended, the others are read on, and a corrected block is taken at once."""
    right = world.blocks["mrs-001"]
    wrong = right.manager.model_copy(update={"password": SecretStr("not the password")})
    world.blocks["mrs-001"] = right.model_copy(update={"manager": wrong})
    poller = await world.poller()
    await look(poller)
    await pass_seconds(world, 300, poller, step=30)
    first = world.region.cluster("mrs-001").id
    assert [path for manager, path in world.trouble.asked if manager == first] == ["session/status"]
    assert "no further login until it is changed" in (await world.poll()).trouble
    assert (await world.poll("mrs-002")).trouble == ""
    assert world.asked().count("alarms") == 5
    world.blocks["mrs-001"] = right
    await pass_seconds(world, 60, poller, step=30)
    assert (await world.poll()).trouble == ""


@pytest.mark.parametrize("world", [ONE], indirect=True)
async def test_without_prefect_the_block_read_last_is_used(world: World) -> None:
    """It is read anew every ten minutes; that Prefect is away then hinders nothing."""
    poller = await world.poller()
    await look(poller)
    await pass_seconds(world, 1200, poller, step=60)
    assert world.loads == ["mrs-001"] * 3
    away = await world.poller(load=_away)
    world.region.advance(60)
    await look(away)
    assert (await world.poll()).trouble == "cluster's block: Prefect is away"


async def _away(name: str) -> ClusterBlock:
    raise Unreachable("cluster's block", "Prefect is away")


@pytest.mark.parametrize("world", [ONE], indirect=True)
async def test_a_prefect_that_goes_away_hinders_nothing(world: World) -> None:
    """For an hour the block cannot be read anew, the list is read every minute, and the session is kept."""
    away = False

    async def load(name: str) -> ClusterBlock:
        return await (_away(name) if away else world.load(name))

    poller = await world.poller(load=load)
    await look(poller)
    away = True
    await pass_seconds(world, 3600, poller, step=60)
    assert world.asked() == ["session/status", *["alarms"] * 61]
    assert (await world.poll()).trouble == ""


@pytest.mark.parametrize("world", [{"clusters": 2}], indirect=True)
async def test_a_fault_of_ours_is_one_clusters_trouble(world: World) -> None:
    """Whatever breaks while one list is read, the others are read and it is tried again."""
    broken = True

    async def load(name: str) -> ClusterBlock:
        if name == "mrs-001" and broken:
            raise ZeroDivisionError
        return await world.load(name)

    poller = await world.poller(load=load)
    await look(poller)
    await pass_seconds(world, 60, poller, step=30)
    assert (await world.poll()).trouble == "a fault of the intake: its log holds more"
    assert (await world.poll("mrs-002")).trouble == ""
    broken = False
    await pass_seconds(world, 60, poller, step=30)
    assert (await world.poll()).trouble == ""


@pytest.mark.parametrize("world", [ONE], indirect=True)
async def test_a_ledger_that_is_away_is_waited_for(world: World) -> None:
    """What was read is handed in again until it is taken."""
    desk = Desk()
    desk.down.add("accept")
    poller = await world.poller(desk=desk)
    world.raised()
    await poller.turn()
    await asyncio.sleep(0.1)
    assert (desk.accepted, (await world.poll()).answered) == ([], None)
    desk.down.clear()
    await look(poller)
    assert desk.serials == ["1001"]
    assert (await world.poll()).answered is not None


@pytest.mark.parametrize("world", [ONE], indirect=True)
async def test_a_cluster_that_the_desk_does_not_know_yet_is_told_again(world: World) -> None:
    """Its block is new: the alarm is handed in with every look until it is taken, and then no more."""
    desk = Forgetful()
    poller = await world.poller(desk=desk)
    world.raised()
    await look(poller)
    await pass_seconds(world, 240, poller, step=30)
    assert desk.serials == ["1001"] * 3


@pytest.mark.parametrize("world", [{"clusters": 3}], indirect=True)
async def test_it_runs_until_it_is_cancelled(world: World) -> None:
    """Started, it reads every cluster by itself, lives through a ledger that does not answer, and ends when told."""
    ledger = Shaky(world.ledger.engine)
    poller = await world.poller(ledger=ledger)
    running = asyncio.create_task(poller.run())
    await until(lambda: all(len(poller.reads[name]) >= 2 for name in world.blocks), 20)
    ledger.down = True
    await until(lambda: ledger.refused > 3)
    ledger.down = False
    poller.reads.clear()
    await until(lambda: all(len(poller.reads[name]) >= 2 for name in world.blocks), 20)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    polls: list[Poll] = await world.rows(Poll)
    assert [poll.answered is not None for poll in polls] == [True] * 3


@pytest.mark.server
async def test_blocks_come_from_prefect(prefect_server: str) -> None:
    """Where nobody gives another source of them, they are read from the Prefect server."""
    region = Region(clusters=0)
    region.add_cluster("polled-by-its-block")
    async with polled_region(region) as world:
        await world.blocks["polled-by-its-block"].save("polled-by-its-block", overwrite=True)
        poller = await world.poller(load=None)
        running = asyncio.create_task(poller.run())
        await until(lambda: "alarms" in world.asked(), 60)
        running.cancel()
        await asyncio.wait([running])
        assert world.loads == []
