"""`runbooks demo`: a cluster breaks, its alarm arrives as a syslog line, and a real Prefect server runs the repair.

Everything is started for the demo, on loopback and on free ports, in a folder of its own, and ended with it.
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from rich.console import Console
from rich.table import Table

from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.intake.listener import listen
from deployments.intake.receive import receive
from deployments.intake.syslog import Template
from deployments.processes import prefect_server, python_process
from deployments.scenarios import SCENARIOS, Profile
from tasks.blocks import Cloud, Cluster, Manager
from tasks.errors import ConfigurationError, StepFailed
from tasks.tickets import tickets

PREFECT_YAML = Path(__file__).with_name("prefect.yaml")
AGENCY = "MRS_ECS_DEFAULT_AGENCY"
ON_THE_FIRST_HOST = frozenset({"crashed", "wedged", "metadata-down"})
GIVE_UP_AFTER = 600.0


@dataclass
class Part:
    """One scenario being played on a cluster of its own."""

    scenario: str
    cluster: EmulatedCluster
    run: asyncio.Queue[FlowRun] = field(default_factory=asyncio.Queue)
    shown: int = 0


class Demo:
    """One demo: scenarios, each on its own cluster of one emulated region, against one Prefect server.

    Args:
        names: scenarios to play, at the same time.
        faults: more faults, `NAME` or `NAME@HOST`; trouble: more HTTP trouble, `KIND METHOD GLOB [TIMES]`.
        speed: how much faster the region's time runs.

    Raises:
        ConfigurationError: an unknown scenario, fault, host or trouble; names the known ones.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        profile: Profile,
        speed: float,
        faults: Sequence[str],
        trouble: Sequence[str],
        console: Console,
    ) -> None:
        if unknown := [name for name in names if name not in SCENARIOS]:
            raise ConfigurationError(f"no scenario {unknown[0]!r}: use all, {', '.join(SCENARIOS)}")
        self.profile, self.speed, self.console = profile, speed, console
        self.as_told = not faults and not trouble
        self.region = Region(clusters=len(names), hosts=3, meta_hosts=1, profile=profile, start=datetime.now(UTC))
        self.parts = [Part(name, cluster) for name, cluster in zip(names, self.region.clusters.values(), strict=True)]
        self._began = time.monotonic()
        self._ready = asyncio.Event()
        for part in self.parts:
            for fault in (*SCENARIOS[part.scenario].faults, *faults):
                _break(self.region, part.cluster, fault)
        for rule in trouble:
            _trouble(self.region, rule)

    def say(self, text: str) -> None:
        """One line of progress, with the seconds since the start."""
        self.console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/]  {text}", highlight=False)

    async def play(self, *, keep: bool) -> list[dict[str, Any]]:
        """Start everything, follow the runs to their end, show and return the results."""
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mrs-runbooks-demo-")))
            os.environ["RUNBOOKS_HOME"] = str(folder / "runbooks")
            self.say("starting a Prefect server (SQLite); a fresh one takes some seconds")
            api = await stack.enter_async_context(prefect_server(folder))
            self.say(f"the Prefect server is up on {api.removesuffix('/api')}")
            stack.enter_context(temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: folder / "prefect"}))
            client = await stack.enter_async_context(get_client())
            await self._start_region(stack, client)
            await self._deploy(stack, client, folder, api)
            self._ready.set()
            self.say(f"waiting for Meta to miss its keys three times and raise the alarm (15 min at {self.speed:g}x)")
            results = [await self._follow(client, part) for part in self.parts]
            self._show(results, api.removesuffix("/api"))
            if keep:
                self.say("KEEP: everything stays up for a look at the UI; Ctrl-C ends it")
                await asyncio.Event().wait()
            return results

    async def _start_region(self, stack: AsyncExitStack, client: PrefectClient) -> None:
        async def on_line(line: bytes, peer: str) -> None:
            await self._ready.wait()
            dispatched = await receive(client, line, peer, Template())
            self.say(f"[bold]syslog[/] {dispatched.what}: {dispatched.why}")
            for part in self.parts:
                if dispatched.flow_run and f"cluster:{part.cluster.name}" in dispatched.flow_run.tags:
                    part.run.put_nowait(dispatched.flow_run)

        ports = await stack.enter_async_context(listen(host="127.0.0.1", port=0, protocols=["udp"], on_line=on_line))
        ready: asyncio.Queue[int] = asyncio.Queue()
        serving = asyncio.create_task(
            serve(self.region, speed=self.speed, syslog=("127.0.0.1", ports["udp"]), ready=ready.put_nowait)
        )
        stack.push_async_callback(_ended, serving)
        url = f"http://127.0.0.1:{await ready.get()}"
        broken = ", ".join(f"{part.cluster.name} ({part.scenario})" for part in self.parts)
        self.say(f"the emulated region is on {url}, profile {self.profile}; broken: {broken}")
        await self._save_blocks(url)

    async def _save_blocks(self, url: str) -> None:
        region = self.region
        cloud = Cloud(
            project_id=region.project_id,
            domain_id=region.domain_id,
            mrs_url=url,
            ecs_url=url,
            iam_url=url,
            access_key=region.access_key,
            secret_key=region.secret_key,
        )
        await cloud.save("emulated-region")
        for cluster in (part.cluster for part in self.parts):
            manager = Manager(
                url=f"{url}/managers/{cluster.id}/web/api/v2",
                user=cluster.manager_user,
                password=cluster.manager_password,
                cluster_number=cluster.manager_id,
            )
            await manager.save(cluster.name)
            block = Cluster(
                cluster_id=cluster.id,
                source=cluster.name,
                manager=manager,
                cloud=cloud,
                mode="auto",
                agency=AGENCY,
                on_unbound="rebind",
                speed=self.speed,
            )
            await block.save(cluster.name)

    async def _deploy(self, stack: AsyncExitStack, client: PrefectClient, folder: Path, api: str) -> None:
        self.say("deploying deployments/prefect.yaml and starting a worker")
        await client.create_work_pool(WorkPoolCreate(name="mrs-runbooks", type="process"))
        command = ("-m", "prefect", "worker", "start", "--pool", "mrs-runbooks", "--type", "process", "--name", "demo")
        await stack.enter_async_context(python_process(command, folder, "worker", api))
        deploy = ("-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_YAML))
        async with python_process(deploy, folder, "deploy", api) as deploying:
            if await deploying.wait():
                raise StepFailed(f"prefect deploy failed:\n{(folder / 'deploy.log').read_text()[-800:]}")

    async def _follow(self, client: PrefectClient, part: Part) -> dict[str, Any]:
        try:
            async with asyncio.timeout(GIVE_UP_AFTER):
                run = await self._finished(client, part, await part.run.get())
        except TimeoutError:
            raise StepFailed(f"scenario {part.scenario}: no run, or no end of it, within {GIVE_UP_AFTER:g} s") from None
        return await self._result(client, part, run)

    async def _finished(self, client: PrefectClient, part: Part, run: FlowRun) -> FlowRun:
        while True:
            run = await client.read_flow_run(run.id)
            for log in (await client.read_logs(_logs_of(run), limit=200, offset=part.shown)) or ():
                part.shown += 1
                if log.message.startswith("step "):
                    self.say(f"[cyan]{part.cluster.name}[/] {log.message}")
            if run.state and run.state.is_final():
                self.say(f"[cyan]{part.cluster.name}[/] [bold]{run.state.name}[/]: {run.state.message}")
                return run
            await asyncio.sleep(0.3)

    async def _result(self, client: PrefectClient, part: Part, run: FlowRun) -> dict[str, Any]:
        mine = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), type=ArtifactFilterType(any_=["table"])
        )
        artifacts = await client.read_artifacts(artifact_filter=mine)
        rows = json.loads(str(artifacts[0].data)) if artifacts else []
        about = f"{part.cluster.name}/12110/"
        return {
            "scenario": part.scenario,
            "profile": self.profile,
            "outcome": run.state.name if run.state else None,
            "traces": {row["host"]: row["trace"] for row in rows},
            "mutations": [
                {"action": entry.action, "target": entry.target}
                for entry in self.region.log
                if entry.cluster == part.cluster.id
            ],
            "ticket": next((ticket.id for ticket in tickets() if ticket.correlation.startswith(about)), None),
            "flow_run_id": str(run.id),
        }

    def expected(self, result: dict[str, Any]) -> bool:
        """Whether a scenario ended as it must. With more faults or trouble only that it ended with a word."""
        trace = SCENARIOS[result["scenario"]].trace(self.profile)
        if not self.as_told:
            return result["outcome"] is not None
        return result["outcome"] == trace.split()[-1] and list(result["traces"].values()) == [trace]

    def _show(self, results: Sequence[dict[str, Any]], ui: str) -> None:
        table = Table(title=f"What happened (profile {self.profile})", show_lines=True)
        for heading in ("scenario", "outcome", "trace per host", "what was changed", "ticket", "as expected"):
            table.add_column(heading, overflow="fold")
        for result in results:
            table.add_row(
                result["scenario"],
                result["outcome"],
                "\n".join(f"{host}: {trace}" for host, trace in result["traces"].items()),
                "\n".join(f"{m['action']} {m['target']}" for m in result["mutations"]) or "nothing",
                result["ticket"] or "none",
                "yes" if self.expected(result) else "[red]no[/]",
            )
        self.console.print(table)
        for ticket in (ticket for ticket in tickets() if len(results) == 1):
            self.console.print(f"\nTicket {ticket.id}:\n{ticket.body}", markup=False, highlight=False)
        run = results[0]["flow_run_id"]
        self.console.print(
            f"In the Prefect UI (run the demo with KEEP=1 to look): {ui}/runs/flow-run/{run}", highlight=False
        )


def _break(region: Region, cluster: EmulatedCluster, fault: str) -> None:
    name, _, host = fault.partition("@")
    where = host or (next(iter(cluster.hosts)) if name in ON_THE_FIRST_HOST else None)
    try:
        region.set_fault(name, cluster=cluster, host=where)
    except LookupError:
        raise ConfigurationError(f"--fault {fault}: no host {host!r}: use one of {', '.join(cluster.hosts)}") from None
    except ValueError as error:
        raise ConfigurationError(f"--fault {fault}: {error}") from error


def _trouble(region: Region, rule: str) -> None:
    kind, *rest = rule.split()
    if len(rest) not in (2, 3) or not (rest[2:] or ["1"])[0].isdigit():
        raise ConfigurationError(
            f"--trouble {rule!r}: write 'KIND METHOD PATH-GLOB [TIMES]', e.g. '503 GET */alarms 3'"
        )
    status = {"status": int(kind)} if kind.isdigit() else {}
    try:
        region.trouble.add(rest[0], rest[1], "status" if status else kind, int((rest[2:] or ["1"])[0]), **status)
    except ValueError as error:
        raise ConfigurationError(f"--trouble {rule!r}: {error}") from error


def _logs_of(run: FlowRun) -> LogFilter:
    return LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
