"""Episodes become flow runs: each number of an episode one run, whoever asks for it and however often."""

import asyncio
import logging
from collections.abc import Mapping
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import AwaitingRetry

from deployments.intake.events import tell_episode
from deployments.intake.metrics import Metrics
from deployments.intake.prefect_server import PrefectAway, asking, flow_run
from tasks import timing
from tasks.errors import LedgerUnavailable
from tasks.ledger.approving import open_questions
from tasks.ledger.database import Ledger
from tasks.ledger.episodes import hosts_of_episode
from tasks.ledger.starting import run_key, started, to_start, to_wake, woken
from tasks.ledger.tables import Episode
from tasks.waits import cancelled_in_between

RUNBOOKS: Mapping[str, str] = {"12110": "alm-12110/from-alarms"}
AT_ONCE = 8  # runs being created at the same time
MOST_PER_ROUND = 200
LOOK_EVERY = 1.0  # seconds; an alarm that this process took in is not waited for
TRY_AGAIN = (1.0, 2.0, 5.0, 15.0)  # seconds, while Prefect does not answer
REFUSED_FOR = 10.0  # seconds until a run that Prefect refused is tried again
HOST_TAGS = 10

logger = logging.getLogger("runbooks.intake")


class Dispatcher:
    """Starts the runs of episodes, and passes clears on to runs that wait. One of several may run at the same time."""

    def __init__(self, ledger: Ledger, metrics: Metrics) -> None:
        self._ledger, self._metrics = ledger, metrics
        self._something = asyncio.Event()
        self._deployments: dict[str, UUID] = {}
        self._refused: dict[str, float] = {}
        self.trouble = ""

    def look(self) -> None:
        """There may be something to do: look now."""
        self._something.set()

    async def run(self) -> None:
        """Dispatch until cancelled, however long Prefect or the ledger is away."""
        async with get_client() as client:
            failures = 0
            while True:
                try:
                    full = await self.dispatch(client)
                    failures, self.trouble = 0, ""
                except (PrefectAway, LedgerUnavailable) as error:
                    if not failures:
                        logger.warning("no run can be started now, all that was accepted waits: %s", error)
                    self.trouble = str(error)
                    await asyncio.sleep(TRY_AGAIN[min(failures, len(TRY_AGAIN) - 1)])
                    failures += 1
                    continue
                if not full:
                    await self._wait()

    async def dispatch(self, client: PrefectClient) -> bool:
        """Start what is to be started, wake what is to be woken; True: there may be more at once.

        Raises:
            PrefectAway, LedgerUnavailable: something is left for later.
        """
        async with self._ledger.reading() as session:
            episodes = await to_start(session, MOST_PER_ROUND)
            waiting = await to_wake(session, timing.wall())
        self._metrics.unstarted.set(len(episodes))
        now = asyncio.get_running_loop().time()
        due = [episode for episode in episodes if self._refused.get(episode.id, 0) <= now]
        places, away = asyncio.Semaphore(AT_ONCE), asyncio.Event()

        async def one(episode: Episode) -> bool:
            async with places:
                if away.is_set():  # one that finds nobody is enough
                    return False
                try:
                    return await self._start(client, episode)
                except PrefectAway:
                    away.set()
                    raise

        results = await asyncio.gather(*(one(episode) for episode in due), return_exceptions=True)
        for episode in waiting:
            await self._wake(client, episode)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return len(episodes) == MOST_PER_ROUND and any(results)

    async def _start(self, client: PrefectClient, episode: Episode) -> bool:
        """Create the run, or find the one that the same key made before; False: Prefect refuses this one."""
        async with self._ledger.reading() as session:
            hosts = await hosts_of_episode(session, episode.id)
        try:
            with asking():
                run = await self._run_of(client, episode, hosts)
        except (ObjectNotFound, PrefectHTTPStatusError) as error:
            self._put_off(episode, error)
            return False
        async with self._ledger.writing() as session:
            mine = await started(session, episode.id, episode.n, str(run.id))
        if mine:
            lag = (timing.now() - episode.raised).total_seconds()
            self._metrics.dispatch_lag.observe(lag)
            self._metrics.runs_started.labels("created").inc()
            tell_episode("started", episode)
            logger.info("episode %s of %s has its run %s, %.1f s after it", episode.id, episode.cluster, run.name, lag)
        self._refused.pop(episode.id, None)
        return True

    async def _run_of(self, client: PrefectClient, episode: Episode, hosts: list[str]) -> FlowRun:
        """The one run of the episode's number. Texts of the alarm travel as tags, which Prefect takes as they are."""
        name = RUNBOOKS[episode.alarm_id]
        if name not in self._deployments:
            self._deployments[name] = (await client.read_deployment_by_name(name)).id
        return await client.create_flow_run_from_deployment(
            self._deployments[name],
            parameters={"cluster": episode.cluster},
            idempotency_key=run_key(episode.id, episode.n),
            name=f"ALM-{episode.alarm_id} {episode.cluster}",
            tags=[
                f"alarm:{episode.alarm_id}",
                f"cluster:{episode.cluster}",
                f"episode:{episode.id}",
                *(f"host:{host}" for host in hosts[:HOST_TAGS]),
            ],
        )

    def _put_off(self, episode: Episode, error: Exception) -> None:
        """Try again later what Prefect refuses, for a person may mend it; say so each time."""
        self._deployments.clear()
        self._metrics.dispatch_errors.labels("refused").inc()
        what = f"Prefect refuses it ({' '.join(str(error).split())})"
        if isinstance(error, ObjectNotFound):
            what = f"there is no deployment {RUNBOOKS[episode.alarm_id]!r}: deploy deployments/prefect.yaml"
        logger.error("episode %s of %s has no run, it is tried again: %s", episode.id, episode.cluster, what)
        self._refused[episode.id] = asyncio.get_running_loop().time() + REFUSED_FOR

    async def _wake(self, client: PrefectClient, episode: Episode) -> None:
        """Pass a clear on to the run, only if it waits: one that is being begun looks for itself, one that is dead is
        begun anew, one that a person has suspended is left so until he resumes it."""
        run = await flow_run(client, episode.holder)
        if not (run and run.state and (run.state.name == "AwaitingRetry" or await self._asks(run))):
            return
        try:
            with asking():
                await client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=timing.now()), force=True)
                await cancelled_in_between(client, run.id)
        except (ObjectNotFound, PrefectHTTPStatusError) as error:  # deleted meanwhile: the reconciler finds that out
            logger.warning("%s is not woken: %s", run.name, " ".join(str(error).split()))
            return
        logger.info("%s is woken: an alarm of episode %s was cleared", run.name, episode.id)
        async with self._ledger.writing() as session:
            await woken(session, episode)

    async def _asks(self, run: FlowRun) -> bool:
        """Whether the run has suspended itself to ask a person; one that a person has suspended asks nothing."""
        if run.state is None or not run.state.is_paused():
            return False
        async with self._ledger.reading() as session:
            asked = {question.key for question in await open_questions(session) if question.run == str(run.id)}
        return run.state.state_details.pause_key in asked

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY):
                await self._something.wait()
        except TimeoutError:
            pass
        self._something.clear()
