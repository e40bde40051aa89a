"""A sweep that nobody starts: by the clock, on a real server with a real worker."""

from datetime import timedelta
from pathlib import Path

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import SCHEDULE_TYPES, IntervalSchedule

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from deployments.scenarios import give_an_agency
from tasks.ledger.fleet_tables import Sweep
from tests.conftest import serving
from tests.crash.stand import Stand, until
from tests.intake.test_schedule import by_the_clock

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("crash"), pytest.mark.timeout(600)]


async def test_a_sweep_comes_by_the_clock(standing: Stand, tmp_path: Path) -> None:
    """Scheduled for every ten seconds, `sweep/nightly` looks at the fleet, and its report is in the ledger."""
    region = Region(meta_hosts=1, seed=71)
    (cluster,) = region.clusters.values()
    give_an_agency(region, cluster)
    client = standing.client
    nightly = await client.read_deployment_by_name("sweep/nightly")
    ended: list[FlowRun] = []

    async def one_has_ended() -> bool:
        ended[:] = [run for run in await by_the_clock(client, nightly.id) if run.state and run.state.is_final()]
        return bool(ended)

    async with serving(region) as url, standing.worker(tmp_path):
        block = cluster_block(cluster, manager_block(cluster, url), cloud_block(region, url))
        await block.save("looked-at", client=client)
        often: SCHEDULE_TYPES = IntervalSchedule(interval=timedelta(seconds=10))
        (schedule,) = await client.create_deployment_schedules(nightly.id, [(often, True)])
        try:
            await until(one_has_ended)
        finally:
            await client.delete_deployment_schedule(nightly.id, schedule.id)
    async with standing.ledger.reading() as session:
        sweep = await session.get_one(Sweep, str(ended[0].id))
    assert ended[0].state
    assert sweep.ended
    assert ended[0].state.message == sweep.summary
    assert sweep.planned == 1
