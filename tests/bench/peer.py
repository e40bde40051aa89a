"""Which alarms get a run, and after how long: the intake beside plain Prefect, which gets the same alarms as events."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import BlockDocumentCreate, WorkPoolCreate
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from pydantic import SecretStr

from deployments.processes import last_words, prefect_server, python_process
from deployments.stack import POOL, PREFECT_YAML
from tasks.blocks import Cloud, Cluster, Manager
from tests.bench.fleet import Alarm, body_of, source_of
from tests.bench.senders import Poster
from tests.bench.servers import Database, intake_process, postgresql, upgrade

PAGE = 200
QUIET = 120.0  # seconds without a new run, after which no more are expected
SAY_EVERY = 20.0
AT_ONCE = 8
NAME = "cluster-{n}"


@dataclass(frozen=True)
class Compared:
    """What became of alarms, one of each cluster. `first` and `last`: seconds from the first delivery to that run."""

    who: str
    alarms: int
    deliveries: int
    one: int
    none: int
    several: int
    runs: int
    first: float
    last: float
    delivered: float  # seconds that the deliveries took


async def compare(folder: Path, alarms: int, patience: float) -> list[Compared]:
    """Each alarm twice, as re-reports are: to our webhook, and to plain Prefect under two event ids."""
    async with _prefect(folder / "ours") as api:
        ours = await _through_the_intake(folder / "ours", api, alarms, 2, patience)
    async with _prefect(folder / "peer"):
        began = time.time()
        async with get_client() as client:
            for _ in range(2):
                await asyncio.gather(*(_report(client, n) for n in range(alarms)))
            delivered = time.time() - began
            theirs = await _judged("plain Prefect, events", client, alarms, 2, began, delivered, patience)
    return [ours, theirs]


async def burst(folder: Path, prefect: Database, clusters: int, patience: float) -> Compared:
    """Very many clusters alarm at once; Prefect keeps its runs in this kind of database, the ledger is SQLite."""
    folder = folder / f"burst-{prefect}"
    folder.mkdir()
    async with AsyncExitStack() as stack:
        database = ""
        if prefect == "postgresql":
            database = (await stack.enter_async_context(postgresql())).replace("://", "+asyncpg://")
        api = await stack.enter_async_context(_prefect(folder, database))
        return await _through_the_intake(folder, api, clusters, 1, patience, f", Prefect on {prefect}")


async def _through_the_intake(
    folder: Path, api: str, alarms: int, times: int, patience: float, how: str = ""
) -> Compared:
    url = f"sqlite:///{folder}/ledger.db"
    await upgrade(folder, url)
    async with get_client() as client:
        await _make_blocks(client, alarms)
        async with intake_process(folder, url, api) as intake:
            began = time.time()
            for again in range(times):
                posters = [Poster(intake.http) for _ in range(AT_ONCE)]
                shares = (range(alarms)[n::AT_ONCE] for n in range(AT_ONCE))
                await asyncio.gather(*(_post(*each, again) for each in zip(posters, shares, strict=True)))
            delivered = time.time() - began
            return await _judged(f"the intake, webhook{how}", client, alarms, times, began, delivered, patience)


async def _post(poster: Poster, clusters: Sequence[int], again: int) -> None:
    occurred = datetime.now(UTC)
    for n in clusters:
        status, answer = await poster.post(body_of([Alarm(again, n, 1, 4711, "raised", occurred)]))
        if status != 200:
            raise RuntimeError(f"the webhook answers {status}: {answer[:300].decode()}")
    await poster.close()


async def _report(client: PrefectClient, n: int) -> None:
    event = {
        "id": str(uuid4()),
        "event": "mrs.alarm.reported",
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": f"mrs.cluster.{n}"},
        "payload": {"cluster": NAME.format(n=n)},
    }
    (await client.request("POST", "/events", json=[event])).raise_for_status()


async def _judged(
    who: str, client: PrefectClient, alarms: int, times: int, began: float, delivered: float, patience: float
) -> Compared:
    """Wait until every alarm has a run and no more come; then count."""
    created: dict[str, tuple[str, float]] = {}
    changed = told = began
    while True:
        before = len(created)
        async for id_, cluster, at in _runs(client, len(created)):
            created[id_] = cluster, at
        now = time.time()
        changed = now if len(created) > before else changed
        served = len({cluster for cluster, _ in created.values()})
        # Where all have one, others may still follow, though not for long.
        if now - told >= SAY_EVERY:
            told = now
            print(f"{who}: {served} of {alarms} have a run after {now - began:.0f} s", file=sys.stderr, flush=True)
        if now - changed > (10.0 if served == alarms else QUIET) or now - began > patience:
            break
        await asyncio.sleep(1)
    runs = Counter(cluster for cluster, _ in created.values())
    since = [at - began for _, at in created.values()] or [0.0]
    firsts = [min(at for cluster, at in created.values() if cluster == each) - began for each in runs] or [0.0]
    return Compared(
        who=who,
        alarms=alarms,
        deliveries=alarms * times,
        one=sum(count == 1 for count in runs.values()),
        none=alarms - len(runs),
        several=sum(count > 1 for count in runs.values()),
        runs=len(created),
        first=round(min(since), 2),
        last=round(max(firsts), 2),
        delivered=round(delivered, 2),
    )


async def _runs(client: PrefectClient, offset: int) -> AsyncIterator[tuple[str, str, float]]:
    """Id, cluster and time of creation of all flow runs, the oldest first."""
    offset = max(0, offset - PAGE)  # some may have been created in the meantime with an earlier time
    while True:
        body = {"sort": "START_TIME_ASC", "offset": offset, "limit": PAGE}
        page = (await client.request("POST", "/flow_runs/filter", json=body)).raise_for_status().json()
        for run in page:
            yield run["id"], run["parameters"]["cluster"], datetime.fromisoformat(run["created"]).timestamp()
        offset += len(page)
        if len(page) < PAGE:
            return


async def _make_blocks(client: PrefectClient, clusters: int) -> None:
    """A block for each cluster; nothing is ever called at its addresses."""
    nowhere = "http://127.0.0.1:9"
    secret = SecretStr("not-a-secret")
    cloud = Cloud(
        project_id="p",
        domain_id="d",
        mrs_url=nowhere,
        ecs_url=nowhere,
        iam_url=nowhere,
        access_key=secret,
        secret_key=secret,
    )
    manager = Manager(url=nowhere, user="runbooks", password=secret)
    await Cluster.register_type_and_schema(client=client)
    for n in range(clusters):  # one by one: SQLite makes those that come together wait longer
        cluster_id = f"00000000-0000-4000-8000-{n:012d}"
        block = Cluster(cluster_id=cluster_id, source=source_of(n), manager=manager, cloud=cloud)
        whole = block._to_block_document(name=NAME.format(n=n))
        await client.create_block_document(
            BlockDocumentCreate(
                name=whole.name,
                data=whole.data,
                block_schema_id=whole.block_schema_id,
                block_type_id=whole.block_type_id,
            )
        )


@asynccontextmanager
async def _prefect(folder: Path, database: str = "") -> AsyncIterator[str]:
    """A fresh server with our deployments and no worker, for runs are only counted; yields its API URL."""
    async with prefect_server(folder, database=database) as api:
        with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: folder / "prefect"}):
            async with get_client() as client:
                await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
            deploy = ("-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_YAML))
            async with python_process(deploy, folder, "deploy", api) as process:
                if await process.wait():
                    raise RuntimeError(f"the deployments were not made: {last_words(folder, 'deploy')}")
            yield api
