"""Loads on one kind of ledger: lines over TCP, single alarms and batches over the webhook."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Literal

from sqlalchemy import func, make_url, select

from tasks.ledger.database import DRIVERS, Ledger, open_ledger
from tasks.ledger.tables import ObservationRow
from tests.bench.fleet import know, told
from tests.bench.senders import post_all, send_lines
from tests.bench.servers import Intake, intake_process

CLUSTERS, HOSTS = 500, 20
LINES_PER_SECOND = 1000
REQUESTS_PER_SECOND = 300
BATCH, BATCHES_PER_SECOND = 50, 40
LOOK_EVERY = 0.02
SETTLED = 30.0  # seconds that the last line is waited for
COMMIT = "runbooks_intake_commit_seconds"


@dataclass(frozen=True)
class Measured:
    """One load; seconds, MB, and a share of one core."""

    ledger: str
    source: Literal["syslog", "webhook"]
    load: str
    timed: str
    per_second: float
    alarms: int
    p50: float
    p99: float
    max: float
    lost: int
    commit_p50: float  # by the intake's own histogram, from the desk to the disk
    commit_p99: float
    written_p50: float  # syslog: from a line to the beginning of its transaction
    written_p99: float
    cpu: float
    rss: float


async def measure(folder: Path, database: str, url: str, seconds: float) -> list[Measured]:
    """All loads, one after the other, each on an intake of its own that starts with what the last one left."""
    address = make_url(url)
    found = []
    async with open_ledger(address.set(drivername=DRIVERS[database])) as ledger:
        await know(ledger, CLUSTERS)
        for work in (syslog, singles, batches):
            async with intake_process(folder, url) as intake:
                found.append(await work(database, ledger, intake, seconds))
    return found


async def syslog(database: str, ledger: Ledger, intake: Intake, seconds: float) -> Measured:
    """Lines over TCP, from being due to being read from the ledger by somebody else."""
    async with ledger.reading() as session:
        last = await session.scalar(select(func.max(ObservationRow.id))) or 0
    watching = asyncio.create_task(_watch(ledger, last, int(LINES_PER_SECOND * seconds)))
    before, used, began = await intake.metrics(), intake.cpu(), time.time()
    alarms = told(CLUSTERS, HOSTS, seed=12110)
    due_at = await send_lines(intake.syslog, alarms, lines_per_second=LINES_PER_SECOND, seconds=seconds)
    seen = await watching
    took, cpu, after = time.time() - began, intake.cpu() - used, await intake.metrics()
    read = [seen[digest][0] - due for digest, due in due_at.items() if digest in seen]
    written = [seen[digest][1] - due for digest, due in due_at.items() if digest in seen]
    return _measured(
        (database, "syslog", "TCP lines", f"line to commit, read every {1000 * LOOK_EVERY:.0f} ms"),
        (read, written),
        (before, after),
        alarms=len(due_at),
        lost=len(due_at) - len(read),
        took=took,
        cpu=cpu,
        rss=intake.rss(),
    )


async def singles(database: str, ledger: Ledger, intake: Intake, seconds: float) -> Measured:
    """Requests with one alarm each."""
    return await _webhook(database, intake, seconds, 1, REQUESTS_PER_SECOND, "webhook, single")


async def batches(database: str, ledger: Ledger, intake: Intake, seconds: float) -> Measured:
    """Requests with many alarms each."""
    return await _webhook(database, intake, seconds, BATCH, BATCHES_PER_SECOND, f"webhook, {BATCH} each")


async def _webhook(
    database: str, intake: Intake, seconds: float, batch: int, requests_per_second: float, load: str
) -> Measured:
    before, used, began = await intake.metrics(), intake.cpu(), time.time()
    alarms = told(CLUSTERS, HOSTS, seed=batch)
    latencies = await post_all(
        intake.http, alarms, requests_per_second=requests_per_second, seconds=seconds, batch=batch
    )
    took, cpu, after = time.time() - began, intake.cpu() - used, await intake.metrics()
    return _measured(
        (database, "webhook", load, "request to answer"),
        (latencies, latencies),
        (before, after),
        alarms=len(latencies) * batch,
        lost=int(requests_per_second * seconds) - len(latencies),
        took=took,
        cpu=cpu,
        rss=intake.rss(),
    )


async def _watch(ledger: Ledger, last: int, awaited: int) -> dict[str, tuple[float, float]]:
    """When observations were first to be read, and when their transactions began, by digest."""
    seen: dict[str, tuple[float, float]] = {}
    new = select(ObservationRow.id, ObservationRow.digest, ObservationRow.at)
    changed = time.time()
    while len(seen) < awaited and time.time() - changed < SETTLED:
        async with ledger.reading() as session:
            rows = (await session.execute(new.where(ObservationRow.id > last).order_by(ObservationRow.id))).all()
        now = time.time()
        for id_, digest, at in rows:
            seen[digest] = now, at.timestamp()
            last, changed = id_, now
        await asyncio.sleep(LOOK_EVERY)
    return seen


def _measured(
    what: tuple[str, Literal["syslog", "webhook"], str, str],
    times: tuple[Sequence[float], Sequence[float]],
    metrics: tuple[dict[str, float], dict[str, float]],
    *,
    alarms: int,
    lost: int,
    took: float,
    cpu: float,
    rss: float,
) -> Measured:
    (timed, written), (before, after) = (quantiles(each, n=100) for each in times), metrics
    return Measured(
        *what,
        per_second=round(alarms / took, 1),
        alarms=alarms,
        p50=round(timed[49], 4),
        p99=round(timed[98], 4),
        max=round(max(times[0]), 4),
        lost=lost,
        commit_p50=_quantile(before, after, 0.5),
        commit_p99=_quantile(before, after, 0.99),
        written_p50=round(written[49], 4),
        written_p99=round(written[98], 4),
        cpu=round(cpu / took, 3),
        rss=round(rss, 1),
    )


def _quantile(before: dict[str, float], after: dict[str, float], share: float) -> float:
    """The upper end of the histogram's bucket in which this share of what came between lies."""
    name = f"{COMMIT}_bucket{{le="
    grown = {key[len(name) : -1]: after[key] - before.get(key, 0) for key in after if key.startswith(name)}
    whole = grown["+Inf"]
    return next(float(end) for end, count in grown.items() if count >= share * whole)
