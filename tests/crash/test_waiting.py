"""A run that waits is a row, under our worker and under any other, and a person can do with it what Prefect offers."""

import asyncio
import signal
import subprocess
import sys
from uuid import UUID

import pytest
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.states import Cancelling, Scheduled
from sqlalchemy import select

from deployments.emulator.region import Region
from tasks import timing
from tasks.ledger.tables import Episode, Wait
from tests.crash.stand import Cell, Stand, until

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("crash"), pytest.mark.timeout(600)]

SLOW = 15.0  # at this speed the wait after a restart takes 40 s, that after a bind 60 s


def keys_come_late(region: Region) -> None:
    """A bind takes effect only five minutes later, so that Meta does not clear the alarm before the run waits."""
    (cluster,) = region.clusters.values()
    region.set_fault("agency-slow", cluster=cluster, seconds=300)


async def until_it_waits(stand: Stand, run: FlowRun) -> FlowRun:
    """The run as it is while it waits."""

    async def waits_now() -> bool:
        found = await stand.client.read_flow_run(run.id)
        return found.state is not None and found.state.name == "AwaitingRetry"

    await until(waits_now)
    return await stand.client.read_flow_run(run.id)


async def episode_of(stand: Stand, region: Region) -> Episode:
    """The cluster's episode."""
    (cluster,) = region.clusters.values()
    async with stand.ledger.reading() as session:
        return (await session.scalars(select(Episode).where(Episode.cluster_id == cluster.id))).one()


async def until_closed(stand: Stand, region: Region) -> None:
    """Return as soon as the cluster's episode is over."""

    async def closed() -> bool:
        return (await episode_of(stand, region)).state == "closed"

    await until(closed)


async def test_a_wait_is_a_row_and_a_clear_ends_it(standing: Stand, cell: Cell) -> None:
    """The run waits without process, lease or error in its log; a clear wakes it long before its deadline."""
    seen: list[tuple[object, ...]] = []

    async def meanwhile(run: FlowRun, region: Region) -> None:
        keys_come_late(region)
        waiting = await until_it_waits(standing, run)
        await asyncio.sleep(0.5)
        episode = await episode_of(standing, region)
        seen.append((waiting.infrastructure_pid, episode.state, episode.lease, episode.holder == str(run.id)))

    ended = await cell.run("unbound", seed=700, speed=SLOW, meanwhile=meanwhile)
    assert (ended.trace, ended.tickets) == ("1 2y 4 5n 6y END", 0)
    assert seen == [(None, "waiting", None, True)]
    async with standing.ledger.reading() as session:
        mine = select(Wait).where(Wait.attempt.startswith(f"{ended.run}@"), Wait.step == "6")
        wait = (await session.scalars(mine)).one()
    assert wait.ended is not None
    assert (wait.deadline - wait.ended).total_seconds() > 5
    errors = await standing.client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[ended.run])))
    assert [log.message for log in errors if log.level >= 40] == []
    assert [log.message.split(":")[0] for log in errors if log.message.startswith("step 5")] == ["step 5, node-master1"]


