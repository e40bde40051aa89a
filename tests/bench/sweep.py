"""What a sweep costs beside a bare script that sends the same requests: `python -m tests.bench.sweep`.

An emulator in a process of its own serves the fleet. The sweep (looking, judging, the ledger, the report) and the bare
script (asyncio and httpx, the vendor's signer, answers parsed and thrown away) take turns, each in a process of its
own, with the same number of requests at a time and no budget per second. The same machine carries the emulator.
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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from rich.console import Console
from sqlalchemy import make_url

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.ending import collect_less
from deployments.worker import GARBAGE
from tasks import timing
from tasks.ledger.database import open_ledger
from tasks.ledger.fleet_tables import Sweep
from tasks.ledger.sweeping import end_sweep, take_sweep
from tasks.sweep.keeping import look_and_keep
from tasks.sweep.looking import Looker
from tasks.sweep.pacing import Limits, Pace
from tasks.sweep.reports import report_of
from tasks.sweep.seen import Seen
from tasks.sweep.targets import Target
from tasks.sweep.work import Order, Work
from tests.bench.bare_sweep import bare
from tests.bench.figures import Figure, table_of
from tests.bench.sweep_starts import CLUSTERS, emulated, starts

HOSTS = 3
SIZES = (100, 1000, 5000)
AT_ONCE = Limits.at_once
MOST_WALL, MOST_CPU, MOST_MEMORY = 1.3, 2.0, 400.0  # times the bare script's, MB
HUNG = 20


@dataclass(frozen=True)
class Measured:
    """What one process used; seconds, MB."""

    wall: float
    cpu: float
    memory: float
    requests: int
    at_once: int
    findings: int
    last_healthy: float = 0.0


class Timed(Looker):
    """Notes when the last cluster was done whose Manager answers."""

    last = 0.0

    async def look(self, target: Target) -> Seen:
        """Look, and note it."""
        seen = await super().look(target)
        if isinstance(seen.alarms, tuple):
            self.last = time.monotonic()
        return seen


def region_of(clusters: int) -> Region:
    """The fleet, here or in the emulator's process: the same ids in both."""
    return Region(clusters=clusters, hosts=HOSTS, start=datetime.now(UTC))


def emulate(clusters: int, hung: int, wire: Connection) -> None:
    """Serve the fleet until killed; the Managers of the first clusters never answer."""
    region = region_of(clusters)
    for cluster in list(region.clusters.values())[:hung]:
        region.trouble.add("*", f"/managers/{cluster.id}/*", "latency", None, seconds=600)
    asyncio.run(serve(region, ready=wire.send))


