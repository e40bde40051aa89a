"""The CTS cloud API: who changed the agency of a server, and when."""

import math
from collections.abc import Collection
from datetime import datetime

from pydantic import Field

from tasks.clients.answers import understood
from tasks.clients.http import Api
from tasks.errors import ServerTrouble
from tasks.models import Frozen, Text, Trace

# Source: ECS user guides, "Key Operations Supported by CTS": Huawei Cloud has the first two (a change without the
# agency is `updateMetadata` there), Open Telekom Cloud the other three, which may be about other metadata, too.
AGENCY_CHANGES = (
    "updateServerAgency",
    "updateMetadataAndServerAgency",
    "updateMetadata",
    "setMetadata",
    "deleteMetadata",
)
TRACES_PER_PAGE, MOST_PAGES = 200, 100  # 200 is the most CTS gives


class _MetaData(Frozen):
    count: int = Field(ge=0)
    marker: Text = ""


class _Page(Frozen):
    traces: tuple[Trace, ...]
    meta_data: _MetaData


class Cts(Api):
    """Traces of one project; CTS keeps them for seven days. Nothing here changes anything."""

    project_id: str = ""

    async def agency_changes(
        self, cluster_id: str, since: datetime, until: datetime, *, servers: Collection[str] | None = None
    ) -> tuple[Trace, ...]:
        """What may have changed the agency of the cluster's nodes between two moments, the oldest first.

        A trace names a server and not its cluster, so it takes the servers' ids to tell whose it is. One that names
        no resource is never left out.

        Args:
            since: aware, like `until`; both belong to it. Of more than seven days ago CTS knows nothing.
            servers: ids of the cluster's ECS servers; None: not known, so every such trace of the project is given.

        Raises:
            ServerTrouble: the pages do not add up to what was announced, or do not end.

        Source: "Querying a Trace List", GET /v3/{project_id}/traces. No filter is sent whose values nobody publishes:
        one that fits nothing would look like nobody changed anything.
        """
        # CTS leaves out what happened at `from` and `to` themselves; its times are whole milliseconds.
        window = {
            "from": str(math.floor(since.timestamp() * 1000) - 1),
            "to": str(math.ceil(until.timestamp() * 1000) + 1),
        }
        found: dict[Trace, None] = {}
        for name in AGENCY_CHANGES:
            found.update(await self._named(name, window))
        ours = None if servers is None else {"", cluster_id, *servers}
        changes = [each for each in found if each.name in AGENCY_CHANGES and (ours is None or each.resource_id in ours)]
        return tuple(sorted(changes, key=lambda trace: trace.time))

    async def _named(self, name: str, window: dict[str, str]) -> dict[Trace, None]:
        """All traces of that name, each once.

        The page does not say whether `next` gives the trace it names again, and shows a marker where nothing follows:
        a short page without anything new ends the list, too.
        """
        path = f"v3/{self.project_id}/traces"
        call, most = f"{self.name} GET {path}", 0
        query = {"trace_type": "system", "trace_name": name, "limit": str(TRACES_PER_PAGE), **window}
        found: dict[Trace, None] = {}
        for _ in range(MOST_PAGES):
            page = understood(call, _Page, await self.read(path, params=query))
            new = dict.fromkeys(trace for trace in page.traces if trace not in found)
            if not new and len(page.traces) >= TRACES_PER_PAGE:
                raise ServerTrouble(call, "every page holds the same traces: CTS does not know next")
            found.update(new)
            most = max(most, page.meta_data.count)
            if not new or not page.meta_data.marker:
                if len(found) < most:
                    raise ServerTrouble(call, f"{most} traces announced, {len(found)} listed")
                return found
            query["next"] = page.meta_data.marker
        raise ServerTrouble(call, f"{len(found)} traces listed on {MOST_PAGES} pages, and no end")
