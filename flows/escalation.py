"""Evidence becomes one ticket. Shared by all runbooks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Pause
from prefect.runtime import flow_run as this_run
from prefect.utilities.urls import url_for

from flows.pages import PAGES
from tasks.alarms import cleared_meanwhile
from tasks.claims import broke_off, goes_on_elsewhere
from tasks.evidence import Page, brief
from tasks.handover import broken_off, filing_of
from tasks.ledger.outbox import Filing
from tasks.ledger.ticket_life import incident_of
from tasks.models import Alarm, Case, Outcome
from tasks.record import WHOLE_CLUSTER
from tasks.recorded import Recorded, nothing_recorded
from tasks.tickets import Ticket, file_ticket, incident, join_incident, tell
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
    if shared := trail.only_incident:
        return await join_incident(*shared, trail.case.cluster, brief(trail, page, link), trail.case.run)
    return await file_ticket(_filing(trail, page, link), _incidents(trail))


def _filing(trail: Trail, page: Page, link: str) -> Filing:
    incidents = sorted(trail.incidents.values())
    return filing_of(
        trail,
        page,
        link,
        subject=trail.subject,
        source=trail.case.run,
        episode=trail.earlier.episode if trail.earlier else "",
        part_of=incident_of(incidents[0]) if incidents else "",
    )


def _incidents(trail: Trail) -> list[Filing]:
    """The tickets of the tripped breakers that kept hosts of this run from their change, filed by whoever is first."""
    words: dict[str, str] = {}
    for host, breaker in trail.incidents.items():
        did = [entry for entry in trail.entries if entry.kind == "did"]
        words[breaker] = ([e for e in did if e.host in (host, WHOLE_CLUSTER)] or did)[-1].text
    return [incident(breaker, text) for breaker, text in words.items()]


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

    One that an intake begins anew gets no ticket. It says what the ledger holds of the run: a cancelled or killed run
    leaves its process no time, and then the hook runs in another. Where that knows more than the ledger it says that.
    """
    parameters, run = flow_run.parameters, str(flow_run.id)
    trail, _ = _watched.pop(run, (None, None))
    if parameters.get("dry_run", True) or state.name == Outcome.ERROR:  # ERROR has its ticket, with the evidence
        return
    what, link = f"{state.name}: {state.message}", url_for("flow-run", obj_id=run) or ""
    page = PAGES[flow.name.removeprefix("alm-")]
    case = Case(cluster=str(parameters.get("cluster") or ""), alarm_id=page.alarm_id, dry_run=False, run=run)

    def filing(outcome: Outcome, known: Recorded | None) -> Filing:
        if trail and trail.lines:
            kept = known is not None and trail.lines in known.records
            trail.stop(outcome, what)
            if known is None or not kept:
                return _filing(trail, page, link)
            if trail.alarms:
                known = replace(known, alarms=trail.alarms, ends=trail.ends, traces=trail.traces)
        words = f"The flow run {flow_run.name} ({run}) is {what}"
        return broken_off(known or nothing_recorded(case, outcome), page, words, link=link, source=run)

    word = Outcome.CANCELLED if state.is_cancelled() else Outcome.ERROR
    deployed, token = flow_run.deployment_id is not None, trail.token if trail else None
    if told := await broke_off(run, word, filing, deployed=deployed, token=token):
        await tell(told)  # written down it is already; now its system hears of it
