"""Faults of the agency: its binding, its record, and the agency itself in IAM."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region

pytestmark = pytest.mark.anyio
CloudClient = Callable[[Region], httpx.AsyncClient]
DEFAULT = "MRS_ECS_DEFAULT_AGENCY"


def bindings(cluster: Cluster) -> dict[str, str | None]:
    """Agency by host, from the ECS metadata."""
    return {host.name: host.metadata.get("agency_name") for host in cluster.hosts.values()}


async def record(client: httpx.AsyncClient, region: Region, cluster: Cluster) -> Any:
    """`mrsEcsDefaultAgency` of the cluster's detail; None if the field is absent."""
    answer = await client.get(f"/v1.1/{region.project_id}/cluster_infos/{cluster.id}")
    return answer.json()["cluster"].get("mrsEcsDefaultAgency")


def failing(cluster: Cluster) -> list[str]:
    """Hosts with an uncleared alarm."""
    return sorted(alarm.host.name for alarm in cluster.alarms if alarm.status == "Uncleared")


async def test_unbound_is_a_change_of_the_world(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """Every node loses its agency and the record is empty; a set of the metadata binds the node, not the record."""
    region.set_fault("unbound", cluster)
    region.advance(900)
    raised = failing(cluster)
    async with cloud(region) as client:
        emptied = await record(client, region, cluster)
        for host in cluster.hosts.values():
            url = f"/v1/{region.project_id}/cloudservers/{host.server_id}/metadata"
            answer = await client.post(url, json={"metadata": {"agency_name": DEFAULT}})
            assert (answer.status_code, answer.json()) == (200, {"metadata": {"agency_name": DEFAULT}})
        region.advance(300)
        rebound = await record(client, region, cluster)
    assert raised == ["node-core1", "node-core2", "node-master1"]
    assert (emptied, rebound, failing(cluster)) == ("", "", [])
    assert [(entry.who, entry.action, entry.target, entry.detail) for entry in region.log] == [
        ("token", "set-metadata", name, {"agency_name": DEFAULT}) for name in cluster.hosts
    ]


async def test_clearing_unbound_restores_what_was_there(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """The nodes nobody bound meanwhile and the record get their agency back, also after the fault was set twice."""
    region.set_fault("unbound", cluster)
    region.set_fault("unbound", cluster)
    region.set_metadata(cluster.master, {"agency_name": "mine"}, "a test")
    region.clear_fault("unbound", cluster)
    async with cloud(region) as client:
        restored = await record(client, region, cluster)
    assert bindings(cluster) == {"node-master1": "mine", "node-core1": DEFAULT, "node-core2": DEFAULT}
    assert restored == DEFAULT


async def test_unbound_on_one_host_leaves_the_record(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """Only that node loses its agency."""
    region.set_fault("unbound", cluster, "node-core2")
    async with cloud(region) as client:
        kept = await record(client, region, cluster)
    assert (bindings(cluster)["node-core2"], bindings(cluster)["node-core1"], kept) == (None, DEFAULT, DEFAULT)


def test_partly_bound(region: Region, cluster: Cluster) -> None:
    """The second half of the nodes loses its agency and raises alarms; clearing the fault binds them again."""
    region.set_fault("partly-bound", cluster)
    bound = bindings(cluster)
    region.advance(900)
    raised = failing(cluster)
    region.clear_fault("partly-bound", cluster)
    region.advance(300)
    assert bound == {"node-master1": DEFAULT, "node-core1": None, "node-core2": None}
    assert (raised, failing(cluster)) == (["node-core1", "node-core2"], [])


def test_mixed_agencies(region: Region, cluster: Cluster) -> None:
    """The last node names another agency, which works just as well."""
    region.set_fault("mixed-agencies", cluster)
    bound = bindings(cluster)
    region.advance(3600)
    assert bound == {"node-master1": DEFAULT, "node-core1": DEFAULT, "node-core2": "MRS_ECS_OTHER_AGENCY"}
    assert failing(cluster) == []
    region.clear_fault("mixed-agencies", cluster)
    assert set(bindings(cluster).values()) == {DEFAULT}


@pytest.mark.parametrize("name", ["partly-bound", "mixed-agencies"])
def test_one_node_cannot_be_bound_in_part(name: str) -> None:
    """A fault that needs two nodes is refused for one, and not left behind."""
    region = Region(hosts=1)
    with pytest.raises(ValueError, match="needs two nodes"):
        region.set_fault(name)
    assert list(region.faults) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("agency-deleted", []),
        ("agency-broken", []),
        ("agency-untrusted", [(DEFAULT, "op_svc_other", None)]),
        ("agency-expired", [(DEFAULT, "op_svc_ecs", "2025-06-20T00:00:00.000000")]),
    ],
)
async def test_an_agency_that_does_not_work(
    region: Region, cluster: Cluster, cloud: CloudClient, name: str, shown: list[tuple[str, str, str | None]]
) -> None:
    """All nodes stay bound and all fail, IAM shows why, and all recover when the agency does."""
    region.set_fault(name)
    region.advance(900)
    raised = failing(cluster)
    async with cloud(region) as client:
        answer = await client.get(f"/v3.0/OS-AGENCY/agencies?domain_id={region.domain_id}")
    region.clear_fault(name)
    region.advance(300)
    seen = [(each["name"], each["trust_domain_name"], each["expire_time"]) for each in answer.json()["agencies"]]
    assert (seen, set(bindings(cluster).values())) == (shown, {DEFAULT})
    assert (raised, failing(cluster)) == (["node-core1", "node-core2", "node-master1"], [])


async def test_an_agency_whose_end_or_rights_are_wrong(region: Region, cloud: CloudClient) -> None:
    """One that expires in a week or has no right to OBS still issues keys, and IAM shows it, until it is mended."""
    agency = region.agencies.all()[0]
    roles = f"/v3.0/OS-AGENCY/domains/{region.domain_id}/agencies/{agency.id}/roles"

    async def shown() -> tuple[str | None, list[str]]:
        async with cloud(region) as client:
            listed = (await client.get(f"/v3.0/OS-AGENCY/agencies?domain_id={region.domain_id}")).json()["agencies"]
            return listed[0]["expire_time"], [role["name"] for role in (await client.get(roles)).json()["roles"]]

    region.set_fault("agency-expiring")
    region.set_fault("agency-without-obs")
    region.advance(900)
    wrong, issues = await shown(), region.agencies.issues_keys(agency.name)
    region.clear_fault("agency-expiring")
    region.clear_fault("agency-without-obs")
    assert (wrong, issues) == ((f"{region.clock.start + timedelta(days=7):%Y-%m-%dT%H:%M:%S.%f}", []), True)
    assert await shown() == (None, ["OBS OperateAccess"])


def test_an_unknown_agency_cannot_be_deleted(region: Region) -> None:
    """The fault is refused and not left behind."""
    with pytest.raises(ValueError, match="no agency is called 'nobody'"):
        region.set_fault("agency-deleted", agency="nobody")
    assert list(region.faults) == []


def test_binding_to_an_agency_iam_does_not_have_gives_no_keys(region: Region, cluster: Cluster) -> None:
    """ECS takes any name; Meta gets keys only by one that exists and trusts ECS."""
    region.set_metadata(cluster.master, {"agency_name": "nobody"}, "a test")
    region.advance(900)
    assert failing(cluster) == ["node-master1"]


def test_agency_slow(region: Region, cluster: Cluster) -> None:
    """A binding made under the fault gives keys 15 minutes later; older ones go on working."""
    region.set_fault("unbound", cluster, "node-core1")
    region.set_fault("agency-slow", cluster)
    region.advance(900)
    region.set_metadata(cluster.hosts["node-core1"], {"agency_name": DEFAULT}, "a test")
    region.advance(899)
    waiting = failing(cluster)
    region.advance(301)
    assert (waiting, failing(cluster)) == (["node-core1"], [])


@pytest.mark.parametrize(
    ("name", "options", "shown"),
    [
        ("record-absent", {}, None),
        ("record-empty", {}, ""),
        ("record-stale", {}, DEFAULT),
        ("record-stale", {"value": "OLD_AGENCY"}, "OLD_AGENCY"),
    ],
)
async def test_the_record_field(
    region: Region, cluster: Cluster, cloud: CloudClient, name: str, options: dict[str, str], shown: str | None
) -> None:
    """The record can lack the field, hold an empty one, or go on naming an agency no node has."""
    region.set_fault("unbound", cluster)
    region.set_fault(name, cluster, **options)
    async with cloud(region) as client:
        assert await record(client, region, cluster) == shown
        region.clear_fault(name, cluster)
        assert await record(client, region, cluster) == ""


async def test_agency_updating(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """The task's status is running while the fault is set, else success."""
    url = f"/v1/{region.project_id}/clusters/{cluster.id}/async_task_status/update_ecs_agency"
    async with cloud(region) as client:
        before = (await client.get(url)).json()
        region.set_fault("agency-updating", cluster)
        assert (before, (await client.get(url)).json()) == ({"Status": "success"}, {"Status": "running"})


async def test_cluster_state(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """Any state can be reported, and the list filters by it."""
    region.set_fault("cluster-state", cluster, value="scaling-out")
    async with cloud(region) as client:
        for state, count in (("existing", 1), ("scaling-out", 1), ("running", 0), ("history", 0)):
            url = f"/v1.1/{region.project_id}/cluster_infos?clusterState={state}"
            listed = (await client.get(url)).json()
            assert (listed["clusterTotal"], [each["clusterState"] for each in listed["clusters"]]) == (
                count,
                ["scaling-out"] * count,
            )
