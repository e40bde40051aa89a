"""The pretend cloud of the benchmark of waits, in a process of its own: a fleet that alarms, and when it was asked.

Every cluster has lost its agency, and its metadata service is down: a run binds it and waits, and the alarm stays until
it is told to go. What the emulator uses of the machine is nobody's figure, though it takes from what is there for all.
"""

import asyncio
import multiprocessing
import re
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.emulator.trouble import Rule, Trouble
from deployments.scenarios import SCENARIOS, break_cluster
from tasks.blocks import SHORTEST_WAIT, Cluster
from tests.bench.senders import LOOPBACK

SCENARIO = "unbound+metadata-down"
ALARM_AFTER = 25 * 60  # seconds, in which Meta misses its keys three times
MANAGER = re.compile(r"/managers/([^/]+)/(.*)")


class Watched(Trouble):
    """Makes no trouble; notes when each Manager was asked, by the cluster's id."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, list[float]] = defaultdict(list)

    def take(self, method: str, path: str) -> Rule | None:
        """Note it, and let it pass."""
        if found := MANAGER.match(path):
            self.asked[found[1]].append(time.time())
        return super().take(method, path)


def region_of(clusters: int, nodes: int) -> Region:
    """The region of a fleet, in this process or in the emulator's: the same ids in both."""
    return Region(
        clusters=clusters, hosts=nodes, meta_hosts=1, start=datetime.now(UTC) - timedelta(seconds=ALARM_AFTER)
    )


def emulate(clusters: int, nodes: int, wire: Connection) -> None:
    """Serve the fleet until the other end is gone; answers what is asked over the wire."""
    region = region_of(clusters, nodes)
    region.trouble = watched = Watched()
    for cluster in region.clusters.values():
        for fault in SCENARIOS[SCENARIO].faults:
            break_cluster(region, cluster, fault)
    region.advance(ALARM_AFTER)

    def answer() -> None:
        try:
            name = wire.recv()
        except EOFError:
            sys.exit()
        if name:
            for host in region.cluster(name).hosts.values():
                region.alarms.clear_all(host)
            region.clear_fault("metadata-down", region.cluster(name))
        wire.send(dict(watched.asked))

    async def work() -> None:
        asyncio.get_running_loop().add_reader(wire.fileno(), answer)
        await serve(region, speed=1, ready=wire.send)

    asyncio.run(work())


@dataclass
class Cloud:
    """The emulator from outside."""

    pid: int
    url: str
    region: Region
    wire: Connection
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def names(self) -> list[str]:
        """The clusters' names, which their blocks and their alarms have too."""
        return [cluster.name for cluster in self.region.clusters.values()]

    def host(self, name: str) -> str:
        """The cluster's alarmed host."""
        return self.region.cluster(name).master.name

    def block(self, name: str, wait: float) -> Cluster:
        """The cluster's block, with so many seconds to wait after a bind; below the shortest its time runs faster."""
        cluster = self.region.cluster(name)
        waits = max(float(SHORTEST_WAIT), wait)
        manager, cloud = manager_block(cluster, self.url), cloud_block(self.region, self.url)
        return cluster_block(cluster, manager, cloud, wait_after_rebind=waits, speed=waits / wait)

    async def asked(self) -> Mapping[str, list[float]]:
        """When each cluster's Manager was asked for something, the earliest first; none where it never was."""
        found = await self._say("")
        return defaultdict(list, {cluster.name: found.get(cluster.id, []) for cluster in self.region.clusters.values()})

    async def clear(self, name: str) -> None:
        """Let the cluster's alarm be cleared by Meta, now."""
        await self._say(name)

    async def _say(self, name: str) -> dict[str, list[float]]:
        async with self._turn:
            self.wire.send(name)
            found: dict[str, list[float]] = await asyncio.to_thread(self.wire.recv)
            return found


@asynccontextmanager
async def cloud(clusters: int, nodes: int) -> AsyncIterator[Cloud]:
    """The emulator while the block runs."""
    here, there = multiprocessing.Pipe()
    emulator = multiprocessing.get_context("spawn").Process(target=emulate, args=(clusters, nodes, there))
    emulator.start()
    there.close()
    try:
        port = await asyncio.to_thread(here.recv)
        assert emulator.pid
        yield Cloud(emulator.pid, f"http://{LOOPBACK}:{port}", region_of(clusters, nodes), here)
    finally:
        emulator.kill()
        emulator.join()