async def swept(clusters: int, url: str) -> Measured:
    """The sweep, from the blocks in memory to the report."""
    region = region_of(clusters)
    cloud = cloud_block(region, url)
    targets = {}
    for cluster in region.clusters.values():
        block = cluster_block(cluster, manager_block(cluster, url), cloud)
        targets[cluster.name] = Target(cluster.name, cluster.id, block, cloud)
    del region
    collect_less(*GARBAGE)  # as the worker does
    began, used = time.monotonic(), time.process_time()
    pace = Pace(Limits(AT_ONCE, AT_ONCE + AT_ONCE // 2, 1_000_000))
    database = make_url(f"sqlite+aiosqlite:///{os.environ['RUNBOOKS_HOME']}/ledger.db")
    async with open_ledger(database) as ledger, Timed(pace) as looker:
        async with ledger.writing() as session:
            await take_sweep(session, "bench", (), remediate=False, holder="me", now=timing.wall())
        work = Work(Order(run="bench"), ledger, pace, looker, targets, all=len(targets))

        async def tell() -> None:
            """Nobody is told."""

        await asyncio.gather(*(look_and_keep(work, names, tell) for names in work.shards))
        async with ledger.reading() as session:
            report = await report_of(session, await session.get_one(Sweep, "bench"))
        async with ledger.writing() as session:
            await end_sweep(session, "bench", report.summary, timing.wall())
    wall, cpu = time.monotonic() - began, time.process_time() - used
    asked = sum(pace.sent.values())
    return Measured(wall, cpu, peak(), asked, pace.most, len(report.findings), looker.last - began)


async def scripted(clusters: int, url: str) -> Measured:
    """The bare script."""
    region = region_of(clusters)
    fleet = [(c.id, c.manager_user, c.manager_password) for c in region.clusters.values()]
    account = (region.project_id, region.domain_id, region.access_key, region.secret_key)
    del region
    began, used = time.monotonic(), time.process_time()
    asked, most = await bare(url, account, fleet, AT_ONCE)
    return Measured(time.monotonic() - began, time.process_time() - used, peak(), asked, most, 0)


def peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(what: Callable[[int, str], object], clusters: int, url: str, wire: Connection) -> None:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RUNBOOKS_HOME"] = folder
        wire.send(asyncio.run(what(clusters, url)))  # type: ignore[arg-type]


def measure(what: Callable[[int, str], object], clusters: int, url: str) -> Measured:
    """What a fresh process uses for it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(what, clusters, url, there))
    process.start()
    there.close()
    found: Measured = here.recv()
    process.join()
    return found


def compare(clusters: int, times: int, hung: int = 0) -> tuple[list[Measured], list[Measured]]:
    """The sweep and the bare script in turns, against one emulator."""
    here, there = multiprocessing.Pipe()
    emulator = multiprocessing.get_context("spawn").Process(target=emulate, args=(clusters, hung, there))
    emulator.start()
    try:
        url = f"http://127.0.0.1:{here.recv()}"
        ours, theirs = [], []
        for n in range(times):
            say(f"{clusters} clusters, {n + 1} of {times}")
            ours.append(measure(swept, clusters, url))
            if not hung:
                theirs.append(measure(scripted, clusters, url))
        return ours, theirs
    finally:
        emulator.kill()
        emulator.join()


def figures_of(clusters: int, ours: Sequence[Measured], theirs: Sequence[Measured]) -> list[Figure]:
    """The medians beside each other."""
    part, mine, bare_ = f"{clusters} clusters", _median(ours), _median(theirs)
    cpu, cpu_bare = 1000 * mine.cpu / mine.requests, 1000 * bare_.cpu / bare_.requests
    asked = {"requests": mine.requests, "at once": mine.at_once, "of the script": bare_.requests}
    return [
        Figure(
            part,
            f"{part}: wall time",
            mine.wall,
            "s",
            f"at most {MOST_WALL}x",
            mine.wall <= MOST_WALL * bare_.wall,
            f"{bare_.wall:.1f} s",
            {"times": round(mine.wall / bare_.wall, 2), **asked},
        ),
        Figure(
            part,
            f"{part}: CPU per request",
            cpu,
            "ms",
            f"at most {MOST_CPU:g}x",
            cpu <= MOST_CPU * cpu_bare,
            f"{cpu_bare:.2f} ms",
            {"times": round(cpu / cpu_bare, 2)},
        ),
        Figure(
            part,
            f"{part}: memory",
            mine.memory,
            "MB",
            f"under {MOST_MEMORY:g} MB",
            mine.memory < MOST_MEMORY,
            f"{bare_.memory:.0f} MB",
        ),
    ]


def _median(found: Sequence[Measured]) -> Measured:
    """Field by field."""
    return Measured(**{name: median(asdict(each)[name] for each in found) for name in asdict(found[0])})


def hung_figure(clusters: int, without: Sequence[Measured], with_: Sequence[Measured]) -> Figure:
    """Whether clusters whose Manager hangs delay the others."""
    calm, last = median(each.last_healthy for each in without), median(each.last_healthy for each in with_)
    return Figure(
        f"{clusters} clusters",
        f"{clusters} clusters, {HUNG} of which hang: the last other one is done after",
        last,
        "s",
        "at most 1.2x and 2 s",
        last <= 1.2 * calm + 2,
        f"{calm:.1f} s with none",
        {"all": round(median(each.wall for each in with_), 1)},
    )


def main() -> int:
    """Measure and show; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="clusters, with commas between")
    parser.add_argument("--times", type=int, default=3, help="how often each size is measured; 5,000 only once")
    parser.add_argument("--starts", action=argparse.BooleanOptionalAction, default=True, help="runs meanwhile, too")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    chosen = parser.parse_args()
    figures: list[Figure] = []
    for clusters in map(int, chosen.sizes.split(",")):
        ours, theirs = compare(clusters, chosen.times if clusters < 5000 else 1)
        figures += figures_of(clusters, ours, theirs)
        if clusters == 1000:
            hung, _ = compare(clusters, 1, HUNG)
            figures.append(hung_figure(clusters, ours, hung))
    if chosen.starts:
        figures += asyncio.run(starting())
    Console(width=180).print(table_of(figures, "Sweeps"))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(each) for each in figures], indent=2) + "\n")
    return 1 if any(each.met is False for each in figures) else 0


async def starting() -> list[Figure]:
    """How runs start meanwhile: with the usual budget, and with none, so that the worker has no moment to spare."""
    async with emulated(emulate, CLUSTERS) as url:
        region = region_of(CLUSTERS)
        budgets = (Limits.per_second, 100_000.0)
        return [figure for per_second in budgets for figure in await starts(region, url, say, per_second)]


def say(what: str) -> None:
    """Tell what goes on now."""
    print(f"{time.strftime('%H:%M:%S')} {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
