"""A Prefect worker that carries out segments of runs in its own process: `prefect worker start --type mrs-segments`.

A run of a runbook works for seconds and waits for minutes, so a process for each segment would cost more than what it
does. The flow is imported once, by its module path; nothing is pulled. A wait ends a segment (see `tasks.waits`), the
worker only carries out and drains. Runs whose worker died are found by the intake, whatever the worker's type.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect import Flow
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.exceptions import InfrastructureNotFound, ObjectNotFound, PrefectHTTPStatusError
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    PREFECT_WORKER_PREFETCH_SECONDS,
    PREFECT_WORKER_QUERY_SECONDS,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Cancelled
from prefect.workers.base import BaseJobConfiguration, BaseWorker, BaseWorkerResult

from deployments.ending import collect_less, give_back
from deployments.segments import Loops, Segment, carried_out
from tasks import timing
from tasks.claims import cancel_noted

LIMIT = 16  # segments at the same time, unless told otherwise
GARBAGE = (10_000, 10)  # of `collect_less`: what a handful of segments leaves behind is soon collected
MOST_AT_ONCE = 200  # that Prefect tells of
CANCELLED_EVERY = 2.0
EACH_SECOND = 1.0
POLLING = {"query_seconds": PREFECT_WORKER_QUERY_SECONDS, "prefetch_seconds": PREFECT_WORKER_PREFETCH_SECONDS}
KNOWN_FOR = 10.0  # seconds that a deployment's entrypoint is not asked for again
CANCELS = [StateType.CANCELLING, StateType.CANCELLED]
STOPS = (signal.SIGTERM, signal.SIGINT)
DRAIN = 600.0  # seconds that segments get to come to a wait or to an end when the worker is told to stop
NOBODY = Path(__file__).with_name("nobody.pem")
NOTHING_TO_TEMPLATE: dict[str, Any] = {
    "job_configuration": {"labels": {}},
    "variables": {"type": "object", "properties": {}},
}

logger = logging.getLogger("prefect.worker.mrs-segments")


class WrongDeployment(ValueError):
    """This worker cannot carry out what the run's deployment names; says why."""


class SegmentConfiguration(BaseJobConfiguration):
    """Nothing to configure: the server checks it for every run, so it is empty."""


class SegmentResult(BaseWorkerResult):
    """A segment has ended: at a wait, or at the end of its run, whose state tells how."""


