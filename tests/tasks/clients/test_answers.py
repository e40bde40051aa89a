"""Typed answers, whatever of the documented drift the cloud shows, and lists that are whole."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tasks.clients.answers import understood
from tasks.clients.http import Patience
from tasks.clients.mrs import Mrs
from tasks.models import Agency, Alarm, ClusterRecord, Command, Component, Instance, ManagedHost, Node
from tests.tasks.clients.conftest import AGENCY, World

pytestmark = pytest.mark.anyio
FOUND = datetime(2026, 1, 5, tzinfo=UTC)
MS = 1767571200000


@pytest.mark.parametrize(
    ("fields", "record"),
    [
        ({}, ClusterRecord()),
        ({"clusterId": "c", "clusterName": "n"}, ClusterRecord(id="c", name="n")),
        ({"clusterId": 5, "clusterName": None, "clusterState": None}, ClusterRecord(id="5")),
        ({"totalNodeNum": "3"}, ClusterRecord(nodes=3)),
        ({"totalNodeNum": 3}, ClusterRecord(nodes=3)),
        ({"totalNodeNum": ""}, ClusterRecord()),
        ({"totalNodeNum": None}, ClusterRecord()),
        ({"totalNodeNum": "many"}, ClusterRecord()),
        ({"mrsEcsDefaultAgency": "a"}, ClusterRecord(agency="a")),
        ({"mrsEcsDefaultAgency": ""}, ClusterRecord(agency="")),
        ({"mrsEcsDefaultAgency": None}, ClusterRecord(agency=None)),
        (
            {"safeMode": "1", "tags": [], "isMrsManagerFinish": True, "nodeGroups": [{"GroupName": "g"}]},
            ClusterRecord(),
        ),
        ({"safeMode": 1, "tags": "", "mrsManagerFinish": True, "nodeGroups": [{"groupName": "g"}]}, ClusterRecord()),
    ],
)
async def test_the_drift_of_a_cluster_record(fields: dict[str, Any], record: ClusterRecord) -> None:
    """Numbers as strings, nulls and absent fields are read; an absent agency is None, an empty one is empty."""
    assert await _mrs(lambda _: httpx.Response(200, json={"cluster": fields})).cluster("c") == record


@pytest.mark.parametrize(
    ("fields", "node"),
    [
        ({"node_name": "n"}, Node(host="n")),
        ({"node_name": 7, "node_status": None}, Node(host="7")),
        ({"node_name": "n", "node_status": "Running", "node_detail": None}, Node(host="n", status="Running")),
        ({"node_name": "n", "node_status": "Running", "node_detail": {}}, Node(host="n", status="Running")),
        (
            {"node_name": "n", "node_status": "Running", "node_detail": {"running_status": "Faulty"}},
            Node(host="n", status="Faulty"),
        ),
        ({"node_name": "n", "server_info": None, "component_infos": None}, Node(host="n")),
        ({"node_name": "n", "server_info": {"server_id": None}}, Node(host="n")),
        (
            {"node_name": "n", "server_info": {"server_id": "s", "internal_ip": "10.0.0.1", "cpu": 4}},
            Node(host="n", server_id="s", ip="10.0.0.1"),
        ),
        (
            {"node_name": "n", "component_infos": [{"service_name": "meta", "running_status": None}, {}]},
            Node(host="n", components=(Component(service="meta"), Component())),
        ),
    ],
)
async def test_the_drift_of_a_node(fields: dict[str, Any], node: Node) -> None:
    """Absent and null parts are empty; the total may be a string."""
    for total in (1, "1"):
        page = {"node_total": total, "nodes": [fields]}
        assert await _mrs(lambda _, page=page: httpx.Response(200, json=page)).nodes("c") == (node,)


@pytest.mark.parametrize(
    ("fields", "alarm"),
    [
        ({"alarmId": "12110"}, Alarm(alarm_id="12110")),
        ({"alarmId": 12110, "serialNo": 7}, Alarm(alarm_id="12110", serial="7")),
        ({"alarmId": 12110, "serialNo": None, "source": None}, Alarm(alarm_id="12110")),
        ({"alarmId": 1, "occurTime": MS, "clearTime": 0}, Alarm(alarm_id="1", occurred=FOUND)),
        ({"alarmId": 1, "occurTime": str(MS), "clearTime": ""}, Alarm(alarm_id="1", occurred=FOUND)),
        ({"alarmId": 1, "occurTime": None, "clearTime": "0"}, Alarm(alarm_id="1")),
        ({"alarmId": 1, "status": "Auto", "clearTime": MS}, Alarm(alarm_id="1", status="Auto", cleared=FOUND)),
        ({"alarmId": 1, "location": "A=1;HostName=h"}, Alarm(alarm_id="1", location="A=1;HostName=h")),
    ],
)
def test_the_drift_of_an_alarm(fields: dict[str, Any], alarm: Alarm) -> None:
    """Ids as numbers or text, times as milliseconds in either, not-yet as 0, nothing or null."""
    assert understood("Manager GET alarms", Alarm, fields) == alarm


async def test_manager_is_read_into_values(world: World) -> None:
    """Alarms, one occurrence, masking, hosts, instances and commands of the emulator as our models."""
    world.region.set_fault("crashed", world.cluster, "node-core1")
    world.region.advance(900)
    manager, serial, occurred = await world.manager(), "1001", world.cluster.alarms[0].occurred_ms
    location = f"Source={world.cluster.name};ServiceName=meta;RoleName=meta;HostName=node-core1"
    alarm = Alarm(
        alarm_id="12110",
        serial=serial,
        status="Uncleared",
        occurred=datetime.fromtimestamp(occurred / 1000, UTC),
        source=world.cluster.name,
        location=location,
    )
    assert await manager.alarms("12110") == (alarm,)
    assert await manager.occurrence(alarm) == alarm
    assert await manager.occurrence(alarm.model_copy(update={"serial": "7"})) is None
    assert (await manager.is_masked("12110"), await manager.running_commands()) == (False, ())
    hosts = list(world.cluster.hosts.values())
    assert await manager.hosts() == tuple(ManagedHost(name=host.name, ip=host.ip, status="Normal") for host in hosts)
    started = datetime.fromtimestamp(hosts[1].started_ms / 1000, UTC)
    instance = Instance(
        id="12", role="meta", host="node-core1", ip=hosts[1].ip, status="Faulty", config="Synchronized", started=started
    )
    assert (await manager.instances("meta"))[1] == instance
    command = await manager.restart("meta", instance)
    running = Command(id=command, name="Restart Instance", state="IN_PROGRESS")
    assert (await manager.running_commands(), await manager.command(command)) == ((running,), running)
    world.region.set_fault("masked", world.cluster)
    assert await manager.is_masked("12110")


async def test_the_cloud_is_read_into_values(world: World) -> None:
    """The record with and without its agency, the update, each node's agency, and the agency in IAM."""
    mrs, ecs, iam, cluster = await world.mrs(), await world.ecs(), await world.iam(), world.cluster
    record = ClusterRecord(
        id=cluster.id, name=cluster.name, state="running", version="MRS 3.2.0-LTS.1", nodes=3, agency=AGENCY
    )
    assert await mrs.cluster(cluster.id) == record
    for fault, agency in (("record-absent", None), ("record-empty", "")):
        world.region.set_fault(fault, cluster)
        assert await mrs.cluster(cluster.id) == record.model_copy(update={"agency": agency})
        world.region.clear_fault(fault, cluster)
    assert not await mrs.agency_update_running(cluster.id)
    world.region.set_fault("agency-updating", cluster)
    assert await mrs.agency_update_running(cluster.id)
    assert await ecs.agency(cluster.master.server_id) == AGENCY
    world.region.set_fault("unbound", cluster)
    assert await ecs.agency(cluster.master.server_id) == ""
    known = world.region.agencies.known(AGENCY)
    assert await iam.agency(AGENCY) == Agency(id=known.id, name=AGENCY, trusts="op_svc_ecs")
    assert await iam.agency("nobody") is None


