"""The ECS cloud API: the metadata of a server, where its agency is named."""

import re

from tasks.clients.answers import excerpt, understood
from tasks.clients.http import Api
from tasks.errors import ServerTrouble
from tasks.models import Frozen

AGENCY_KEY = "agency_name"


class _Metadata(Frozen):
    agency_name: str | None = None


class _Server(Frozen):
    metadata: _Metadata


class _Answer(Frozen):
    server: _Server


class Ecs(Api):
    """Servers of one project."""

    project_id: str = ""

    async def agency(self, server_id: str) -> str:
        """Name of the agency this server is bound to, empty where none is.

        Raises:
            ServerTrouble: the answer carries no metadata at all; that is not the same as no agency.

        Source: "Querying Details About an ECS", GET /v1/{project_id}/cloudservers/{server_id}.
        """
        path = self._path(server_id)
        found = understood(f"{self.name} GET {path}", _Answer, await self.read(path))
        return found.server.metadata.agency_name or ""

    async def set_agency(self, server_id: str, agency: str, *, would: str) -> str:
        """Bind the server to the agency; other metadata stays (merge semantics). Returns the cloud's id of the request.

        Source: "Updating ECS Metadata", POST /v1/{project_id}/cloudservers/{server_id}/metadata;
        needs `ecs:cloudServers:updateMetadata` and `iam:agencies:pass`.
        """
        path = f"{self._path(server_id)}/metadata"
        return (await self.act("POST", path, body={"metadata": {AGENCY_KEY: agency}}, would=would)).request

    def _path(self, server_id: str) -> str:
        # The id is from an answer of the nodes API: it must not lead to another route.
        if not re.fullmatch(r"[A-Za-z0-9_-]+", server_id):
            raise ServerTrouble(
                f"{self.name} cloudservers", f"a node's server id is {excerpt(server_id)!r}: nothing sent"
            )
        return f"v1/{self.project_id}/cloudservers/{server_id}"
