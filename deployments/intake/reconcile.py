"""What repairs the losses between the ledger and Prefect: runs that died or are gone, episodes that are through."""

import asyncio
import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Scheduled

from deployments.intake.dispatch import Dispatcher
from deployments.intake.events import tell_episode
from deployments.intake.metrics import Metrics
from deployments.intake.prefect_server import PAGE, PrefectAway, asking, flow_runs
from tasks import waits
from tasks.errors import ConfigurationError, LedgerUnavailable
from tasks.ledger.database import Ledger
from tasks.ledger.episodes import close_verified
from tasks.ledger.receiving import intake_alive, prune
from tasks.ledger.starting import MOST_RUNS, give_up, overdue, start_again, suspects
from tasks.ledger.tables import Episode
from tasks.models import Outcome
from tasks.tickets import store

EVERY = 10.0
PRUNE_EVERY = timedelta(hours=6)
FIRST_PAUSE = timedelta(seconds=30)  # before a dead run is started again; doubled each time
STARTING = timedelta(minutes=10)  # a run that starts, or is being cancelled, for longer has lost its worker
BEGINNING = timedelta(seconds=30)  # a flow takes its episode within seconds of being Running

logger = logging.getLogger("runbooks.intake")

Verdict = Literal["leave", "same run", "next run", "give up", "cancelled", "done"]
SEGMENTS = "mrs-segments"  # the type of our own worker, deployments/worker.py
ENDS = frozenset(Outcome) - {Outcome.JOINED, Outcome.DRY_RUN}


def verdict(episode: Episode, run: FlowRun | None, now: datetime, *, segments: Collection[str] = ()) -> Verdict:
    """What is to be done about an episode whose run may be dead.

    Args:
        segments: names of the work pools of our own worker, which begins a run at once or never.

    A run that ended with a word of ours is through. Any other is begun anew a few times, ever more slowly: the same run
    if it can be, for it goes on where it was. Only one that changed nothing is followed by the episode's next.
    """
    state = run.state.type if run and run.state else None
    if state is StateType.CANCELLED:
        return "cancelled"
    if episode.state != "raised" and run and run.state and run.state.is_final() and run.state.name in ENDS:
        return "done"  # it came to its end, and could not write so
    if state in (StateType.SCHEDULED, StateType.PAUSED):
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

    async def run(self) -> None:
        """Reconcile until cancelled, however long Prefect or the ledger is away."""
        async with get_client() as client:
            while True:
                try:
                    await self.reconcile(client)
                except (PrefectAway, LedgerUnavailable, ConfigurationError) as error:
                    logger.warning("nothing can be reconciled now: %s", error)
                await asyncio.sleep(EVERY)

    async def reconcile(self, client: PrefectClient) -> None:
        """One look.

        Raises:
            PrefectAway, LedgerUnavailable: the rest is left for later.
        """
        now = waits.now()
        async with self._ledger.writing() as session:
            await intake_alive(session, self._intake, now)
            closed = await close_verified(session, now)
            if self._pruned is None or now - self._pruned > PRUNE_EVERY:
                await prune(session, now)
                self._pruned = now
            dubious = await suspects(session, now)
            self._metrics.overdue_wait.set((await overdue(session, now)).total_seconds())
        for episode in closed:
            tell_episode("closed", episode)
            logger.info("episode %s of %s is closed: %s", episode.id, episode.cluster, episode.outcome)
        runs = await flow_runs(client, *(map(run_of, dubious)))
        segments = await _segments(client) if dubious else []
        for episode in dubious:
            if verdict(episode, runs.get(run_of(episode)), waits.now(), segments=segments) != "leave":
                await self._settle(client, episode, segments)

    async def _settle(self, client: PrefectClient, episode: Episode, segments: Collection[str]) -> None:
        """Look once more, for the other looks may have taken their time, and do what is to be done."""
        run = (await flow_runs(client, run_of(episode))).get(run_of(episode))
        now = waits.now()
        todo = verdict(episode, run, now, segments=segments)
        state = run.state.name if run and run.state else "deleted"
        if todo in ("give up", "cancelled", "done"):
            outcome = {"cancelled": Outcome.CANCELLED, "give up": Outcome.ERROR}.get(todo) or Outcome(str(state))
            async with self._ledger.writing() as session:
                mine = await give_up(session, episode, outcome, now)
                if mine and todo != "done":  # what is done has its ticket; without a ticket nothing is given up
                    _ticket(episode, outcome, str(state))
            self._dispatcher.look()  # a host may have come too late for it
        elif todo != "leave":
            async with self._ledger.writing() as session:
                mine = await start_again(session, episode, now, same_run=todo == "same run")
            if not mine:
                return
            logger.warning("the run of episode %s of %s is %s: it gets a run again", episode.id, episode.cluster, state)
            self._metrics.runs_started.labels("again").inc()
            if run and todo == "same run":
                await _schedule(client, run)
            self._dispatcher.look()


async def _segments(client: PrefectClient) -> list[str]:
    with asking():
        pools = await client.read_work_pools(limit=PAGE)
    return [pool.name for pool in pools if pool.type == SEGMENTS]


async def _schedule(client: PrefectClient, run: FlowRun) -> None:
    try:
        with asking():
            await client.set_flow_run_state(run.id, Scheduled(message="its worker died"), force=True)
    except (ObjectNotFound, PrefectHTTPStatusError) as error:  # the next look finds out what became of it
        logger.warning("%s is not scheduled anew: %s", run.name, " ".join(str(error).split()))


def _ticket(episode: Episode, outcome: Outcome, state: str) -> None:
    """A person is told, once: the ticket's correlation is the episode."""
    what = "was cancelled" if outcome is Outcome.CANCELLED else "broke off, and nobody goes on with it"
    body = (
        f"# ALM-{episode.alarm_id} on {episode.cluster}: its run {what}\n\n"
        f"The flow run {run_of(episode)} of episode {episode.id} is {state}; runs of it were started "
        f"{episode.runs} time(s). {'It may have changed something before: look' if episode.acted else 'Look'} at the "
        "run's log, and at Manager's and the console's operation logs, before you repeat anything. Then see whether "
        "the alarm is active, and start the runbook by hand.\n"
    )
    store(
        f"{episode.cluster}/{episode.alarm_id}/episode/{episode.id}",
        f"ALM-{episode.alarm_id} {episode.cluster}: {outcome}",
        body,
    )
