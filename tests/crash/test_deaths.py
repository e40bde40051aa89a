"""Others die than the worker: the intake, the Prefect server, PostgreSQL, an answer; or it only stands still."""

import asyncio
import signal

import pytest
from prefect.client.schemas.objects import FlowRun
from sqlalchemy import select

from deployments.emulator.region import Region
from tasks.ledger.tables import Episode
from tests.crash.processes import healthy
from tests.crash.stand import LEASE, Blow, Cell, Ended, Kept, Stand, until
from tests.crash.wires import Point

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("crash"), pytest.mark.timeout(900)]

WHOLE = ("1 2n 3n 4 5n 6y END", ["restart-instance", "set-metadata", "set-metadata", "set-metadata"], 0)
POINTS: list[tuple[Blow, Point]] = [
    ("answers", Point("cloud", 0, "after", like="^POST .*restart")),
    ("answers", Point("cloud", 0, "after", like="^POST .*/metadata")),
    ("answers", Point("ledger", 21, "after")),
    ("intake", Point("cloud", 12, "before")),
    ("prefect", Point("prefect", 14, "before")),
    ("postgresql", Point("ledger", 21, "after")),
]


def left(ended: Ended) -> tuple[str, list[str], int]:
    """What a run left, as `WHOLE` is written."""
    return (ended.trace, [action for action, _ in ended.changes], ended.tickets)


@pytest.mark.parametrize(("blow", "point"), POINTS, ids=[f"{n}-{who}" for n, (who, _) in enumerate(POINTS)])
async def test_a_run_outlives(standing: Stand, cell: Cell, blow: Blow, point: Point) -> None:
    """Killed in the middle of a run and started again, or an answer lost, it costs the run nothing but time."""
    starts = {name: process.starts for name, process in standing.processes.items()}
    cell.blow = blow
    try:
        ended = await cell.run("crashed+unbound", point, seed=500 + POINTS.index((blow, point)))
    finally:
        cell.blow = "worker"
    await healthy(standing.api)
    assert left(ended) == WHOLE
    assert ended.where != ""
    assert {name: process.starts - starts[name] for name, process in standing.processes.items()} == {
        name: int(name == blow) for name in starts
    }


async def test_a_worker_that_stood_still_finds_its_fence_broken(standing: Stand, cell: Cell) -> None:
    """Stopped for longer than its lease, the run goes on in another worker; woken, the first changes nothing more."""
    second: list[Kept] = []

    async def stands_still() -> bool:
        cell.worker.signal(signal.SIGSTOP)
        return False

    async def meanwhile(run: FlowRun, region: Region) -> None:
        async def stands() -> bool:
            return cell.trap.sprung

        await until(stands)
        environment = standing.environment(standing.api, int(standing.ledger_url.port or 0), "second")
        kept = Kept(cell.worker.command[1:], environment, standing.home / "second.log")
        second.append(await kept.__aenter__())
        token = await token_of(standing, region)

        async def taken_over() -> bool:
            return await token_of(standing, region) != token

        await until(taken_over)
        await asyncio.sleep(LEASE)
        cell.worker.signal(signal.SIGCONT)

    before, cell.trap.spring = cell.trap.spring, stands_still
    try:
        # It has looked at everything, and is about to set out to restart.
        ended = await cell.run("crashed+unbound", Point("cloud", 16, "before"), seed=600, meanwhile=meanwhile)
    finally:
        cell.trap.spring = before
        cell.worker.signal(signal.SIGCONT)
        for kept in second:
            await kept.__aexit__()
    assert left(ended) == WHOLE


async def token_of(standing: Stand, region: Region) -> int:
    """The fence of the cluster's episode."""
    (cluster,) = region.clusters.values()
    async with standing.ledger.reading() as session:
        mine = select(Episode.token).where(Episode.cluster_id == cluster.id)
        return int((await session.scalars(mine)).one())
