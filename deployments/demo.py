"""`runbooks demo`: a cluster breaks, its alarm arrives as a syslog line, and a real Prefect server runs the repair."""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from rich.console import Console
from rich.markup import escape
from sqlalchemy import select

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from deployments.results import Change, Result, show
from deployments.scenarios import SCENARIOS, Profile, break_cluster, give_an_agency, trouble_region
from deployments.stage import kept, staged
from deployments.terminal import say
from tasks.errors import ConfigurationError, StepFailed
from tasks.gates import BREAKER
from tasks.ledger.database import Ledger
from tasks.ledger.tables import Episode
from tasks.tickets import tickets

ALARM_WITHIN = 45 * 60.0  # seconds of the region's time; Meta polls every five minutes and raises after three
END_WITHIN = 2 * 3600.0  # the same; and of our own time, for starting processes and for repeated reads:
SLACK = 420.0


@dataclass
class Part:
    """One scenario being played on a cluster of its own."""

    scenario: str
    cluster: EmulatedCluster
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
            raise ConfigurationError(f"--scenario {unknown[0]}: there is none: use all, {', '.join(SCENARIOS)}")
        self.profile, self.speed, self.console = profile, speed, console
        self.as_told = not faults and not trouble
        self.faults, self.trouble = faults, trouble
        self._break(self._region(names), names)  # a mistake is said before anything is started
        self.region = self._region(names)
        self.parts = [Part(name, cluster) for name, cluster in zip(names, self.region.clusters.values(), strict=True)]
        self._began = time.monotonic()

    def _region(self, names: Sequence[str]) -> Region:
        """A cluster for each scenario; nothing is broken yet."""
        region = Region(clusters=len(names), hosts=3, meta_hosts=1, profile=self.profile, start=datetime.now(UTC))
        for cluster in region.clusters.values():
            give_an_agency(region, cluster)
        return region

    def _break(self, region: Region, names: Sequence[str]) -> None:
        for name, cluster in zip(names, region.clusters.values(), strict=True):
            for fault in (*SCENARIOS[name].faults, *self.faults):
                break_cluster(region, cluster, fault)
        for rule in self.trouble:
            trouble_region(region, rule)

    def say(self, text: str) -> None:
        """One paragraph of progress, with the seconds since the start. The text may hold rich's markup."""
        say(self.console, f"{time.monotonic() - self._began:6.1f} s", text)

    async def play(self, *, keep: bool) -> list[Result]:
        """Start everything, follow the runs to their end, show and return the results."""
        if len(self.parts) > 1:
            os.environ[BREAKER] = "off"
            self.say("the breaker, which stops all changes when many clusters alarm together, is off for this demo")
        async with staged(self.region, speed=self.speed, say=self.say) as stage:
            await self._save_blocks(stage.url)
            await stage.intake.directory.refresh()
            self._break(self.region, [part.scenario for part in self.parts])  # who alarms now is known
            for part in self.parts:
                self.say(f"[cyan]{part.cluster.name}[/] is broken: {part.scenario}")
            self.say(
                "waiting for the alarm: the Meta role raises it when its polls of every five minutes for keys failed "
                f"three times (the region's time runs {self.speed:g} times faster)"
            )
            results = await asyncio.gather(*(self._follow(stage.client, stage.ledger, part) for part in self.parts))
            show(self.console, results, tickets(), as_told=self.as_told)
            if keep:
                await kept(self.console, [f"{stage.ui}/runs/flow-run/{result.flow_run_id}" for result in results])
            else:
                self.console.print("\nTo look at the run in the Prefect UI, play it again with --keep (make: KEEP=1).")
            return results

    async def _save_blocks(self, url: str) -> None:
        cloud = cloud_block(self.region, url)
        await cloud.save("emulated-region")
        for cluster in (part.cluster for part in self.parts):
            manager = manager_block(cluster, url)
            await manager.save(cluster.name)
            await cluster_block(cluster, manager, cloud, speed=self.speed).save(cluster.name)

    async def _follow(self, client: PrefectClient, ledger: Ledger, part: Part) -> Result:
        run = None
        try:
            async with asyncio.timeout(ALARM_WITHIN / self.speed + SLACK):
                run = await client.read_flow_run(await self._run_of(ledger, part))
            async with asyncio.timeout(END_WITHIN / self.speed + SLACK):
                return await self._result(client, part, await self._finished(client, part, run))
        except TimeoutError:
            what = f"{run.name} did not end" if run else "no alarm started a run"
            raise StepFailed(f"scenario {part.scenario} on {part.cluster.name}: {what} in time") from None

    async def _run_of(self, ledger: Ledger, part: Part) -> UUID:
        """The run of the cluster's episode, as soon as the ledger has it."""
        while True:
            async with ledger.reading() as session:
                mine = select(Episode.run).where(Episode.cluster == part.cluster.name, Episode.run.is_not(None))
                if run := (await session.scalars(mine)).first():
                    return UUID(run)
            await asyncio.sleep(0.3)

    async def _finished(self, client: PrefectClient, part: Part, run: FlowRun) -> FlowRun:
        while not (run.state and run.state.is_final()):
            await asyncio.sleep(0.3 * len(self.parts))
            run = await client.read_flow_run(run.id)
            await self._tell(client, part, run)
        await asyncio.sleep(1)  # a run's last lines come after its state
        await self._tell(client, part, run)
        name, words = run.state.name or "", run.state.message or ""
        told = words if words.startswith(name) else f"{name}: {words}"
        self.say(f"[cyan]{part.cluster.name}[/] [bold]{escape(told)}[/]")
        return run

    async def _tell(self, client: PrefectClient, part: Part, run: FlowRun) -> None:
        mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        for log in await client.read_logs(mine, limit=200, offset=part.shown):
            part.shown += 1
            if log.message.startswith("step "):
                self.say(f"[cyan]{part.cluster.name}[/] {escape(log.message)}")

    async def _result(self, client: PrefectClient, part: Part, run: FlowRun) -> Result:
        mine = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(like_="%-traces")
        )
        artifacts = await client.read_artifacts(artifact_filter=mine)
        rows = json.loads(str(artifacts[0].data)) if artifacts else []
        changes = (Change(entry.action, entry.target) for entry in self.region.log if entry.cluster == part.cluster.id)
        about = f"{part.cluster.name}/12110/"
        return Result(
            scenario=part.scenario,
            profile=self.profile,
            outcome=(run.state and run.state.name) or "",
            traces={row["host"]: row["trace"] for row in rows},
            mutations=tuple(changes),
            ticket=next((ticket.id for ticket in tickets() if ticket.correlation.startswith(about)), None),
            flow_run_id=str(run.id),
        )

    def expected(self, result: Result) -> bool:
        """Whether a scenario ended as it must. With more faults or trouble only that it ended with a word."""
        return result.as_expected(as_told=self.as_told)
