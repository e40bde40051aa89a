"""The sweep as a flow, on a real Prefect server and clusters of the emulated region."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from sqlalchemy import select

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from flows.sweep import sweep
from tasks import timing
from tasks.blocks import Cloud as CloudBlock
from tasks.blocks import Cluster as ClusterBlock
from tasks.ledger.database import open_ledger
from tasks.ledger.episodes import LEASE
from tasks.ledger.receiving import intake_started
from tasks.ledger.starting import give_up
from tasks.ledger.sweeping import still_at_it, sweeps, take_sweep
from tasks.ledger.tables import Episode
from tasks.models import Outcome
from tasks.sweep.checks import CHECKS
from tasks.sweep.cluster_checks import NO_INTAKE
from tasks.sweep.reports import KINDS, Report, report_of
from tasks.sweep.steps import choose_clusters, look_at_clusters
from tasks.sweep.work import Order, at_work
from tests.conftest import serving
from tests.flows.conftest import EmulatedClock

pytestmark = [pytest.mark.server, pytest.mark.anyio]
_numbers = itertools.count(1)
MANY = 10_000


@dataclass
class Fleet:
    """Clusters of a region with their blocks, which are told from those of other tests by a label."""

    region: Region
    url: str
    number: int

    @property
    def label(self) -> str:
        """What selects the blocks."""
        return f"fleet=f{self.number}"

    @property
    def cloud(self) -> str:
        """Name of the cloud's block."""
        return f"fleet-{self.number}"

    def cluster(self, n: int) -> EmulatedCluster:
        """The n-th cluster, from 0."""
        return list(self.region.clusters.values())[n]

    def block(self, n: int) -> str:
        """The name of its block."""
        return f"fleet-{self.number}-{n}"

    async def run(self, **parameters: Any) -> State[Any]:
        """One sweep, over these clusters unless told otherwise."""
        return await sweep(**{"select": [self.label], **parameters}, return_state=True)

    async def report(self) -> Report:
        """What the last sweep found."""
        async with open_ledger() as ledger, ledger.reading() as session:
            return await report_of(session, (await sweeps(session, 1))[0])

    async def answers(self) -> Mapping[str, Mapping[str, str]]:
        """Cluster -> check -> value of the last sweep."""
        rows = (await self.report()).rows
        return {row.cluster: {check: value for check, (value, _) in row.answers.items()} for row in rows}

    def counts(self, route: str) -> Callable[[], int]:
        """How many requests to this route there were from now on."""
        rule = self.region.trouble.add("*", route, "latency", MANY, seconds=0)
        return lambda: MANY - (rule.times or 0)


Fleets = Callable[..., AbstractAsyncContextManager[Fleet]]


@pytest.fixture
def fleet(prefect_server: str) -> Fleets:
    """`async with fleet(clusters=3, managed=2) as it`: a served region, blocks for its first clusters."""

    @asynccontextmanager
    async def make(managed: int | None = None, **region: Any) -> AsyncIterator[Fleet]:
        number = next(_numbers)
        made = Region(**{"clusters": 2, "hosts": 3, "seed": number, **region})  # no two fleets have a cluster in common
        async with serving(made) as url:
            it = Fleet(made, url, number)
            cloud = cloud_block(made, url, region=f"r{it.number}")
            await cloud.save(it.cloud)
            for n, cluster in enumerate(list(made.clusters.values())[:managed]):
                manager = manager_block(cluster, url)
                block = cluster_block(cluster, manager, cloud, labels={"fleet": f"f{it.number}"})
                await block.save(it.block(n))
            token = timing.clock.set(EmulatedClock(made))
            try:
                yield it
            finally:
                timing.clock.reset(token)

    return make


HEALTHY = {c.id: "pass" if c.observable else "cannot tell" for c in CHECKS} | {
    "episode": "n/a",
    "source-silent": "fail",
}


def but(**answers: str) -> dict[str, str]:
    """The answers of a healthy cluster of which nothing was ever heard, but for these."""
    return HEALTHY | {name.replace("_", "-"): value for name, value in answers.items()}


ALARMS = {f"alarm_{alarm_id}": "cannot tell" for alarm_id in (12110, 45192, 45741, 45742, 45743)}
NO_MANAGER = but(manager="fail", instances="cannot tell", episode="cannot tell", source_silent="cannot tell", **ALARMS)


