"""`runbooks sweep` as a person runs it: against a real Prefect server and a worker, on an emulated fleet."""

import asyncio
import json
import re
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
)
from prefect.client.schemas.objects import FlowRun, TaskRun

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.processes import python_process
from deployments.stack import WORKER, prefect_stack
from tasks.ledger.database import open_ledger
from tests.deployments.conftest import COMMAND, Ended, environment
from tests.intake.standing import eventually, rows

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.timeout(900), pytest.mark.xdist_group("demo")]

CLUSTERS, MANY = 12, 1_000
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Stand:
    """Prefect with a worker, and a fleet of which one cluster has no block."""

    folder: Path
    client: PrefectClient
    api: str
    region: Region
    worker: Process
    started: list[str] = field(default_factory=list)

    async def sweep(self, *arguments: str) -> Ended:
        """`runbooks sweep ...`, to its end."""
        process = await asyncio.create_subprocess_exec(
            *(COMMAND, "sweep", *arguments),
            env=environment(self.folder, PREFECT_API_URL=self.api, LOGNAME="ada"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(300):
            out, err = await process.communicate()
        if found := ID.search(out.decode()):
            self.started.append(found[0])
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def run(self, id_: str) -> FlowRun:
        """The flow run of a sweep."""
        (found,) = await self.client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[id_])))
        return found

    def swept(self, id_: str) -> list[str]:
        """The clusters that a sweep has looked at so far."""
        found = rows(self.folder / "runbooks" / "ledger.db", "SELECT cluster FROM swept WHERE sweep_id = ?", id_)
        return sorted(name for (name,) in found)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The stand lives as long as the module's tests, on one event loop."""
    return "asyncio"


@pytest.fixture(scope="module")
async def stand(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """Everything but the command."""
    folder = tmp_path_factory.mktemp("sweep-command")
    region = Region(clusters=CLUSTERS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RUNBOOKS_HOME", str(folder / "runbooks"))
        patched.setenv("RUNBOOKS_LEDGER_URL", "")
        patched.setenv("RUNBOOKS_SWEEP_AT_ONCE", "2")
        async with (
            open_ledger(),
            prefect_stack(folder, lambda _: None) as (api, worker),
            get_client() as client,
        ):
            ready: asyncio.Queue[int] = asyncio.Queue()
            serving = asyncio.create_task(serve(region, ready=ready.put_nowait))
            url = f"http://127.0.0.1:{await ready.get()}"
            cloud = cloud_block(region, url, region="eu-de")
            await cloud.save("cloud")
            for n, cluster in enumerate([*region.clusters.values()][:-1]):
                labels = {"stage": "test" if n < 2 else "production"}
                await cluster_block(cluster, manager_block(cluster, url), cloud, labels=labels).save(cluster.name)
            yield Stand(folder, client, api, region, worker)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def test_a_sweep_from_a_terminal(stand: Stand, tmp_path: Path) -> None:
    """A sweep of some clusters is shown as it goes, ends with its findings and exit code 1, and is written to files."""
    stand.region.set_fault("partly-bound", cluster="mrs-002")
    files = {form: tmp_path / f"sweep.{form}" for form in ("html", "json", "csv")}
    options = [text for form, path in files.items() for text in (f"--{form}", str(path))]
    ended = await stand.sweep("--select", "stage=test", *options)
    assert (ended.code, ended.err) == (1, "")
    lines = ended.out.splitlines()
    assert lines[0] == f"sweep {stand.started[-1]}"
    assert "2 of 2 clusters" in lines
    assert "4 findings on 2 of 2 clusters." in lines
    assert lines[-3:] == [f"written: {path}" for path in files.values()]
    assert [path.stat().st_size > 1000 for path in files.values()] == [True, True, True]
    plain = json.loads(files["json"].read_text())
    assert [each["cluster"] for each in plain["clusters"]] == ["mrs-001", "mrs-002"]
    run = await stand.run(stand.started[-1])
    assert (run.state_name, run.work_queue_name, run.parameters, "started-by:ada" in run.tags) == (
        "FINDINGS",
        "sweeps",
        {"select": ["stage=test"], "remediate": False},
        True,
    )
    of_it = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))

    async def recorded() -> list[TaskRun] | None:
        """The server writes the states of tasks a second later, some together."""
        found = await stand.client.read_task_runs(flow_run_filter=of_it, task_run_filter=TaskRunFilter())
        return found if len(found) >= 3 else None

    tasks = await eventually(recorded)
    assert sorted(task.name for task in tasks) == [
        "choose the clusters",
        "look at 2 clusters (mrs-001 ...)",
        "publish the summary",
    ]
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    artifacts = await stand.client.read_artifacts(artifact_filter=mine)
    assert sorted(str(each.key) for each in artifacts) == ["sweep", "sweep-findings", "sweep-progress"]


