"""HTTP trouble on demand, in process and on a real connection."""

import time
from collections.abc import Callable

import httpx
import pytest

from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region

pytestmark = pytest.mark.anyio
NODES = "/v2/{project_id}/clusters/{cluster_id}/nodes"


@pytest.fixture
def nodes(region: Region, cluster: Cluster) -> str:
    """The path of the nodes API."""
    return f"/v2/{region.project_id}/clusters/{cluster.id}/nodes"


@pytest.fixture
def metadata(region: Region, cluster: Cluster) -> str:
    """The path that sets a server's metadata."""
    return f"/v1/{region.project_id}/cloudservers/{cluster.master.server_id}/metadata"


@pytest.fixture(params=["in process", "on a socket"])
def client(request: pytest.FixtureRequest, region: Region, served: Callable[[Region], str]) -> httpx.AsyncClient:
    """A client with a token: without a socket, and with one."""
    headers = {"X-Auth-Token": region.token}
    if request.param == "on a socket":
        return httpx.AsyncClient(base_url=served(region), headers=headers)
    transport = httpx.ASGITransport(app_of(region))
    return httpx.AsyncClient(transport=transport, base_url="http://cloud", headers=headers)


def test_unknown_trouble_is_refused(region: Region) -> None:
    """The error lists the kinds there are."""
    with pytest.raises(ValueError, match="no trouble is called 'slow'; known: latency, status"):
        region.trouble.add("GET", "*", "slow")


async def test_trouble_comes_as_often_as_asked(region: Region, nodes: str, client: httpx.AsyncClient) -> None:
    """Only the method and route that were named, only that many times; None until it is cleared."""
    region.trouble.add("GET", NODES, "status", times=2, status=500)
    region.trouble.add("POST", "*", "status", times=None, status=502)
    async with client:
        seen = [(await client.get(nodes)).status_code for _ in range(3)]
        posted = [(await client.post("/anything")).status_code for _ in range(3)]
        region.trouble.clear()
        posted.append((await client.post("/anything")).status_code)
    assert (seen, posted) == ([500, 500, 200], [502, 502, 502, 501])


async def test_latency_delays_the_answer(region: Region, nodes: str, client: httpx.AsyncClient) -> None:
    """The answer is right, and late."""
    region.trouble.add("GET", NODES, "latency", seconds=0.1)
    began = time.monotonic()
    async with client:
        answer = await client.get(nodes)
    assert (answer.status_code, answer.json()["node_total"]) == (200, 3)
    assert time.monotonic() - began >= 0.1


async def test_429_says_when_to_come_back(region: Region, nodes: str, client: httpx.AsyncClient) -> None:
    """Retry-After and the gateway's error body."""
    region.trouble.add("GET", NODES, "status", status=429, retry_after=7)
    async with client:
        answer = await client.get(nodes)
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["error_code"]) == (429, "7", "APIG.0308")


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_5xx_comes_with_an_html_body_and_without_acting(
    region: Region, metadata: str, client: httpx.AsyncClient, status: int
) -> None:
    """The body is a page, and the mutation did not happen."""
    region.trouble.add("POST", "*/metadata", "status", status=status)
    async with client:
        answer = await client.post(metadata, json={"metadata": {"agency_name": "x"}})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert (answer.text.startswith("<html>"), region.log) == (True, [])


async def test_reset_breaks_the_connection_without_acting(
    region: Region, metadata: str, client: httpx.AsyncClient
) -> None:
    """httpx sees a ReadError; the mutation did not happen; the next call works."""
    region.trouble.add("POST", "*/metadata", "reset")
    async with client:
        with pytest.raises(httpx.ReadError):
            await client.post(metadata, json={"metadata": {"agency_name": "x"}})
        assert region.log == []
        assert (await client.post(metadata, json={"metadata": {"agency_name": "x"}})).status_code == 200


async def test_answer_lost_breaks_the_connection_after_acting(
    region: Region, metadata: str, client: httpx.AsyncClient
) -> None:
    """httpx sees a RemoteProtocolError; the mutation happened and is in the log."""
    region.trouble.add("POST", "*/metadata", "answer-lost")
    async with client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(metadata, json={"metadata": {"agency_name": "x"}})
    assert [(entry.action, entry.target) for entry in region.log] == [("set-metadata", "node-master1")]


async def test_truncated_json_is_half_a_body(region: Region, nodes: str, client: httpx.AsyncClient) -> None:
    """200 and JSON by its label, but it does not parse."""
    region.trouble.add("GET", NODES, "truncated")
    async with client:
        answer, whole = await client.get(nodes), await client.get(nodes)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.content == whole.content[: len(whole.content) // 2]


async def test_a_wrong_type_is_a_wrong_label(region: Region, nodes: str, client: httpx.AsyncClient) -> None:
    """The body is the right one, labelled as HTML."""
    region.trouble.add("GET", NODES, "wrong-type")
    async with client:
        answer = await client.get(nodes)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.json()["node_total"] == 3


async def test_a_lost_session_must_be_opened_again(region: Region, cluster: Cluster, client: httpx.AsyncClient) -> None:
    """Manager forgets its sessions: 302, and 302 again until a new login."""
    root = f"/managers/{cluster.id}/web/api/v2"
    login = httpx.BasicAuth(cluster.manager_user, cluster.manager_password)
    async with client:
        await client.get(f"{root}/session/status", auth=login)
        before = await client.get(f"{root}/clusters")
        region.trouble.add("GET", "/managers/*/clusters", "lost-session")
        lost = [await client.get(f"{root}/clusters") for _ in range(2)]
        await client.get(f"{root}/session/status", auth=login)
        after = await client.get(f"{root}/clusters")
    assert [answer.status_code for answer in (before, *lost, after)] == [200, 302, 302, 200]


async def test_an_oms_switchover_refuses_on_a_real_connection(
    region: Region, cluster: Cluster, served: Callable[[Region], str]
) -> None:
    """The connection is reset, not answered."""
    region.set_fault("oms-switchover", cluster, seconds=60)
    async with httpx.AsyncClient(base_url=served(region)) as client:
        with pytest.raises(httpx.ReadError):
            await client.get(f"/managers/{cluster.id}/web/api/v2/session/status")
        region.advance(60)
        assert (await client.get(f"/managers/{cluster.id}/web/api/v2/session/status")).status_code == 302


async def test_control_routes_have_no_trouble(region: Region, client: httpx.AsyncClient) -> None:
    """Whatever trouble there is, it can be looked at and ended."""
    region.trouble.add("*", "*", "status", times=None, status=500)
    async with client:
        assert (await client.get("/emulator/state")).status_code == 200
        assert (await client.delete("/emulator/trouble")).status_code == 200
        assert (await client.get("/")).status_code == 501
