"""What waits are measured on: Prefect and the ledger on PostgreSQL, an intake, a worker, and a fleet that alarms."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import BlockDocumentCreate, WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.workers.process import ProcessWorker
from sqlalchemy import make_url, select

from deployments.processes import free_port, last_words, python_process
from deployments.stack import ALARMS, POOL, PREFECT_YAML
from deployments.worker import NOTHING_TO_TEMPLATE, SegmentWorker
from tasks.blocks import Cluster
from tasks.ledger.database import DRIVERS, Ledger, open_ledger, unchecked_ledger
from tasks.ledger.tables import Episode, Wait
from tests.bench.cloud import Cloud, cloud
from tests.bench.senders import LOOPBACK, Poster
from tests.bench.servers import Intake, database_server, environment, intake_process, upgrade
from tests.bench.usage import Usage, lives, used_by
from tests.crash.processes import healthy

GOING = ("raised", "running", "waiting")
FOR_EVER = 6 * 3600.0  # seconds, of a wait that is not to end
AT_ONCE = 8
LOOK_EVERY, LOOK_AT_MANY_EVERY = 0.1, 0.5  # seconds; looking takes from what is there for all
SAY_EVERY = 20.0
GRACE = 60.0


class NotMeasured(Exception):
    """What was waited for did not come; says why."""


@dataclass
class Stand:
    """Everything that runs, by its process; `kind` is the worker's type."""

    folder: Path
    kind: str
    api: str
    client: PrefectClient
    ledger: Ledger
    cloud: Cloud
    intake: Intake
    pids: dict[str, int]
    fresh: list[str] = field(default_factory=list)
    """Clusters that have not alarmed yet."""

    @asynccontextmanager
    async def worker(self, limit: int | None = None) -> AsyncIterator[None]:
        """A worker while the block runs; told to end it gets a while for the segments that are at work."""
        command = ("-m", "prefect", "worker", "start", "--pool", POOL, "--type", self.kind)
        options = () if limit is None else ("--limit", str(limit))
        grace = GRACE if self.kind == SegmentWorker.type else 0
        async with python_process((*command, *options), self.folder, "worker", self.api, grace=grace) as process:
            self.pids["worker"] = process.pid
            try:
                yield
            finally:
                del self.pids["worker"]

    def usage(self) -> Mapping[str, Usage]:
        """What each process uses, by its name."""
        return {name: used_by(pid) for name, pid in self.pids.items()}

    def take(self, count: int) -> Sequence[str]:
        """Clusters that have not alarmed yet; none of them is given twice."""
        taken, self.fresh = self.fresh[:count], self.fresh[count:]
        assert len(taken) == count, f"the fleet is too small: {len(taken)} of {count} clusters are left"
        return taken

    async def tell(self, kind: Literal["raised", "cleared"], names: Sequence[str]) -> Mapping[str, float]:
        """Tell the intake of these clusters' alarms, as fast as it answers; returns when each was accepted."""
        accepted: dict[str, float] = {}

        async def share(own: Sequence[str]) -> None:
            poster = Poster(self.intake.http)
            for name in own:
                item = {"cluster": name, "alarm_id": "12110", "kind": kind, "host": self.cloud.host(name)}
                status, answer = await poster.post(json.dumps(item).encode())
                if status != 200 or b'"accepted"' not in answer.replace(b" ", b""):
                    raise RuntimeError(f"the webhook answers {status}: {answer[:300].decode()}")
                accepted[name] = time.time()
            await poster.close()

        await asyncio.gather(*(share(names[n::AT_ONCE]) for n in range(min(AT_ONCE, len(names)))))
        return accepted

    async def waiting(self) -> Collection[str]:
        """Clusters whose run waits: as a row, or in its process, from where the wait's deadline is fixed."""
        places = select(Episode.cluster).where(Episode.state == "waiting")
        if self.kind == ProcessWorker.type:
            places = select(Episode.cluster).join(Wait, Wait.episode_id == Episode.id).where(Wait.ended.is_(None))
        async with self.ledger.reading() as session:
            return set((await session.scalars(places)).all())

    async def ended(self) -> Collection[str]:
        """Clusters whose run has ended, by the ledger; Prefect is told a moment later."""
        async with self.ledger.reading() as session:
            return set((await session.scalars(select(Episode.cluster).where(Episode.state.not_in(GOING)))).all())

    async def runs(self, names: Collection[str]) -> Mapping[str, FlowRun]:
        """The clusters' flow runs as they are now."""
        places = select(Episode.cluster, Episode.run).where(Episode.cluster.in_(names))
        async with self.ledger.reading() as session:
            rows = (await session.execute(places)).all()
        return {name: await self.client.read_flow_run(UUID(run)) for name, run in rows if run}

    async def until_waiting(self, names: Collection[str], *, within: float) -> float:
        """Return when the runs of all these clusters wait: that moment.

        Raises:
            NotMeasured: within so many seconds they do not; one has ended; a process has ended.
        """

        async def look() -> Collection[str]:
            if odd := set(names).intersection(await self.ended()):
                raise NotMeasured(f"{len(odd)} of {len(names)} runs ended instead of waiting, {min(odd)} for one")
            return await self.waiting()

        return await self._until("wait", names, look, within)

    async def until_ended(self, names: Collection[str], *, within: float) -> Mapping[str, FlowRun]:
        """The runs of these clusters, once all have ended for Prefect, too; raises as `until_waiting`."""
        await self._until("have ended", names, self.ended, within)
        runs = dict(await self.runs(names))
        while left := [name for name, run in runs.items() if not (run.state and run.state.is_final())]:
            await asyncio.sleep(LOOK_EVERY)
            runs |= await self.runs(left)
        return runs

    async def _until(
        self, what: str, names: Collection[str], look: Callable[[], Awaitable[Collection[str]]], within: float
    ) -> float:
        told = began = time.time()
        while left := set(names).difference(await look()):
            now, done = time.time(), len(names) - len(left)
            dead = [name for name, pid in self.pids.items() if not lives(pid)]
            if dead or now - began > within:
                why = f"; {', '.join(dead)} has died: {last_words(self.folder, dead[0])}" if dead else ""
                raise NotMeasured(f"{done} of {len(names)} runs {what} after {now - began:.0f} s{why}")
            if now - told > SAY_EVERY:
                told = now
                say(f"{done} of {len(names)} runs {what} after {now - began:.0f} s")
            await asyncio.sleep(LOOK_EVERY if len(names) == 1 else LOOK_AT_MANY_EVERY)
        return time.time()


