"""The peer: plain Prefect's process worker, which carries out the same flow and sleeps in its process.

Intake, ledger, Prefect and the fleet are the same. A flow waits in its process where its wait is not much longer than
workers look ahead, so those of the peer are told that workers look ahead a day.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from prefect.workers.process import ProcessWorker

from tests.bench.figures import Figure
from tests.bench.stands import FOR_EVER, Stand, say, stand

SETTLES = 20.0
PATIENCE = 20.0  # seconds a run
DAY = {"PREFECT_WORKER_PREFETCH_SECONDS": "86400"}


@dataclass(frozen=True)
class Plain:
    """KB that a waiting run holds, and how many a second come to their first wait."""

    runs: int
    pss: float
    rss: float
    per_second: float
    cpu: float  # seconds a run, of the worker and its processes

    @property
    def figures(self) -> list[Figure]:
        """The same for the table."""
        rate = Figure(
            "peer",
            f"plain process worker: remediations to their first wait, storm of {self.runs}",
            self.per_second,
            "/s",
            more={"CPU s a run, worker": self.cpu},
        )
        memory = Figure(
            "peer",
            "plain process worker: memory a waiting run",
            self.pss / 1024,
            "MB",
            more={"RSS MB": self.rss / 1024},
        )
        return [rate, memory]


async def plain(folder: Path, count: int, nodes: int) -> Plain:
    """A storm of a few clusters, all of which then wait in processes."""
    async with stand(folder, ProcessWorker.type, waits=[FOR_EVER] * count, nodes=nodes) as it:
        await _sleep_in_process(it)
        async with it.worker(limit=count):
            await asyncio.sleep(SETTLES)
            before, names = it.usage()["worker"], it.take(count)
            say(f"a storm of {count} clusters for the peer")
            accepted = await it.tell("raised", names)
            took = await it.until_waiting(names, within=60 + PATIENCE * count) - min(accepted.values())
            used = (it.usage()["worker"] - before).cpu
            await asyncio.sleep(SETTLES)
            grown = it.usage()["worker"] - before
    return Plain(count, grown.pss / count, grown.rss / count, count / took, used / count)


async def _sleep_in_process(it: Stand) -> None:
    found = await it.client.read_deployment_by_name("alm-12110/from-alarms")
    changed = await it.client.request(
        "PATCH", "/deployments/{id}", path_params={"id": found.id}, json={"job_variables": {"env": DAY}}
    )
    changed.raise_for_status()
