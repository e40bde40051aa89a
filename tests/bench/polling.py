"""How much it costs to poll many clusters: `python -m tests.bench.polling`.

An emulator in a process of its own serves the clusters over TLS, on ten ports with a certificate authority each; the
poller, with a ledger and a desk, runs in this process, which is measured.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles

import trustme
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.intake.desk import LedgerDesk
from deployments.intake.directory import Directory
from deployments.intake.metrics import Metrics
from deployments.intake.polling import Poller
from deployments.intake.reading import Reading
from deployments.intake.settings import Polling
from tasks import timing
from tasks.blocks import Cluster as ClusterBlock
from tasks.ledger.database import open_ledger
from tasks.ledger.polling import Due
from tasks.ledger.receiving import sync_clusters
from tasks.ledger.tables import Cluster

AUTHORITIES = 10
MOST_MEMORY, MOST_CPU = 300.0, 0.5  # MB, of a core


@dataclass(frozen=True)
class Measured:
    """What came out; seconds, MB, and a share of one core."""

    clusters: int
    interval: float
    seconds: float
    polls: int
    polls_per_second: float
    cpu: float
    cpu_first_interval: float
    rss: float
    rss_at_start: float
    rss_peak: float
    lateness_p50: float
    lateness_p99: float
    lateness_max: float
    results: dict[str, int]
    load_average: float


class Timed(Poller):
    """Notes how late each cluster is read, and how it went."""

    late: list[float]
    results: dict[str, int]

    async def read(self, due: Due) -> Reading:
        """Note it, and read."""
        self.late.append((timing.now() - due.since).total_seconds())
        reading = await super().read(due)
        self.results[reading.result] = self.results.get(reading.result, 0) + 1
        return reading


def emulate(clusters: int, folder: str, ports: Connection) -> None:
    """Serve the clusters until killed; sends the port and the authority's PEM of each server."""
    region = Region(clusters=clusters, hosts=3)

    async def all_servers() -> None:
        bound: list[tuple[int, str]] = []
        async with asyncio.TaskGroup() as group:
            for n in range(AUTHORITIES):
                authority = trustme.CA(key_type=trustme.KeyType.RSA)
                issued = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
                chain, key = Path(folder) / f"{n}.pem", Path(folder) / f"{n}-key.pem"
                issued.cert_chain_pems[0].write_to_path(str(chain))
                issued.private_key_pem.write_to_path(str(key))
                pem, listening = authority.cert_pem.bytes().decode(), asyncio.Event()

                def ready(port: int, pem: str = pem, listening: asyncio.Event = listening) -> None:
                    bound.append((port, pem))
                    listening.set()

                group.create_task(serve(region, ready=ready, ssl_certfile=str(chain), ssl_keyfile=str(key)))
                await listening.wait()
            ports.send(bound)

    asyncio.run(all_servers())


def blocks_of(clusters: int, servers: Sequence[tuple[int, str]]) -> dict[str, ClusterBlock]:
    """The clusters' blocks, spread over the servers. The same seed gives the same clusters as over there."""
    region = Region(clusters=clusters, hosts=3)
    blocks = {}
    for n, cluster in enumerate(region.clusters.values()):
        port, pem = servers[n % len(servers)]
        url = f"https://127.0.0.1:{port}"
        manager = manager_block(cluster, url, ca_pem=pem)
        blocks[cluster.name] = cluster_block(cluster, manager, cloud_block(region, url))
    return blocks


async def measure(clusters: int, seconds: float, interval: float, servers: Sequence[tuple[int, str]]) -> Measured:
    """Poll for so long."""
    blocks = blocks_of(clusters, servers)
    now = timing.now()
    known = [
        Cluster(name=name, cluster_id=block.cluster_id, source=block.source, speed=1, connected=now - timedelta(days=1))
        for name, block in blocks.items()
    ]

    async def load(name: str) -> ClusterBlock:
        return ClusterBlock.model_validate(blocks[name].model_dump())  # a new one, as Prefect gives

    url = make_url(f"sqlite+aiosqlite:///{os.environ['RUNBOOKS_HOME']}/ledger.db")
    async with open_ledger(url) as ledger:
        async with ledger.writing() as session:
            await sync_clusters(session, known, now)
        metrics = Metrics()
        desk = LedgerDesk(ledger, Directory(ledger), runbooks=("12110",), metrics=metrics, changed=lambda _: None)
        writing = asyncio.create_task(desk.run())
        poller = Timed(ledger, desk, Polling(interval=interval), metrics, runbooks=("12110",), load=load)
        poller.late, poller.results = [], {}
        before = memory()
        began, used = time.monotonic(), time.process_time()
        polling = asyncio.create_task(poller.run())
        await asyncio.sleep(min(interval, seconds / 2))
        first_wall, first_used = time.monotonic(), time.process_time()
        await asyncio.sleep(max(0.0, seconds - (first_wall - began)))
        ended, used_at_end, rss = time.monotonic(), time.process_time(), memory()
        polling.cancel()
        writing.cancel()
        await asyncio.wait([polling, writing])
    late = quantiles(poller.late, n=100)
    return Measured(
        clusters=clusters,
        interval=interval,
        seconds=round(ended - began, 1),
        polls=len(poller.late),
        polls_per_second=round(len(poller.late) / (ended - began), 2),
        cpu=round((used_at_end - first_used) / (ended - first_wall), 3),
        cpu_first_interval=round((first_used - used) / (first_wall - began), 3),
        rss=round(rss, 1),
        rss_at_start=round(before, 1),
        rss_peak=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        lateness_p50=round(late[49], 3),
        lateness_p99=round(late[98], 3),
        lateness_max=round(max(poller.late), 3),
        results=poller.results,
        load_average=round(os.getloadavg()[0], 2),
    )


def memory() -> float:
    """What this process holds in memory now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024 / 1024


def main() -> int:
    """Measure and show; 1 where the targets are missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--interval", type=float, default=60)
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RUNBOOKS_HOME"] = folder
        here, there = multiprocessing.Pipe()
        emulator = multiprocessing.get_context("spawn").Process(target=emulate, args=(chosen.clusters, folder, there))
        emulator.start()
        try:
            found = asyncio.run(measure(chosen.clusters, chosen.seconds, chosen.interval, here.recv()))
        finally:
            emulator.kill()
            emulator.join()
    table = Table("measured", "value", title="Polling")
    for name, value in asdict(found).items():
        table.add_row(name, str(value))
    Console().print(table)
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(found), indent=2) + "\n")
    return 0 if found.rss < MOST_MEMORY and found.cpu < MOST_CPU and set(found.results) == {"read"} else 1


if __name__ == "__main__":
    sys.exit(main())
