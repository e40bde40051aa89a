"""Evidence becomes one ticket. Shared by all runbooks."""

from collections.abc import Sequence
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import flow_run as this_run

from tasks.alarms import cleared_meanwhile
from tasks.evidence import Page, report
from tasks.models import Alarm, Case, Outcome
from tasks.tickets import Ticket, file_ticket, store
from tasks.trail import Trail


async def escalate(case: Case, trail: Trail, page: Page, alarms: Sequence[Alarm]) -> None:
    """The page's last step for these hosts: hand over to a person, at once, also while other hosts are worked on.

    A host whose alarm was cleared meanwhile needs nobody.
    """
    answers = await cleared_meanwhile(case, alarms)
    gone = {answer.host for answer in answers}
    trail.answered("7", answers, [alarm for alarm in alarms if alarm.host in gone])
    left = [alarm for alarm in alarms if alarm.host not in gone]
    if left:
        trail.reached("7", left)
        trail.end(left, Outcome.DRY_RUN if case.dry_run else Outcome.ESCALATE, step="7")
        await ticket_for(trail, page)


async def ticket_for(trail: Trail, page: Page) -> Ticket | None:
    """The run's ticket, filed or brought up to date; None where nobody is needed, or in a dry run."""
    if trail.case.dry_run or not trail.needs_a_person:
        return None
    title = f"ALM-{page.alarm_id} {trail.case.cluster}: {trail.outcome}"
    return await file_ticket(trail.subject, title, report(trail, page, link=this_run.ui_url or ""))


def ticket_for_a_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook: a run that broke off, for whatever reason, also ends in a ticket. A dry run only fails."""
    parameters = flow_run.parameters
    if parameters.get("dry_run", True) or state.name == Outcome.ERROR:  # ERROR has its ticket, with the evidence
        return
    cluster = parameters.get("cluster", "an unnamed cluster")
    body = (
        f"# {flow.name} on {cluster} broke off\n\n{state.name}: {state.message}\n\n"
        f"What it had seen and done by then is in the log of flow run {flow_run.name} ({flow_run.id}). Restarts or "
        "binds that it began may have happened: look at Manager's and the console's operation logs before you repeat "
        "them.\n"
    )
    store(f"{cluster}/{flow.name}/{flow_run.id}", f"{flow.name} {cluster}: broke off ({state.name})", body)