async def test_a_fleet_with_everything_in_it(fleet: Fleets) -> None:
    """Each cluster has its own findings, one that hangs or does not answer a single one, and none fails the sweep."""
    async with fleet(clusters=7) as it:
        unbound, partly, crashed, away, hangs, masked = (it.cluster(n) for n in range(1, 7))
        it.region.set_fault("unbound", cluster=unbound)
        it.region.set_fault("partly-bound", cluster=partly)
        it.region.set_fault("crashed", cluster=crashed, host="node-master1")
        it.region.set_fault("oms-switchover", cluster=away)
        it.region.set_fault("masked", cluster=masked)
        it.region.trouble.add("*", f"/managers/{hangs.id}/*", "latency", None, seconds=60)
        began = asyncio.get_running_loop().time()
        state = await it.run()
        assert await it.answers() == {
            it.block(0): HEALTHY,
            it.block(1): but(agency_record="fail", agency_nodes="fail", agency_expected="fail"),
            it.block(2): but(agency_nodes="fail", agency_expected="fail"),
            it.block(3): but(instances="fail"),
            it.block(4): NO_MANAGER,
            it.block(5): NO_MANAGER,
            it.block(6): but(alarm_12110="cannot tell"),
        }
        assert (state.name, state.message) == (
            "FINDINGS",
            "13 findings on 7 of 7 clusters; 17 answers on 3 clusters cannot be told.",
        )
        assert asyncio.get_running_loop().time() - began < 20


async def test_an_ecs_that_hangs_for_one_cluster(fleet: Fleets) -> None:
    """Where the ECS API hangs for a node of one cluster the others are looked at, and that is one finding."""
    async with fleet(clusters=3) as it:
        server = next(iter(it.cluster(1).hosts.values())).server_id
        it.region.trouble.add("GET", f"*/cloudservers/{server}", "latency", None, seconds=60)
        began = asyncio.get_running_loop().time()
        await it.run()
        assert await it.answers() == {
            it.block(0): HEALTHY,
            it.block(1): but(cloud="fail", agency_nodes="cannot tell", agency_expected="cannot tell"),
            it.block(2): HEALTHY,
        }
        assert asyncio.get_running_loop().time() - began < 40


async def test_wrong_agencies(fleet: Fleets) -> None:
    """What is wrong with the agency in IAM is found for each cluster that uses it, and IAM is asked once."""
    async with fleet(clusters=3) as it:
        it.region.set_fault("agency-expiring")
        it.region.set_fault("agency-without-obs")
        asked = it.counts("*/OS-AGENCY/*")
        await it.run()
        assert await it.answers() == {it.block(n): but(agency_expiring="fail", agency_obs="fail") for n in range(3)}
        assert asked() == 2


async def test_published_routes_only(fleet: Fleets) -> None:
    """Where Manager offers published routes only the cloud's side is told, and of alarms what sources told."""
    async with fleet(clusters=1, profile="documented") as it:
        await it.run()
        assert await it.answers() == {it.block(0): but(episode="cannot tell", **ALARMS)}


async def test_clusters_without_a_block(fleet: Fleets) -> None:
    """Clusters that a chosen cloud has and no block names are looked at by the cloud's APIs, and reported."""
    async with fleet(clusters=3, managed=1) as it:
        state = await it.run(select=[f"cloud={it.cloud}"])
        answers = await it.answers()
        n_a = {c.id: "n/a" for c in CHECKS if c.id.startswith(("alarm", "episode", "wait", "ticket", "source"))}
        unmanaged = HEALTHY | n_a | {"managed": "fail", "manager": "n/a", "agency-expected": "n/a"}
        assert answers == {it.block(0): HEALTHY, it.cluster(1).id: unmanaged, it.cluster(2).id: unmanaged}
        assert state.message == "3 findings on 3 of 3 clusters; 2 clusters are unmanaged."


async def test_a_cloud_that_lists_nothing(fleet: Fleets) -> None:
    """Where a cloud does not list its clusters those that have a block are looked at, and the summary says it."""
    async with fleet(clusters=2, managed=1) as it:
        it.region.trouble.add("GET", "*/cluster_infos", "status", None, status=403)
        state = await it.run(select=[f"cloud={it.cloud}"])
        assert list(await it.answers()) == [it.block(0)]
        assert f"Which clusters of cloud {it.cloud} have no block cannot be told: MRS GET" in (state.message or "")


async def test_a_selection_that_holds_nothing(fleet: Fleets) -> None:
    """A selection without a cluster or of nothing sweeps none and says so; a blank or an unknown label is refused."""
    async with fleet(clusters=1) as it:
        empty = await it.run(select=["fleet=none"])
        typo, blank = await it.run(select=["flet=none"]), await it.run(select=[""])
        nothing = await it.run(select=[])
        assert (empty.name, empty.message) == (
            "NOTHING",
            "Nothing was swept: the selection fleet=none holds no cluster. No findings on 0 of 0 clusters.",
        )
        assert (
            typo.is_failed(),
            "the selection 'flet=none' names a label that no cluster has" in (typo.message or ""),
        ) == (
            True,
            True,
        )
        assert [(each.is_failed(), each.name, each.message) for each in (blank, nothing)] == [
            (True, "Failed", "the selection '' is not written as KEY=VALUE, for example stage=production"),
            (
                False,
                "NOTHING",
                "Nothing was swept: the selection is empty; leave it out for the whole fleet.",
            ),
        ]


