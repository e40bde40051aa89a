"""Manager's routes: one table with ratings, and a cluster's own over it."""

import httpx
import pytest

from deployments.emulator.app import app_of
from deployments.emulator.region import Region
from tasks.clients.http import Api
from tasks.clients.manager import Manager
from tasks.clients.routes import ASSUMED, CONFIRMED, ROUTES, Route, routes_with
from tasks.errors import ConfigurationError
from tests.tasks.clients.conftest import World, error_of

pytestmark = pytest.mark.anyio


def test_only_what_is_published_is_confirmed() -> None:
    """The session and the list of clusters; every other route is an assumption and says so."""
    assert {name: route.rating for name, route in ROUTES.items()} == {
        "session": CONFIRMED,
        "clusters": CONFIRMED,
        "alarms": ASSUMED,
        "masking": ASSUMED,
        "hosts": ASSUMED,
        "instances": ASSUMED,
        "restart": ASSUMED,
        "commands": ASSUMED,
        "command": ASSUMED,
    }


@pytest.mark.parametrize(
    ("name", "value", "method", "path"),
    [
        ("alarms", "GET monitor/alarms", "GET", "monitor/alarms"),
        ("alarms", "  GET   /monitor/alarms ", "GET", "monitor/alarms"),
        ("alarms", "GET clusters/{cluster}/alarms", "GET", "clusters/{cluster}/alarms"),
        ("alarms", "", "", ""),
        ("alarms", "  ", "", ""),
        ("command", "GET clusters/{cluster}/commands/{command}", "GET", "clusters/{cluster}/commands/{command}"),
        ("restart", "PUT instances/{service}/restart", "PUT", "instances/{service}/restart"),
    ],
)
def test_a_route_is_replaced(name: str, value: str, method: str, path: str) -> None:
    """The others stay, and the rating does: a block does not make a route documented."""
    assert routes_with({name: value}) == {**ROUTES, name: Route(method, path, ASSUMED)}


@pytest.mark.parametrize(
    "value",
    [
        "monitor/alarms",
        "GET",
        "get alarms",
        "DELETE alarms",
        "POST alarms",
        "PUT alarms",
        "GET https://elsewhere/alarms",
        "GET alarms?limit=1",
        "GET alarms#top",
        "GET alarms/{host}",
        "GET alarms/{service}",
        "GET alarms/{cluster.__class__}",
        "GET alarms/{cluster!r}",
        "GET alarms/{cluster:>99999}",
        "GET alarms/{}",
        "GET alarms/{0}",
        "GET alarms/{",
        "GET alarms/}",
    ],
)
def test_a_route_that_cannot_be_called_is_refused_at_once(value: str) -> None:
    """Another address, a query, a placeholder nobody fills, a method that does not read: said before any call."""
    with pytest.raises(ConfigurationError) as caught:
        routes_with({"alarms": value})
    assert str(caught.value) == (f"Manager route 'alarms' is {value!r}: write it like 'GET alarms', or leave it empty")


@pytest.mark.parametrize("value", ["GET restart", "DELETE restart"])
def test_what_restarts_is_not_a_get(value: str) -> None:
    """Else it would be repeated like a read."""
    with pytest.raises(ConfigurationError, match="Manager route 'restart' is"):
        routes_with({"restart": value})


def test_an_unknown_name_is_refused() -> None:
    """The names there are are listed."""
    with pytest.raises(ConfigurationError) as caught:
        routes_with({"alarm": "GET alarms"})
    assert str(caught.value) == f"Manager route 'alarm' is unknown: use one of {', '.join(ROUTES)}"


async def test_an_own_route_is_called_and_an_empty_one_is_not(world: World) -> None:
    """Overrides hold for one Manager; nothing is sent for what it does not offer, in a dry run neither."""
    routes = {"hosts": "GET clusters/{cluster}/hosts", "alarms": "", "restart": "", "masking": "GET masked/{cluster}"}
    manager, instance = await world.manager(routes=routes), await world.instance()
    assert len(await manager.hosts()) == 3
    assert (await world.error_of(manager.is_masked("12110"))).startswith("NotOffered: Manager GET masked/1: HTTP 501 ")
    sent = list(world.wire.sent)
    why = "the Manager block says that this Manager does not offer it"
    assert await world.error_of(manager.alarms("12110")) == f"NotOffered: Manager alarms: {why}"
    assert await world.error_of(manager.restart("meta", instance)) == f"NotOffered: Manager restart: {why}"
    assert world.wire.sent == sent


async def test_names_from_a_block_stay_in_their_part_of_the_path() -> None:
    """A service called `a/b?c` is one part of the path, and the number of the cluster is the block's."""
    paths = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.partition(b"?limit")[0])
        return httpx.Response(200, json={"totalCount": 0, "instances": []})

    async with Manager(
        "http://localhost", user="u", password="p", cluster=2, transport=httpx.MockTransport(answer)
    ) as manager:
        await manager.instances("a/b?c#d")
    assert paths == [b"/session/status", b"/clusters/2/services/a%2Fb%3Fc%23d/instances"]


async def test_the_documented_profile_offers_two_routes() -> None:
    """Against a Manager that has only what is published, clusters answers and the rest is NotOffered."""
    region = Region(profile="documented")
    cluster = region.cluster("mrs-001")
    url = f"http://localhost/managers/{cluster.id}/web/api/v2"
    transport = httpx.ASGITransport(app_of(region))
    user, password = cluster.manager_user, cluster.manager_password
    async with Manager(url, user=user, password=password, transport=transport) as manager:
        assert len(await manager.clusters()) == 1
        for read in (manager.alarms("1"), manager.is_masked("1"), manager.hosts(), manager.instances("meta")):
            assert (await error_of(read)).startswith("NotOffered: Manager GET ")
        assert (await error_of(manager.running_commands())).startswith("NotOffered: Manager GET commands: HTTP 501 ")


@pytest.mark.parametrize(
    "url",
    ["", "10.0.0.1:28443/web", "ftp://m", "https://", "http://u:s3cret@m", "http://u:s3cret@m:x", "http://m?a=s3cret"],
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    """Before any call, and without repeating it, for a password may be in it."""
    with pytest.raises(
        ConfigurationError, match=r"^the Manager address .*: write it as https://host:port/path"
    ) as caught:
        Api("Manager", url)
    assert "s3cret" not in str(caught.value)
