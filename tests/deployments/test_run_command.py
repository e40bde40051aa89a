"""`runbooks run` as a person runs it: against a real Prefect server and worker, on clusters of the emulated region."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Scheduled

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.scenarios import break_cluster, give_an_agency
from deployments.stack import prefect_stack
from tasks.loading import cluster_block as block_named
from tests.deployments.conftest import COMMAND, Ended, environment
from tests.intake.conftest import until
from tests.intake.standing import eventually

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.timeout(600), pytest.mark.xdist_group("demo")]

SPEED, EARLIER = 60.0, timedelta(minutes=25)
HOST = "node-master1"
CRASHED, WELL = 4, 1  # clusters: one for each test that needs one
LINE = re.compile(r"\d\d:\d\d:\d\d  (.*)")


@dataclass
class Stand:
    """Prefect with a worker, and a region in which alarms are active already; no intake, so nobody else starts runs."""

    client: PrefectClient
    api: str
    region: Region
    fresh: list[EmulatedCluster]

    def take(self, *, alarmed: bool = True) -> EmulatedCluster:
        """A cluster that no test has had: its Meta instance has crashed, or nothing is wrong with it."""
        cluster = next(each for each in self.fresh if bool(each.alarms) == alarmed)
        self.fresh.remove(cluster)
        return cluster

    def changes(self, cluster: EmulatedCluster) -> list[tuple[str, str]]:
        """What was changed in a cluster."""
        return [(entry.action, entry.target) for entry in self.region.log if entry.cluster == cluster.id]

    async def runs(self, cluster: EmulatedCluster) -> list[FlowRun]:
        """Its flow runs."""
        mine = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"cluster:{cluster.name}"]))
        return await self.client.read_flow_runs(flow_run_filter=mine)

    async def until(self, run: FlowRun, holds: Callable[[State[Any]], bool]) -> State[Any]:
        """The run's state, as soon as this holds for it."""

        async def look() -> State[Any] | None:
            state = (await self.client.read_flow_run(run.id)).state
            return state if state and holds(state) else None

        found: State[Any] = await eventually(look, seconds=120)
        return found


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The stand lives as long as the module's tests, on one event loop."""
    return "asyncio"


