"""The MRS cloud API: clusters, their records, their nodes with their role instances, the agency update."""

from pydantic import Field

from tasks.clients.answers import excerpt, understood
from tasks.clients.http import Api
from tasks.errors import ServerTrouble
from tasks.models import ClusterRecord, Component, Frozen, Node, Text

CLUSTERS_PER_PAGE, NODES_PER_PAGE, MOST_PAGES = 100, 100, 200


class _Record(Frozen):
    cluster: ClusterRecord


class _RecordPage(Frozen):
    total: int = Field(ge=0, validation_alias="clusterTotal")
    clusters: tuple[ClusterRecord, ...] = ()


class _Server(Frozen):
    server_id: Text = ""
    internal_ip: Text = ""


class _Detail(Frozen):
    running_status: Text = ""


class _Node(Frozen):
    node_name: Text
    node_status: Text = ""
    node_detail: _Detail | None = None
    server_info: _Server | None = None
    component_infos: tuple[Component, ...] | None = None


class _NodePage(Frozen):
    node_total: int = Field(ge=0)
    nodes: tuple[_Node, ...] = ()


class _AgencyTask(Frozen):
    Status: str


class Mrs(Api):
    """Reads of one project's clusters. Nothing here changes anything."""

    project_id: str = ""

    async def cluster(self, cluster_id: str) -> ClusterRecord:
        """The cluster's record.

        Source: "Querying Cluster Details", GET /v1.1/{project_id}/cluster_infos/{cluster_id}.
        """
        path = f"v1.1/{self.project_id}/cluster_infos/{cluster_id}"
        return understood(f"{self.name} GET {path}", _Record, await self.read(path)).cluster

    async def clusters(self, state: str = "existing") -> tuple[ClusterRecord, ...]:
        """The project's clusters, those of its default enterprise project at least.

        Args:
            state: `existing` is every cluster that is not terminated; else for example `running`.

        Raises:
            ServerTrouble: the pages do not add up to the announced number of clusters.

        Source: "Querying a Cluster List", GET /v1.1/{project_id}/cluster_infos; `currentPage` counts from 1. By the
        vendor's SDK enterpriseProjectId defaults to the default enterprise project; no value for all is published.
        """
        path = f"v1.1/{self.project_id}/cluster_infos"
        call = f"{self.name} GET {path}"
        found: dict[str, ClusterRecord] = {}
        total = 0
        for number in range(1, MOST_PAGES + 1):
            query = {"clusterState": state, "pageSize": str(CLUSTERS_PER_PAGE), "currentPage": str(number)}
            page = understood(call, _RecordPage, await self.read(path, params=query))
            new = {record.id: record for record in page.clusters if record.id and record.id not in found}
            found, total = found | new, page.total
            if len(found) >= total:
                return tuple(found.values())
            if not new:  # the list ends early, or every page is the first one
                break
        raise ServerTrouble(call, f"{total} clusters announced, {len(found)} listed")

    async def nodes(self, cluster_id: str) -> tuple[Node, ...]:
        """All nodes of the cluster with their role instances.

        The page does not say whether `offset` counts pages or rows: the second answer shows it
        (rows that were seen already: it counts rows), and the nodes are complete or it is an error.

        Raises:
            ServerTrouble: the pages do not add up to the announced number of nodes.

        Source: "Querying the Node List", GET /v2/{project_id}/clusters/{cluster_id}/nodes.
        """
        path = f"v2/{self.project_id}/clusters/{cluster_id}/nodes"
        call = f"{self.name} GET {path}"
        found: dict[str, Node] = {}
        offset, by_row = 1, False
        for _ in range(MOST_PAGES):
            query = {"limit": str(NODES_PER_PAGE), "offset": str(offset), "query_node_detail": "true"}
            page = understood(call, _NodePage, await self.read(path, params=query))
            nodes = [_node(row) for row in page.nodes]
            new = [node for node in nodes if node.host not in found]
            by_row = by_row or (offset > 1 and len(new) < len(nodes))
            found.update((node.host, node) for node in new)
            if len(found) >= page.node_total:
                return tuple(found.values())
            if not new:
                break
            offset = len(found) + 1 if by_row else offset + 1
        raise ServerTrouble(call, f"{page.node_total} nodes announced, {len(found)} listed")

    async def agency_update_running(self, cluster_id: str) -> bool:
        """Whether MRS is changing the cluster's agency right now.

        Raises:
            ServerTrouble: a status other than the documented `running` and `success`.

        Source: "Querying the Agency Task Status", GET
        /v1/{project_id}/clusters/{cluster_id}/async_task_status/update_ecs_agency.
        """
        path = f"v1/{self.project_id}/clusters/{cluster_id}/async_task_status/update_ecs_agency"
        status = understood(f"{self.name} GET {path}", _AgencyTask, await self.read(path)).Status
        if status not in ("running", "success"):
            raise ServerTrouble(f"{self.name} GET {path}", f"unknown status {excerpt(status)!r}")
        return status == "running"


def _node(row: _Node) -> Node:
    server, detail = row.server_info or _Server(), row.node_detail or _Detail()
    return Node(
        host=row.node_name,
        status=detail.running_status or row.node_status,
        server_id=server.server_id,
        ip=server.internal_ip,
        components=row.component_infos or (),
    )
