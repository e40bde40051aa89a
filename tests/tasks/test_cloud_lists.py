"""The clouds against the fleet: what is managed, what has no block, what is gone, and what nobody can tell."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from tasks.blocks import Cloud, Cluster
from tasks.cloud_lists import cloud_named, compare, list_clouds, one_per_project
from tasks.errors import ConfigurationError
from tasks.fleet import Fleet
from tests.conftest import serving

pytestmark = pytest.mark.anyio
LIST = "*/cluster_infos"


class Place:
    """A region with three clusters, and blocks for them."""

    def __init__(self, region: Region, url: str) -> None:
        self.region, self.url = region, url
        self.clusters = list(region.clusters.values())

    def cloud(self, **settings: Any) -> Cloud:
        """A block of its project."""
        return cloud_block(self.region, self.url, **settings)

    def block(self, cluster: EmulatedCluster, **settings: Any) -> Cluster:
        """A block of one of its clusters."""
        return cluster_block(cluster, manager_block(cluster, self.url), self.cloud(), **settings)

    async def seen(self, **blocks: Cluster) -> list[tuple[str, str, str]]:
        """Name, standing and state of every cluster, for a fleet of these blocks."""
        lists = await list_clouds({"here": self.cloud()})
        compared = await compare(Fleet(blocks, {}), lists)
        return [(each.name, each.standing, each.record.state if each.record else "") for each in compared]


@pytest.fixture
async def place(anyio_backend: str) -> AsyncIterator[Place]:
    """The region, served."""
    region = Region(clusters=3, hosts=1)
    async with serving(region) as url:
        yield Place(region, url)
        assert region.log == []


async def test_a_cluster_without_a_block_is_unmanaged(place: Place) -> None:
    """Those with a block come first, by its name; the others by their names in the cloud."""
    first, second, _ = place.clusters
    assert await place.seen(b=place.block(first), a=place.block(second)) == [
        ("a", "managed", "running"),
        ("b", "managed", "running"),
        ("mrs-003", "unmanaged", "running"),
    ]


async def test_a_cluster_whose_block_cannot_be_used_is_not_unmanaged(place: Place) -> None:
    """It has a block, whatever is wrong with that."""
    first, second, _ = place.clusters
    fleet = Fleet({"a": place.block(first)}, {"b": "mode: unknown"}, broken_ids={"b": second.id})
    seen = await compare(fleet, await list_clouds({"here": place.cloud()}))
    assert [(each.name, each.standing) for each in seen] == [("a", "managed"), ("mrs-003", "unmanaged")]


async def test_a_cluster_that_the_cloud_does_not_know_is_gone(place: Place) -> None:
    """It is asked for by its id first, for a list shows one enterprise project."""
    blocks = {"there": place.block(place.clusters[0]), "gone": place.block(place.clusters[1], cluster_id="deleted")}
    assert (await place.seen(**blocks))[:2] == [("gone", "gone", ""), ("there", "managed", "running")]


async def test_a_cloud_that_cannot_be_asked_makes_nothing_gone(place: Place) -> None:
    """Its clusters are unknown, the reason is told, and other clouds are listed."""
    place.region.trouble.add("GET", LIST, "status", times=None, status=403)
    lists = await list_clouds({"here": place.cloud(), "there": place.cloud(mrs_url="http://127.0.0.1:9")})
    assert {name: each.trouble.partition(": ")[2][:8] for name, each in lists.items()} == {
        "here": "HTTP 403",
        "there": "http://1",
    }
    assert await place.seen(a=place.block(place.clusters[0])) == [("a", "unknown", "")]


async def test_an_id_that_cannot_be_asked_for_is_unknown(place: Place) -> None:
    """Not listed, and the question for it alone fails: that is not gone."""
    place.region.trouble.add("GET", "*/cluster_infos/*", "status", times=None, status=403)
    assert (await place.seen(a=place.block(place.clusters[0], cluster_id="x")))[0] == ("a", "unknown", "")


async def test_a_project_is_listed_once(place: Place) -> None:
    """Of the blocks with keys of one project that one is used with which clusters are read, else the first."""
    other = place.cloud(project_id="other")
    clouds = {"a-change": place.cloud(), "b-read": place.cloud(), "c": other, "d": other}
    assert list(one_per_project(clouds, Fleet({}, {}, {"x": "b-read"}))) == ["b-read", "c"]
    assert list(one_per_project(clouds, Fleet({}, {}))) == ["a-change", "c"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("x", "there is no block 'MRS Cloud/x', there is a"),
        ("b", "the block 'MRS Cloud/b' cannot be used: url: wrong"),
    ],
)
async def test_a_cloud_is_found_by_name(place: Place, name: str, sentence: str) -> None:
    """Or it is said why not."""
    cloud = place.cloud()
    assert cloud_named("a", {"a": cloud}, {}) is cloud
    with pytest.raises(ConfigurationError) as caught:
        cloud_named(name, {"a": cloud}, {"b": "url: wrong"})
    assert str(caught.value) == sentence