class SegmentWorker(BaseWorker[SegmentConfiguration, Any, SegmentResult]):
    """See the module."""

    type = "mrs-segments"
    job_configuration = SegmentConfiguration
    _description = "Carries out the segments of the MRS runbooks in its own process."
    _display_name = "MRS runbook segments"

    def __init__(self, work_pool_name: str, **options: Any) -> None:
        super().__init__(work_pool_name, **{**options, "limit": options.get("limit") or LIMIT})
        self._segments: set[Segment] = set()
        self._loops = Loops()
        self._stopping = False
        self._flows: dict[str, Flow[..., Any]] = {}
        self._entrypoints: dict[UUID, tuple[float, str]] = {}

    @classmethod
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """The template of a new work pool of this type."""
        return NOTHING_TO_TEMPLATE

    async def run(
        self,
        flow_run: FlowRun,
        configuration: SegmentConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> SegmentResult:
        """Carry out one segment of the run, here."""
        where = f"{socket.gethostname()}:{os.getpid()}"
        flow = await self._flow_of(flow_run)
        segment = Segment(flow_run.id, self._loops.idlest(self._segments))
        work = carried_out(flow, flow_run, asyncio.get_running_loop(), segment)
        segment.future = asyncio.run_coroutine_threadsafe(work, segment.loop)
        self._segments.add(segment)
        try:
            await asyncio.wrap_future(segment.future)
        except asyncio.CancelledError:
            if not segment.cancelled:
                raise
            if segment.begun:
                await segment.ended.wait()
            words = "cancelled while it was at work: what it had begun may have been done"
            await self.client.set_flow_run_state(flow_run.id, Cancelled(message=words), force=True)
        finally:
            self._segments.remove(segment)
            if not self._segments:
                give_back()  # nobody is held up now, and runs that wait are to hold no memory
        return SegmentResult(status_code=0, identifier=where)

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        """As many runs as there are places for. Prefect's own asks for all that are due, each second."""
        places = min(int(self.limiter.available_tokens), MOST_AT_ONCE)
        if not places:
            return []
        asked = {
            "work_queue_names": list(self._work_queues),
            "scheduled_before": (timing.wall() + timedelta(seconds=self._prefetch_seconds)).isoformat(),
            "limit": places,
        }
        try:
            answer = await self.client.request(
                "POST",
                "/work_pools/{name}/get_scheduled_flow_runs",
                path_params={"name": self._work_pool_name},
                json=asked,
            )
        except PrefectHTTPStatusError as error:
            if error.response.status_code == 404:  # the next heartbeat makes the pool
                return []
            raise
        return WorkerFlowRunResponse.model_validate_list(answer.json())

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Instead of Prefect's, which makes eight requests for each run: where it runs, its labels, its configuration.

        The run counts as being submitted until its segment is over, so it is not taken twice; it never has a pid, so it
        can be cancelled whenever it waits.
        """
        if self._cancelling_observer is not None:  # cancelling is done here, see `_stop_cancelled`
            self._cancelling_observer.remove_in_flight_flow_run_id(flow_run.id)
        try:
            if not self._stopping and await self._propose_pending_state(flow_run):
                await self._ran(flow_run)
        finally:
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)

    async def _ran(self, flow_run: FlowRun) -> None:
        """Run it, and survive whatever becomes of it."""
        running = asyncio.ensure_future(self.run(flow_run, SegmentConfiguration()))
        try:
            await asyncio.wait({running})
        finally:
            running.cancel()
        if running.cancelled() or not (error := running.exception()):
            return
        logger.error("%s broke off in its worker: %s", flow_run.name, error, exc_info=error)
        if isinstance(error, WrongDeployment | ImportError | ObjectNotFound):
            await self._propose_crashed_state(flow_run, f"it cannot be run: {error}")

    async def _flow_of(self, flow_run: FlowRun) -> Flow[..., Any]:
        if flow_run.deployment_id is None:
            raise WrongDeployment("the run is of no deployment")
        now = asyncio.get_running_loop().time()
        known, entrypoint = self._entrypoints.get(flow_run.deployment_id, (0.0, ""))
        if not entrypoint or now - known > KNOWN_FOR:
            entrypoint = (await self.client.read_deployment(flow_run.deployment_id)).entrypoint or ""
            self._entrypoints[flow_run.deployment_id] = now, entrypoint
        if ":" in entrypoint or not entrypoint:
            raise WrongDeployment(
                f"the deployment's entrypoint is {entrypoint!r}: this worker imports flows by their module path, "
                "such as flows.alm_12110.alm_12110"
            )
        if entrypoint not in self._flows:
            self._flows[entrypoint] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
            collect_less(*GARBAGE)
        return self._flows[entrypoint]

    async def _stop_cancelled(self) -> None:
        """A person cancels: a segment that runs here is stopped where it is. Prefect's own way is a kill."""
        while True:
            await asyncio.sleep(CANCELLED_EVERY)
            if not self._segments or self._client is None:
                continue
            mine = FlowRunFilter(
                id=FlowRunFilterId(any_=[segment.run for segment in self._segments]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=CANCELS)),
            )
            try:
                cancelled = {run.id for run in await self.client.read_flow_runs(flow_run_filter=mine)}
            except (httpx.HTTPError, PrefectHTTPStatusError) as error:
                logger.warning("Prefect does not say which runs are cancelled: %s", error)
                continue
            for segment in list(self._segments):
                if segment.run in cancelled and segment.future and not segment.cancelled:
                    segment.cancelled = True
                    await cancel_noted(str(segment.run))  # Prefect's engine will call the run crashed
                    segment.future.cancel()

    async def kill_infrastructure(
        self, infrastructure_pid: str, configuration: SegmentConfiguration, grace_seconds: int = 30
    ) -> None:
        """A run that is not at work here has nothing to be killed."""
        raise InfrastructureNotFound(f"{infrastructure_pid} has no segment of this run")

    async def start(
        self,
        run_once: bool = False,
        with_healthcheck: bool = False,
        printer: Callable[..., None] = print,
    ) -> None:
        """As every worker; told to stop (SIGTERM, Ctrl-C) it takes nothing more and lets its segments come to a wait or
        an end first, for ten minutes at most. Told once more, it ends at once: the intake begins its runs anew."""
        loop, told = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            for each in STOPS:
                loop.remove_signal_handler(each)
            self._stopping = True
            told.set()

        self._loops.start()
        for each in STOPS:
            loop.add_signal_handler(each, stop)  # instead of Prefect's own, which cancels what runs in this process
        working = asyncio.create_task(self._work(run_once, with_healthcheck, printer))
        watching = asyncio.create_task(self._stop_cancelled())
        stopping = asyncio.create_task(told.wait())
        try:
            await asyncio.wait({working, watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if told.is_set() or watching.done():
                self._stopping = True
                printer(f"Worker {self.name!r} takes nothing more; {len(self._segments)} segments are waited for")
                await self._drained()
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
                printer(f"Worker {self.name!r} stopped!")
                if watching.done():  # of a mistake: without it nobody could cancel what runs here
                    await watching
            else:
                await working
        finally:
            for task in (working, watching, stopping):
                task.cancel()
            self._loops.stop()

    async def _work(self, run_once: bool, with_healthcheck: bool, printer: Callable[..., None]) -> None:
        """As every worker, but it looks for work each second unless told otherwise: alarms wait for it.

        Prefect reads the certificates of all authorities, 20 ms of CPU, for each of a segment's five clients. Where
        nothing is encrypted it reads one, whose key was thrown away: an address that turned out to be encrypted after
        all is trusted by nobody.
        """
        told = get_current_settings().worker.model_fields_set
        ours: dict[Any, Any] = {setting: EACH_SECOND for name, setting in POLLING.items() if name not in told}
        usual = PREFECT_WORKER_PREFETCH_SECONDS.value()
        if PREFECT_WORKER_PREFETCH_SECONDS in ours and self._prefetch_seconds == usual:
            self._prefetch_seconds = EACH_SECOND
        if not (PREFECT_API_URL.value() or "").startswith("https:"):
            ours[PREFECT_API_SSL_CERT_FILE] = str(NOBODY)
        with temporary_settings(ours):
            await super().start(run_once, with_healthcheck, printer)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take runs, unless the worker is being stopped; its health check still finds it well then."""
        if not self._stopping:
            return await super().get_and_submit_flow_runs()
        self._last_polled_time = timing.wall()
        return []

    async def _drained(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                while self._segments:
                    await asyncio.wait([asyncio.ensure_future(each.ended.wait()) for each in self._segments])
