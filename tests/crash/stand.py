"""What the crash matrix stands on: Prefect and the ledger on PostgreSQL, an intake, and cells with a worker each."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from sqlalchemy import URL, make_url, select, update

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.scenarios import SCENARIOS, Profile, break_cluster, give_an_agency
from deployments.stack import POOL, WORKER
from tasks import timing
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import Ledger
from tasks.ledger.observing import Sighting, observe
from tasks.ledger.starting import started
from tasks.ledger.tables import Cluster, Episode
from tasks.ledger.ticket_tables import ChangeRow, TicketRow
from tasks.models import Observation
from tests.crash.wires import LOOPBACK, HttpWire, LedgerWire, Point, Trap

SPEED = 60.0
LEASE = 4.0  # seconds; in production 30, and everything that follows from it is shorter by as much
ENDS_WITHIN = 240.0
AGAIN_AFTER = 0.2
Blow = Literal["worker", "standstill", "answers", "intake", "prefect", "postgresql"]


@dataclass(frozen=True)
class Ended:
    """What a run left: its state's name, the trace of the alarmed host, what was changed, its tickets.

    Attributes:
        where: the message at which it was struck; empty: it was not.
        resumed: seconds from the next worker's first question for runs to the run's next message.
        counts: messages by channel.
    """

    outcome: str
    trace: str
    changes: Sequence[tuple[str, str]]
    tickets: int
    where: str = ""
    resumed: float = 0.0
    run: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


class Kept:
    """A process that is started again whenever it dies, while the block runs.

    Args:
        command: arguments of Python, or a whole command that begins with a path.
        options: of the subprocess: who it runs as.
    """

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path, **options: Any
    ) -> None:
        self.command = command if isinstance(command[0], Path) else (sys.executable, *command)
        self.environment, self.log, self.options = environment, log, options
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._keeping
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        if self.process and self.process.returncode is None:
            self.process.send_signal(number)

    async def _keep(self) -> None:
        while True:
            with self.log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *self.command,
                    env=dict(self.environment),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    **self.options,
                )
            self.starts += 1
            await self.process.wait()
            await asyncio.sleep(AGAIN_AFTER)


@dataclass
class Cell:
    """A worker that only one run at a time goes to, with wires to the cloud, to Prefect and to the ledger.

    Attributes:
        blow: what happens at the point of a run: SIGKILL of the worker or of another process, SIGSTOP of the worker for
            longer than its lease, or only that the message (or its answer) is lost and its connection closed.
    """

    name: str
    stand: "Stand"
    trap: Trap
    worker: Kept
    cloud: HttpWire
    blow: Blow = "worker"
    polled: float = 0.0
    killed: float = 0.0
    resumed: float = 0.0

    def heard(self, what: str) -> None:
        """Tell the new worker's first question from the run's next message."""
        now = time.monotonic()
        if not self.killed:
            return
        if what == "poll":
            self.polled = self.polled or now
        elif self.polled and not self.resumed:
            self.resumed = now - self.polled

    async def strike(self) -> bool:
        """The blow; returns whether the message is lost by it."""
        if self.blow == "worker":
            return await self.kill()
        if self.blow == "standstill":
            self.worker.signal(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(2 * self.stand.lease, self.worker.signal, signal.SIGCONT)
        elif self.blow != "answers":
            self.stand.processes[self.blow].signal(signal.SIGKILL)
        return self.blow == "answers"

    async def kill(self) -> bool:
        """SIGKILL the worker; the message it was at does not arrive."""
        self.worker.signal(signal.SIGKILL)
        self.killed = time.monotonic()
        return True

    async def run(
        self,
        scenario: str,
        point: Point | None = None,
        *,
        seed: int,
        speed: float = SPEED,
        meanwhile: Callable[[FlowRun, Region], Awaitable[None]] | None = None,
        profile: Profile = "assumed",
        **settings: Any,
    ) -> Ended:
        """Play a scenario, and strike at this point of it.

        Args:
            seed: of the region, whose cluster has it in its name: another one for each run of a stand.
            meanwhile: is carried out while the run goes on.
            settings: fields of the cluster's block that are not the usual ones.
        """
        region = Region(profile=profile, seed=seed, meta_hosts=1, start=datetime.now(UTC) - timedelta(minutes=25))
        (cluster,) = region.clusters.values()
        cluster.name = f"{self.name}-{seed}"
        give_an_agency(region, cluster)
        for fault in SCENARIOS[scenario].faults:
            break_cluster(region, cluster, fault)
        region.advance(25 * 60)
        assert any(alarm.alarm_id == "12110" for alarm in cluster.alarms), "the fault raises no alarm"
        self.polled = self.killed = self.resumed = 0.0
        async with _served(region, speed, (LOOPBACK, self.stand.syslog)) as port:
            self.cloud.upstream = port
            url = f"http://{LOOPBACK}:{self.cloud.port}"
            blocks = manager_block(cluster, url), cloud_block(region, url)
            block = cluster_block(cluster, *blocks, speed=speed, **settings)
            async with self.stand.saving:  # Prefect's `save` is not made for several at once
                await block.save(cluster.name, client=self.stand.client, overwrite=True)
            self.trap.reset(point)
            run = await self._begin(region, speed)
            if meanwhile:
                await meanwhile(run, region)
            state = await self._final(run)
            await until(lambda: self._delivered(cluster.name))
        tickets = [path for path in (self.stand.home / "tickets").glob("T-*.json") if cluster.name in path.read_text()]
        about = (state.state.message or "").split("; ")[0] if state.state else ""
        return Ended(
            outcome=(state.state and state.state.name) or "",
            trace=about.partition(": ")[2].partition(". Ticket")[0],
            changes=[(entry.action, entry.target) for entry in region.log],
            tickets=len(tickets),
            where=self.trap.at,
            resumed=round(self.resumed, 1),
            run=str(run.id),
            counts=dict(self.trap.counts),
        )

    async def _begin(self, region: Region, speed: float) -> FlowRun:
        """The alarm is on disk and its run is created, for this cell's worker instead of any."""
        (cluster,) = region.clusters.values()
        (alarm,) = (alarm for alarm in cluster.alarms if alarm.alarm_id == "12110")
        known = Cluster(
            name=cluster.name,
            cluster_id=cluster.id,
            source=cluster.name,
            speed=speed,
            connected=timing.wall() - timedelta(days=1),
        )
        told = Observation(
            alarm_id="12110", kind="raised", cluster=cluster.name, host=alarm.host.name, serial=str(alarm.serial)
        )
        async with self.stand.ledger.writing() as session:
            (seen,) = await observe(session, [Sighting(told, known, "syslog", LOOPBACK, "")], timing.wall())
            await session.flush()
            run = await self.stand.client.create_flow_run_from_deployment(
                self.stand.deployment,
                parameters={"cluster": cluster.name},
                idempotency_key=f"{seen.episode}:1",
                tags=["alarm:12110", f"episode:{seen.episode}"],
                work_queue_name=self.name,
            )
            assert await started(session, seen.episode, 1, str(run.id))
            await session.execute(update(Episode).where(Episode.id == seen.episode).values(raised=timing.wall()))
        return run

    async def _delivered(self, cluster: str) -> bool:
        """Whether nothing is left that the ticket system is to be told of this cluster; the intake tells it."""
        left = select(ChangeRow.n).join(TicketRow, TicketRow.correlation == ChangeRow.correlation)
        mine = left.where(TicketRow.cluster == cluster, ChangeRow.done.is_(None))
        with suppress(LedgerUnavailable):  # PostgreSQL may be what dies
            async with self.stand.ledger.reading() as session:
                return (await session.scalars(mine)).first() is None
        return False

    async def _final(self, run: FlowRun) -> FlowRun:
        async with asyncio.timeout(ENDS_WITHIN):
            while True:
                with suppress(httpx.HTTPError, PrefectHTTPStatusError):  # Prefect may be what dies
                    found = await self.stand.client.read_flow_run(run.id)
                    if found.state and found.state.is_final() and found.state.name not in ("Crashed", "Failed"):
                        return found
                await asyncio.sleep(0.5)


