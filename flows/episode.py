"""What every runbook does around its procedure: claim the cluster, keep the record, end with a word and evidence."""

from collections.abc import Awaitable, Callable
from typing import Any

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.escalation import ticket_for, unwatch, watch
from tasks.claims import claimed
from tasks.connections import connected
from tasks.errors import CannotTell, ConfigurationError, RemoteError, RunbookError
from tasks.evidence import Page, publish, report
from tasks.models import Case, Outcome
from tasks.trail import Trail

Procedure = Callable[[Case, Trail], Awaitable[None]]


async def run_episode(case: Case, page: Page, procedure: Procedure) -> State[Any]:
    """Carry out the procedure; the returned state is named after the outcome and its message holds the traces.

    Errors of ours end the run in a ticket; a block that cannot be used fails it before anything was looked at.
    Whatever else breaks it off, `ticket_for_a_failure` files what the trail holds by then.
    """
    trail = Trail(case)
    link = flow_run.ui_url or ""
    watch(case.run, trail, page)
    try:
        async with connected(case) as connection:
            with claimed(case, link or case.run, cluster_id=connection.cluster.cluster_id) as holder:
                if holder:
                    trail.stop(Outcome.JOINED, f"this cluster is being worked on by {holder}")
                else:
                    await _carried_out(case, trail, procedure)
                ticket = await ticket_for(trail, page)
    except ConfigurationError as error:
        return Failed(message=str(error))
    await publish(trail, report(trail, page, link))
    parts = [*(f"{host}: {trace}" for host, trace in trail.traces.items())]
    if not parts:
        parts = [trail.entries[-1].text.partition(": ")[2] if trail.entries else "There is no active alarm"]
    message = f"{trail.outcome}. {'; '.join(parts)}{f'. Ticket {ticket.id}' if ticket else ''}"
    get_run_logger().info(message)
    unwatch(case.run)
    if trail.outcome is Outcome.ERROR:
        return Failed(name=trail.outcome, message=message)
    return Completed(name=trail.outcome, message=message)


def run_id() -> str:
    """This flow run's id."""
    return str(flow_run.id or "")


def reported_host() -> str:
    """The host that the alarm source named: the intake tags the run `host:NAME`. Empty for a run of a person."""
    return next((tag.removeprefix("host:") for tag in flow_run.tags or () if tag.startswith("host:")), "")


async def _carried_out(case: Case, trail: Trail, procedure: Procedure) -> None:
    try:
        await procedure(case, trail)
    except (CannotTell, RemoteError) as error:  # a step that changes something ends its own; this was a question
        trail.stop(Outcome.CANNOT_TELL, str(error))
    except RunbookError as error:
        trail.stop(Outcome.ERROR, str(error))
