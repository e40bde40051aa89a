"""The ECS cloud API: the metadata of a server, where its agency is named."""

from typing import Any

from tasks.clients.http import Api, understood
from tasks.models import Frozen, Text

AGENCY_KEY = "agency_name"


class _Server(Frozen):
    status: Text = ""
    metadata: dict[str, Any]


class Ecs(Api):
    """Servers of one project."""

    project_id: str = ""

    async def agency(self, server_id: str) -> str:
        """Name of the agency this server is bound to, empty where none is.

        Raises:
            ServerTrouble: the answer carries no metadata at all; that is not the same as no agency.

        Source: "Querying Details About an ECS", GET /v1/{project_id}/cloudservers/{server_id}.
        """
        path = f"v1/{self.project_id}/cloudservers/{server_id}"
        content = await self.read(path)
        server = content.get("server") if isinstance(content, dict) else None
        found = understood(f"{self.name} GET {path}", _Server, server)
        return str(found.metadata.get(AGENCY_KEY) or "")

    async def set_agency(self, server_id: str, agency: str, *, would: str) -> None:
        """Bind the server to the agency; other metadata stays (merge semantics).

        Source: "Updating ECS Metadata", POST /v1/{project_id}/cloudservers/{server_id}/metadata;
        needs `ecs:cloudServers:updateMetadata` and `iam:agencies:pass`.
        """
        path = f"v1/{self.project_id}/cloudservers/{server_id}/metadata"
        await self.act("POST", path, body={"metadata": {AGENCY_KEY: agency}}, would=would)