async def test_a_block_that_cannot_be_used(fleet: Fleets, prefect_server: str) -> None:
    """A cluster whose block cannot be used is one finding, is not unmanaged, and may be left out of a selection."""
    async with fleet(clusters=2) as it:
        async with get_client() as client:
            document = await client.read_block_document_by_name(it.block(1), "mrs-cluster", include_secrets=True)
            update = BlockDocumentUpdate(
                block_schema_id=document.block_schema_id,
                data={**document.data, "mode": "wild"},
                merge_existing_data=False,
            )
            await client.update_block_document(document.id, update)
        await it.run(select=[f"name={it.cloud}-*"])
        named = await it.answers()
        of_cloud, of_label = await it.run(select=[f"cloud={it.cloud}"]), await it.run()
        left = list(await it.answers())
        await ClusterBlock.adelete(it.block(1))
        assert named == {
            it.block(0): HEALTHY,
            it.block(1): dict.fromkeys(HEALTHY, "cannot tell") | {"managed": "fail"},
        }
        note = "Blocks that cannot be used, so that nobody can tell whether they are selected"
        assert [(state.message or "").partition(". ")[2] for state in (of_cloud, of_label)] == [
            f"{note}: {it.block(1)}."
        ] * 2
        assert left == [it.block(0)]


async def test_clouds_that_a_region_may_leave_out(fleet: Fleets) -> None:
    """A sweep of a region says which clouds name none, and which cannot be used: their clusters are not looked at."""
    async with fleet(clusters=2, managed=1) as it:
        # Other tests leave clouds without a region too, and the first names are told.
        nowhere, broken = f"0-{it.cloud}-nowhere", f"{it.cloud}-broken"
        cloud = cloud_block(it.region, it.url)
        await cloud.save(nowhere)
        block = cluster_block(it.cluster(1), manager_block(it.cluster(1), it.url), cloud)
        await block.save(it.block(1))
        document = await cloud_block(it.region, it.url).save(broken)
        async with get_client() as client:
            update = BlockDocumentUpdate(data={"token": "a second login"}, merge_existing_data=True)
            await client.update_block_document(document, update)
        state = await it.run(select=[f"region=r{it.number}"])
        for name in (nowhere, broken):
            await CloudBlock.adelete(name)
        await ClusterBlock.adelete(it.block(1))
        assert await it.answers() == {it.block(0): HEALTHY}
        first, without, names = (state.message or "").partition("Cloud blocks without a region, ")
        assert first == (
            "1 finding on 1 of 1 cluster. "
            f"Cloud blocks that cannot be used, so that nobody looked for clusters without a block there: {broken}. "
        )
        assert without
        assert names.startswith(f"whose clusters are in no selection by region: {nowhere}")


# What follows an active alarm


async def episodes() -> list[tuple[str, str, int, str]]:
    """Of every episode: state, who opened it, the number of its run, why it is diagnosed only."""
    async with open_ledger() as ledger, ledger.reading() as session:
        found = await session.scalars(select(Episode).order_by(Episode.opened))
        return [(each.state, each.opened_by, each.n, each.backlog) for each in found]


async def test_an_alarm_that_nobody_told_of(fleet: Fleets) -> None:
    """An active ALM-12110 without an episode gets one, once, however often the fleet is swept; an intake starts it."""
    async with fleet(clusters=1, meta_hosts=1) as it:
        it.region.set_fault("crashed", cluster=it.cluster(0), host="node-master1")
        it.region.advance(40 * 60)
        state = await it.run()
        first = await it.answers()
        await it.run()
        second, said = await it.answers(), (await it.report()).rows[0].answers["episode"][1]
        async with open_ledger() as ledger, ledger.writing() as session:
            await intake_started(session, "intake", timing.wall())
        with_intake = await it.run()
        third = await it.answers()
        found = but(instances="fail", alarm_12110="fail", temporary_keys="fail", episode="fail")
        assert (first, second) == ({it.block(0): found}, {it.block(0): found})
        assert third == {it.block(0): found | {"episode": "pass"}}
        note = f"No intake is at work: the runs of {it.block(0)} start when one is."
        assert (said.partition("; ")[2], (state.message or "").partition(". ")[2]) == (NO_INTAKE, note)
        assert "No intake" not in (with_intake.message or "")
        assert await episodes() == [("raised", "sweep", 1, "the alarm was raised before the cluster was connected")]


