"""A region that is polled: real clusters of the emulator, a real ledger and desk, and time that moves when told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Alarm, Host
from deployments.emulator.region import Region
from deployments.emulator.trouble import Rule, Trouble
from deployments.intake.acceptance import Delivery, Reason, Source
from deployments.intake.desk import LedgerDesk
from deployments.intake.directory import Directory
from deployments.intake.metrics import Metrics
from deployments.intake.polling import Poller
from deployments.intake.reading import Reading
from deployments.intake.settings import Polling
from tasks import timing
from tasks.blocks import Cluster as ClusterBlock
from tasks.errors import UnknownCluster
from tasks.ledger.database import Ledger, open_ledger
from tasks.ledger.episodes import Asking, Holding, claim
from tasks.ledger.polling import Due
from tasks.ledger.receiving import sync_clusters
from tasks.ledger.tables import Cluster, Episode, ObservationRow, Occurrence, Poll, Rejection
from tasks.models import Observation
from tests.conftest import serving

ECS_KEYS = "12110"


class Names(Directory):
    """A directory without Prefect: these clusters, each called like its block."""

    def __init__(self, ledger: Ledger, clusters: Sequence[Cluster]) -> None:
        super().__init__(ledger)
        self._named = {cluster.name: cluster for cluster in clusters}

    def by_block(self, name: str) -> Cluster | tuple[Reason, str]:
        """The cluster of that name."""
        return self._named.get(name) or ("unknown-cluster", f"there is no cluster {name!r}")

    by_report = by_block

    async def refresh(self, *, for_unknown: bool = False) -> None:
        """There is nothing to read anew."""


class Watched(Trouble):
    """Trouble that writes down what is asked of Manager: the cluster's id and the path below its root."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    def take(self, method: str, path: str) -> Rule | None:
        """Note it, and go on as always."""
        manager, _, below = path.removeprefix("/managers/").partition("/web/api/v2/")
        self.asked.append((manager, below))
        return super().take(method, path)


class RegionClock:
    """The region's time; who sleeps moves it, and lets all others go on for a real moment."""

    def __init__(self, region: Region) -> None:
        self.region = region

    def now(self) -> datetime:
        """The region's time."""
        return self.region.now

    async def sleep(self, seconds: float) -> None:
        """Move the region's time."""
        self.region.advance(seconds)
        await asyncio.sleep(0.005)


