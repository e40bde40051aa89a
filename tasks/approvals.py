"""A person agrees to a change, or makes it where no API does. The ledger has what was asked and said, decided once."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from prefect.context import FlowRunContext
from prefect.runtime import deployment, flow_run

from tasks import timing, waits
from tasks.bindings import somebody_s_change
from tasks.blocks import Cluster
from tasks.claims import holds, looked_up
from tasks.connections import Connection, connected
from tasks.errors import ConfigurationError, Refused, RemoteError
from tasks.gates import STEP_OF, Action, kept_from, may_change
from tasks.journal import once
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import Decision, Question, question_of
from tasks.ledger.episodes import Holding
from tasks.ledger.starting import started_by_alarm
from tasks.loading import cluster_block
from tasks.models import Alarm, Case, Deed, Frozen, Outcome
from tasks.questions import answer_to, ask

NOT_DONE: dict[Action, str] = {"restart": "not restarted", "rebind": "not bound"}
STARTED_BY, ALARM = "started-by:", "alarm"  # the tag that says who started a run


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
    async with connected(case) as connection:
        change = _Change(case, connection, action, alarms)
        asked, again = await change.asked("by hand") or await change.asked("approve"), ""
        try:
            decision = await answer_to(case, asked) if asked else None
        except ConfigurationError as error:
            decision, again = None, f"{error}; "
        if decision:
            return await _decided(change, decision)
        try:
            why = await needs_a_person(case, connection, action)
            if not why and asked is None:
                return Agreement(go=True)  # its gates are asked when it is made
            cluster = await may_change(case, connection, alarms, action, asking=True)
        except RemoteError as error:
            return change.refused(Refused(f"whether a person must agree cannot be read: {error}"))
        except Refused as error:
            if not error.by_hand:
                return change.refused(error)
            return await change.ask(connection.cluster, "by hand", f"{again}{error}", so_far)
        return await change.ask(cluster, "approve", again + why, so_far) if why else Agreement(go=True)


async def by_hand(case: Case, action: Action, alarms: Sequence[Alarm], why: str, so_far: str) -> Agreement:
    """Ask a person to make a change that no API makes here.

    Raises:
        Pause: as in `agreement`.
    """
    async with connected(case) as connection:
        change = _Change(case, connection, action, alarms)
        asked = await change.asked("by hand")
        if asked is not None and (decision := await answer_to(case, asked)):
            return await _decided(change, decision)
        return await change.ask(connection.cluster, "by hand", why, so_far)


async def deeds_of(agreed: Agreement, shown: Callable[[str], Awaitable[Sequence[Deed]]]) -> AsyncIterator[Deed]:
    """What came of it, and what the world shows where somebody says that it was done by hand.

    Args:
        shown: looks at what that person says to have done.
    """
    for deed in agreed.deeds:
        yield deed
    if agreed.done_by:
        for deed in await shown(agreed.done_by):
            yield deed


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


@dataclass(frozen=True)
class _Change:
    """The change for which a person's word is got."""

    case: Case
    connection: Connection
    action: Action
    alarms: Sequence[Alarm]

    @property
    def step(self) -> str:
        """The page's."""
        return STEP_OF[self.action]

    async def asked(self, kind: Question) -> Approval | None:
        """What the run has asked about it; None: nothing."""
        return await looked_up(self.case, lambda session, mine: question_of(session, mine, self.step, kind))

    async def ask(self, cluster: Cluster, kind: Question, why: str, so_far: str) -> Agreement:
        """Ask a person, and become a row; a run of no deployment cannot, and says so."""
        if not deployment.id:
            what = "nobody can be asked, for this run is of no deployment: do it as described below"
            return self.refused(Refused(f"{why}; {what}"))
        targets = sorted(alarm.host for alarm in self.alarms)
        if self.action == "rebind" and kind == "approve":
            nodes = await self.connection.mrs.nodes(cluster.cluster_id)
            targets = [f"{node.host} -> {cluster.agency or '(no agency in the block)'}" for node in nodes]
        now, starter = timing.wall(), await _starter(self.case)

        def question(mine: Holding) -> Approval:
            return Approval(
                attempt=mine.attempt,
                step=self.step,
                kind=kind,
                episode_id=mine.episode,
                run=self.case.run,
                link=flow_run.ui_url or "",
                cluster=self.case.cluster,
                action=self.action,
                targets="\n".join(targets),
                why=f"{why}.\n\n{so_far}".strip(),
                starter=starter,
                four_eyes=cluster.four_eyes,
                asked=now,
                expires=timing.later(cluster.approval_expires, since=now, speed=cluster.speed),
            )

        return await ask(self.case, question, cluster.notifications)

    def refused(self, error: Refused) -> Agreement:
        """A gate does not let it pass."""
        return self.ended(kept_from(self.case, "", NOT_DONE[self.action], error))

    def ended(self, deed: Deed) -> Agreement:
        """The step ends so: a restart host by host, a bind for the whole cluster."""
        if self.action == "rebind":
            return Agreement(deeds=(deed,))
        return Agreement(deeds=tuple(deed.model_copy(update={"host": alarm.host}) for alarm in self.alarms))