async def test_what_earlier_sweeps_found(stand: Stand) -> None:
    """Earlier sweeps are listed, shown, compared and written out; what is wrong with the question is one sentence."""
    stand.region.clear_fault("partly-bound", cluster="mrs-002")
    again = await stand.sweep("--select", "stage=test")
    assert (again.code, again.err) == (1, "")
    before, after = stand.started[-2:]
    listed, shown = await stand.sweep("list"), await stand.sweep("show", after[:8], "--cluster", "mrs-002")
    diff, same = await stand.sweep("diff", before[:8], "last"), await stand.sweep("diff", after, after, "--json")
    report, odd = await stand.sweep("report"), await stand.sweep("show", "zzz")
    assert (listed.code, [line.split()[1] for line in listed.out.splitlines()[3:5]]) == (0, [after[:8], before[:8]])
    assert (shown.code, "nothing was heard of it" in shown.out) == (1, True)
    assert (diff.code, diff.out.splitlines()[0].split(" since ")[0]) == (0, "0 new, 2 fixed, 2 standing")
    assert (same.code, {kind: len(found) for kind, found in json.loads(same.out).items() if kind != "since"}) == (
        0,
        {"new": 0, "fixed": 0, "standing": 2, "lapsed": 0, "unknown": 0, "gone": 0},
    )
    assert (report.code, json.loads(report.out)["sweep"]["id"]) == (0, after)
    assert odd == Ended(2, "", "error: 0 sweeps have an id that begins 'zzz': `runbooks sweep list` shows them\n")


async def test_a_selection_that_is_wrong_or_empty(stand: Stand) -> None:
    """A wrong selection starts nothing; one that no cluster matches sweeps none, says so, and is no finding."""
    wrong, empty = await stand.sweep("--select", "stag=test"), await stand.sweep("--select", "stage=none")
    assert (wrong.code, wrong.out, wrong.err) == (
        2,
        "",
        "error: the selection 'stag=test' names a label that no cluster has: did you mean stage?\n",
    )
    last = "Nothing was swept: the selection stage=none holds no cluster. No findings on 0 of 0 clusters."
    assert (empty.code, empty.err, empty.out.splitlines()[-1]) == (0, "", last)


async def test_a_worker_that_is_killed(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed with -9 in the middle, a sweep of the whole fleet is resumed, and no cluster is looked at twice."""
    stand.region.trouble.add("GET", "/v2/*/nodes", "latency", None, seconds=5)
    detached = await stand.sweep("--detach")
    id_ = stand.started[-1]

    async def some() -> bool:
        return len(stand.swept(id_)) >= 3

    await eventually(some, seconds=120)
    stand.worker.kill()
    await stand.worker.wait()
    before = stand.swept(id_)
    shown, written = await stand.sweep("show", id_[:8]), await stand.sweep("report", id_[:8])
    line = f"sweep {id_[:8]} still goes on: {len(before)} of {CLUSTERS} clusters were looked at"
    assert (shown.out.splitlines()[0], written.err, len(json.loads(written.out)["clusters"])) == (
        line,
        f"{line}\n",
        len(before),
    )
    stand.region.trouble.clear()
    watched = {
        cluster.name: stand.region.trouble.add("GET", f"/managers/{cluster.id}/*/alarms", "latency", MANY, seconds=0)
        for cluster in stand.region.clusters.values()
    }
    monkeypatch.setenv("RUNBOOKS_HOME", str(stand.folder / "runbooks"))
    async with python_process(WORKER, stand.folder, "second-worker", stand.api):
        resumed = await stand.sweep("resume", id_[:8])

        async def over() -> bool:
            run = await stand.run(id_)
            return run.state is not None and run.state.is_final()

        await eventually(over, seconds=120)
    again = {name for name, rule in watched.items() if rule.times != MANY}
    unmanaged = [*stand.region.clusters][-1]
    assert (detached.code, resumed.code, resumed.err) == (0, 0, "")
    assert 3 <= len(before) < CLUSTERS
    assert again == {f"mrs-{n:03}" for n in range(1, CLUSTERS)} - set(before)
    assert stand.swept(id_) == sorted([*(f"mrs-{n:03}" for n in range(1, CLUSTERS)), unmanaged])
    assert (await stand.run(id_)).state_name == "FINDINGS"
