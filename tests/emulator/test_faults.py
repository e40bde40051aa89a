"""Faults of Meta, of hosts and of Manager: what each one makes the region do and say."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from deployments.emulator.faults import FAULTS, HOST_FAULTS
from deployments.emulator.inventory import Cluster, Host
from deployments.emulator.region import Region

pytestmark = pytest.mark.anyio
ManagerClient = Callable[[Region, Cluster], httpx.AsyncClient]
CloudClient = Callable[[Region], httpx.AsyncClient]


@pytest.fixture
def host(cluster: Cluster) -> Host:
    """A core node."""
    return cluster.hosts["node-core1"]


def alarms(cluster: Cluster) -> list[tuple[int, str, str]]:
    """(serial, alarm id, status) of every alarm."""
    return [(alarm.serial, alarm.alarm_id, alarm.status) for alarm in cluster.alarms]


def restart(region: Region, host: Host) -> int:
    """Restart the host's Meta; answers the command id."""
    return region.restart(host.cluster, [host.instance_id or 0], "a test").id


async def get(client: httpx.AsyncClient, path: str) -> Any:
    """The JSON of a 200."""
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def statuses(client: httpx.AsyncClient) -> dict[str, str]:
    """Running status by host, as Manager lists instances."""
    listed = await get(client, "clusters/1/services/meta/instances")
    return {instance["hostName"]: instance["runningStatus"] for instance in listed["instances"]}


async def node_statuses(client: httpx.AsyncClient, region: Region, cluster: Cluster) -> dict[str, str]:
    """Running status of Meta by host, as the nodes API lists it."""
    path = f"/v2/{region.project_id}/clusters/{cluster.id}/nodes?query_node_detail=true&limit=100"
    return {
        node["node_name"]: component["running_status"]
        for node in (await get(client, path))["nodes"]
        for component in node["component_infos"]
        if component["service_name"] == "meta"
    }


def test_an_unknown_fault_is_refused_with_the_known_ones(region: Region) -> None:
    """The error lists every name there is."""
    with pytest.raises(ValueError, match="no fault is called 'crash'") as caught:
        region.set_fault("crash")
    assert all(name in str(caught.value) for name in FAULTS)
    with pytest.raises(ValueError, match="no fault is called 'crash'"):
        region.clear_fault("crash")


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - HOST_FAULTS.keys()))
def test_a_fault_of_a_cluster_is_refused_for_a_host(region: Region, cluster: Cluster, name: str) -> None:
    """Nothing is set where it would have no meaning."""
    with pytest.raises(ValueError, match="not a fault of a single host"):
        region.set_fault(name, cluster, "node-core1")
    assert list(region.faults) == []


def test_places_that_do_not_exist_are_refused(region: Region, cluster: Cluster) -> None:
    """An unknown cluster or host, or a host without its cluster, is an error."""
    for place in (("mrs-404", None), (cluster, "node-core9"), (None, "node-core1")):
        with pytest.raises(LookupError):
            region.set_fault("crashed", *place)


def test_a_fault_of_the_region_can_be_cleared_for_one_host(region: Region, cluster: Cluster, host: Host) -> None:
    """Narrower clears make exceptions; a wide clear removes everything below it."""
    region.set_fault("crashed")
    region.clear_fault("crashed", cluster, host)
    mixed = [region.meta.status(each) for each in cluster.hosts.values()]
    region.set_fault("crashed", cluster, host)
    region.clear_fault("crashed")
    assert mixed == ["Faulty", "Normal", "Faulty"]
    assert [region.meta.status(each) for each in cluster.hosts.values()] == ["Normal"] * 3


async def test_crashed_is_healed_by_a_restart(
    region: Region, cluster: Cluster, host: Host, manager: ManagerClient
) -> None:
    """Faulty and an alarm; Starting for a minute; then Normal, and cleared five minutes later."""
    region.set_fault("crashed", cluster)
    region.advance(900)
    async with manager(region, cluster) as client:
        seen = [(await statuses(client))["node-core1"]]
        command = restart(region, host)
        seen.append((await statuses(client))["node-core1"])
        running = await get(client, f"commands/{command}")
        region.advance(59)
        almost = await get(client, f"commands/{command}")
        region.advance(1)
        seen.append((await statuses(client))["node-core1"])
        done = await get(client, f"commands/{command}")
        others = (await statuses(client))["node-core2"]
    region.advance(299)
    before = host.active.keys() == {"12110"}
    region.advance(1)
    assert seen == ["Faulty", "Starting", "Normal"]
    assert [each["state"] for each in (running, almost, done)] == ["IN_PROGRESS", "IN_PROGRESS", "COMPLETE"]
    assert [each["progress"] for each in (running, almost, done)] == [0, 98, 100]
    assert (done["endTime"] - done["startTime"], done["failedEntities"], others) == (60_000, [], "Faulty")
    assert (before, host.active) == (True, {})


