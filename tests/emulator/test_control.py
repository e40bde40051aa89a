"""The control routes, and the emulator standing alone."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import trustme

from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region
from deployments.emulator.serve import serve

pytestmark = pytest.mark.anyio


@pytest.fixture
def client(region: Region) -> httpx.AsyncClient:
    """A client of the control routes."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app_of(region)), base_url="http://emulator/emulator")


async def test_a_fault_can_be_set_watched_and_cleared(
    region: Region, cluster: Cluster, client: httpx.AsyncClient
) -> None:
    """State shows the time, the fault, each host's Meta and agency, and the alarms."""
    crashed = {"name": "crashed", "cluster": "mrs-001", "host": "node-core1"}
    async with client:
        await client.post("/faults", json=crashed)
        await client.post("/faults", json={"name": "clock-skew", "options": {"seconds": 5}})
        moved = (await client.post("/advance", json={"seconds": 900})).json()
        state = (await client.get("/state", params={"cluster": "mrs-001"})).json()
        await client.request("DELETE", "/faults", json=crashed)
        await client.request("DELETE", "/faults", json={"name": "clock-skew"})
        await client.post("/advance", json={"seconds": 300})
        after = (await client.get("/state")).json()
    assert moved == {"now": "2026-01-05T00:15:00+00:00"}
    assert (state["now"], state["profile"], state["access_key"]) == (moved["now"], "assumed", region.access_key)
    assert state["faults"] == [
        {"name": "crashed", "cluster": cluster.id, "host": "node-core1", "options": {}},
        {"name": "clock-skew", "cluster": None, "host": None, "options": {"seconds": 5}},
    ]
    shown = state["clusters"][0]
    assert (shown["id"], shown["manager_id"], shown["manager_password"]) == (cluster.id, 1, cluster.manager_password)
    assert [(host["name"], host["agency"], host["meta"]) for host in shown["hosts"]] == [
        ("node-master1", "MRS_ECS_DEFAULT_AGENCY", "Normal"),
        ("node-core1", "MRS_ECS_DEFAULT_AGENCY", "Faulty"),
        ("node-core2", "MRS_ECS_DEFAULT_AGENCY", "Normal"),
    ]
    assert [(alarm["serial"], alarm["host"], alarm["status"]) for alarm in shown["alarms"]] == [
        (1001, "node-core1", "Uncleared")
    ]
    assert (after["faults"], after["clusters"][0]["alarms"][0]["status"]) == ([], "Auto")


