"""What repairs the losses between the ledger and Prefect: runs that died or are gone, episodes that are through."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled, Completed, Failed, Scheduled
from prefect.utilities.urls import url_for
from sqlalchemy.ext.asyncio import AsyncSession

from deployments.intake.dispatch import Dispatcher
from deployments.intake.events import tell_episode
from deployments.intake.metrics import Metrics
from deployments.intake.prefect_server import (
    PAGE,
    RESTING,
    PrefectAway,
    all_rest,
    asking,
    flow_run,
    flow_runs,
    give_state,
)
from flows.pages import PAGES
from tasks import timing
from tasks.brakes import stop_file
from tasks.errors import ConfigurationError, LedgerUnavailable
from tasks.handover import broken_off
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import Decision, answered, decide, open_questions
from tasks.ledger.braking import brakes, open_breaker
from tasks.ledger.database import Ledger
from tasks.ledger.episodes import LEASE, close_verified
from tasks.ledger.outbox import Filing, file
from tasks.ledger.receiving import intake_alive, prune
from tasks.ledger.starting import MOST_RUNS, give_up, overdue, start_again, suspects, through, traces_of, waiting
from tasks.ledger.tables import Breaker, Episode
from tasks.ledger.ticket_tables import TicketRow
from tasks.models import Outcome
from tasks.recorded import recorded
from tasks.ticket_files import id_of
from tasks.tickets import deliver_now, incident

EVERY = LEASE.total_seconds() / 3
PRUNE_EVERY = timedelta(hours=6)
FIRST_PAUSE = LEASE  # before a dead run is started again; doubled each time
OVERDUE = (300.0, 3600.0)  # seconds that a wait may be overdue before it is said, and said again
STARTING = timedelta(minutes=10)  # a run that starts, or is being cancelled, for longer has lost its worker
BEGINNING = LEASE  # a flow takes its episode within seconds of being Running

logger = logging.getLogger("runbooks.intake")

Verdict = Literal["leave", "same run", "next run", "give up", "cancelled", "done"]
SEGMENTS = "mrs-segments"  # the type of our own worker, deployments/worker.py
STATES: dict[str, type[State[Any]] | Any] = {Outcome.ERROR: Failed, Outcome.CANCELLED: Cancelled}
ENDS = frozenset(Outcome) - {Outcome.JOINED, Outcome.DRY_RUN}


def verdict(episode: Episode, run: FlowRun | None, now: datetime, *, segments: Collection[str] = ()) -> Verdict:
    """What is to be done about an episode whose run may be dead.

    Args:
        segments: names of the work pools of our own worker, which begins a run at once or never.

    A run that ended with a word of ours is through. Any other is begun anew a few times, ever more slowly: the same run
    if it can be, for it goes on where it was. Only one that changed nothing is followed by the episode's next.
    """
    state = run.state.type if run and run.state else None
    if state is StateType.CANCELLED or episode.outcome == Outcome.CANCELLED:  # the worker has noted it, and died
        return "cancelled"
    if episode.state != "raised" and run and run.state and run.state.is_final() and run.state.name in ENDS:
        return "done"  # it came to its end, and could not write so
    if state in RESTING:
        return "leave"
    begins = state is StateType.RUNNING and episode.state in ("raised", "waiting")
    if begins or state in (StateType.PENDING, StateType.CANCELLING):
        ours = state is StateType.PENDING and run is not None and run.work_pool_name in segments
        patience = BEGINNING if begins or ours else STARTING
        if run and run.state and now - run.state.timestamp < patience:
            return "leave"
    if state is StateType.CANCELLING:
        return "cancelled"
    same = run is not None and run.deployment_id is not None and state is not StateType.COMPLETED
    if episode.runs >= MOST_RUNS or (episode.acted and not same):
        return "give up"
    if now < episode.raised + FIRST_PAUSE * 2 ** max(episode.runs - 1, 0):
        return "leave"
    return "same run" if same else "next run"


def run_of(episode: Episode) -> str:
    """The id of the run that holds the episode, else of the one that was started for it."""
    return episode.holder or episode.run or ""


class Reconciler:
    """Looks at what may be lost every ten seconds. One of several may run at the same time."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher, metrics: Metrics, intake: str) -> None:
        self._ledger, self._dispatcher, self._metrics, self._intake = ledger, dispatcher, metrics, intake
        self._pruned: datetime | None = None
        self._over: dict[str, datetime] = {}
        self._incident = ""  # id of the breaker that has its ticket
        self._overdue = 0  # of OVERDUE so many were passed
        self._looked_at = ""  # id of the last episode of a full page of those that wait

    async def run(self) -> None:
        """Reconcile until cancelled, however long Prefect or the ledger is away."""
        async with get_client() as client:
            while True:
                try:
                    await self.reconcile(client)
                except (
                    PrefectAway,
                    LedgerUnavailable,
                    ConfigurationError,
                    OSError,
                ) as error:  # a full disk takes no ticket
                    logger.warning("nothing can be reconciled now: %s", error)
                await asyncio.sleep(EVERY)

    async def reconcile(self, client: PrefectClient) -> None:
        """One look.

        Raises:
            PrefectAway, LedgerUnavailable: the rest is left for later.
        """
        now = timing.now()
        async with self._ledger.writing() as session:
            await intake_alive(session, self._intake, now)
            closed = await close_verified(session, now)
            if self._pruned is None or now - self._pruned > PRUNE_EVERY:
                await prune(session, now)
                self._pruned = now
            dubious, over = await suspects(session, now), await through(session, now)
            decided = await self._decided(session, now)
            resting = await waiting(session, after=self._looked_at, most=PAGE)
            waited = (await overdue(session, now)).total_seconds()
            tripped, braking = await open_breaker(session), await brakes(session)
        self._looked_at = resting[-1].id if len(resting) == PAGE else ""
        for episode in closed:
            tell_episode("closed", episode)
            logger.info("episode %s of %s is closed: %s", episode.id, episode.cluster, episode.outcome)
        self._metrics.brakes_on.set(len(braking) + _stopped_here())
        self._metrics.breaker_open.set(tripped is not None)
        if tripped and tripped.id != self._incident:
            await self._file(tripped)
        self._say_overdue(waited)
        known = {episode.id for episode in dubious}
        resting = [episode for episode in resting if episode.id not in known]
        cancelled = any(episode.outcome == Outcome.CANCELLED for episode in resting)
        if cancelled or not await all_rest(client, [run_of(episode) for episode in resting]):
            dubious += resting
        runs = await flow_runs(client, *(map(run_of, dubious)))
        segments = await _segments(client) if dubious else []
        for episode in dubious:
            if verdict(episode, runs.get(run_of(episode)), timing.now(), segments=segments) != "leave":
                await self._settle(client, episode, segments)
        await self._finish(client, over)
        await _go_on(client, decided)

    async def _decided(self, session: AsyncSession, now: datetime) -> list[Approval]:
        """What persons were asked and is decided, by nobody where the time is over."""
        asked = await open_questions(session)
        for question in asked:
            if question.expires <= now:
                await decide(session, question, Decision("expired", "nobody", "the time is over"), now)
        self._metrics.approvals.set(len(asked))
        return await answered(session)

    async def _file(self, tripped: Breaker) -> None:
        """A person is told, once."""
        alarmed = "".join(f"\n- {name}" for name in tripped.clusters.splitlines())
        ticket = await self._tell(incident(tripped.id, f"{tripped.why}.\n\nThe clusters:\n{alarmed}"))
        self._incident = tripped.id
        end = "`runbooks breaker reset --reason TEXT` lets changes go on"
        logger.warning("the breaker has tripped (%s): nothing is changed; ticket %s; %s", tripped.why, ticket, end)

    async def _tell(self, filing: Filing) -> str:
        """File it, and tell its system at once if that is to be had; returns what to call the ticket."""
        async with self._ledger.writing() as session:
            row = await file(session, filing, timing.now())
        await deliver_now(self._ledger, row.correlation, row.system, now=timing.now)
        async with self._ledger.reading() as session:
            told = await session.get(TicketRow, row.correlation)
        return (told and told.key) or id_of(row.correlation)

    def _say_overdue(self, seconds: float) -> None:
        """Say it once, and once more when it has become an hour; a new time when it was over meanwhile."""
        self._metrics.overdue_wait.set(seconds)
        passed = sum(seconds > each for each in OVERDUE)
        if passed > self._overdue:
            logger.error("a run waits %.0f s longer than it should: is a worker up?", seconds)
        self._overdue = max(passed, self._overdue) if passed else 0

    async def _finish(self, client: PrefectClient, over: Sequence[Episode]) -> None:
        """Give runs their last state whose worker died between the ledger's last word and Prefect's."""
        now = timing.now()
        self._over = {episode.id: self._over.get(episode.id, now) for episode in over}
        silent = [episode for episode in over if now - self._over[episode.id] > BEGINNING]  # others may say so yet
        runs = await flow_runs(client, *(episode.run for episode in silent))
        for episode in silent:
            run = runs.get(episode.run or "")
            if run is None or run.state is None or run.state.type is not StateType.RUNNING:
                continue
            async with self._ledger.reading() as session:
                traces = await traces_of(session, episode.id)
            parts = "; ".join(f"{host}: {trace}" for host, trace in traces.items())
            words = f"{episode.outcome}. {parts}{f'. Ticket {episode.ticket}' if episode.ticket else ''}"
            kind = STATES.get(episode.outcome, Completed)
            logger.warning("%s is through (%s), and Prefect did not know", run.name, episode.outcome)
            await give_state(client, run, kind(name=episode.outcome, message=words))

    async def _settle(self, client: PrefectClient, episode: Episode, segments: Collection[str]) -> None:
        """Look once more, for the other looks may have taken their time, and do what is to be done."""
        run = await flow_run(client, run_of(episode))
        now = timing.now()
        todo = verdict(episode, run, now, segments=segments)
        state = run.state.name if run and run.state else "deleted"
        if todo in ("give up", "cancelled", "done"):
            outcome = {"cancelled": Outcome.CANCELLED, "give up": Outcome.ERROR}.get(todo) or Outcome(str(state))
            async with self._ledger.writing() as session:
                mine = await give_up(session, episode, outcome, now)
                told = mine and todo != "done"  # what is done has its ticket; without a ticket nothing is given up
                ticket = (
                    await file(session, await _ticket(session, episode, outcome, str(state)), now) if told else None
                )
            if ticket:
                await deliver_now(self._ledger, ticket.correlation, ticket.system, now=timing.now)
            if mine and run and todo == "cancelled":
                await give_state(client, run, Cancelled(message="it was cancelled, and its worker died"))
            self._dispatcher.look()  # a host may have come too late for it
        elif todo != "leave":
            async with self._ledger.writing() as session:
                mine = await start_again(session, episode, now, same_run=todo == "same run")
            if not mine:
                return
            logger.warning("the run of episode %s of %s is %s: it gets a run again", episode.id, episode.cluster, state)
            self._metrics.runs_started.labels("again").inc()
            if run and todo == "same run":
                await give_state(client, run, Scheduled(message="its worker died"))
            self._dispatcher.look()


