"""Alarms that others emit as Prefect events: the automation of prefect.yaml, on a real server."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun

pytestmark = [pytest.mark.server, pytest.mark.anyio]


async def emitted(client: PrefectClient, event: str, cluster: str) -> None:
    """Post an event as somebody else's program would."""
    body = {
        "id": str(uuid4()),
        "event": event,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": f"mrs.cluster.{uuid4()}"},
        "payload": {"cluster": cluster},
    }
    response = await client.request("POST", "/events", json=[body])
    assert response.status_code == 204


async def runs_on(client: PrefectClient, cluster: str) -> list[FlowRun]:
    """Flow runs that alarms started on this cluster."""
    by_alarm = FlowRunFilter(tags=FlowRunFilterTags(all_=["started-by:alarm"]))
    return [
        run for run in await client.read_flow_runs(flow_run_filter=by_alarm) if run.parameters["cluster"] == cluster
    ]


async def test_a_reported_alarm_starts_the_runbook_and_ours_do_not(deployed: None) -> None:
    """`mrs.alarm.reported` starts one run of the runbook on its cluster; what the intake emits starts none."""
    async with get_client() as client:
        cluster = f"reported-{uuid4()}"
        for ours in ("mrs.alarm.raised", "mrs.alarm.cleared", "mrs.episode.opened"):
            await emitted(client, ours, cluster)
        await emitted(client, "mrs.alarm.reported", cluster)
        for _ in range(240):
            if await runs_on(client, cluster):
                break
            await asyncio.sleep(0.25)
        await asyncio.sleep(3)  # a second one would be here by now
        (run,) = await runs_on(client, cluster)
        assert run.parameters == {"cluster": cluster, "dry_run": False}
