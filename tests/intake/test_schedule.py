"""What prefect.yaml starts by the clock, on a real server."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun

pytestmark = [pytest.mark.server, pytest.mark.anyio]


async def by_the_clock(client: PrefectClient, deployment: UUID) -> list[FlowRun]:
    """The deployment's runs that Prefect's scheduler has made."""
    scheduled = FlowRunFilter(tags=FlowRunFilterTags(all_=["auto-scheduled"]))
    mine = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    return await client.read_flow_runs(flow_run_filter=scheduled, deployment_filter=mine)


async def test_prefect_has_the_next_nights_sweeps_in_its_calendar(deployed: None) -> None:
    """A deployed `sweep/nightly` has runs to come at five o'clock of Berlin, tonight's first, that change nothing."""
    async with get_client() as client:
        nightly = await client.read_deployment_by_name("sweep/nightly")
        for _ in range(240):  # the scheduler looks at new deployments every few seconds
            if runs := await by_the_clock(client, nightly.id):
                break
            await asyncio.sleep(0.25)
        now = datetime.now(ZoneInfo("Europe/Berlin"))
        five = now.replace(hour=5, minute=0, second=0, microsecond=0)
        first = five if five > now else five + timedelta(days=1)  # by the clock on the wall
        starts = sorted(run.expected_start_time.astimezone(UTC) for run in runs if run.expected_start_time)
        nights = [first + timedelta(days=night) for night in range(len(starts))]
        assert starts == [night.astimezone(UTC) for night in nights]
        assert starts
        assert [run.parameters for run in runs] == [{}] * len(runs)