@dataclass
class Stand:
    """What the cells share."""

    client: PrefectClient
    api: str
    ledger: Ledger
    ledger_url: URL
    deployment: UUID
    home: Path
    syslog: int
    lease: float = LEASE
    processes: dict[str, Kept] = field(default_factory=dict)
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)

    def environment(self, api: str, ledger_port: int, home: str) -> dict[str, str]:
        """Of a worker, or of an intake."""
        url = self.ledger_url.set(drivername="postgresql", port=ledger_port)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RUNBOOKS_"))},
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(self.home / home),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_PREFETCH_SECONDS": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "RUNBOOKS_HOME": str(self.home),
            "RUNBOOKS_LEDGER_URL": url.render_as_string(hide_password=False),
            "RUNBOOKS_LEASE_SECONDS": str(self.lease),
            "RUNBOOKS_BREAKER": "off",
            "RUNBOOKS_READ_RETRY_DELAYS": "0.2,0.5,1,2",
        }

    def worker(self, folder: Path) -> Kept:
        """A worker for whatever is there to be run, its log in the folder."""
        environment = self.environment(self.api, int(self.ledger_url.port or 0), "worker")
        return Kept(WORKER, environment, folder / "worker.log")

    @asynccontextmanager
    async def cell(self, name: str) -> AsyncIterator[Cell]:
        """A cell with its worker, while the block runs."""
        pool = await self.client.read_work_pool(POOL)
        await self.client.create_work_queue(name=name, work_pool_name=pool.name)
        api, ledger = make_url(self.api), self.ledger_url
        cells: list[Cell] = []
        trap = Trap(lambda: cells[0].strike(), heard=lambda what: cells[0].heard(what))
        async with AsyncExitStack() as stack:
            cloud = await stack.enter_async_context(HttpWire(0, trap, "cloud"))
            prefect = await stack.enter_async_context(HttpWire(int(api.port or 0), trap, "prefect"))
            books = await stack.enter_async_context(LedgerWire(int(ledger.port or 0), trap))
            environment = self.environment(f"http://{LOOPBACK}:{prefect.port}/api", books.port, name)
            worker = Kept((*WORKER, "--work-queue", name, "--name", name), environment, self.home / f"{name}.log")
            cells.append(Cell(name, self, trap, worker, cloud))
            await stack.enter_async_context(worker)
            yield cells[0]


async def until(holds: Callable[[], Awaitable[bool]], within: float = 90.0) -> None:
    """Return as soon as it holds.

    Raises:
        TimeoutError: it does not within that many seconds.
    """
    async with asyncio.timeout(within):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _served(region: Region, speed: float, syslog: tuple[str, int]) -> AsyncIterator[int]:
    ready: asyncio.Queue[int] = asyncio.Queue()
    serving = asyncio.create_task(serve(region, speed=speed, syslog=syslog, ready=ready.put_nowait))
    try:
        yield await ready.get()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
