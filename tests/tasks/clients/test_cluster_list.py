"""The clusters of a project: every page of them, or an error that says how many are missing."""

import json
from collections.abc import Callable, Sequence

import httpx
import pytest

from deployments.emulator.app import app_of
from deployments.emulator.region import Region
from tasks.clients.http import Patience
from tasks.clients.mrs import CLUSTERS_PER_PAGE, Mrs
from tasks.models import ClusterRecord
from tests.tasks.clients.conftest import World, error_of

pytestmark = pytest.mark.anyio
CALL = "ServerTrouble: MRS GET v1.1//cluster_infos"


def mrs(answer: Callable[[httpx.Request], httpx.Response]) -> Mrs:
    """A client of a cloud that answers so."""
    return Mrs("MRS", "http://localhost", patience=Patience(attempts=1), transport=httpx.MockTransport(answer))


def page(total: object, names: Sequence[str]) -> httpx.Response:
    """A page with these clusters."""
    rows = [{"clusterId": name, "clusterName": name} for name in names]
    return httpx.Response(200, text=json.dumps({"clusterTotal": total, "clusters": rows}))


async def test_a_cluster_is_listed_with_what_it_is(world: World) -> None:
    """Id, name, state, version, nodes and the agency, as the cluster's own record has them."""
    listed = await (client := await world.mrs()).clusters()
    assert listed == (
        ClusterRecord(
            id=world.cluster.id,
            name="mrs-001",
            state="running",
            version="MRS 3.2.0-LTS.1",
            nodes=3,
            agency="MRS_ECS_DEFAULT_AGENCY",
        ),
    )
    assert listed == (await client.cluster(world.cluster.id),)


async def test_all_pages_are_read() -> None:
    """A project with more clusters than a page holds is listed whole, each cluster once, in two requests."""
    region = Region(clusters=CLUSTERS_PER_PAGE + 1, hosts=1)
    asked: list[str] = []
    transport = httpx.ASGITransport(app_of(region))

    async def seen(request: httpx.Request) -> httpx.Response:
        request.headers["X-Auth-Token"] = region.token
        asked.append(request.url.params["currentPage"])
        return await transport.handle_async_request(request)

    client = Mrs("MRS", "http://localhost", transport=httpx.MockTransport(seen))
    client.project_id = region.project_id
    assert {record.id for record in await client.clusters()} == set(region.clusters)
    assert asked == ["1", "2"]


async def test_a_state_can_be_asked_for(world: World) -> None:
    """The word reaches the cloud, which lists the clusters in that state only."""
    client = await world.mrs()
    assert [len(await client.clusters(state)) for state in ("running", "abnormal")] == [1, 0]


async def test_a_total_written_as_text_counts() -> None:
    """Numbers come as strings here and there."""
    assert [each.id for each in await mrs(lambda _: page("2", ["a", "b"])).clusters()] == ["a", "b"]


async def test_a_project_without_clusters_has_none() -> None:
    """No cluster is no error."""
    assert await mrs(lambda _: page(0, [])).clusters() == ()


@pytest.mark.parametrize(
    ("names", "listed"),
    [([], 0), (["a", "b"], 2), (["a", "a"], 1), (["", "a"], 1)],
    ids=["none", "same", "twice", "no id"],
)
async def test_a_list_that_does_not_add_up_is_an_error(names: list[str], listed: int) -> None:
    """A cloud that knows no pages, ends early or leaves ids out gives no shorter list but both numbers."""
    assert await error_of(mrs(lambda _: page(3, names)).clusters()) == f"{CALL}: 3 clusters announced, {listed} listed"


async def test_a_cluster_made_while_it_is_listed_is_found() -> None:
    """The last page's total counts, and a cluster that slid onto the next page is counted once."""
    pages = {"1": page(2, ["b", "c"][:1]), "2": page(3, ["b", "c"]), "3": page(3, ["a"])}
    found = await mrs(lambda request: pages[request.url.params["currentPage"]]).clusters()
    assert [each.id for each in found] == ["b", "c", "a"]


async def test_a_list_that_grows_for_ever_ends() -> None:
    """One new cluster a page under a total that runs ahead is given up."""
    error = await error_of(mrs(lambda request: page(10**6, [str(request.url.params["currentPage"])])).clusters())
    assert error == f"{CALL}: 1000000 clusters announced, 200 listed"