async def _decided(change: _Change, decision: Decision) -> Agreement:
    action, what = change.action, f"{decision.by} ({decision.channel})"
    comment = f": {decision.comment}" if decision.comment else ""
    match decision.decided:
        case "approved":
            then = decision.not_before
            when = f", not before {then:%Y-%m-%d %H:%M:%S} UTC" if then else ""
            deed = Deed(host="", did=f"{action} approved by {what}{when}{comment}", at=timing.now())
            ended = await _not_before(change, then)
            return Agreement(go=not ended, deeds=(deed, *ended))
        case "done":
            deed = Deed(host="", did=f"{action} done by hand, says {what}{comment}", at=timing.now())
            return Agreement(done_by=decision.by, deeds=(deed,))
        case "rejected":
            did, outcome = f"{action} rejected by {what}{comment}", Outcome.DECLINED
        case "could not":
            did, outcome = f"{what} could not do the {action} by hand{comment}", Outcome.DECLINED
        case "expired":
            did, outcome = f"nobody has answered in time whether to {action} ({decision.channel})", Outcome.REFUSED
    return change.ended(Deed(host="", did=did, at=timing.now(), ended=outcome))


async def _not_before(change: _Change, then: datetime | None) -> tuple[Deed, ...]:
    """Wait until the change may be made; what ended it, an alarm that is cleared meanwhile; empty: nothing did."""
    if then is None:
        return ()
    case, part, ended = change.case, f"{change.step} not before", tuple[Deed, ...]()
    until = await waits.deadline(case, part, then)
    async for _ in waits.looks(case, until, every=60.0, speed=1):
        try:
            await may_change(case, change.connection, change.alarms, change.action)
        except Refused as error:
            if error.outcome is not Outcome.REFUSED:  # other gates are asked again when it is made
                ended = change.refused(error).deeds
                break
    await waits.ended(case, part)
    return ended


async def starter_of(case: Case, tags: Collection[str], key: str) -> str:
    """Who started the run: `alarm`, a name that somebody gave, or empty where nobody knows.

    Whoever starts the deployment for alarms in the Prefect UI gets its tag as well, and can add others: an alarm has
    started only what the intake has created, by a key of the episode's.

    Args:
        key: the run's idempotency key; empty: it has none.
    """
    names = {tag.removeprefix(STARTED_BY) for tag in tags if tag.startswith(STARTED_BY)}
    if len(names) != 1:
        return ""
    (name,) = names
    if name != ALARM or await looked_up(case, lambda session, mine: started_by_alarm(session, mine, key)):
        return name
    return ""


async def _starter(case: Case) -> str:
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    return await starter_of(case, run.tags, run.idempotency_key or "") if run else ""
