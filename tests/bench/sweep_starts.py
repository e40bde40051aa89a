"""How long runs that alarms start wait for it while a sweep goes on in the same worker, and while none does."""

import asyncio
import multiprocessing
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import BlockDocumentCreate
from prefect.client.schemas.objects import FlowRun

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from deployments.stack import prefect_stack
from tasks.blocks import Cluster
from tests.bench.figures import Figure, quantile, spread
from tests.bench.servers import environment
from tests.bench.usage import used_by

CLUSTERS = 1000
IDLE, BUSY = 30, 100  # runs that are started while no sweep goes on, and while one sweep after the other does
EVERY = 2.0  # seconds between two runs
LATER = 2.0  # seconds that they may start later (p99)


@dataclass
class Sweeps:
    """Those that went on meanwhile: how many seconds each took, and the most memory that the worker held, in MB."""

    seconds: list[float] = field(default_factory=list)
    memory: float = 0.0


async def starts(region: Region, url: str, say: Callable[[str], None], per_second: float) -> Sequence[Figure]:
    """Start runs as alarms do, without and with sweeps of the whole fleet in the same worker.

    Args:
        per_second: the sweep's budget for each endpoint.
    """
    sweeps = Sweeps()
    with tempfile.TemporaryDirectory() as folder:
        home = {"RUNBOOKS_HOME": f"{folder}/home", "RUNBOOKS_LEDGER_URL": ""}
        more = {"RUNBOOKS_SWEEP_PER_SECOND": f"{per_second:g}"}
        with environment(**home, **more):
            async with prefect_stack(Path(folder), say) as (_, worker), get_client() as client:
                say(f"making {CLUSTERS} blocks")
                await connect(client, region, url)
                names = [cluster.name for cluster in region.clusters.values()]
                say("starting runs while no sweep goes on")
                idle = await _started(client, names[:IDLE])
                say("starting runs while one sweep after the other goes on")
                enough = asyncio.Event()
                sweeping = asyncio.create_task(_sweep_on(client, worker.pid, sweeps, enough))
                busy = await _started(client, names[IDLE : IDLE + BUSY])
                enough.set()
                await sweeping
    late, calm = quantile(busy, 0.99), quantile(idle, 0.99)
    how = f"{per_second:g} requests a second"
    return [
        Figure(
            "starts",
            f"a run starts after, p99, while {CLUSTERS} clusters are swept ({how})",
            late,
            "s",
            f"at most {LATER:g} s later",
            late <= calm + LATER,
            f"{calm:.1f} s without a sweep (p50 {quantile(idle, 0.5):.1f} s)",
            spread(busy),
        ),
        Figure(
            "starts",
            f"a sweep of {CLUSTERS} clusters as a flow run ({how}), p50",
            quantile(sweeps.seconds, 0.5),
            "s",
            more={"n": len(sweeps.seconds), "MB of the worker": sweeps.memory},
        ),
    ]


async def _sweep_on(client: PrefectClient, worker: int, sweeps: Sweeps, enough: asyncio.Event) -> None:
    """One sweep after the other, until it is enough."""
    deployment = await client.read_deployment_by_name("sweep/now")
    while not enough.is_set():
        run = await client.create_flow_run_from_deployment(deployment.id)
        async for _ in _states(client, run):
            sweeps.memory = max(sweeps.memory, used_by(worker).rss / 1024)
        ended = await client.read_flow_run(run.id)
        sweeps.seconds.append(ended.total_run_time.total_seconds())


async def connect(client: PrefectClient, region: Region, url: str) -> None:
    """Make the blocks of all clusters, by the document of the first one: that takes a fraction of saving each."""
    await Cluster.register_type_and_schema(client=client)
    cloud, whole = cloud_block(region, url), None
    for cluster in region.clusters.values():
        block = cluster_block(cluster, manager_block(cluster, url), cloud)
        if whole is None:
            whole = block._to_block_document(name=cluster.name, include_secrets=True)
        manager = {
            **whole.data["manager"],
            "url": block.manager.url,
            "password": block.manager.password.get_secret_value(),
        }
        data = {**whole.data, "cluster_id": cluster.id, "source": cluster.name, "manager": manager}
        ids = {"block_schema_id": whole.block_schema_id, "block_type_id": whole.block_type_id}
        await client.create_block_document(BlockDocumentCreate(name=cluster.name, data=data, **ids))


async def _started(client: PrefectClient, names: Sequence[str]) -> list[float]:
    """Start a run for each cluster; returns how long each took to start."""
    deployment = await client.read_deployment_by_name("alm-12110/from-alarms")
    runs = []
    for name in names:
        parameters = {"cluster": name, "dry_run": True}
        runs.append(await client.create_flow_run_from_deployment(deployment.id, parameters=parameters))
        await asyncio.sleep(EVERY)
    found = []
    for run in runs:
        async for _ in _states(client, run):
            pass
        now = await client.read_flow_run(run.id)
        if now.start_time and now.created:
            found.append((now.start_time - now.created).total_seconds())
    return found


@asynccontextmanager
async def emulated(emulate: Callable[..., None], clusters: int) -> AsyncIterator[str]:
    """The emulator while the block runs; yields its address."""
    here, there = multiprocessing.Pipe()
    emulator = multiprocessing.get_context("spawn").Process(target=emulate, args=(clusters, 0, there))
    emulator.start()
    try:
        yield f"http://127.0.0.1:{await asyncio.to_thread(here.recv)}"
    finally:
        emulator.kill()
        emulator.join()


async def _states(client: PrefectClient, run: FlowRun) -> AsyncIterator[str]:
    """The name of the run's state again and again, until it is over."""
    while True:
        now = await client.read_flow_run(run.id)
        yield now.state.name or "" if now.state else ""
        if now.state and now.state.is_final():
            return
        await asyncio.sleep(0.2)
