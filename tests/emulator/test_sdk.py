"""The vendor's SDK clients, over a real socket, parse what the cloud faces answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import huaweicloudsdkecs.v2 as ecs
import huaweicloudsdkiam.v3 as iam
import huaweicloudsdkmrs.v1 as mrs1
import huaweicloudsdkmrs.v2 as mrs2
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials, GlobalCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException, ServerResponseException

from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region

DEFAULT = "MRS_ECS_DEFAULT_AGENCY"


@dataclass
class Sdk:
    """One client of each service."""

    mrs1: Any
    mrs2: Any
    ecs: Any
    iam: Any


def sdk_of(region: Region, url: str, secret_key: str = "") -> Sdk:
    """The vendor's clients with the region's credentials (or a wrong secret key)."""
    keys = (region.access_key, secret_key or region.secret_key)
    regional, whole = BasicCredentials(*keys, region.project_id), GlobalCredentials(*keys, region.domain_id)

    def build(client: Any, credentials: Any) -> Any:
        return client.new_builder().with_credentials(credentials).with_endpoints([url]).build()

    return Sdk(
        build(mrs1.MrsClient, regional),
        build(mrs2.MrsClient, regional),
        build(ecs.EcsClient, regional),
        build(iam.IamClient, whole),
    )


@pytest.fixture
def sdk(region: Region, served: Callable[[Region], str]) -> Sdk:
    """The vendor's clients of the served region."""
    return sdk_of(region, served(region))


def test_clusters(sdk: Sdk, region: Region, cluster: Cluster) -> None:
    """ListClusters pages from 1 and filters by name; ShowClusterDetails holds numbers as strings."""
    other = region.add_cluster("mrs-001")
    first = sdk.mrs1.list_clusters(mrs1.ListClustersRequest(cluster_state="existing", page_size="1", current_page="1"))
    second = sdk.mrs1.list_clusters(mrs1.ListClustersRequest(cluster_name="mrs-001", page_size="1", current_page="2"))
    third = sdk.mrs1.list_clusters(mrs1.ListClustersRequest(page_size="1", current_page="3"))
    detail = sdk.mrs1.show_cluster_details(mrs1.ShowClusterDetailsRequest(cluster.id)).cluster
    pages = [(page.cluster_total, [each.cluster_id for each in page.clusters]) for page in (first, second, third)]
    assert pages == [(2, [cluster.id]), (2, [other.id]), (2, [])]
    assert (detail.cluster_name, detail.cluster_state, detail.total_node_num, detail.safe_mode, detail.create_at) == (
        "mrs-001",
        "running",
        "3",
        1,
        "1767571200",
    )
    assert [(group.group_name, group.node_num) for group in detail.node_groups] == [
        ("master_node_default_group", 1),
        ("core_node_default_group", 2),
    ]
    assert detail.component_list[0].component_name == "Hadoop"


def test_hosts(sdk: Sdk, cluster: Cluster) -> None:
    """ListHosts gives the ECS id and address of each node, in pages."""
    pages = [
        sdk.mrs1.list_hosts(mrs1.ListHostsRequest(cluster.id, page_size="2", current_page=page)) for page in ("1", "2")
    ]
    assert [page.total for page in pages] == [3, 3]
    assert [(host.id, host.name, host.ip, host.status) for page in pages for host in page.hosts] == [
        (host.server_id, host.name, host.ip, "ACTIVE") for host in cluster.hosts.values()
    ]


def test_nodes_with_detail(sdk: Sdk, cluster: Cluster) -> None:
    """ListNodes tells host name, server, address and the status of the Meta instance among others."""
    answer = sdk.mrs2.list_nodes(
        mrs2.ListNodesRequest(cluster.id, limit=100, query_node_detail=True, query_ecs_detail=True)
    )
    seen = [
        (node.node_name, node.server_info.server_id, node.server_info.internal_ip, component.running_status)
        for node in answer.nodes
        for component in node.component_infos
        if component.service_name == "meta"
    ]
    assert (answer.node_total, seen) == (
        3,
        [(host.name, host.server_id, host.ip, "Normal") for host in cluster.hosts.values()],
    )
    assert answer.nodes[0].server_info.root_volume.size == 480
    assert {len(node.component_infos) for node in answer.nodes} == {2}


def test_nodes_without_detail(sdk: Sdk, cluster: Cluster) -> None:
    """Without query_node_detail there are no component_infos and no node_detail."""
    answer = sdk.mrs2.list_nodes(mrs2.ListNodesRequest(cluster.id))
    assert {(node.component_infos, node.node_detail) for node in answer.nodes} == {(None, None)}


