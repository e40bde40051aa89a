"""Sweeps whose worker died: their runs are begun anew, a few times, and those that are gone are broken off."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Pending, Running, Scheduled

from deployments.intake.sweep_keeper import BEGINNING, FLOW, SweepKeeper
from flows.sweep import sweep
from tasks import timing
from tasks.ledger.database import Ledger
from tasks.ledger.fleet_tables import Sweep
from tasks.ledger.starting import MOST_RUNS
from tasks.ledger.sweeping import end_sweep, still_at_it, take_sweep
from tests.intake.test_reconcile import Later

pytestmark = [pytest.mark.server, pytest.mark.anyio]
SECOND = timedelta(seconds=1)


class Kept:
    """A sweep's run in Prefect, its row in the ledger, and one who looks after them."""

    def __init__(self, client: PrefectClient, ledger: Ledger, deployment: UUID) -> None:
        self.client, self.ledger, self.deployment = client, ledger, deployment
        self.keeper, self.run = SweepKeeper(ledger), uuid4()

    async def begin(self, state: State[Any], *, row: bool = True, runs: int = 1) -> None:
        """A run in this state, and a process that is at the sweep, for so many times."""
        made = await self.client.create_flow_run_from_deployment(self.deployment)
        self.run = made.id
        await self.client.set_flow_run_state(made.id, state, force=True)
        async with self.ledger.writing() as session:
            for n in range(runs if row else 0):
                now = timing.wall() - timedelta(hours=1) * (runs - 1 - n)
                await take_sweep(session, str(made.id), (), remediate=False, holder=f"worker-{n}", now=now)

    async def looked(self, ahead: timedelta = BEGINNING + SECOND) -> tuple[str, str]:
        """One look, by a clock that is so far ahead: the run's state then, and the sweep's summary."""
        token = timing.clock.set(Later(ahead))
        try:
            await self.keeper.look(self.client)
        finally:
            timing.clock.reset(token)
        state = (await self.client.read_flow_run(self.run)).state
        async with self.ledger.reading() as session:
            row = await session.get(Sweep, str(self.run))
        return state.name or "" if state else "", row.summary if row else ""


@pytest.fixture
async def kept(client: PrefectClient, ledger: Ledger) -> AsyncIterator[Kept]:
    """A deployment of the sweep, of which all runs end with the test."""
    flow = await client.create_flow(sweep)
    deployment = await client.create_deployment(flow, name=f"keeper-{uuid4()}", entrypoint="flows.sweep.sweep")
    found = Kept(client, ledger, deployment)
    yield found
    await client.delete_deployment(deployment)


def test_the_flow_is_found_by_its_name() -> None:
    """The keeper looks after the runs of the flow that there is."""
    assert sweep.name == FLOW


@pytest.mark.parametrize("state", [Running(), Pending()])
@pytest.mark.parametrize("row", [True, False])
async def test_a_dead_sweep_is_begun_anew(kept: Kept, state: State[Any], row: bool) -> None:
    """A run whose worker is silent for a minute is scheduled again, also if it never came to write a word."""
    await kept.begin(state, row=row)
    assert (await kept.looked(timedelta(0)), await kept.looked()) == ((state.name, ""), ("Scheduled", ""))
    assert await kept.looked(timedelta(hours=1)) == ("Scheduled", "")


async def test_a_living_sweep_is_left_alone(kept: Kept) -> None:
    """A run whose process says that it lives is left alone, however long it takes."""
    await kept.begin(Running())
    async with kept.ledger.writing() as session:
        await still_at_it(session, str(kept.run), "worker-0", timing.wall() + timedelta(hours=1))
    assert await kept.looked(timedelta(hours=1)) == ("Running", "")


async def test_a_sweep_that_has_ended_is_said_to_have(kept: Kept) -> None:
    """A run whose worker died after the sweep's last word gets its last state, not before it may say so itself."""
    await kept.begin(Running())
    async with kept.ledger.writing() as session:
        await end_sweep(session, str(kept.run), "No findings.", timing.wall())
    soon, late = await kept.looked(BEGINNING - SECOND), await kept.looked()
    assert (soon, late) == (("Running", "No findings."), ("Completed", "No findings."))


async def test_a_sweep_that_dies_again_and_again_is_given_up(kept: Kept) -> None:
    """After five deaths a run is failed, and the sweep is broken off."""
    await kept.begin(Running(), runs=MOST_RUNS)
    await kept.looked()
    assert await kept.looked() == ("Failed", "Broken off: its run is Failed.")


@pytest.mark.parametrize("state", [Cancelled(), Scheduled()])
async def test_a_sweep_whose_run_is_over_is_broken_off(kept: Kept, state: State[Any]) -> None:
    """A sweep whose run a person cancelled is broken off; one whose run is scheduled is not."""
    await kept.begin(state)
    words = "Broken off: its run is Cancelled." if state.name == "Cancelled" else ""
    assert await kept.looked() == (state.name, words)


async def test_a_sweep_whose_run_is_deleted_is_broken_off(kept: Kept, ledger_file: Path) -> None:
    """A sweep whose run is gone from Prefect is broken off."""
    await kept.begin(Running())
    await kept.client.delete_flow_run(kept.run)
    token = timing.clock.set(Later(BEGINNING))
    try:
        await kept.keeper.look(kept.client)
    finally:
        timing.clock.reset(token)
    async with kept.ledger.reading() as session:
        assert (await session.get_one(Sweep, str(kept.run))).summary == "Broken off: its run is deleted."
