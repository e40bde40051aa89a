"""The MRS cloud API: the cluster's record, its nodes with their role instances, the agency update."""

from typing import Any

from tasks.clients.http import Api, understood
from tasks.errors import ServerTrouble
from tasks.models import ClusterRecord, Frozen, Node

NODES_PER_PAGE = 100


class _NodePage(Frozen):
    node_total: int
    nodes: tuple[dict[str, Any], ...] = ()


class Mrs(Api):
    """Reads of one project's clusters. Nothing here changes anything."""

    project_id: str = ""

    async def cluster(self, cluster_id: str) -> ClusterRecord:
        """The cluster's record.

        Source: "Querying Cluster Details", GET /v1.1/{project_id}/cluster_infos/{cluster_id}.
        """
        path = f"v1.1/{self.project_id}/cluster_infos/{cluster_id}"
        content = await self.read(path)
        record = content.get("cluster") if isinstance(content, dict) else None
        return understood(f"{self.name} GET {path}", ClusterRecord, record)

    async def nodes(self, cluster_id: str) -> tuple[Node, ...]:
        """All nodes of the cluster with their role instances.

        The page does not say whether `offset` counts pages or rows: the second answer shows it
        (rows that were seen already: it counts rows), and the nodes are complete or it is an error.

        Raises:
            ServerTrouble: the pages do not add up to the announced number of nodes.

        Source: "Querying the Node List", GET /v2/{project_id}/clusters/{cluster_id}/nodes.
        """
        path = f"v2/{self.project_id}/clusters/{cluster_id}/nodes"
        found: dict[str, Node] = {}
        offset, by_row = 1, False
        while True:
            query = {"limit": str(NODES_PER_PAGE), "offset": str(offset), "query_node_detail": "true"}
            page = understood(f"{self.name} GET {path}", _NodePage, await self.read(path, params=query))
            nodes = [_node(f"{self.name} GET {path}", row) for row in page.nodes]
            new = [node for node in nodes if node.host not in found]
            by_row = by_row or (offset > 1 and len(new) < len(nodes))
            found.update((node.host, node) for node in new)
            if len(found) >= page.node_total:
                return tuple(found.values())
            if not new:
                why = f"{page.node_total} nodes announced, {len(found)} listed"
                raise ServerTrouble(f"{self.name} GET {path}", why)
            offset = len(found) + 1 if by_row else offset + 1

    async def agency_update_running(self, cluster_id: str) -> bool:
        """Whether MRS is changing the cluster's agency right now.

        Raises:
            ServerTrouble: a status other than the documented `running` and `success`.

        Source: "Querying the Agency Task Status", GET
        /v1/{project_id}/clusters/{cluster_id}/async_task_status/update_ecs_agency.
        """
        path = f"v1/{self.project_id}/clusters/{cluster_id}/async_task_status/update_ecs_agency"
        content = await self.read(path)
        status = content.get("Status") if isinstance(content, dict) else None
        if status not in ("running", "success"):
            raise ServerTrouble(f"{self.name} GET {path}", f"unknown status {status!r}")
        return bool(status == "running")


def _node(call: str, row: dict[str, Any]) -> Node:
    server = row.get("server_info") or {}
    return understood(
        call,
        Node,
        {
            "host": row.get("node_name"),
            "status": (row.get("node_detail") or {}).get("running_status") or row.get("node_status"),
            "server_id": server.get("server_id"),
            "ip": server.get("internal_ip"),
            "components": row.get("component_infos") or (),
        },
    )