def test_nodes_are_filtered_and_sorted(sdk: Sdk, cluster: Cluster) -> None:
    """node_name is fuzzy, internal_ip and node_group are exact, and names can be sorted."""
    names = [
        [node.node_name for node in sdk.mrs2.list_nodes(mrs2.ListNodesRequest(cluster.id, **query)).nodes]
        for query in (
            {"node_name": "core"},
            {"internal_ip": cluster.master.ip},
            {"node_group": "core_node_default_group", "sort_key": "node_name", "sort_dir": "desc"},
        )
    ]
    assert names == [["node-core1", "node-core2"], ["node-master1"], ["node-core2", "node-core1"]]


@pytest.mark.parametrize(
    ("by_row", "offsets", "rows"),
    [
        (False, [None, 1, 2, 3], [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        (True, [None, 1, 2, 5, 9], [[0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4], [4, 5, 6, 7], [8, 9]]),
    ],
)
def test_nodes_page_both_ways(
    served: Callable[[Region], str], by_row: bool, offsets: list[int | None], rows: list[list[int]]
) -> None:
    """`offset` is a page number, or under the fault a row number, both from 1; node_total counts all nodes."""
    region = Region(hosts=10)
    cluster = region.cluster("mrs-001")
    if by_row:
        region.set_fault("nodes-by-row")
    client = sdk_of(region, served(region)).mrs2
    names = list(cluster.hosts)
    answers = [client.list_nodes(mrs2.ListNodesRequest(cluster.id, limit=4, offset=offset)) for offset in offsets]
    assert [[names.index(node.node_name) for node in answer.nodes] for answer in answers] == rows
    assert {answer.node_total for answer in answers} == {10}


def test_agency_task_and_mapping(sdk: Sdk, cluster: Cluster) -> None:
    """The task's status has a capital key; the mapping of users is not the binding."""
    assert sdk.mrs1.list_async_task_status(mrs1.ListAsyncTaskStatusRequest(cluster.id)).status == "success"
    assert sdk.mrs2.show_agency_mapping(mrs2.ShowAgencyMappingRequest(cluster.id)).agency_mappings == []


def test_server_metadata(sdk: Sdk, region: Region, cluster: Cluster) -> None:
    """Setting merges and echoes, deleting removes, and both are logged with the caller."""
    server = cluster.master.server_id
    body = ecs.UpdateServerMetadataRequestBody({"agency_name": "other", "key": "value"})
    echoed = sdk.ecs.update_server_metadata(ecs.UpdateServerMetadataRequest(server, body)).metadata
    merged = sdk.ecs.show_server(ecs.ShowServerRequest(server)).server
    sdk.ecs.delete_server_metadata(ecs.DeleteServerMetadataRequest("agency_name", server))
    after = sdk.ecs.show_server(ecs.ShowServerRequest(server)).server
    options = sdk.ecs.show_metadata_options(ecs.ShowMetadataOptionsRequest(server))
    assert echoed == {"agency_name": "other", "key": "value"}
    assert (merged.metadata["agency_name"], merged.metadata["os_type"], merged.status) == ("other", "Linux", "ACTIVE")
    assert [address.addr for addresses in merged.addresses.values() for address in addresses] == [cluster.master.ip]
    assert ("agency_name" in after.metadata, after.metadata["key"]) == (False, "value")
    assert (options.http_endpoint, options.http_tokens) == ("enabled", "optional")
    assert [(entry.who, entry.action, entry.target, entry.cluster, entry.detail) for entry in region.log] == [
        (f"ak:{region.access_key}", "set-metadata", "node-master1", cluster.id, echoed),
        (f"ak:{region.access_key}", "delete-metadata", "node-master1", cluster.id, {"key": "agency_name"}),
    ]


def test_agencies(sdk: Sdk, region: Region) -> None:
    """The default agency trusts ECS for ever and has its rights; names filter, pages page."""
    for name in ("A", "B", "C"):
        region.agencies.add(name)
    wanted = {"domain_id": region.domain_id}
    by_name = sdk.iam.list_agencies(iam.ListAgenciesRequest(**wanted, name=DEFAULT)).agencies
    paged = sdk.iam.list_agencies(iam.ListAgenciesRequest(**wanted, page=2, per_page=3)).agencies
    trusting = sdk.iam.list_agencies(
        iam.ListAgenciesRequest(**wanted, trust_domain_id=by_name[0].trust_domain_id)
    ).agencies
    shown = sdk.iam.show_agency(iam.ShowAgencyRequest(by_name[0].id)).agency
    domain = sdk.iam.list_domain_permissions_for_agency(
        iam.ListDomainPermissionsForAgencyRequest(region.domain_id, shown.id)
    )
    project = sdk.iam.list_project_permissions_for_agency(
        iam.ListProjectPermissionsForAgencyRequest(region.project_id, shown.id)
    )
    assert (shown.name, shown.trust_domain_name, shown.expire_time, shown.duration) == (
        DEFAULT,
        "op_svc_ecs",
        None,
        "FOREVER",
    )
    assert ([each.name for each in by_name], [each.name for each in paged], len(trusting)) == ([DEFAULT], ["C"], 4)
    everywhere = sdk.iam.list_all_projects_permissions_for_agency(
        iam.ListAllProjectsPermissionsForAgencyRequest(agency_id=shown.id, domain_id=region.domain_id)
    )
    assert [role.name for role in domain.roles] == ["OBS OperateAccess"]
    assert everywhere.roles == []
    assert [role.name for role in project.roles] == ["CES FullAccess", "KMS Administrator"]


def assume(sdk: Sdk, region: Region, agency: str) -> Any:
    """Ask for temporary keys by an agency."""
    role = iam.IdentityAssumerole(agency_name=agency, domain_id=region.domain_id, duration_seconds=900)
    identity = iam.AgencyAuthIdentity(methods=["assume_role"], assume_role=role)
    body = iam.CreateTemporaryAccessKeyByAgencyRequestBody(iam.AgencyAuth(identity))
    return sdk.iam.create_temporary_access_key_by_agency(iam.CreateTemporaryAccessKeyByAgencyRequest(body))


def test_an_ecs_agency_cannot_be_assumed_from_outside(sdk: Sdk, region: Region) -> None:
    """It trusts ECS, not the caller: 403; an agency that does not exist: 404."""
    seen = []
    for agency in (DEFAULT, "nobody"):
        with pytest.raises(ClientRequestException) as caught:
            assume(sdk, region, agency)
        seen.append((caught.value.status_code, caught.value.error_code))
    assert seen == [(403, 403), (404, 404)]


def test_temporary_keys_of_an_agency_of_ours_sign_calls(
    region: Region, cluster: Cluster, served: Callable[[Region], str]
) -> None:
    """An agency that trusts the caller's account gives keys that work with their token, and only with it."""
    url = served(region)
    sdk = sdk_of(region, url)
    region.agencies.add("ours", trusts=region.domain_id)
    keys = assume(sdk, region, "ours").credential
    answered = []
    for token in (keys.securitytoken, "nonsense"):
        credentials = BasicCredentials(keys.access, keys.secret, region.project_id).with_security_token(token)
        client = mrs1.MrsClient.new_builder().with_credentials(credentials).with_endpoints([url]).build()
        try:
            answered.append(client.list_hosts(mrs1.ListHostsRequest(cluster.id)).total)
        except ClientRequestException as error:
            answered.append(error.status_code)
    assert answered == [3, 401]


def test_errors_have_the_documented_shapes(sdk: Sdk, region: Region, cluster: Cluster) -> None:
    """The SDK reads status, code and request id of each service's errors."""
    calls: list[tuple[Callable[[Any], Any], Any]] = [
        (sdk.mrs1.show_cluster_details, mrs1.ShowClusterDetailsRequest("nobody")),
        (sdk.mrs2.list_nodes, mrs2.ListNodesRequest("nobody")),
        (sdk.mrs2.list_nodes, mrs2.ListNodesRequest(cluster.id, limit=0)),
        (sdk.ecs.show_server, ecs.ShowServerRequest("nobody")),
        (sdk.ecs.delete_server_metadata, ecs.DeleteServerMetadataRequest("nothing", cluster.master.server_id)),
        (sdk.iam.show_agency, iam.ShowAgencyRequest("nobody")),
        (sdk.iam.list_agencies, iam.ListAgenciesRequest()),
        (sdk.iam.list_agencies, iam.ListAgenciesRequest(domain_id="another")),
    ]
    seen = []
    for call, request in calls:
        with pytest.raises(ClientRequestException) as caught:
            call(request)
        assert len(caught.value.request_id) == 32
        seen.append((caught.value.status_code, caught.value.error_code))
    assert seen == [
        (400, "12000003"),
        (400, "12000003"),
        (400, "400"),
        (404, "Ecs.0114"),
        (404, "Ecs.0114"),
        (404, 404),
        (400, 400),
        (403, 403),
    ]


def test_a_wrong_secret_key_is_refused(region: Region, cluster: Cluster, served: Callable[[Region], str]) -> None:
    """401 with the gateway's code from MRS and ECS, with IAM's shape from IAM."""
    sdk = sdk_of(region, served(region), secret_key="wrong")
    seen = []
    for call, request in (
        (sdk.mrs1.list_clusters, mrs1.ListClustersRequest()),
        (sdk.ecs.show_server, ecs.ShowServerRequest(cluster.master.server_id)),
        (sdk.iam.list_agencies, iam.ListAgenciesRequest(domain_id=region.domain_id)),
    ):
        with pytest.raises(ClientRequestException) as caught:
            call(request)
        seen.append((caught.value.status_code, caught.value.error_code))
    assert seen == [(401, "APIG.0301"), (401, "APIG.0301"), (401, 401)]


def test_a_call_that_is_not_served_is_a_loud_501(sdk: Sdk, cluster: Cluster) -> None:
    """Creating an agency or deleting a cluster is never silently accepted."""
    with pytest.raises(ServerResponseException, match="does not serve DELETE"):
        sdk.mrs1.delete_cluster(mrs1.DeleteClusterRequest(cluster.id))