async def test_a_waiting_run_can_be_cancelled(standing: Stand, cell: Cell) -> None:
    """Cancelled in the UI while it waits, it is Cancelled at once, its episode ends so, and there is one ticket."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await until_it_waits(standing, run)
        await standing.client.set_flow_run_state(run.id, Cancelling())
        await until_closed(standing, region)

    ended = await cell.run("wedged", seed=710, speed=SLOW, meanwhile=meanwhile)
    assert (ended.outcome, ended.tickets, len(ended.changes)) == ("Cancelled", 1, 1)


async def test_a_run_at_work_can_be_cancelled(standing: Stand, cell: Cell) -> None:
    """Cancelled while our worker is at it, it stops there, is Cancelled, and a person gets one ticket."""

    async def meanwhile(run: FlowRun, region: Region) -> None:

        async def has_bound() -> bool:
            return bool(region.log)

        await until(has_bound)
        await standing.client.set_flow_run_state(run.id, Cancelling())
        await until_closed(standing, region)

    ended = await cell.run("unbound+metadata-down", seed=720, speed=SLOW, meanwhile=meanwhile)
    assert (ended.outcome, ended.tickets) == ("Cancelled", 1)


async def test_a_run_suspended_at_work_goes_on_where_it_was(standing: Stand, cell: Cell) -> None:
    """Suspended in the UI in the middle of a bind and resumed, the run changes nothing twice and comes to its end."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        async def has_bound() -> bool:
            return bool(region.log)

        async def let_go() -> bool:
            lease = (await episode_of(standing, region)).lease
            return lease is None or lease < timing.wall()

        await until(has_bound)
        await suspend_flow_run(flow_run_id=run.id, timeout=3600)  # type: ignore[misc]  # as in all of Prefect's
        await until(let_go)
        await resume_flow_run(run.id)  # type: ignore[misc]

    ended = await cell.run("unbound", seed=750, speed=SLOW, meanwhile=meanwhile)
    assert (ended.trace, len(ended.changes), ended.tickets) == ("1 2y 4 5n 6y END", 3, 0)


async def test_a_run_that_is_retried_after_its_end_begins_nothing_anew(standing: Stand, cell: Cell) -> None:
    """Retried in the UI after its end, a run of an alarm's finds its episode done and joins it; nothing is changed."""
    ended = await cell.run("crashed", seed=760)
    assert ended.trace == "1 2n 3y END"
    await standing.client.set_flow_run_state(UUID(ended.run), Scheduled(), force=True)

    async def joined() -> bool:
        found = await standing.client.read_flow_run(UUID(ended.run))
        return found.state is not None and found.state.name == "JOINED"

    await until(joined)


async def test_a_worker_that_is_told_to_stop_comes_to_a_wait_first(standing: Stand, cell: Cell) -> None:
    """SIGTERM in the middle of a bind: the segment comes to its wait, the worker ends with 0, and another goes on."""
    codes: list[int | None] = []

    async def meanwhile(run: FlowRun, region: Region) -> None:
        keys_come_late(region)

        async def has_bound() -> bool:
            return bool(region.log)

        await until(has_bound)
        process = cell.worker.process
        assert process
        cell.worker.signal(signal.SIGTERM)
        codes.append(await process.wait())
        found = await standing.client.read_flow_run(run.id)
        assert (found.state and found.state.name, len(region.log)) == ("AwaitingRetry", 3)

    ended = await cell.run("unbound", seed=740, speed=SLOW, meanwhile=meanwhile)
    assert (ended.trace, ended.tickets, codes) == ("1 2y 4 5n 6y END", 0, [0])


async def test_a_plain_worker_carries_it_out_too(standing: Stand) -> None:
    """What process, Docker and Kubernetes workers start for a run, a process for each segment, leaves the same."""
    async with standing.cell("plain") as cell:
        await cell.worker.__aexit__()
        executed = 0

        async def meanwhile(run: FlowRun, region: Region) -> None:
            nonlocal executed
            environment = {**cell.worker.environment}
            while True:
                found = await standing.client.read_flow_run(run.id)
                if found.state and found.state.is_final():
                    return
                due = found.next_scheduled_start_time
                if found.state and found.state.type is StateType.SCHEDULED and due and due <= timing.wall():
                    executed += 1
                    command = (sys.executable, "-m", "prefect", "flow-run", "execute", str(run.id))
                    process = await asyncio.create_subprocess_exec(
                        *command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                    )
                    assert await process.wait() == 0
                await asyncio.sleep(0.3)

        ended = await cell.run("crashed+unbound", seed=730, speed=30.0, meanwhile=meanwhile)
        assert (ended.trace, ended.tickets) == ("1 2n 3n 4 5n 6y END", 0)
        assert executed >= 2
