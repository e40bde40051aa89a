"""`runbooks up` on SQLite bears fifty alarms at once, while others lock both of its databases again and again."""

import asyncio
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import BlockDocumentCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.processes import free_port
from deployments.scenarios import break_cluster, give_an_agency
from tasks.blocks import Cluster
from tests.deployments.conftest import COMMAND, environment
from tests.intake.conftest import send
from tests.intake.standing import a_cluster, eventually, line_of, rows

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.timeout(1200), pytest.mark.xdist_group("demo")]

CLUSTERS, SPEED, PAGE = 50, 60.0, 200
UP_WITHIN, ENDS_WITHIN = 240.0, 600.0  # seconds; a minute or two where nothing else is at work
LOCKED_FOR, LOCKED_EVERY = 1.0, 10.0


@dataclass(frozen=True)
class Up:
    """Prefect, worker and intake: where they are."""

    api: str
    syslog: int
    ledger: Path
    database: Path


@asynccontextmanager
async def up(home: Path) -> AsyncIterator[Up]:
    """`runbooks up` while the block runs; what it says is in `up.log`."""
    port, syslog = free_port(), free_port()
    config, folder = home / "intake.toml", home / "runbooks"
    config.write_text(f"[http]\nport = 0\n[syslog]\nport = {syslog}\n")
    with (home / "up.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(COMMAND, "up", "--config", str(config), "--port", str(port)),
            env=environment(home, RUNBOOKS_BREAKER="off", RUNBOOKS_LEDGER_URL=""),
            stdout=log,
            stderr=log,
        )

    async def is_up() -> bool:
        said = (home / "up.log").read_text(errors="replace")
        assert process.returncode is None, said[-2000:]
        return "Ctrl-C ends it" in said

    try:
        await eventually(is_up, UP_WITHIN)
        yield Up(f"http://127.0.0.1:{port}/api", syslog, folder / "ledger.db", folder / "prefect" / "prefect.db")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 120)
        except TimeoutError:  # it tells Prefect its last events, which is gone
            process.kill()
            await process.wait()


def lock(file: Path) -> bool:
    """Write to a database for a while, as another program; False: somebody else has it all the time."""
    with closing(sqlite3.connect(file, isolation_level=None, timeout=LOCKED_EVERY)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        time.sleep(LOCKED_FOR)
    return True


@asynccontextmanager
async def locking(*files: Path) -> AsyncIterator[Counter[Path]]:
    """Databases are locked for a second, again and again, while the block runs; yields how often each was."""
    times: Counter[Path] = Counter()

    async def again_and_again(file: Path) -> None:
        while True:
            times[file] += await asyncio.to_thread(lock, file)
            await asyncio.sleep(LOCKED_EVERY)

    async with asyncio.TaskGroup() as group:
        locks = [group.create_task(again_and_again(file)) for file in files]
        yield times
        for each in locks:
            each.cancel()


@asynccontextmanager
async def broken_region(client: PrefectClient, at: Up) -> AsyncIterator[Region]:
    """Fifty clusters of one node, known to the intake, that all lose their agency at the same moment."""
    region = Region(clusters=CLUSTERS, hosts=1, start=datetime.now(UTC))
    for cluster in region.clusters.values():
        give_an_agency(region, cluster)
    port = free_port()
    await connect(client, region, f"http://127.0.0.1:{port}")

    async def known() -> bool:
        await send(at.syslog, line_of(a_cluster()) + b"\n")  # a name that nobody knows makes it read the blocks now
        await asyncio.sleep(2)
        return rows(at.ledger, "SELECT count(*) FROM clusters") == [(CLUSTERS,)]

    await eventually(known, 120)
    for cluster in region.clusters.values():
        break_cluster(region, cluster, "unbound")
    serving = asyncio.create_task(serve(region, port=port, speed=SPEED, syslog=("127.0.0.1", at.syslog)))
    try:
        yield region
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def connect(client: PrefectClient, region: Region, url: str) -> None:
    """Make the clusters' blocks; `save` would make the types and forms of all anew for each, a second each time."""
    await Cluster.register_type_and_schema(client=client)
    for each in region.clusters.values():
        blocks = manager_block(each, url), cloud_block(region, url)
        document = cluster_block(each, *blocks, speed=SPEED)._to_block_document(name=each.name, include_secrets=True)
        ids = {"block_schema_id": document.block_schema_id, "block_type_id": document.block_type_id}
        await client.create_block_document(BlockDocumentCreate(name=each.name, data=document.data, **ids))


async def runs_of(client: PrefectClient) -> Mapping[str, list[FlowRun]]:
    """Cluster -> its flow runs that alarms started."""
    found: dict[str, list[FlowRun]] = {}
    by_alarm = FlowRunFilter(tags=FlowRunFilterTags(all_=["alarm:12110"]))
    for run in await client.read_flow_runs(flow_run_filter=by_alarm, limit=PAGE):
        found.setdefault(run.parameters["cluster"], []).append(run)
    return found


async def test_fifty_alarms_at_once(tmp_path: Path) -> None:
    """Each of fifty clusters gets one run, which ends repaired, and each node is bound once; nothing is lost."""
    async with up(tmp_path) as at:
        with temporary_settings({PREFECT_API_URL: at.api, PREFECT_HOME: tmp_path / "prefect"}):
            async with get_client() as client, broken_region(client, at) as region:

                async def all_ended() -> bool:
                    found = rows(at.ledger, "SELECT count(*) FROM episodes WHERE state IN ('verifying', 'closed')")
                    return found == [(CLUSTERS,)]

                async def all_told() -> bool:
                    states = [run.state for each in (await runs_of(client)).values() for run in each]
                    return all(state and state.is_final() for state in states)

                async with locking(at.ledger, at.database) as locked:
                    await eventually(all_ended, ENDS_WITHIN)
                await eventually(all_told, 60)
                runs = await runs_of(client)
        episodes = rows(at.ledger, "SELECT cluster, outcome, n FROM episodes")
        intents = rows(at.ledger, "SELECT cluster_id, target, step FROM intents")
    clusters = [*region.clusters.values()]
    once = {each.name: ["END"] for each in clusters}
    assert {name: [run.state_name for run in each] for name, each in runs.items()} == once
    assert sorted(episodes) == sorted((each.name, "END", 1) for each in clusters)
    changes = Counter((entry.cluster, entry.target, entry.action) for entry in region.log)
    assert changes == {(each.id, host, "set-metadata"): 1 for each in clusters for host in each.hosts}
    assert Counter(intents) == {(each.id, host, "6"): 1 for each in clusters for host in each.hosts}
    assert [locked[file] > 0 for file in (at.ledger, at.database)] == [True, True]
