"""Sweeps whose worker died go on: the intake finds them and has their runs begun anew, where they were."""

import asyncio
import logging

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Completed, Failed, Scheduled

from deployments.intake.prefect_server import PAGE, PrefectAway, asking, flow_runs, give_state
from tasks import timing
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import Ledger
from tasks.ledger.episodes import LEASE
from tasks.ledger.fleet_tables import Sweep
from tasks.ledger.starting import MOST_RUNS
from tasks.ledger.sweeping import broken_off, unended

FLOW = "sweep"
EVERY = LEASE.total_seconds()
BEGINNING = 2 * LEASE  # a run that is about to be carried out writes to the ledger sooner than that
AT_WORK = FlowRunFilter(
    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]))
)

logger = logging.getLogger("runbooks.intake")


class SweepKeeper:
    """Looks every half minute. One of several may run at the same time: a sweep begun twice is carried out once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def run(self) -> None:
        """Look until cancelled, however long Prefect or the ledger is away."""
        async with get_client() as client:
            while True:
                try:
                    await self.look(client)
                except (PrefectAway, LedgerUnavailable) as error:
                    logger.warning("sweeps are not looked after now: %s", error)
                await asyncio.sleep(EVERY)

    async def look(self, client: PrefectClient) -> None:
        """One look.

        Raises:
            PrefectAway, LedgerUnavailable: the rest is left for later.
        """
        with asking():
            by_name = FlowFilter(name=FlowFilterName(any_=[FLOW]))
            runs = await client.read_flow_runs(flow_filter=by_name, flow_run_filter=AT_WORK, limit=PAGE)
        for run in runs:
            await self._look_at(client, run)
        async with self._ledger.reading() as session:
            left = await unended(session, timing.now())
        known = await flow_runs(client, *(sweep.id for sweep in left))
        for sweep in left:
            run_ = known.get(sweep.id)
            if run_ is None or (run_.state and run_.state.is_final()):
                how = run_.state.name if run_ and run_.state else "deleted"
                async with self._ledger.writing() as session:
                    await broken_off(session, sweep.id, f"Broken off: its run is {how}.")

    async def _look_at(self, client: PrefectClient, run: FlowRun) -> None:
        now = timing.now()
        if run.state is None or run.deployment_id is None or now - run.state.timestamp < BEGINNING:
            return
        async with self._ledger.reading() as session:
            sweep = await session.get(Sweep, str(run.id))
        if sweep is not None and sweep.alive > now - LEASE and not sweep.ended:
            return
        if sweep is not None and sweep.ended:
            if sweep.ended > now - BEGINNING:  # the run is about to say so itself
                return
            await give_state(client, run, Completed(message=sweep.summary))
        elif sweep is not None and sweep.runs >= MOST_RUNS:
            await give_state(client, run, Failed(message=f"its worker died {sweep.runs} times: nobody goes on with it"))
        else:
            logger.warning("the worker of sweep %s died: it goes on where it was", run.id)
            await give_state(client, run, Scheduled(message="its worker died"))