async def test_actions_and_trouble(region: Region, cluster: Cluster, client: httpx.AsyncClient) -> None:
    """Manual clear, scaling, a second cluster and trouble can be had over HTTP."""
    region.set_fault("wedged", cluster, "node-core1")
    region.advance(900)
    async with client:
        for action in (
            {"action": "clear-alarm", "serial": 1001},
            {"action": "scale-out", "cluster": "mrs-001"},
            {"action": "scale-in", "cluster": "mrs-001", "host": "node-core2"},
            {"action": "add-cluster", "name": "mrs-001"},
        ):
            assert (await client.post("/actions", json=action)).status_code == 200
        trouble = {"method": "GET", "route": "/x", "kind": "status", "times": None, "options": {"status": 502}}
        await client.post("/trouble", json=trouble)
        answer = await client.get("http://emulator/x")
        log = (await client.get("/log")).json()
        rest = (await client.get("/log", params={"since": 1})).json()
    assert list(cluster.hosts) == ["node-master1", "node-core1", "node-core3"]
    assert [each.name for each in region.clusters.values()] == ["mrs-001", "mrs-001"]
    assert (answer.status_code, rest) == (502, [])
    assert log == [
        {
            "at": "2026-01-05T00:15:00+00:00",
            "who": "a person",
            "action": "clear-alarm",
            "target": "1001",
            "cluster": cluster.id,
            "detail": {"alarmId": "12110"},
        }
    ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/faults", {"name": "crash"}),
        ("/faults", {"name": "crashed", "cluster": "nobody"}),
        ("/faults", {}),
        ("/faults", []),
        ("/advance", {"seconds": -1}),
        ("/advance", {"seconds": "soon"}),
        ("/trouble", {"method": "GET", "route": "*", "kind": "slow"}),
        ("/actions", {"action": "explode"}),
        ("/actions", {"action": "clear-alarm", "serial": 1}),
    ],
)
async def test_what_cannot_be_done_is_a_400(client: httpx.AsyncClient, path: str, body: Any) -> None:
    """The answer says why."""
    async with client:
        answer = await client.post(path, json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


async def test_a_speed_moves_time_with_the_wall_clock(region: Region) -> None:
    """At speed 3600 a second is an hour; before each request time has caught up; cancelling ends the server."""
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    region.set_fault("crashed")
    server = asyncio.create_task(serve(region, speed=3600, ready=listening.set_result))
    port = await listening
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await asyncio.sleep(0.4)
        state = (await client.get("/emulator/state")).json()
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server
    assert region.now - region.clock.start > timedelta(minutes=15)
    assert len(state["clusters"][0]["alarms"]) == 3


async def test_a_clock_that_fails_ends_the_server(region: Region) -> None:
    """Time never stands still unnoticed: what the clock ran into comes out of `serve`."""

    def broken(line: str) -> None:
        raise RuntimeError("the sink is broken")

    region.alarms.sinks.append(broken)
    region.set_fault("crashed")
    with pytest.raises(RuntimeError, match="the sink is broken"):
        await asyncio.wait_for(serve(region, speed=36_000), 5)


async def test_without_a_speed_time_stands_still(region: Region, served: Callable[[Region], str]) -> None:
    """Only /emulator/advance moves it."""
    async with httpx.AsyncClient(base_url=served(region)) as client:
        await asyncio.sleep(0.1)
        before = (await client.get("/emulator/state")).json()["now"]
        after = (await client.post("/emulator/advance", json={"seconds": 1})).json()["now"]
    assert (before, after) == ("2026-01-05T00:00:00+00:00", "2026-01-05T00:00:01+00:00")


async def test_a_port_in_use_is_an_oserror(region: Region) -> None:
    """The message names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"the emulator cannot listen on 127.0.0.1:{port}: Address already in use"):
            await serve(region, port=port)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_serving_sends_syslog(region: Region, protocol: Literal["udp", "tcp"]) -> None:
    """The receiver gets the alarm's line; after the server ended nothing is sent."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(2)
        if protocol == "tcp":
            receiver.listen()
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        address = receiver.getsockname()
        server = asyncio.create_task(
            serve(region, syslog=address, syslog_protocol=protocol, ready=listening.set_result)
        )
        await listening
        region.set_fault("crashed", "mrs-001", "node-core1")
        region.advance(900)
        if protocol == "tcp":
            connection, _ = receiver.accept()
            with connection:
                line = connection.recv(1000)
        else:
            line = receiver.recv(1000)
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server
    assert line.startswith(b"<134>Jan  5 00:1")
    assert region.alarms.sinks == []


async def test_it_serves_tls(region: Region, tmp_path: Path) -> None:
    """With a certificate the same routes answer over https, and the session cookie is Secure."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = serve(
        region,
        ready=listening.set_result,
        ssl_certfile=str(tmp_path / "cert.pem"),
        ssl_keyfile=str(tmp_path / "key.pem"),
    )
    server = asyncio.create_task(serving)
    port = await listening
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    cluster = region.cluster("mrs-001")
    async with httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=trust) as client:
        login = (cluster.manager_user, cluster.manager_password)
        opened = await client.get(f"/managers/{cluster.id}/web/api/v2/session/status", auth=login)
        region.trouble.add("GET", "*", "reset")
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await client.get("/")
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server
    assert (opened.status_code, "Secure" in opened.headers["set-cookie"]) == (200, True)
