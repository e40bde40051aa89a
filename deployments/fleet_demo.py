"""`runbooks demo --fleet N`: a sweep over a fleet, some clusters of which are broken, their alarms and the repair."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from sqlalchemy import select

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from deployments.scenarios import break_cluster, give_an_agency
from deployments.stage import Stage, kept, staged
from deployments.sweep_commands import order_sweep, watched
from deployments.sweep_views import show_report
from deployments.terminal import say
from tasks.errors import StepFailed
from tasks.gates import BREAKER
from tasks.ledger.fleet_tables import Sweep
from tasks.ledger.tables import Episode
from tasks.models import Outcome
from tasks.sweep.picture import as_html
from tasks.sweep.reports import Report, report_of

SMALLEST = 10
AT_ONCE = 4  # blocks that are saved at the same time; Prefect's own SQLite takes no more
END_WITHIN = 2 * 3600.0  # seconds of the region's time, in which the alarms come and their runs end; and of ours:
SLACK = 600.0


@dataclass(frozen=True)
class Broken:
    """What is wrong with a cluster; `ends` is how its run must end, empty where it raises no ALM-12110."""

    fault: str
    words: str
    ends: str = ""


BROKEN: Sequence[Broken] = (
    Broken("unbound", "it has lost its agency", Outcome.END),
    Broken("crashed", "the Meta instance of a host has crashed", Outcome.END),
    Broken("agency-broken", "its agency is bound, and deleted in IAM", Outcome.ESCALATE),
    Broken("mixed-agencies", "its last node names another agency"),
    Broken("record-absent", "its record does not say which agency it has"),
    Broken("status", "nobody knows the status of its Meta instances"),
    Broken("", "its Manager does not answer"),
    Broken("", "nobody has made a block for it"),
)
UNREACHABLE, UNMANAGED = len(BROKEN) - 2, len(BROKEN) - 1


class FleetDemo:
    """A fleet of emulated clusters, the first of which are broken, each in another way.

    Args:
        clusters: how many, at least ten.
        speed: how much faster the region's time runs.
        report: where the sweep's page is written to.
    """

    def __init__(self, clusters: int, *, speed: float, report: Path, console: Console) -> None:
        self.speed, self.report, self.console = speed, report, console
        self.region = Region(clusters=clusters, hosts=3, meta_hosts=1, start=datetime.now(UTC))
        self.clusters = list(self.region.clusters.values())
        self.broken = dict(zip((cluster.name for cluster in self.clusters), BROKEN, strict=False))
        self._began = time.monotonic()
        for cluster in self.clusters:
            give_an_agency(self.region, cluster)

    def say(self, text: str) -> None:
        """One paragraph of progress, with the seconds since the start. The text may hold rich's markup."""
        say(self.console, f"{time.monotonic() - self._began:6.1f} s", text)

    async def play(self, *, keep: bool) -> bool:
        """Sweep, wait for the alarms and their runs, sweep again; whether everything came as it must."""
        os.environ[BREAKER] = "off"
        self.say("the breaker, which stops all changes when many clusters alarm together, is off for this demo")
        async with staged(self.region, speed=self.speed, say=self.say) as stage:
            await self._save_blocks(stage)
            self._break()
            self.say("a sweep: who will raise ALM-12110 before long, and what else is not as it should be?")
            first = await self._sweep(stage)
            self.report.write_text(as_html(first), encoding="utf-8")
            self.say(f"the whole fleet as a picture: [bold]{escape(str(self.report))}[/]")
            self.say(
                "now their alarms: the Meta role raises one when its polls of every five minutes for keys failed three "
                f"times (the region's time runs {self.speed:g} times faster)"
            )
            ended = await self._ended(stage)
            self._show_runs(ended)
            self.say("another sweep: what is different?")
            second = await self._sweep(stage)
            self.report.write_text(as_html(second), encoding="utf-8")
            if keep:
                await kept(self.console, [f"{stage.ui}/runs", str(self.report.absolute())])
        as_told = {name: broken.ends for name, broken in self.broken.items() if broken.ends}
        return {name: outcome for name, (outcome, _) in ended.items()} == as_told and self._found(first, second)

    def _break(self) -> None:
        for n, (cluster, broken) in enumerate(zip(self.clusters, BROKEN, strict=False)):
            if broken.fault == "status":
                self.region.set_fault("status", cluster=cluster, value="Unknown")
            elif broken.fault:
                break_cluster(self.region, cluster, broken.fault)
            elif n == UNREACHABLE:
                self.region.trouble.add("*", f"/managers/{cluster.id}/*", "reset", None)
            self.say(f"[cyan]{cluster.name}[/]: {broken.words}")
        self.say(f"the other {len(self.clusters) - len(BROKEN)} of {len(self.clusters)} clusters are well")

    async def _save_blocks(self, stage: Stage) -> None:
        cloud = cloud_block(self.region, stage.url, region=self.region.region)
        await cloud.save("emulated-region", client=stage.client)
        turn = asyncio.Semaphore(AT_ONCE)

        async def save(cluster: EmulatedCluster, n: int) -> None:
            async with turn:
                manager = manager_block(cluster, stage.url)
                await manager.save(cluster.name, client=stage.client)
                labels = {"stage": "test" if n % 4 == 3 else "production"}
                await cluster_block(cluster, manager, cloud, speed=self.speed, labels=labels).save(
                    cluster.name, client=stage.client
                )

        known = [(cluster, n) for n, cluster in enumerate(self.clusters) if n != UNMANAGED]
        self.say(f"making the blocks of {len(known)} clusters (about a second each on Prefect's own database)")
        await save(*known[0])  # the first registers the forms
        await asyncio.gather(*(save(*each) for each in known[1:]))
        self.say(f"{len(known)} clusters have their blocks")
        await stage.intake.directory.refresh()

    async def _sweep(self, stage: Stage) -> Report:
        run = await order_sweep(stage.client, (), "demo", remediate=False)
        ended = await watched(stage.client, stage.ledger, self.console, run.id)
        if ended.state is None or not ended.state.is_completed():
            raise StepFailed(f"the sweep did not come to its end: {ended.state and ended.state.message}")
        async with stage.ledger.reading() as session:
            row = await session.get_one(Sweep, str(run.id))
            report = await report_of(session, row)
        show_report(self.console, report)
        return report

    async def _ended(self, stage: Stage) -> Mapping[str, tuple[str, str]]:
        """By cluster the outcome and the words of its run, as soon as every run that must end has ended."""
        found: dict[str, tuple[str, str]] = {}
        missing = {name for name, broken in self.broken.items() if broken.ends}
        try:
            async with asyncio.timeout(END_WITHIN / self.speed + SLACK):
                while missing - set(found):
                    await asyncio.sleep(0.5)
                    for name, run in (await self._runs(stage)).items():
                        if name not in found and (end := await _end_of(stage.client, run)):
                            found[name] = end
                            self.say(f"[cyan]{name}[/] [bold]{escape(end[1])}[/]")
        except TimeoutError:
            raise StepFailed(f"no run of {', '.join(sorted(missing - set(found)))} came to its end in time") from None
        return found

    async def _runs(self, stage: Stage) -> Mapping[str, UUID]:
        async with stage.ledger.reading() as session:
            rows = await session.execute(select(Episode.cluster, Episode.run).where(Episode.run.is_not(None)))
            return {cluster: UUID(run) for cluster, run in rows}

    def _show_runs(self, ended: Mapping[str, tuple[str, str]]) -> None:
        table = Table("cluster", "what was wrong", "how its run ended")
        for name, (outcome, _) in sorted(ended.items()):
            table.add_row(Text(name), self.broken[name].words if name in self.broken else "nothing", Text(outcome))
        self.console.print(table)

    def _found(self, first: Report, second: Report) -> bool:
        """Whether the first sweep named every broken cluster and no other, and the second what was repaired."""
        named = {row.cluster for row in first.rows if row.failed or row.untold}
        must = {cluster.name for cluster in self.clusters[:UNMANAGED]} & set(self.broken)
        must.add(self.clusters[UNMANAGED].id)
        fixed = {each.cluster for each in second.change.fixed} if second.change else set()
        repaired = {name for name, broken in self.broken.items() if broken.ends == Outcome.END}
        return named == must and repaired <= fixed


async def _end_of(client: PrefectClient, run: UUID) -> tuple[str, str] | None:
    """The run's outcome and its words, once it has ended."""
    state = (await client.read_flow_run(run)).state
    return (state.name or "", state.message or state.name or "") if state and state.is_final() else None
