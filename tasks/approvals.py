"""A person agrees to a change, or makes it where no API does: a form in the Prefect UI, and a run that waits as a row.

The run suspends itself with a form; whoever answers it, or the intake when the time is over or the alarm is cleared,
lets it go on, and any worker begins it anew. What was asked and said is in the ledger: a question is decided once.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause, PrefectHTTPStatusError
from prefect.input.actions import aread_flow_run_input
from prefect.input.run_input import keyset_from_base_key, keyset_from_paused_state
from prefect.runtime import deployment, flow_run
from prefect.states import Suspended
from prefect.utilities.engine import propose_state
from sqlalchemy.ext.asyncio import AsyncSession

from tasks import timing, waits
from tasks.bindings import somebody_s_change
from tasks.blocks import Cluster, cluster_block
from tasks.claims import holds, looked_up, noted
from tasks.connections import Connection, connected
from tasks.errors import Refused, RemoteError
from tasks.forms import WHAT, action_of, form_of, said, words
from tasks.gates import STEP_OF, Action, kept_from, may_change
from tasks.journal import once
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import Decision, Question, decide, put, question_of
from tasks.ledger.episodes import Holding, let_go
from tasks.models import Alarm, Case, Deed, Frozen, Outcome
from tasks.notifications import notify

ASK_AGAIN = 5.0  # seconds, while Prefect does not answer
STOPPED_WITHIN = 30.0  # seconds in which a run that is being cancelled is stopped
NOT_DONE: dict[Action, str] = {"restart": "not restarted", "rebind": "not bound"}
STARTED_BY = "started-by:"  # the tag that says who started a run

logger = logging.getLogger("runbooks")


class Agreement(Frozen):
    """Whether a step may go on.

    Attributes:
        go: it may be done now, by the program.
        done_by: who says that it was done by hand; empty: nobody.
        deeds: what is to be recorded; those that ended say why it is not done.
    """

    go: bool = False
    done_by: str = ""
    deeds: tuple[Deed, ...] = ()


@once("{action} {alarms}")
async def agreement(case: Case, action: Action, alarms: Sequence[Alarm], so_far: str) -> Agreement:
    """Get a person's word for a change where one is needed; the gates are asked before, and again when it is made.

    A person is needed where the cluster's mode is `approve`; where somebody may have removed the agency on purpose; and
    to do it by hand, where the cloud offers no API for what the gates or the step need.

    Args:
        so_far: the evidence, for the person.

    Raises:
        Pause: a person is asked; the run is a row until there is an answer.
    """
    if case.dry_run or not holds(case):
        return Agreement(go=True)
    step = STEP_OF[action]
    handed = await looked_up(case, lambda session, mine: question_of(session, mine, step, "by hand"))
    asked = handed or await looked_up(case, lambda session, mine: question_of(session, mine, step, "approve"))
    async with connected(case) as connection:
        if asked is not None and (decision := await _decision(case, asked)):
            return await _decided(case, connection, asked, decision, action, alarms)
        try:
            if asked is None and not (why := await needs_a_person(case, connection, action)):
                return Agreement(go=True)  # its gates are asked when it is made
            cluster = await may_change(case, connection, alarms, action, asking=True)
            why = await needs_a_person(case, connection, action)
            kind: Question = "approve"
        except RemoteError as error:
            refused = Refused(f"whether a person must agree cannot be read: {error}")
            return Agreement(deeds=_ended(alarms, action, kept_from(case, "", NOT_DONE[action], refused)))
        except Refused as error:
            if not error.by_hand:
                return Agreement(deeds=_ended(alarms, action, kept_from(case, "", NOT_DONE[action], error)))
            cluster, kind, why = connection.cluster, "by hand", str(error)
        if not why:
            return Agreement(go=True)
        return await _ask(case, connection, cluster, action, alarms, kind=kind, why=why, so_far=so_far)


async def by_hand(case: Case, action: Action, alarms: Sequence[Alarm], why: str, so_far: str) -> Agreement:
    """Ask a person to make a change that no API makes here.

    Raises:
        Pause: as in `agreement`.
    """
    step = STEP_OF[action]
    async with connected(case) as connection:
        asked = await looked_up(case, lambda session, mine: question_of(session, mine, step, "by hand"))
        if asked is not None and (decision := await _decision(case, asked)):
            return await _decided(case, connection, asked, decision, action, alarms)
        cluster = connection.cluster
        return await _ask(case, connection, cluster, action, alarms, kind="by hand", why=why, so_far=so_far)


async def needs_a_person(case: Case, connection: Connection, action: Action) -> str:
    """Why the program may not make the change by itself, by the cluster's block as it is now; empty: it may.

    Raises:
        RemoteError: the block or the nodes cannot be read.
    """
    cluster = await cluster_block(case.cluster)
    reasons = []
    if cluster.mode_of(action) == "approve":
        reasons.append(f"the cluster's mode for a {action} is 'approve'")
    if action == "rebind":
        nodes = await connection.mrs.nodes(cluster.cluster_id)
        if somebody := await somebody_s_change(connection, nodes):
            reasons.append(f"{somebody}, so the agency may be gone on purpose")
    return "; ".join(reasons)


async def _ask(
    case: Case,
    connection: Connection,
    cluster: Cluster,
    action: Action,
    alarms: Sequence[Alarm],
    *,
    kind: Question,
    why: str,
    so_far: str,
) -> Agreement:
    if not deployment.id:
        what = "nobody can be asked, for this run is of no deployment: do it as described below"
        return Agreement(deeds=_ended(alarms, action, kept_from(case, "", NOT_DONE[action], Refused(f"{why}; {what}"))))
    hosts = sorted(alarm.host for alarm in alarms)
    targets = hosts
    if action == "rebind" and kind == "approve":
        nodes = await connection.mrs.nodes(cluster.cluster_id)
        targets = [f"{node.host} -> {cluster.agency or '(no agency in the block)'}" for node in nodes]
    now = timing.wall()

    def question(mine: Holding) -> Approval:
        return Approval(
            attempt=mine.attempt,
            step=STEP_OF[action],
            kind=kind,
            episode_id=mine.episode,
            run=case.run,
            link=flow_run.ui_url or "",
            cluster=case.cluster,
            action=action,
            targets="\n".join(targets),
            why=f"{why}.\n\n{so_far}".strip(),
            starter=_starter(),
            four_eyes=cluster.four_eyes,
            asked=now,
            expires=timing.later(cluster.approval_expires, since=now, speed=cluster.speed),
        )

    return await _suspend(case, cluster, question)


async def _suspend(case: Case, cluster: Cluster, question: Callable[[Holding], Approval]) -> NoReturn:
    """Put the form and become a row. The form is there before the state is: without it nobody could go on."""
    while True:
        asked = await noted(case, lambda session, mine: put(session, mine, question(mine)))
        suspended: State[Any] = Suspended(
            timeout_seconds=None, pause_key=asked.key
        )  # one that times out fails, and no code runs
        keyset = keyset_from_paused_state(suspended)
        suspended.state_details.run_input_keyset = dict(keyset.items())
        try:
            await form_of(asked).with_initial_data(description=words(asked)).asave(keyset, UUID(case.run))
            await noted(case, let_go)  # before the state, for somebody may answer at once
            async with get_client() as client:
                state: State[Any] = await propose_state(client, suspended, flow_run_id=UUID(case.run))
            break
        except (httpx.HTTPError, PrefectHTTPStatusError, OSError) as error:
            logger.warning("Prefect does not take the question %s (%s): it is put again", asked.key, error)
            await timing.pause(ASK_AGAIN)
    if not state.is_paused():  # a person cancels the run, and somebody stops it
        await timing.pause(STOPPED_WITHIN)
        raise Pause
    await notify(cluster.notifications, f"{WHAT[action_of(asked)]}? {asked.cluster}", f"{words(asked)}\n\n{asked.link}")
    raise Pause(state=state)


async def _decision(case: Case, asked: Approval) -> Decision | None:
    """What was decided, in the ledger or by the form that the run came back from; None: nothing yet."""
    if asked.decision:
        return _read(asked)
    now = timing.wall()
    answer = await _answer(case, asked)
    if answer is None and asked.expires > now:
        return None
    decision = answer or Decision("expired", "nobody", "the time is over")

    async def write(session: AsyncSession, mine: Holding) -> Approval | None:
        await decide(session, asked, decision, now)
        session.expunge_all()
        found = await question_of(session, mine, asked.step, _kind(asked))
        if found is not None and not found.decision:  # an answer that came too late
            await decide(session, asked, Decision("expired", "nobody", "the answer came too late"), now)
            session.expunge_all()
            found = await question_of(session, mine, asked.step, _kind(asked))
        return found

    found = await noted(case, write)
    return _read(found) if found is not None else None


def _read(asked: Approval) -> Decision:
    return Decision(asked.decision, asked.by, asked.channel, asked.comment, asked.not_before)  # type: ignore[arg-type]


def _kind(asked: Approval) -> Question:
    return "by hand" if asked.kind == "by hand" else "approve"


async def _answer(case: Case, asked: Approval) -> Decision | None:
    """What the form says that was filled in; None: it was not, and the run goes on for another reason."""
    key = keyset_from_base_key(f"suspended-{asked.key}")["response"]
    while True:
        try:
            filled = await aread_flow_run_input(key, flow_run_id=UUID(case.run))
            break
        except (httpx.HTTPError, PrefectHTTPStatusError, OSError) as error:
            logger.warning("Prefect does not say what was answered to %s (%s): it is asked again", asked.key, error)
            await timing.pause(ASK_AGAIN)
    if not filled:
        return None
    return said(asked, filled)


async def _decided(
    case: Case,
    connection: Connection,
    asked: Approval,
    decision: Decision,
    action: Action,
    alarms: Sequence[Alarm],
) -> Agreement:
    what = f"{decision.by} ({decision.channel})"
    comment = f": {decision.comment}" if decision.comment else ""
    match decision.decided:
        case "approved":
            deed = Deed(host="", did=f"{action} approved by {what}{comment}", at=timing.now())
            ended = await _not_before(case, connection, asked, decision.not_before, action, alarms)
            return ended or Agreement(go=True, deeds=(deed,))
        case "done":
            deed = Deed(host="", did=f"{action} done by hand, says {what}{comment}", at=timing.now())
            return Agreement(done_by=decision.by, deeds=(deed,))
        case "rejected":
            end = Deed(host="", did=f"{action} rejected by {what}{comment}", at=timing.now(), ended=Outcome.DECLINED)
        case "could not":
            did = f"{what} could not do the {action} by hand{comment}"
            end = Deed(host="", did=did, at=timing.now(), ended=Outcome.DECLINED)
        case "expired":
            did = f"nobody has answered in time whether to {action} ({decision.channel})"
            end = Deed(host="", did=did, at=timing.now(), ended=Outcome.REFUSED)
    return Agreement(deeds=_ended(alarms, action, end))


async def _not_before(
    case: Case,
    connection: Connection,
    asked: Approval,
    then: datetime | None,
    action: Action,
    alarms: Sequence[Alarm],
) -> Agreement | None:
    """Wait until the change may be made; None: now. An alarm that is cleared meanwhile ends it."""
    if then is None:
        return None
    part = f"{asked.step} not before"
    until = await waits.deadline(case, part, then)
    async for _ in waits.looks(case, until, every=60.0, speed=1):
        try:
            await may_change(case, connection, alarms, action)
        except Refused as error:
            if error.outcome is not Outcome.REFUSED:  # other gates are asked again when it is made
                await waits.ended(case, part)
                return Agreement(deeds=_ended(alarms, action, kept_from(case, "", NOT_DONE[action], error)))
    await waits.ended(case, part)
    return None


def _ended(alarms: Sequence[Alarm], action: Action, deed: Deed) -> tuple[Deed, ...]:
    """What ends a step: a restart host by host, a bind for the whole cluster."""
    if action == "rebind":
        return (deed,)
    return tuple(deed.model_copy(update={"host": alarm.host}) for alarm in alarms)


def _starter() -> str:
    """Who started the run, by its tags; empty: nobody knows."""
    tags = flow_run.tags or ()
    return next((tag.removeprefix(STARTED_BY) for tag in tags if tag.startswith(STARTED_BY)), "")
