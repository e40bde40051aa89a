"""A run that waits is a row, under our worker and under any other, and a person can do with it what Prefect offers."""

import asyncio
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.states import Cancelling, Scheduled
from sqlalchemy import select

from deployments.emulator.region import Region
from tasks import timing
from tasks.ledger.evidence_tables import EvidenceRow
from tasks.ledger.tables import Episode, Wait
from tests.crash.stand import Cell, Stand, until

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("crash"), pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
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


async def deadline_of(stand: Stand, run: FlowRun) -> datetime:
    """The deadline of the run's wait after its bind."""
    async with stand.ledger.reading() as session:
        mine = select(Wait.deadline).where(Wait.attempt.startswith(f"{run.id}@"), Wait.step == "6")
        return (await session.scalars(mine)).one()


def changed_in(path: Path, old: str, new: str) -> None:
    """Change this in a file, where it is said once."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


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


async def test_a_run_goes_on_in_changed_code(standing: Stand, cell: Cell, tmp_path: Path) -> None:
    """Deployed anew with changed code while it waits, the run does nothing again and goes on in the new code."""
    for name in ("flows", "tasks", "deployments"):
        shutil.copytree(ROOT / name, tmp_path / name)
    changed_in(tmp_path / "tasks" / "instances.py", '"""Restart one host', '"""In other words: restart one host')
    changed_in(tmp_path / "tasks" / "agencies.py", '"seen": words,', '"seen": f"{words}, says the new code",')

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await until_it_waits(standing, run)
        cell.worker.options = {"cwd": tmp_path}
        old = cell.worker.process
        assert old
        cell.worker.signal(signal.SIGTERM)
        assert await old.wait() == 0
        deploy = ("-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        process = await asyncio.create_subprocess_exec(
            sys.executable, *deploy, cwd=tmp_path, env=cell.worker.environment, stdout=subprocess.DEVNULL
        )
        assert await process.wait() == 0

    try:
        ended = await cell.run("crashed+unbound", seed=770, speed=30.0, meanwhile=meanwhile)
    finally:
        cell.worker.options = {}
        cell.worker.signal(signal.SIGTERM)
    assert (ended.trace, ended.tickets) == ("1 2n 3n 4 5n 6y END", 0)
    assert [action for action, _ in ended.changes] == ["restart-instance", *["set-metadata"] * 3]
    async with standing.ledger.reading() as session:
        mine = select(EvidenceRow).where(EvidenceRow.attempt.startswith(f"{ended.run}@")).order_by(EvidenceRow.n)
        lines = (await session.scalars(mine)).all()
    assert [line.step for line in lines if line.text.endswith("says the new code")] == ["5"]
    assert [line.kind for line in lines if line.step == "3" and line.text.startswith("restarted")] == ["did"]


async def test_nobody_is_there_at_the_deadline(standing: Stand, cell: Cell) -> None:
    """A clear wakes no run, for the intake stands still, and the deadline none, for the worker does; it ends right."""
    intake = standing.processes["intake"]

    async def meanwhile(run: FlowRun, region: Region) -> None:
        keys_come_late(region)
        waiting = await until_it_waits(standing, run)
        cell.worker.signal(signal.SIGSTOP)
        intake.signal(signal.SIGSTOP)
        left = await deadline_of(standing, run) - timing.wall()
        await asyncio.sleep(left.total_seconds() + 3)
        found = await standing.client.read_flow_run(run.id)
        assert (found.state and found.state.name, found.run_count) == ("AwaitingRetry", waiting.run_count)
        cell.worker.signal(signal.SIGCONT)

    try:
        ended = await cell.run("unbound", seed=780, speed=SLOW, meanwhile=meanwhile)
    finally:
        intake.signal(signal.SIGCONT)
        cell.worker.signal(signal.SIGCONT)
    assert (ended.trace, len(ended.changes), ended.tickets) == ("1 2y 4 5n 6y END", 3, 0)


async def test_a_run_that_is_woken_twice_and_for_nothing_waits_on(standing: Stand, cell: Cell) -> None:
    """Woken twice at once though nothing was cleared, the run waits on to the same deadline and binds nothing again."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        keys_come_late(region)
        count = (await until_it_waits(standing, run)).run_count
        first = await deadline_of(standing, run)
        await asyncio.gather(*(standing.client.set_flow_run_state(run.id, Scheduled(), force=True) for _ in range(2)))

        async def begun_anew() -> bool:
            return (await standing.client.read_flow_run(run.id)).run_count > count

        await until(begun_anew)
        again = await until_it_waits(standing, run)
        assert (again.run_count, again.next_scheduled_start_time) == (count + 1, first)

    ended = await cell.run("unbound", seed=790, speed=SLOW, meanwhile=meanwhile)
    assert (ended.trace, len(ended.changes), ended.tickets) == ("1 2y 4 5n 6y END", 3, 0)


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
