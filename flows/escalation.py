"""Evidence becomes one ticket. Shared by all runbooks."""

from collections.abc import Sequence
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Pause
from prefect.runtime import flow_run as this_run

from tasks.alarms import cleared_meanwhile
from tasks.claims import broke_off, goes_on_elsewhere
from tasks.evidence import Page, brief, report
from tasks.ledger.outbox import Filing
from tasks.ledger.ticket_life import incident_of
from tasks.models import Alarm, Case, Outcome
from tasks.record import NEEDS_A_PERSON
from tasks.tickets import Ticket, file_ticket, join_incident, tell
from tasks.trail import Trail


async def escalate(case: Case, trail: Trail, page: Page, alarms: Sequence[Alarm]) -> None:
    """The page's last step for these hosts: hand over to a person, at once, also while other hosts are worked on.

    A host whose alarm was cleared meanwhile needs nobody.
    """
    if not alarms:
        return
    left = trail.remaining("7", await cleared_meanwhile(case, alarms, step="7"), alarms)
    if left:
        trail.reached("7", left)
        trail.end(left, Outcome.DRY_RUN if case.dry_run else Outcome.ESCALATE, step="7")
        await ticket_for(trail, page)


async def ticket_for(trail: Trail, page: Page) -> Ticket | None:
    """The run's ticket, filed or brought up to date; None where nobody is needed, or in a dry run.

    Raises:
        Pause: another segment of this very run has taken it over.
    """
    if trail.case.dry_run or not trail.needs_a_person:
        return None
    if await goes_on_elsewhere(trail.case):
        raise Pause  # another segment goes on with it, and files what it sees
    link = this_run.ui_url or ""
    if incident := trail.only_incident:
        return await join_incident(*incident, trail.case.cluster, brief(trail, page, link), trail.case.run)
    return await file_ticket(_filing(trail, page, link))


def _filing(trail: Trail, page: Page, link: str) -> Filing:
    """What a person is to be told of this run, and of which hosts' alarms."""
    needing = [host for host, end in trail.ends.items() if end.outcome in NEEDS_A_PERSON and host in trail.alarms]
    incidents = sorted(trail.incidents.values())
    return Filing(
        trail.subject,
        f"ALM-{page.alarm_id} {trail.case.cluster}: {trail.outcome}",
        report(trail, page, link),
        source=trail.case.run,
        cluster=trail.case.cluster,
        alarm_id=trail.case.alarm_id,
        episode=trail.earlier.episode if trail.earlier else "",
        hosts=[host for host in needing if trail.alarms[host].host],
        part_of=incident_of(incidents[0]) if incidents else "",
    )


_watched: dict[str, tuple[Trail, Page]] = {}


def watch(run: str, trail: Trail, page: Page) -> None:
    """Keep a run's trail at hand in this process, in case the run breaks off; that of the run at work stays."""
    _watched.setdefault(run, (trail, page))


def unwatch(run: str, trail: Trail) -> None:
    """The run came to its end, or to a wait; the trail of another segment of it stays."""
    if run in _watched and _watched[run][0] is trail:
        del _watched[run]


async def ticket_for_a_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A hook: a run that broke off or was cancelled also ends in a ticket, the run's own. A dry run only fails.

    One that an intake begins anew gets no ticket.
    A cancelled or killed run leaves its process no time: then the hook runs in another and knows only its parameters.
    """
    parameters, run = flow_run.parameters, str(flow_run.id)
    trail, page = _watched.pop(run, (None, None))
    if parameters.get("dry_run", True) or state.name == Outcome.ERROR:  # ERROR has its ticket, with the evidence
        return
    what = f"{state.name}: {state.message}"

    cluster = parameters.get("cluster", "")

    def filing(outcome: Outcome) -> Filing:
        if trail and page:
            trail.stop(outcome, what)
            return _filing(trail, page, link="")
        body = (
            f"# {flow.name} on {cluster or 'an unnamed cluster'} broke off\n\n{what}\n\n"
            f"What it had seen and done by then is in the log of flow run {flow_run.name} ({run}). Restarts or binds "
            "that it began may have happened: look at Manager's and the console's operation logs before you repeat "
            "them.\n"
        )
        title = f"{flow.name} {cluster or 'an unnamed cluster'}: broke off ({state.name})"
        return Filing(f"{cluster}/{flow.name}/run/{run}", title, body, source=run, cluster=cluster)

    word = Outcome.CANCELLED if state.is_cancelled() else Outcome.ERROR
    deployed, token = flow_run.deployment_id is not None, trail.token if trail else None
    if told := await broke_off(run, word, filing, deployed=deployed, token=token):
        await tell(told)  # written down it is already; now its system hears of it