class Timed(Poller):
    """Notes when each cluster is read."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.reads: dict[str, list[datetime]] = defaultdict(list)

    async def read(self, due: Due) -> Reading:
        """Note it, and read."""
        self.reads[due.cluster.name].append(timing.now())
        return await super().read(due)


@dataclass
class World:
    """The region and what polls it; `blocks` is what Prefect would give, by name: mrs-001 and so on."""

    region: Region
    trouble: Watched
    ledger: Ledger
    desk: LedgerDesk
    blocks: dict[str, ClusterBlock]
    stack: AsyncExitStack
    metrics: Metrics = field(default_factory=Metrics)
    loads: list[str] = field(default_factory=list)

    async def load(self, name: str) -> ClusterBlock:
        """What stands for Prefect."""
        self.loads.append(name)
        if name not in self.blocks:
            raise UnknownCluster(f"there is no cluster {name!r}")
        return self.blocks[name]

    async def poller(self, **options: Any) -> Timed:
        """A poller of the region without jitter, closed at the end of the test."""
        settings = Polling(concurrency=options.pop("concurrency", 20))
        given = {"runbooks": (ECS_KEYS,), "load": self.load, "jitter": lambda: 0.5} | options
        ledger, desk = given.pop("ledger", self.ledger), given.pop("desk", self.desk)
        poller = Timed(ledger, desk, settings, self.metrics, **given)
        self.stack.push_async_callback(poller.aclose)
        return poller

    def host(self, name: str = "node-core1", cluster: str = "mrs-001") -> Host:
        """A host of a cluster."""
        return self.region.cluster(cluster).hosts[name]

    def raised(self, host: Host | None = None) -> Alarm:
        """Manager shows an alarm, and nobody tells us; the instance is broken, so it does not end by itself."""
        host = host or self.host()
        self.region.set_fault("crashed", host=host)
        alarm = self.region.alarms.raise_alarm(host, ECS_KEYS)
        assert alarm is not None
        return alarm

    async def told(self, host: str, kind: Any = "raised", cluster: str = "mrs-001", **known: Any) -> None:
        """Another source tells of an alarm."""
        told = Observation(kind=kind, alarm_id=ECS_KEYS, cluster=cluster, host=host, **known)
        source: Source = "smn" if kind == "trigger" else "webhook"
        receipts = await self.desk.accept([Delivery(source, "127.0.0.1", "0" * 64, told)])
        assert receipts[0].what == "accepted"

    async def held(self) -> Holding:
        """A run takes the episode of the first cluster."""
        cluster = self.region.cluster("mrs-001")
        async with self.ledger.writing() as session:
            holding = await claim(session, cluster.id, "mrs-001", ECS_KEYS, Asking("run", "", True), self.region.now)
        assert isinstance(holding, Holding)
        return holding

    async def poll(self, name: str = "mrs-001") -> Poll:
        """What is written down about the reading of a cluster."""
        async with self.ledger.reading() as session:
            found = await session.get(Poll, name)
        assert found is not None
        return found

    async def rows(self, table: type[Any]) -> list[Any]:
        """A whole table."""
        async with self.ledger.reading() as session:
            return list((await session.scalars(select(table))).all())

    async def episodes(self) -> list[tuple[str, str, str, bool]]:
        """Cluster, state, who opened it, and whether it is to be woken; of each episode."""
        found = await self.episodes_whole()
        return [(each.cluster, each.state, each.opened_by, each.wake) for each in found]

    async def episodes_whole(self) -> list[Episode]:
        """Each episode."""
        return await self.rows(Episode)

    async def occurrences(self) -> dict[tuple[str, str], str]:
        """(host, serial number) -> `active`, or by whom it was cleared."""
        found: list[Occurrence] = await self.rows(Occurrence)
        return {(each.host, each.serial): each.cleared_by if each.cleared_seen else "active" for each in found}

    async def observations(self) -> list[tuple[str, str, bool]]:
        """Source, kind, and whether it told nothing new; of everything that was handed in."""
        found: list[ObservationRow] = await self.rows(ObservationRow)
        return [(each.source, each.kind, each.duplicate) for each in found]

    async def rejections(self) -> list[tuple[str, str, str, int]]:
        """Source, peer, reason and how often; of what could not be used."""
        found: list[Rejection] = await self.rows(Rejection)
        return [(each.source, each.peer, each.reason, each.times) for each in found]

    def asked(self) -> list[str]:
        """What was asked of any Manager since this was last called."""
        paths = [path for _, path in self.trouble.asked]
        self.trouble.asked.clear()
        return paths


async def look(*pollers: Poller) -> None:
    """Read whatever is due, and write it down."""
    for poller in pollers:
        await poller.turn()
    for poller in pollers:
        await poller.finish()
        await poller.turn()


async def pass_seconds(world: World, seconds: int, *pollers: Poller, step: int = 1) -> None:
    """Time passes, and the pollers take a turn with each step."""
    for _ in range(0, seconds, step):
        world.region.advance(step)
        await look(*pollers)


@asynccontextmanager
async def polled_region(region: Region) -> AsyncIterator[World]:
    """The region behind a port, each cluster with a block of its name and due now."""
    region.trouble = watched = Watched()
    token = timing.clock.set(RegionClock(region))
    async with AsyncExitStack() as stack:
        stack.callback(timing.clock.reset, token)
        url = await stack.enter_async_context(serving(region))
        ledger = await stack.enter_async_context(open_ledger())
        cloud = cloud_block(region, url)
        blocks = {each.name: cluster_block(each, manager_block(each, url), cloud) for each in region.clusters.values()}
        connected = region.now - timedelta(days=9)
        known = [
            Cluster(name=name, cluster_id=block.cluster_id, source=block.source, speed=1, connected=connected)
            for name, block in blocks.items()
        ]
        async with ledger.writing() as session:
            await sync_clusters(session, known, region.now)
        metrics = Metrics()
        names = Names(ledger, known)
        desk = LedgerDesk(ledger, names, runbooks=(ECS_KEYS, "45192"), metrics=metrics, changed=lambda _: None)
        writing = asyncio.create_task(desk.run())
        stack.push_async_callback(asyncio.wait, [writing])
        stack.callback(writing.cancel)
        yield World(region, watched, ledger, desk, blocks, stack, metrics)
