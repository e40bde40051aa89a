"""What the browser looks at: the crash matrix's stand with a worker of its own, and broken clusters."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from deployments.scenarios import break_cluster, give_an_agency
from tests.conftest import serving
from tests.crash.processes import stand
from tests.crash.stand import Stand

SPEED = 60.0
NEVER, SOON = 36_000, 900  # seconds of a cluster's time until its questions expire: ten minutes, and a quarter of one
# One cluster for each test, so that none waits for another's run: its name, and when its questions expire.
CLUSTERS = {"analytics": NEVER, "billing": NEVER, "clickstream": SOON, "datalake": NEVER, "healthy": NEVER}


@dataclass(frozen=True)
class Played:
    """Prefect with its UI at `ui`, the processes behind it, and the region with the clusters of `CLUSTERS`.

    No source tells the intake of an alarm: persons start the runs.
    """

    ui: str
    stand: Stand
    region: Region

    def changes(self, cluster: str) -> list[tuple[str, str]]:
        """What was changed on the cluster of that name."""
        (id_,) = [each.id for each in self.region.clusters.values() if each.name == cluster]
        return [(entry.action, entry.target) for entry in self.region.log if entry.cluster == id_]


@asynccontextmanager
async def played(folder: Path) -> AsyncIterator[Played]:
    """All of it while the block runs; logs and tickets are in the folder."""
    region = Region(clusters=len(CLUSTERS), meta_hosts=1, start=datetime.now(UTC) - timedelta(minutes=25))
    named = dict(zip(CLUSTERS, region.clusters.values(), strict=True))
    for name, cluster in named.items():
        cluster.name = name
        give_an_agency(region, cluster)
        if name != "healthy":
            break_cluster(region, cluster, "crashed")
    region.advance(25 * 60)
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(stand(folder))
        url = await stack.enter_async_context(serving(region, speed=SPEED))
        cloud = cloud_block(region, url)
        for name, cluster in named.items():
            settings = {"mode": "approve", "approval_expires": CLUSTERS[name], "speed": SPEED}
            block = cluster_block(cluster, manager_block(cluster, url), cloud, **settings)
            await block.save(name, client=made.client)
        await stack.enter_async_context(made.worker(folder))
        yield Played(made.api.removesuffix("/api"), made, region)