@asynccontextmanager
async def stand(folder: Path, kind: str, *, waits: Sequence[float], nodes: int) -> AsyncIterator[Stand]:
    """Everything but a worker, its logs in the folder.

    Args:
        waits: for each cluster the seconds that its run waits after a bind.
        nodes: of each cluster; all are bound, one after the other.
    """
    say(f"starting PostgreSQL, Prefect, an intake and {len(waits)} clusters for a worker of type {kind}")
    async with AsyncExitStack() as stack:
        url, postgresql = await stack.enter_async_context(database_server())
        address = make_url(url).set(drivername=DRIVERS["postgresql"])
        async with unchecked_ledger(address) as server, server.engine.connect() as connection:
            outside = await connection.execution_options(isolation_level="AUTOCOMMIT")
            for name in ("prefect", "ledger"):
                await outside.exec_driver_sql(f"CREATE DATABASE {name}")
        books = make_url(url).set(database="ledger").render_as_string(hide_password=False)
        home = {"RUNBOOKS_HOME": str(folder), "RUNBOOKS_LEDGER_URL": books, "RUNBOOKS_BREAKER": "off"}
        stack.enter_context(environment(**home))
        await upgrade(folder, books)
        port = free_port()
        api = f"http://{LOOPBACK}:{port}/api"
        command = ("-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port))
        database = address.set(database="prefect").render_as_string(hide_password=False)
        prefect = await stack.enter_async_context(python_process(command, folder, "server", api, database=database))
        await healthy(api)
        stack.enter_context(temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: folder / "prefect"}))
        client = await stack.enter_async_context(get_client())
        ledger = await stack.enter_async_context(open_ledger(address.set(database="ledger")))
        fleet = await stack.enter_async_context(cloud(len(waits), nodes))
        await _deploy(client, folder, api, kind)
        await _connect(client, fleet, waits)
        intake = await stack.enter_async_context(intake_process(folder, books, api))
        pids = {"intake": intake.pid, "server": prefect.pid, "PostgreSQL": postgresql, "cloud": fleet.pid}
        yield Stand(folder, kind, api, client, ledger, fleet, intake, pids, fleet.names)


async def _connect(client: PrefectClient, fleet: Cloud, waits: Sequence[float]) -> None:
    """Make the clusters' blocks. Their documents are made from the first one's, for Prefect takes 0.2 s to make one."""
    await Cluster.register_type_and_schema(client=client)
    whole = fleet.block(fleet.names[0], waits[0])._to_block_document(name=fleet.names[0], include_secrets=True)
    ids = {"block_schema_id": whole.block_schema_id, "block_type_id": whole.block_type_id}
    for name, wait in zip(fleet.names, waits, strict=True):
        block = fleet.block(name, wait)
        manager = {
            **whole.data["manager"],
            "url": block.manager.url,
            "user": block.manager.user,
            "password": block.manager.password.get_secret_value(),
        }
        own = {"cluster_id": block.cluster_id, "source": block.source, "agency": block.agency, "manager": manager}
        times = {"wait_after_rebind": block.wait_after_rebind, "speed": block.speed}
        document = BlockDocumentCreate(name=name, data={**whole.data, **own, **times}, **ids)
        await client.create_block_document(document)


async def _deploy(client: PrefectClient, folder: Path, api: str, kind: str) -> None:
    template = NOTHING_TO_TEMPLATE if kind == SegmentWorker.type else ProcessWorker.get_default_base_job_template()
    await client.create_work_pool(WorkPoolCreate(name=POOL, type=kind, base_job_template=template))
    await client.create_work_queue(name=ALARMS, work_pool_name=POOL, priority=1)
    command = ("-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_YAML))
    async with python_process(command, folder, "deploy", api) as process:
        if await process.wait():
            raise RuntimeError(f"the deployments were not made: {last_words(folder, 'deploy')}")


def say(what: str) -> None:
    """Tell what goes on now."""
    print(f"{time.strftime('%H:%M:%S')} {what} ...", file=sys.stderr, flush=True)
