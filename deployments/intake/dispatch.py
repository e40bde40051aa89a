"""An alarm that was received becomes a flow run: at most one that is alive per cluster and runbook."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import BlockDocument, FlowRun, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from deployments.intake.syslog import Observation
from tasks.blocks import Cluster

RUNBOOKS: Mapping[str, str] = {"12110": "alm-12110/from-alarms"}
# An occurrence whose run ended so is still open: it is started anew when it is reported again.
DID_NOTHING = ("JOINED", "Crashed")
MOST_RUNS = 20
ALIVE = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]


@dataclass(frozen=True)
class Dispatched:
    """What became of an observation: `started` or `joined` a run, `rejected`, or `noted`; and why.

    Noted are a clear, an event, and an occurrence whose run has ended already.
    """

    what: Literal["started", "joined", "noted", "rejected"]
    why: str
    flow_run: FlowRun | None = None


async def dispatch(client: PrefectClient, observation: Observation) -> Dispatched:
    """Start the runbook for a raised alarm, unless one is working on that cluster already.

    The observation only says where to look: the run reads the alarms itself. The run's idempotency key is the alarm's
    occurrence, so a line that is received twice starts one run; without serial number and time there is none.

    Raises:
        httpx.TransportError, PrefectHTTPStatusError: the Prefect server did not take it; nothing was started.
    """
    seen = observation
    if seen.kind != "raised":
        return Dispatched("noted", f"ALM-{seen.alarm_id} {seen.kind} on {seen.host or seen.cluster_name}")
    if seen.alarm_id not in RUNBOOKS:
        why = f"there is no runbook for alarm {seen.alarm_id} of {seen.cluster_name!r}, only for {', '.join(RUNBOOKS)}"
        return Dispatched("rejected", f"{why}: see its page, or do not send it here")
    if not seen.host:
        why = f"ALM-{seen.alarm_id} of {seen.cluster_name!r} comes without a host: put ${{locationInfo}} in the format"
        return Dispatched("rejected", f"{why} on Manager, or start the runbook by hand")
    found = [block for block in await _cluster_blocks(client) if block.data.get("source") == seen.cluster_name]
    if len(found) != 1 or not found[0].name:
        problem = "no cluster block has" if not found else f"{len(found)} cluster blocks have"
        advice = "name it in the source field of exactly one MRS Cluster block"
        return Dispatched("rejected", f"{problem} the name {seen.cluster_name!r} as its source: {advice}")
    return await _start(client, seen, found[0].name, str(found[0].data["cluster_id"]))


async def _cluster_blocks(client: PrefectClient) -> list[BlockDocument]:
    """All of them, without their secrets; none where no block of this type was ever made."""
    try:
        return await client.read_block_documents_by_type(Cluster.get_block_type_slug(), include_secrets=False)
    except PrefectHTTPStatusError as error:
        if error.response.status_code == 404:
            return []
        raise


async def _start(client: PrefectClient, seen: Observation, cluster: str, cluster_id: str) -> Dispatched:
    tags = [f"alarm:{seen.alarm_id}", f"cluster:{cluster}"]
    alive = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=tags),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=ALIVE)),
        )
    )
    if alive:
        return Dispatched("joined", f"{alive[0].name} is at work on {cluster} already", alive[0])
    try:
        deployment = await client.read_deployment_by_name(RUNBOOKS[seen.alarm_id])
    except ObjectNotFound:
        why = f"there is no deployment {RUNBOOKS[seen.alarm_id]!r}, so nothing was started for {seen.host} of {cluster}"
        return Dispatched("rejected", f"{why}: deploy deployments/prefect.yaml and start the runbook by hand")
    occurrence = _occurrence(seen, cluster_id)
    for again in range(MOST_RUNS):
        run = await client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"cluster": cluster},
            idempotency_key=occurrence and (f"{occurrence}/{again}" if again else occurrence),
            name=f"ALM-{seen.alarm_id} {cluster}",
            tags=[*tags, f"host:{seen.host}"],
        )
        if not (run.state and run.state.name in DID_NOTHING):
            break
    if run.state and run.state.is_final():
        return Dispatched("noted", f"{run.name} has ended ({run.state.name}) for this occurrence on {seen.host}", run)
    return Dispatched("started", f"{run.name} was started for {seen.host}", run)


def _occurrence(seen: Observation, cluster_id: str) -> str | None:
    """What the line is about, the same however often it comes; None where it does not tell one from the next."""
    if not (seen.serial or seen.occurred):
        return None
    occurred = seen.occurred and seen.occurred.isoformat()
    return "/".join(str(part) for part in (cluster_id, seen.alarm_id, seen.host, seen.serial, occurred))
