"""The face of the MRS cloud API: clusters, hosts, nodes, the agency task.

Source: MRS API reference (cluster_infos, hosts, ListNodes, ListAsyncTaskStatus) and huaweicloudsdkmrs v1/v2. Numbers
are strings where the vendor's are. Choices where nothing is published: `clusterName` matches a part of the name;
`component_infos` and `node_detail` come only with `query_node_detail=true`, sizes of the server only with
`query_ecs_detail=true`; running statuses are the words of Manager's pages.
"""

from starlette.responses import JSONResponse, Response

from deployments.emulator.inventory import Cluster
from deployments.emulator.mrs_records import MrsRecords, node_group
from deployments.emulator.region import Region
from deployments.emulator.routes import CloudCall, Rating, ServedRoute, authenticated, flag, gateway_denial, integer
from deployments.emulator.signatures import Denied

CLUSTER_MISSING = ("12000003", "The cluster does not exist.")
BAD_TOKEN = ("130000002", "The token is invalid or expired.")
FINISHED = ("terminated",)


class Mrs:
    """Handlers over a region; a call about a cluster that does not exist answers 400 with 12000003."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._records = MrsRecords(region)

    def routes(self) -> list[ServedRoute]:
        """What this face serves."""
        table = {
            "/v1.1/{project_id}/cluster_infos": self.list_clusters,
            "/v1.1/{project_id}/cluster_infos/{cluster_id}": self.show_cluster,
            "/v1.1/{project_id}/clusters/{cluster_id}/hosts": self.list_hosts,
            "/v2/{project_id}/clusters/{cluster_id}/nodes": self.list_nodes,
            "/v2/{project_id}/clusters/{cluster_id}/agency-mapping": self.show_agency_mapping,
            "/v1/{project_id}/clusters/{cluster_id}/async_task_status/update_ecs_agency": self.show_agency_task,
        }
        rating: Rating = "CONFIRMED"
        return [
            ServedRoute("GET", path, "mrs", rating, authenticated(self._region, handler, _refuse, _denied))
            for path, handler in table.items()
        ]

    def list_clusters(self, call: CloudCall) -> Response:
        """Source: ListClusters; pages of `pageSize` (10), `currentPage` from 1."""
        query = call.request.query_params
        wanted, name = query.get("clusterState", ""), query.get("clusterName", "")
        clusters = [
            cluster
            for cluster in self._region.clusters.values()
            if name in cluster.name and _state_matches(self._records.state(cluster), wanted)
        ]
        size, page = integer(query, "pageSize", 10, 1), integer(query, "currentPage", 1, 1)
        shown = clusters[(page - 1) * size : page * size]
        return JSONResponse(
            {"clusterTotal": len(clusters), "clusters": [self._records.cluster(cluster) for cluster in shown]}
        )

    def show_cluster(self, call: CloudCall) -> Response:
        """Source: ShowClusterDetails."""
        cluster = self._found(call)
        return JSONResponse({"cluster": self._records.cluster(cluster)}) if cluster else _refuse(400, *CLUSTER_MISSING)

    def list_hosts(self, call: CloudCall) -> Response:
        """Source: ListHosts; pages of `pageSize` (10), `currentPage` from 1."""
        cluster = self._found(call)
        if cluster is None:
            return _refuse(400, *CLUSTER_MISSING)
        size = integer(call.request.query_params, "pageSize", 10, 1)
        page = integer(call.request.query_params, "currentPage", 1, 1)
        hosts = list(cluster.hosts.values())
        shown = hosts[(page - 1) * size : page * size]
        return JSONResponse({"total": len(hosts), "hosts": [self._records.server(host) for host in shown]})

    def list_nodes(self, call: CloudCall) -> Response:
        """Source: ListNodes; `limit` (10), `offset` (1) is a page number, or a row number under `nodes-by-row`."""
        cluster = self._found(call)
        if cluster is None:
            return _refuse(400, *CLUSTER_MISSING)
        query = call.request.query_params
        hosts = [
            host
            for host in cluster.hosts.values()
            if query.get("node_name", "") in host.name
            and query.get("internal_ip", host.ip) == host.ip
            and query.get("node_group", node_group(host)) == node_group(host)
        ]
        if query.get("sort_key") == "node_name":
            hosts.sort(key=lambda host: host.name, reverse=query.get("sort_dir") == "desc")
        limit, offset = integer(query, "limit", 10, 1), integer(query, "offset", 1)
        by_row = self._region.faults.find("nodes-by-row", cluster.id)
        first = max(0, offset - 1) * (1 if by_row else limit)
        detail, sizes = flag(query, "query_node_detail"), flag(query, "query_ecs_detail")
        nodes = [self._records.node(host, detail, sizes) for host in hosts[first : first + limit]]
        return JSONResponse({"node_total": len(hosts), "nodes": nodes})

    def show_agency_mapping(self, call: CloudCall) -> Response:
        """Source: ShowAgencyMapping: users' agencies for OBS. It is not the cluster's binding, and is empty here."""
        return JSONResponse({"agency_mappings": []}) if self._found(call) else _refuse(400, *CLUSTER_MISSING)

    def show_agency_task(self, call: CloudCall) -> Response:
        """Source: ListAsyncTaskStatus: `{"Status": "running" | "success"}`."""
        cluster = self._found(call)
        if cluster is None:
            return _refuse(400, *CLUSTER_MISSING)
        running = self._region.faults.find("agency-updating", cluster.id)
        return JSONResponse({"Status": "running" if running else "success"})

    def _found(self, call: CloudCall) -> Cluster | None:
        return self._region.clusters.get(call.parameter("cluster_id"))


def _state_matches(state: str, wanted: str) -> bool:
    if wanted in ("", "existing"):
        return not wanted or state not in FINISHED
    return state in FINISHED if wanted == "history" else state == wanted


def _refuse(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error_code": code, "error_msg": message}, status)


def _denied(error: Denied) -> Response:
    # The documented code for a bad token comes with 500.
    return _refuse(500, *BAD_TOKEN) if error.reason == "token" else gateway_denial(error)