async def test_wedged_is_not_healed_by_a_restart(
    region: Region, cluster: Cluster, host: Host, manager: ManagerClient
) -> None:
    """The command is COMPLETE, the instance Faulty again, and the alarm stays under its serial number."""
    region.set_fault("wedged", cluster, host)
    region.advance(900)
    command = restart(region, host)
    region.advance(3600)
    async with manager(region, cluster) as client:
        state = (await get(client, f"commands/{command}"))["state"]
        status = (await statuses(client))["node-core1"]
    assert (state, status, alarms(cluster)) == ("COMPLETE", "Faulty", [(1001, "12110", "Uncleared")])


def test_restart_clears_only_comes_back_after_15_minutes(region: Region, cluster: Cluster, host: Host) -> None:
    """The alarm clears when the restart ends, all looks well, and a quarter of an hour later a new one is raised."""
    region.set_fault("restart-clears-only", cluster, host)
    region.advance(900)
    seen = [region.meta.status(host)]
    restart(region, host)
    region.advance(60)
    cleared = alarms(cluster)
    region.advance(899)
    seen.append(region.meta.status(host))
    quiet = alarms(cluster)
    region.advance(1)
    seen.append(region.meta.status(host))
    assert seen == ["Faulty", "Normal", "Faulty"]
    assert cleared == quiet == [(1001, "12110", "Auto")]
    assert alarms(cluster) == [(1001, "12110", "Auto"), (1002, "12110", "Uncleared")]


async def test_restart_fails(region: Region, cluster: Cluster, host: Host, manager: ManagerClient) -> None:
    """The command is FAILED and names the host, the instance Failed to start until a restart works."""
    region.set_fault("crashed", cluster, host)
    region.set_fault("restart-fails", cluster, host)
    region.advance(900)
    command = restart(region, host)
    region.advance(60)
    async with manager(region, cluster) as client:
        shown = await get(client, f"commands/{command}")
        failed = (await statuses(client))["node-core1"]
    region.clear_fault("restart-fails", cluster, host)
    restart(region, host)
    region.advance(360)
    assert (shown["state"], shown["failedEntities"], failed) == ("FAILED", ["node-core1"], "Failed to start")
    assert (region.meta.status(host), alarms(cluster)) == ("Normal", [(1001, "12110", "Auto")])


def test_slow_restart_takes_20_minutes(region: Region, cluster: Cluster, host: Host) -> None:
    """The instance is Starting for 20 minutes, or as long as the option says."""
    seen = []
    for options in ({}, {"seconds": 300}):
        region.set_fault("slow-restart", cluster, host, **options)
        restart(region, host)
        region.advance(float(options.get("seconds", 1200)) - 1)
        seen.append(region.meta.status(host))
        region.advance(1)
        seen.append(region.meta.status(host))
    assert seen == ["Starting", "Normal", "Starting", "Normal"]


@pytest.mark.parametrize(
    ("source", "by_manager", "by_nodes"),
    [("manager", "GOOD", "Normal"), ("nodes", "Normal", "GOOD"), ("both", "GOOD", "GOOD")],
)
async def test_status_is_what_is_reported(
    region: Region,
    cluster: Cluster,
    host: Host,
    manager: ManagerClient,
    cloud: CloudClient,
    source: str,
    by_manager: str,
    by_nodes: str,
) -> None:
    """Any status can be reported by Manager, by the nodes API, or by both."""
    region.set_fault("status", cluster, host, value="GOOD", source=source)
    async with manager(region, cluster) as client, cloud(region) as cloud_client:
        assert await statuses(client) == {"node-master1": "Normal", "node-core1": by_manager, "node-core2": "Normal"}
        nodes = await node_statuses(cloud_client, region, cluster)
        assert nodes == {"node-master1": "Normal", "node-core1": by_nodes, "node-core2": "Normal"}


async def test_status_stale(
    region: Region, cluster: Cluster, host: Host, manager: ManagerClient, cloud: CloudClient
) -> None:
    """The nodes API goes on telling what was true when the fault was set; Manager tells the truth."""
    region.set_fault("status-stale", cluster)
    region.set_fault("crashed", cluster, host)
    async with manager(region, cluster) as client, cloud(region) as cloud_client:
        truth, stale = await statuses(client), await node_statuses(cloud_client, region, cluster)
        region.clear_fault("status-stale", cluster)
        fresh = await node_statuses(cloud_client, region, cluster)
    assert (truth["node-core1"], stale["node-core1"], fresh["node-core1"]) == ("Faulty", "Normal", "Faulty")