@pytest.fixture(scope="module")
async def stand(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """Everything but the command."""
    folder = tmp_path_factory.mktemp("run-command")
    region = Region(clusters=CRASHED + WELL, meta_hosts=1, start=datetime.now(UTC) - EARLIER)
    for n, cluster in enumerate(region.clusters.values()):
        give_an_agency(region, cluster)
        if n < CRASHED:
            break_cluster(region, cluster, "crashed")
    region.advance(EARLIER.total_seconds())
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RUNBOOKS_HOME", str(folder / "runbooks"))
        patched.setenv("RUNBOOKS_LEDGER_URL", "")
        patched.setenv("RUNBOOKS_BREAKER", "off")
        async with prefect_stack(folder, lambda _: None) as (api, _), get_client() as client:
            ready: asyncio.Queue[int] = asyncio.Queue()
            serving = asyncio.create_task(serve(region, speed=SPEED, ready=ready.put_nowait))
            url = f"http://127.0.0.1:{await ready.get()}"
            for cluster in region.clusters.values():
                blocks = manager_block(cluster, url), cloud_block(region, url)
                await cluster_block(cluster, *blocks, speed=SPEED).save(cluster.name)
            yield Stand(client, api, region, [*region.clusters.values()])
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


Run = Callable[..., Awaitable[Ended]]


@pytest.fixture
def run(stand: Stand, tmp_path: Path) -> Run:
    """`await run("alpha", "--no-dry-run")`; `at_first_step` is called while the command goes on."""

    async def carry_out(*arguments: str, at_first_step: Callable[[], Awaitable[Any]] | None = None) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(COMMAND, "run", *arguments),
            env=environment(tmp_path, PREFECT_API_URL=stand.api, LOGNAME="ada"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        out = b""
        try:
            async with asyncio.timeout(240):
                while line := await process.stdout.readline():
                    out += line
                    if at_first_step and b"  step " in line:
                        await at_first_step()
                        at_first_step = None
                err = await process.stderr.read()
                return Ended(await process.wait(), out.decode(), err.decode())
        finally:
            with suppress(ProcessLookupError):
                process.kill()

    return carry_out


def steps(ended: Ended) -> list[str]:
    """What it said of the run's steps, without the times."""
    said = (found[1] for line in ended.out.splitlines() if (found := LINE.match(line)))
    return [line for line in said if line.startswith("step ")]


async def test_a_dry_run_is_watched(stand: Stand, run: Run) -> None:
    """Unless told otherwise nothing is changed: it shows the questions, the plan and the trace; nobody is needed."""
    cluster = stand.take()
    ended = await run(cluster.name, "--comment", "what would you do?")
    (made,) = await stand.runs(cluster)
    first, *_, last = ended.out.splitlines()
    assert first == f"run {made.id} of {cluster.name} (dry run, nothing is changed)"
    assert last == f"DRY-RUN. {HOST}: 1 2n DRY-RUN"
    assert (ended.code, ended.err, stand.changes(cluster)) == (0, "", [])
    assert any("would restart" in step for step in steps(ended))
    comment = {"cluster": cluster.name, "host": "", "dry_run": True, "comment": "what would you do?"}
    assert (made.parameters, "started-by:ada" in made.tags) == (comment, True)


async def test_a_repair_is_watched_as_it_goes(stand: Stand, run: Run) -> None:
    """With --no-dry-run what the block allows is done; each line comes once, in order, while the run is at it."""
    cluster = stand.take()
    seen: list[FlowRun] = []

    async def look() -> None:
        seen.extend(await stand.runs(cluster))

    ended = await run(cluster.name, "--host", HOST, "--no-dry-run", "--by", "Grace", at_first_step=look)
    ((going,), (made,)) = seen, await stand.runs(cluster)
    assert (going.id, going.state and going.state.is_final()) == (made.id, False)
    said = steps(ended)
    numbers = [step.partition(",")[0] for step in said]
    assert (numbers, set(numbers)) == (sorted(numbers), {"step 1", "step 2", "step 3"})
    assert len(set(said)) == len(said)
    assert "waits until " in ended.out
    first, *_, last = ended.out.splitlines()
    assert (first, last) == (f"run {made.id} of {cluster.name} (not a dry run)", f"END. {HOST}: 1 2n 3y END")
    assert (ended.code, ended.err, stand.changes(cluster)) == (0, "", [("restart-instance", HOST)])
    assert "started-by:Grace" in made.tags


async def test_a_run_joins_the_one_that_is_at_work(stand: Stand, run: Run) -> None:
    """Detached it ends at once; a second one on the cluster ends as JOINED and names the first; only that one acts;
    a dry run names it first, and says for what it waits."""
    cluster = stand.take()
    block = await block_named(cluster.name)
    patient = block.model_copy(update={"wait_after_restart": 4 * 3600.0})  # it waits until it is woken, below
    await patient.save(cluster.name, overwrite=True)
    detached = await run(cluster.name, "--no-dry-run", "--detach")
    (first,) = await stand.runs(cluster)
    assert (detached.code, detached.out.splitlines()[0].split()[1]) == (0, str(first.id))
    await stand.until(first, lambda state: state.name == "AwaitingRetry")
    joined = await run(cluster.name, "--no-dry-run")
    last = joined.out.splitlines()[-1]
    assert (joined.code, last.startswith("JOINED. "), str(first.id) in last) == (0, True, True)
    dry = await run(cluster.name)
    other = rf"run \S+{first.id} is at this cluster since \S+ \S+ UTC, and waits for step 3, until \S+ \S+ UTC"
    said = [found[1] for line in dry.out.splitlines() if (found := LINE.match(line))]
    seen = [
        line for line in said if line.startswith("step ") or ": no active alarm: " in line or " is at this " in line
    ]
    assert re.fullmatch(rf"\(the cluster\): before anything else: {other}", seen[0])
    assert re.fullmatch(rf"[A-Z-]+\. .*\. Meanwhile {other}", dry.out.splitlines()[-1])
    await until(lambda: all(alarm.status == "Auto" for alarm in cluster.alarms), seconds=60)
    await stand.client.set_flow_run_state(first.id, Scheduled(), force=True)  # as the intake does then
    ended = await stand.until(first, lambda state: state.is_final())
    assert (ended.name, stand.changes(cluster)) == ("END", [("restart-instance", HOST)])


async def test_a_person_who_is_needed_is_an_exit_code(stand: Stand, run: Run) -> None:
    """Where the run ends so that somebody must look, the exit code is 1 and the last line names the ticket."""
    cluster = stand.take()
    block = await block_named(cluster.name)
    await block.model_copy(update={"mode": "observe"}).save(cluster.name, overwrite=True)
    ended = await run(cluster.name, "--no-dry-run")
    assert (ended.code, stand.changes(cluster)) == (1, [])
    assert re.fullmatch(rf"REFUSED\. {HOST}: 1 2n REFUSED\. Ticket T-\w+", ended.out.splitlines()[-1])


async def test_without_an_alarm_it_says_how_the_cluster_is(stand: Stand, run: Run) -> None:
    """No alarm is active: it says so, and how the instances and the binding are; nobody is needed."""
    cluster = stand.take(alarmed=False)
    ended = await run(cluster.name)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "CLEARED. There is no active alarm"
    said = [found[1] for line in ended.out.splitlines() if (found := LINE.match(line))]
    agency = f"MRS_ECS_AGENCY_{cluster.name}"
    assert [line.partition(": no active alarm: ")[2] for line in said if ": no active alarm: " in line] == [
        f"meta instances: 'Normal' on {HOST}",
        f"agency in the ECS metadata of 3 nodes: {agency} on 3; the cluster's record names {agency}; "
        f"{agency} exists in IAM and trusts ECS",
    ]


async def test_an_unknown_cluster_starts_nothing(stand: Stand, run: Run) -> None:
    """A cluster without a block is exit code 2 and one sentence that says what to do; no run is made."""
    before = len(await stand.client.read_flow_runs())
    ended = await run("nobody", "--no-dry-run")
    advice = "make it in the Prefect UI under Blocks > MRS Cluster, or check the spelling"
    assert ended == Ended(2, "", f"error: there is no cluster 'nobody': {advice}\n")
    assert len(await stand.client.read_flow_runs()) == before