@pytest.mark.parametrize("counts", ["pages", "rows"])
@pytest.mark.parametrize("hosts", [1, 100, 101, 250])
async def test_nodes_are_whole_however_offset_counts(world: World, counts: str, hosts: int) -> None:
    """All nodes, each once, in order, in as few pages as there are."""
    big = world.region.add_cluster("big")
    while len(big.hosts) > hosts:
        world.region.scale_in(big, list(big.hosts)[-1])
    while len(big.hosts) < hosts:
        world.region.scale_out(big)
    if counts == "rows":
        world.region.set_fault("nodes-by-row", big)
    found = await (await world.mrs()).nodes(big.id)
    assert [(node.host, node.server_id, node.ip) for node in found] == [
        (host.name, host.server_id, host.ip) for host in big.hosts.values()
    ]
    assert len(world.wire.sent) <= -(-hosts // 100) + 1


async def test_managers_lists_are_whole(world: World) -> None:
    """More rows than a page holds come in two requests."""
    for _ in range(600):
        world.region.scale_out(world.cluster)
    manager = await world.manager(patience=Patience(timeout=5))
    assert [host.name for host in await manager.hosts()] == list(world.cluster.hosts)
    assert world.wire.sent == ["GET session/status", *["GET clusters/1/hosts"] * 2]


def _mrs(answer: Any) -> Mrs:
    return Mrs("MRS", "http://localhost", patience=Patience(attempts=1), transport=httpx.MockTransport(answer))