async def test_instance_duplicated(region: Region, cluster: Cluster, host: Host, manager: ManagerClient) -> None:
    """Manager lists two instances of one host, with two ids that restart the same process."""
    region.set_fault("instance-duplicated", cluster, host)
    async with manager(region, cluster) as client:
        listed = await get(client, "clusters/1/services/meta/instances")
        numbers = [each["id"] for each in listed["instances"] if each["hostName"] == "node-core1"]
        answer = await client.post("clusters/1/services/meta/instances/restart", json={"instanceIds": numbers[1:]})
    assert (listed["totalCount"], len(set(numbers)), answer.status_code) == (4, 2, 200)
    assert region.meta.status(host) == "Starting"


async def test_host_unlisted(region: Region, cluster: Cluster, host: Host, manager: ManagerClient) -> None:
    """Manager knows neither the host nor its instance, though its alarm names it."""
    region.set_fault("crashed", cluster, host)
    region.set_fault("host-unlisted", cluster, host)
    region.advance(900)
    async with manager(region, cluster) as client:
        hosts = [each["hostName"] for each in (await get(client, "clusters/1/hosts"))["hosts"]]
        location = (await get(client, "alarms"))["alarms"][0]["location"]
        answer = await client.post(
            "clusters/1/services/meta/instances/restart", json={"instanceIds": [host.instance_id]}
        )
        assert list(await statuses(client)) == hosts == ["node-master1", "node-core2"]
    assert (location, answer.status_code) == ("Source=mrs-001;ServiceName=meta;RoleName=meta;HostName=node-core1", 404)


def test_metadata_down_fails_a_normal_instance(region: Region, cluster: Cluster, host: Host) -> None:
    """Meta is Normal and cannot get keys."""
    region.set_fault("metadata-down", cluster, host)
    region.advance(900)
    assert (region.meta.status(host), alarms(cluster)) == ("Normal", [(1001, "12110", "Uncleared")])