def _stopped_here() -> bool:
    try:
        return bool(stop_file())
    except ConfigurationError:  # where it cannot be looked for nothing is changed either
        return True


async def _segments(client: PrefectClient) -> list[str]:
    with asking():
        pools = await client.read_work_pools(limit=PAGE)
    return [pool.name for pool in pools if pool.type == SEGMENTS]


async def _go_on(client: PrefectClient, decided: Sequence[Approval]) -> None:
    """Let runs go on for which a person has decided elsewhere than by the form, or nobody in time."""
    runs = await flow_runs(client, *(question.run for question in decided))
    for question in decided:
        run = runs.get(question.run)
        if run and run.state and run.state.is_paused() and run.state.state_details.pause_key == question.key:
            await give_state(client, run, Scheduled(message=f"{question.decision} by {question.by}"))


async def _ticket(session: AsyncSession, episode: Episode, outcome: Outcome, state: str) -> Filing:
    """What a person is told, once: it is about the episode.

    Args:
        episode: as it was before it was over.
    """
    what = "was cancelled" if outcome is Outcome.CANCELLED else "broke off, and nobody goes on with it"
    words = (
        f"Its run {what}. The flow run {run_of(episode)} of episode {episode.id} is {state}; runs of it were started "
        f"{episode.runs} time(s)"
    )
    known = await recorded(session, episode, outcome, acted=episode.acted)
    link = (url_for("flow-run", obj_id=run_of(episode)) if run_of(episode) else None) or ""
    return broken_off(known, PAGES[episode.alarm_id], words, link=link, source=f"episode/{episode.id}")
