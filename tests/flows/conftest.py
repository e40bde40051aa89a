"""A broken cluster of the emulated region, its blocks in a real Prefect server, and time that moves only in waits."""

import asyncio
import heapq
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
import stamina
from prefect import tags

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from flows.alm_12110 import alm_12110
from flows.episode import BY_ALARM
from tasks import timing
from tasks.ledger.database import open_ledger
from tasks.ledger.observing import Sighting, observe
from tasks.ledger.tables import Cluster
from tasks.loading import cluster_block as cluster_named
from tasks.models import Observation
from tasks.tickets import Ticket, tickets
from tests.conftest import serving

ON_ONE_HOST = ("crashed", "wedged", "metadata-down", "restart-clears-only")
_numbers = itertools.count(1)


class EmulatedClock:
    """The region's own time: sleeping moves it, and whatever was planned for then happens on the way."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self._planned: list[tuple[datetime, int, Callable[[], object]]] = []

    def now(self) -> datetime:
        """The region's time."""
        return self.region.now

    def plan(self, seconds: float, act: Callable[[], object]) -> None:
        """Let something happen that many seconds from now."""
        heapq.heappush(self._planned, (self.now() + timedelta(seconds=seconds), len(self._planned), act))

    async def sleep(self, seconds: float) -> None:
        """Move the region's time."""
        until = self.now() + timedelta(seconds=seconds)
        while self._planned and self._planned[0][0] <= until:
            at, _, act = heapq.heappop(self._planned)
            self.region.advance(max(0.0, (at - self.now()).total_seconds()))
            if inspect.isawaitable(done := act()):
                await done
        self.region.advance(max(0.0, (until - self.now()).total_seconds()))
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Result:
    """What a run left: the state's name, a trace per host, what was changed, and the tickets there are."""

    outcome: str
    traces: dict[str, str]
    mutations: list[tuple[str, str]]
    tickets: list[Ticket] = field(compare=False)
    message: str = field(compare=False)


@dataclass
class World:
    """One cluster of a region: break it, let time pass, run the runbook on it."""

    region: Region
    cluster: EmulatedCluster
    block: str
    clock: EmulatedClock

    @property
    def host(self) -> str:
        """The first host."""
        return next(iter(self.cluster.hosts))

    def breaks(self, *faults: str, host: str | None = None, **options: object) -> None:
        """Set faults on the cluster, or on one host; those of a Meta instance are the first host's."""
        for fault in faults:
            where = host or (
                self.host if fault in ("crashed", "wedged", "metadata-down", "restart-clears-only") else None
            )
            self.region.set_fault(fault, cluster=self.cluster, host=where, **options)

    def raises_the_alarm(self) -> None:
        """Let Meta miss its keys three times."""
        self.region.advance(20 * 60)
        assert any(alarm.alarm_id == "12110" for alarm in self.cluster.alarms), "the fault raises no alarm"

    async def reports(self, *hosts: str, **told: Any) -> str:
        """Let the alarm source tell of these hosts' alarms (the first host's), as far as it has not.

        Args:
            told: fields of the observation, instead of only the serial number.

        Returns:
            The episode.
        """
        connected = timing.wall() - timedelta(days=1)
        cluster = Cluster(
            name=self.block, cluster_id=self.cluster.id, source=self.cluster.name, speed=1, connected=connected
        )
        sightings = []
        for host in hosts or (self.host,):
            serials = [str(alarm.serial) for alarm in self.cluster.alarms if alarm.host.name == host]
            fields = told or {"serial": serials[-1] if serials else ""}
            seen = Observation(alarm_id="12110", kind="raised", cluster=self.block, host=host, **fields)
            sightings.append(Sighting(seen, cluster, "syslog", "127.0.0.1", ""))
        async with open_ledger() as ledger, ledger.writing() as session:
            return (await observe(session, sightings, timing.wall()))[-1].episode

    async def run(self, *, by_alarm: bool = True, episode: str = "", **parameters: Any) -> Result:
        """One run of the runbook, as the alarm of the first host starts it (not a dry run) unless told otherwise.

        Args:
            episode: the episode it is started for, whose alarms were reported before.
        """
        with tags(*([BY_ALARM] if by_alarm else []), *([f"episode:{episode}"] if episode else [])):
            if by_alarm and not episode:
                await self.reports()
            state = await alm_12110(**{"cluster": self.block, "dry_run": False, **parameters}, return_state=True)
        message = state.message or ""
        parts = message.removeprefix(f"{state.name}. ").split(". Ticket")[0].split("; ")
        traces = dict(part.split(": ", 1) for part in parts if ": 1" in part)
        mutations = [(entry.action, entry.target) for entry in self.region.log if entry.cluster == self.cluster.id]
        return Result(state.name or "", traces, mutations, tickets(), message)

    async def meanwhile(self, seconds: float, **changes: Any) -> None:
        """Let the cluster's block be changed by somebody that many seconds from now."""
        block = await cluster_named(self.block)
        changed = block.model_copy(update=changes)
        self.clock.plan(seconds, lambda: changed.save(self.block, overwrite=True))

    def restarts(self, *hosts: str) -> list[tuple[str, str]]:
        """What restarting these hosts' instances leaves in the region's log."""
        return [("restart-instance", host) for host in hosts or (self.host,)]

    def binds(self) -> list[tuple[str, str]]:
        """What binding every node leaves in the region's log."""
        return [("set-metadata", host) for host in self.cluster.hosts]


Worlds = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Reads are repeated as often as ever, and without a pause: time here is the region's."""
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


@pytest.fixture
def world(prefect_server: str) -> Worlds:
    """`async with world(profile=..., block={...}, **region) as cluster`: a region, served, with its block saved."""

    @asynccontextmanager
    async def make(block: dict[str, Any] | None = None, **region_options: Any) -> AsyncIterator[World]:
        region = Region(**{"meta_hosts": 1, **region_options})
        cluster = next(iter(region.clusters.values()))
        clock = EmulatedClock(region)
        async with serving(region) as url:
            name = f"cluster-{next(_numbers)}"
            settings = dict(block or {})
            password = settings.pop("password", cluster.manager_password)
            manager = manager_block(cluster, url, password=password)
            await cluster_block(cluster, manager, cloud_block(region, url), **settings).save(name)
            token = timing.clock.set(clock)
            try:
                yield World(region, cluster, name, clock)
            finally:
                timing.clock.reset(token)

    return make