async def test_iam_down(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """Both alarms are raised and cleared together; the IAM face answers 503."""
    region.set_fault("iam-down")
    region.advance(900)
    raised = alarms(cluster)
    async with cloud(region) as client:
        answer = await client.get(f"/v3.0/OS-AGENCY/agencies?domain_id={region.domain_id}")
    region.clear_fault("iam-down")
    region.advance(300)
    assert raised == [(1001 + n, ("12110", "45192")[n % 2], "Uncleared") for n in range(6)]
    assert alarms(cluster) == [(serial, alarm_id, "Auto") for serial, alarm_id, _ in raised]
    assert (answer.status_code, answer.json()["error"]["title"]) == (503, "Service Unavailable")


async def test_host_down(
    region: Region, cluster: Cluster, host: Host, manager: ManagerClient, cloud: CloudClient
) -> None:
    """The host is Faulty, its server SHUTOFF, and a restart on it fails."""
    region.set_fault("host-down", cluster, host)
    command = restart(region, host)
    region.advance(60)
    async with manager(region, cluster) as client, cloud(region) as cloud_client:
        hosts = {each["hostName"]: each["runningStatus"] for each in (await get(client, "clusters/1/hosts"))["hosts"]}
        counted = (await get(client, "clusters"))[0]["badHostsNum"]
        state = (await get(client, f"commands/{command}"))["state"]
        server = (await get(cloud_client, f"/v1/{region.project_id}/cloudservers/{host.server_id}"))["server"]
    assert hosts == {"node-master1": "Normal", "node-core1": "Faulty", "node-core2": "Normal"}
    assert (counted, state, region.meta.status(host)) == (1, "FAILED", "Failed to start")
    assert (server["status"], server["OS-EXT-STS:vm_state"]) == ("SHUTOFF", "stopped")


async def test_maintenance(region: Region, cluster: Cluster, host: Host, manager: ManagerClient) -> None:
    """In maintenance mode no alarm is reported; it is raised once the mode ends."""
    region.set_fault("maintenance", cluster)
    region.set_fault("crashed", cluster, host)
    region.advance(3600)
    quiet = alarms(cluster)
    async with manager(region, cluster) as client:
        modes = [each["maintenanceMode"] for each in (await get(client, "clusters/1/hosts"))["hosts"]]
    region.clear_fault("maintenance", cluster)
    region.advance(300)
    assert (quiet, modes, alarms(cluster)) == ([], [True] * 3, [(1001, "12110", "Uncleared")])


def test_flapping(region: Region, cluster: Cluster, host: Host) -> None:
    """Three failures and a success, again and again: three alarms in an hour, each under its own serial number."""
    region.set_fault("flapping", cluster, host)
    region.advance(host.polls_from + 3300)
    assert alarms(cluster) == [(1001, "12110", "Auto"), (1002, "12110", "Auto"), (1003, "12110", "Auto")]


async def test_masked(region: Region, cluster: Cluster, host: Host, manager: ManagerClient) -> None:
    """A reported alarm stays and can clear; a new one is neither listed nor counted until the mask ends."""
    region.set_fault("crashed", cluster, host)
    region.advance(900)
    region.set_fault("masked", cluster)
    region.set_fault("crashed", cluster, "node-core2")
    region.advance(900)
    async with manager(region, cluster) as client:
        listed = await get(client, "alarms")
        masking = await get(client, "alarms/masking?clusterId=1")
        region.clear_fault("masked", cluster)
        unmasked = await get(client, "alarms/masking")
    region.advance(300)
    assert (listed["totalCount"], masking, unmasked) == (1, {"maskedAlarms": ["12110"]}, {"maskedAlarms": []})
    assert alarms(cluster) == [(1001, "12110", "Uncleared"), (1002, "12110", "Uncleared")]


def test_a_manual_clear_is_followed_by_a_new_alarm(region: Region, cluster: Cluster, host: Host) -> None:
    """A person's clear is Manual, and an unrepaired fault raises a new alarm three polls later."""
    region.set_fault("wedged", cluster, host)
    region.advance(host.polls_from + 600)
    region.clear_alarm(1001)
    region.advance(899)
    cleared = alarms(cluster)
    region.advance(1)
    assert cleared == [(1001, "12110", "Manual")]
    assert alarms(cluster) == [(1001, "12110", "Manual"), (1002, "12110", "Uncleared")]
    assert [(entry.action, entry.target) for entry in region.log] == [("clear-alarm", "1001")]


def test_a_serial_number_of_two_clusters_needs_the_cluster() -> None:
    """What is ambiguous or unknown is not cleared."""
    region = Region(clusters=2, hosts=1)
    region.set_fault("crashed")
    region.advance(900)
    with pytest.raises(LookupError, match="2 uncleared"):
        region.clear_alarm("1001")
    with pytest.raises(LookupError, match="0 uncleared"):
        region.clear_alarm("1002")
    region.clear_alarm("1001", "mrs-002")
    assert [alarms(cluster) for cluster in region.clusters.values()] == [
        [(1001, "12110", "Uncleared")],
        [(1001, "12110", "Manual")],
    ]


async def test_oms_switchover(region: Region, cluster: Cluster, host: Host, manager: ManagerClient) -> None:
    """For three minutes every connection is dropped; sessions, command ids and syslog lines of that time are lost."""
    lines: list[str] = []
    region.alarms.sinks.append(lines.append)
    region.set_fault("crashed", cluster, host)
    region.advance(host.polls_from + 500)
    async with manager(region, cluster) as client:
        await client.get("session/status")
        client.auth = None  # type: ignore[assignment]
        command = restart(region, cluster.master)
        region.set_fault("oms-switchover", cluster)
        with pytest.raises(httpx.ReadError):
            await client.get("clusters")
        region.advance(179)
        with pytest.raises(httpx.ReadError):
            await client.get("clusters")
        region.advance(1)
        without_session = await client.get("clusters")
        client.auth = (cluster.manager_user, cluster.manager_password)
        lost = await client.get(f"commands/{command}")
        listed = await get(client, "alarms")
    region.advance(60)
    assert (without_session.status_code, lost.status_code) == (302, 404)
    assert ([each["serialNo"] for each in listed["alarms"]], lines) == (["1001"], [])
    assert (region.meta.status(cluster.master), list(region.faults)[-1].name) == ("Normal", "crashed")


async def test_a_restart_runs_on_when_its_command_id_is_lost(
    region: Region, cluster: Cluster, host: Host, manager: ManagerClient
) -> None:
    """After an OMS switchover no command is listed, the instance is still Starting, and a second restart is refused."""
    region.set_fault("slow-restart", cluster, host)
    restart(region, host)
    region.set_fault("oms-switchover", cluster)
    region.advance(180)
    async with manager(region, cluster) as client:
        listed = await get(client, "commands")
        starting = (await statuses(client))["node-core1"]
        body = {"instanceIds": [cluster.master.instance_id]}
        refused = await client.post("clusters/1/services/meta/instances/restart", json=body)
        region.advance(1020)
        normal = (await statuses(client))["node-core1"]
        accepted = await client.post("clusters/1/services/meta/instances/restart", json=body)
    assert (listed, starting, normal) == ({"totalCount": 0, "commands": []}, "Starting", "Normal")
    assert (refused.status_code, accepted.status_code) == (409, 200)


async def test_clock_skew(region: Region, cluster: Cluster, host: Host, manager: ManagerClient) -> None:
    """Manager's times, the Date header included, are those of its own clock."""
    region.set_fault("clock-skew", cluster, seconds=-3600)
    region.set_fault("crashed", cluster, host)
    region.advance(900)
    async with manager(region, cluster) as client:
        answer = await client.get("alarms")
    raised = round((region.clock.start.timestamp() - 3600 + host.polls_from + 600) * 1000)
    assert answer.json()["alarms"][0]["occurTime"] == raised
    assert answer.headers["date"] == "Sun, 04 Jan 2026 23:15:00 GMT"


async def test_command_running(region: Region, cluster: Cluster, host: Host, manager: ManagerClient) -> None:
    """Another command is listed in progress, and a restart answers 409 and is not logged."""
    region.set_fault("command-running", cluster)
    async with manager(region, cluster) as client:
        listed = await get(client, "commands?clusterId=1&state=IN_PROGRESS")
        answer = await client.post(
            "clusters/1/services/meta/instances/restart", json={"instanceIds": [host.instance_id]}
        )
    assert [each["name"] for each in listed["commands"]] == ["Synchronize Configuration"]
    assert (answer.status_code, sorted(answer.json()), region.log) == (409, ["errorCode", "errorMsg"], [])


async def test_scale_in_and_out(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """A new node has a new server and the agency of the record; a removed one is gone while its alarm stays."""
    region.set_fault("crashed", cluster, "node-core1")
    region.advance(900)
    gone = cluster.hosts["node-core1"]
    added = region.scale_out(cluster)
    region.scale_in(cluster, "node-core1")
    region.advance(3600)
    async with cloud(region) as client:
        nodes = await node_statuses(client, region, cluster)
        missing = await client.get(f"/v1/{region.project_id}/cloudservers/{gone.server_id}")
    assert nodes == {"node-master1": "Normal", "node-core2": "Normal", "node-core3": "Normal"}
    assert (added.metadata, missing.status_code) == ({"agency_name": "MRS_ECS_DEFAULT_AGENCY"}, 404)
    assert alarms(cluster) == [(1001, "12110", "Uncleared")]


def test_a_host_removed_during_its_restart_stays_away(region: Region, cluster: Cluster, host: Host) -> None:
    """The command ends, and the removed host neither polls nor raises."""
    region.set_fault("wedged", cluster, host)
    command = restart(region, host)
    region.scale_in(cluster, host)
    region.advance(3600)
    assert (cluster.commands[command].state, alarms(cluster)) == ("COMPLETE", [])


def test_a_node_added_after_an_ecs_level_binding_is_unbound(region: Region, cluster: Cluster) -> None:
    """The new node takes the record's agency, which an ECS-level binding does not change, and raises an alarm."""
    region.set_fault("unbound", cluster)
    for host in cluster.hosts.values():
        region.set_metadata(host, {"agency_name": "MRS_ECS_DEFAULT_AGENCY"}, "a test")
    added = region.scale_out(cluster)
    region.advance(900)
    assert [(alarm.host.name, alarm.status) for alarm in cluster.alarms] == [(added.name, "Uncleared")]


def test_two_clusters_of_one_name(region: Region) -> None:
    """A second cluster may have the name of another; then only the UUID finds one."""
    added = region.add_cluster("mrs-001")
    with pytest.raises(LookupError, match="2 clusters are called"):
        region.cluster("mrs-001")
    assert region.cluster(added.id) is added


def test_faults_combine(region: Region, cluster: Cluster, host: Host) -> None:
    """With two causes the alarm clears only when both are gone."""
    region.set_fault("crashed", cluster, host)
    region.set_fault("unbound", cluster)
    region.advance(900)
    restart(region, host)
    region.advance(900)
    still = host.active.keys() == {"12110"}
    for each in cluster.hosts.values():
        region.set_metadata(each, {"agency_name": "MRS_ECS_DEFAULT_AGENCY"}, "a test")
    region.advance(300)
    assert (still, {alarm.status for alarm in cluster.alarms}) == (True, {"Auto"})
