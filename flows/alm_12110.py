"""ALM-12110, "Failed to get ECS temporary AK/SK": the page as a flow."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.episode import run_episode, run_id
from flows.escalation import escalate, ticket_for_a_failure
from flows.pages import PAGES
from tasks.agencies import agency_is_bound, bind_agency
from tasks.alarms import alarms_clear, cleared_meanwhile, find_alarms
from tasks.diagnosis import look_at_cluster
from tasks.instances import instances_are_normal, restart_instances
from tasks.models import Alarm, Case, Outcome
from tasks.trail import Trail

PAGE = PAGES["12110"]


@flow(
    name="alm-12110",
    flow_run_name="ALM-12110 {cluster}",
    on_failure=[ticket_for_a_failure],
    on_crashed=[ticket_for_a_failure],
    on_cancellation=[ticket_for_a_failure],
    retries=0,
    persist_result=False,
    result_storage=Path(gettempdir()),  # nothing is kept there; without a word Prefect asks its server for each segment
)
async def alm_12110(
    cluster: Annotated[str, Field(json_schema_extra={"title": "Cluster"})],
    host: Annotated[str, Field(json_schema_extra={"title": "Host"})] = "",
    dry_run: Annotated[bool, Field(json_schema_extra={"title": "Dry run"})] = True,
    comment: Annotated[str, Field(json_schema_extra={"title": "Comment"})] = "",
) -> State[Any]:
    """Find the cluster's ALM-12110, repair what the page repairs, or file one ticket that says all that was seen.

    The cluster's block decides what may be changed; the parameters can only tighten it.

    Args:
        cluster: Name of the cluster's block (Blocks > MRS Cluster).
        host: Only this host, by its name on Manager. Empty: every alarmed host of the cluster.
        dry_run: On: change nothing, show the plan. Off: change what the cluster's block allows.
        comment: For the record: why you start it.
    """
    case = Case(
        cluster=cluster.strip(),
        alarm_id=PAGE.alarm_id,
        host=host.strip(),
        run=run_id(),
        dry_run=dry_run,
        comment=comment,
    )
    return await run_episode(case, PAGE, procedure)


async def procedure(case: Case, trail: Trail) -> None:
    """The page, its steps numbered. `trail` drops a host where its part ends early: cannot tell, refused, dry run."""
    alarms = trail.found(await find_alarms(case))  # 1
    if not trail.alarms:
        trail.looked("no active alarm", await look_at_cluster(case))
    fresh, again_after_3, again_after_6 = trail.relapsed(alarms)
    await escalate(case, trail, PAGE, again_after_6)  # 6 no: it is cleared no longer
    normal, abnormal = trail.answered("2", await instances_are_normal(case, fresh), fresh)  # 2
    await rebind(case, trail, [*again_after_3, *normal])  # 2 yes: these do not wait for another host's restart
    if abnormal:
        restarted = await trail.follow("3", restart_instances(case, abnormal, so_far=trail.so_far), abnormal)  # 3
        answers = await alarms_clear(case, restarted, step="3", done_at=trail.done_at)
        cleared, active = trail.answered("3", answers, restarted)
        trail.end(cleared, Outcome.END, step="3")
        await rebind(case, trail, active)  # 3 no


async def rebind(case: Case, trail: Trail, alarms: Sequence[Alarm]) -> None:
    """The page's second half, steps 4 to 7."""
    if not alarms:
        return
    trail.reached("4", alarms)  # 4
    answer = await agency_is_bound(case, alarms, rebound="6" in trail.done_at)
    bound, unbound = trail.answered("5", [answer], alarms)  # 5
    unbound = trail.remaining("5", await cleared_meanwhile(case, unbound, step="5"), unbound)
    if unbound:
        rebound = await trail.follow("6", bind_agency(case, unbound, so_far=trail.so_far), unbound)  # 6
        answers = await alarms_clear(case, rebound, step="6", done_at=trail.done_at)
        cleared, active = trail.answered("6", answers, rebound)
        trail.end(cleared, Outcome.END, step="6")
        bound += active
    await escalate(case, trail, PAGE, bound)  # 7
