"""What every runbook does around its procedure: claim the cluster, keep the record, end with a word and evidence."""

from collections.abc import Awaitable, Callable
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.escalation import ticket_for, unwatch, watch
from tasks import timing
from tasks.approvals import ALARM, STARTED_BY
from tasks.artifacts import publish, publish_open_episodes
from tasks.claims import claimed, goes_on_elsewhere, remembered, settled
from tasks.connections import connected
from tasks.errors import CannotTell, ConfigurationError, LedgerUnavailable, RemoteError, RunbookError
from tasks.evidence import Page, drawn_report
from tasks.journal import as_first_seen
from tasks.ledger.episodes import Asking, Held
from tasks.models import Answer, Case, Outcome
from tasks.others import other_run
from tasks.trail import Trail

Procedure = Callable[[Case, Trail], Awaitable[None]]
BY_ALARM = f"{STARTED_BY}{ALARM}"  # the tag of the deployments that alarms start


async def run_episode(case: Case, page: Page, procedure: Procedure) -> State[Any]:
    """Carry out the procedure; the returned state is named after the outcome and its message holds the traces.

    Errors of ours end the run in a ticket; a block that cannot be used, or a ledger that does not answer, fails it
    before anything was looked at. Whatever else breaks it off, `ticket_for_a_failure` files what the trail holds by
    then.
    """
    trail, other = Trail(case), ""
    link = flow_run.ui_url or ""
    watch(case.run, trail, page)
    try:
        async with (
            connected(case) as connection,
            claimed(
                case, asking(case), cluster_id=connection.cluster.cluster_id, speed=connection.cluster.speed
            ) as claim,
        ):
            if isinstance(claim, Held) and claim.own:
                raise Pause  # this very run is at work in another process: what that one says of its state counts
            if case.dry_run and (other := await other_run(case, connection.cluster.cluster_id)):
                trail.looked("before anything else", [Answer(host="", value="y", seen=other, at=timing.now())])
            if isinstance(claim, Held):
                trail.stop(Outcome.JOINED, f"this cluster is being worked on by {claim.by}")
            else:
                if claim:
                    trail.token = claim.token
                    trail.earlier, trail.began = await as_first_seen(case, claim)
                    trail.case = case.model_copy(update={"reported": trail.earlier.hosts})
                try:
                    await _carried_out(trail, procedure)
                finally:
                    await remembered(case, trail.lines)
            ticket = await ticket_for(trail, page)
            await publish(trail, drawn_report(trail, page, link))
            await settled(case, trail.parts, trail.outcome, ticket.name if ticket else "")
            await publish_open_episodes(case)
            if await goes_on_elsewhere(case):
                raise Pause  # what that segment says of the run's state counts
    except Pause:
        unwatch(case.run, trail)
        raise
    except (ConfigurationError, LedgerUnavailable) as error:
        return Failed(message=str(error))
    parts = [*(f"{host}: {trace}" for host, trace in trail.traces.items())]
    if not parts:
        ended = [entry.text.partition(": ")[2] for entry in trail.entries if entry.kind == "ended"]
        parts = ended[-1:] or ["There is no active alarm"]
    after = [f"Ticket {ticket.name}" if ticket else "", f"Meanwhile {other}" if other else ""]
    message = ". ".join([trail.outcome, "; ".join(parts), *filter(None, after)])
    get_run_logger().info(message)
    unwatch(case.run, trail)
    if trail.outcome is Outcome.ERROR:
        return Failed(name=trail.outcome, message=message)
    return Completed(name=trail.outcome, message=message)


def run_id() -> str:
    """This flow run's id."""
    return str(flow_run.id or "")


def asking(case: Case) -> Asking:
    """This flow run, as one that wants the cluster's episode. Who started it, its tags tell."""
    tags = flow_run.tags or ()
    episode = next((tag.removeprefix("episode:") for tag in tags if tag.startswith("episode:")), "")
    return Asking(case.run, flow_run.ui_url or case.run, automated=BY_ALARM in tags, episode=episode)


async def _carried_out(trail: Trail, procedure: Procedure) -> None:
    try:
        await procedure(trail.case, trail)
    except (CannotTell, RemoteError) as error:  # a step that changes something ends its own; this was a question
        trail.stop(Outcome.CANNOT_TELL, str(error))
    except LedgerUnavailable:  # the run fails, and is begun anew where it was
        raise
    except RunbookError as error:
        trail.stop(Outcome.ERROR, str(error))