async def test_remediate_begins_again_what_has_ended(fleet: Fleets) -> None:
    """Asked to remediate, an alarm that a person has gets a run again; without that it is left to its ticket."""
    async with fleet(clusters=1, meta_hosts=1) as it:
        it.region.set_fault("wedged", cluster=it.cluster(0), host="node-master1")
        it.region.advance(40 * 60)
        await it.run()
        async with open_ledger() as ledger, ledger.writing() as session:
            episode = (await session.scalars(select(Episode))).one()
            assert await give_up(session, episode, Outcome.ESCALATE, timing.wall())
        await it.run()
        left = await episodes()
        await it.run(remediate=True)
        ended = ("closed", "sweep", 1, "the alarm was raised before the cluster was connected")
        assert (left, await episodes()) == ([ended], [ended, ("raised", "sweep", 1, "")])


# Begun anew


@flow
async def half(order: Order, names: list[str]) -> None:
    """A sweep that ends after these clusters."""
    async with at_work(order):
        await choose_clusters(order)
        await look_at_clusters(order, names, names[0], len(names))


@flow
async def the_rest(order: Order) -> tuple[int, int, list[tuple[str, ...]]]:
    """How many clusters there are, were looked at already, and are left."""
    async with at_work(order) as work:
        found = await choose_clusters(order), work.done, list(work.shards)
        for names in work.shards:
            await look_at_clusters(order, names, names[0], len(names))
        return found


async def test_it_goes_on_where_it_was(fleet: Fleets) -> None:
    """Begun anew by another process a sweep looks only at clusters that it has not looked at."""
    async with fleet(clusters=4) as it:
        order = Order(run=str(uuid4()), selection=(it.label,))
        asked = it.counts("/v2/*/nodes")
        await half(order, [it.block(0), it.block(2)])
        assert await the_rest(order) == (4, 2, [(it.block(1), it.block(3))])
        assert (set(await it.answers()), asked()) == ({it.block(n) for n in range(4)}, 4)


async def test_two_processes_are_not_at_one_sweep(fleet: Fleets) -> None:
    """While a process is at it another one leaves the sweep alone, and takes it over when the first is silent."""
    async with fleet(clusters=1) as it:
        order = Order(run=str(uuid4()), selection=(it.label,))
        almost_silent = timing.wall() - LEASE + timedelta(seconds=2)
        async with open_ledger() as ledger:

            async def lives(moment: datetime) -> bool:
                async with ledger.writing() as session:
                    return await still_at_it(session, order.run, "other", moment)

            async def lives_on() -> None:
                await asyncio.sleep(0.5)
                await lives(timing.wall())

            async with ledger.writing() as session:
                about = {"remediate": False, "holder": "other", "now": almost_silent}
                await take_sweep(session, order.run, order.selection, **about)  # type: ignore[arg-type]
            living = asyncio.create_task(lives_on())
            with pytest.raises(Pause):
                async with at_work(order):
                    pass
            await living
            await lives(timing.wall() - LEASE + timedelta(seconds=1))
            async with at_work(order):
                assert not await lives(timing.wall())


# What changed


async def test_what_is_different_from_the_last_time(fleet: Fleets) -> None:
    """A sweep is held against the last one of the same selection: new, fixed, standing, of clusters that are gone."""
    async with fleet(clusters=3) as it:
        it.region.set_fault("partly-bound", cluster=it.cluster(0))
        it.region.set_fault("partly-bound", cluster=it.cluster(2))
        await it.run()
        it.region.clear_fault("partly-bound", cluster=it.cluster(0))
        it.region.set_fault("record-empty", cluster=it.cluster(1))
        await ClusterBlock.adelete(it.block(2))
        state = await it.run()
        report = await it.report()
        assert report.change is not None
        kinds = {kind: [(each.cluster, each.check.id) for each in getattr(report.change, kind)] for kind in KINDS}
        silent = [(it.block(n), "source-silent") for n in range(2)]
        assert kinds == {
            "new": [(it.block(1), "agency-record")],
            "fixed": [(it.block(0), "agency-nodes"), (it.block(0), "agency-expected")],
            "standing": silent,
            "lapsed": [],
            "unknown": [],
            "gone": [(it.block(2), check) for check in ("agency-nodes", "agency-expected", "source-silent")],
        }
        words = "1 new, 2 fixed, 2 standing, 3 of clusters that are gone since the sweep of"
        assert (state.message or "").startswith(f"3 findings on 2 of 2 clusters ({words}")
