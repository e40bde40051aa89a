"""The face of CTS: the traces of the last seven days.

Source: CTS API reference, "Querying a Trace List" (cts_api_0311, of both clouds), and huaweicloudsdkcts v3; the names
of the traces: ECS user guide, "Key Operations Supported by CTS". Choices where nothing is published, or not clearly:
`from` and `to` are no part of the window; the trace named by `next` is not repeated; `marker` is null on the last page
(the page says so, its example shows another); the resource of a change of a server's agency is the server; an unknown
`next` answers 400; a `from` of more than seven days ago is no error. Codes are from the page of error codes, which has
none for 503.
"""

from typing import Any

from starlette.responses import JSONResponse, Response

from deployments.emulator.clock import epoch_ms
from deployments.emulator.inventory import identifier
from deployments.emulator.region import Region
from deployments.emulator.routes import (
    BadRequest,
    CloudCall,
    CloudHandler,
    ServedRoute,
    authenticated,
    gateway_denial,
    integer,
)
from deployments.emulator.traces import Trace

TRACES = "/v3/{project_id}/traces"
MOST, HOUR_MS = 200, 3_600_000
CODES = {400: "CTS.0300", 403: "CTS.0013", 503: "CTS.0001"}
REFUSALS = {"cts-down": (503, "The service is unavailable."), "cts-denied": (403, "No permission, Please check roles.")}
FILTERS = ("service_type", "resource_type", "resource_id", "resource_name", "trace_name", "trace_rating")


class Cts:
    """Handlers over a region; `cts-down` and `cts-denied`, wherever they are set, make each of them refuse."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def routes(self) -> list[ServedRoute]:
        """What this face serves."""
        handler = self._unless_refused(self.list_traces)
        endpoint = authenticated(self._region, handler, _refuse, gateway_denial)
        return [ServedRoute("GET", TRACES, "cts", "CONFIRMED", endpoint)]

    def list_traces(self, call: CloudCall) -> Response:
        """Source: ListTraces: `trace_type` is required; `limit` 1 to 200 (10); `from` (an hour ago) and `to` (now).

        The newest first; `next` is the id of the trace after which to go on.
        """
        query, now = call.request.query_params, epoch_ms(self._region.now)
        if query.get("trace_type") not in ("system", "data"):
            raise BadRequest("trace_type must be system or data")
        if ("from" in query) != ("to" in query):
            raise BadRequest("from and to go together")
        since, until = integer(query, "from", now - HOUR_MS), integer(query, "to", now)
        limit = integer(query, "limit", 10, 1)
        if limit > MOST:
            raise BadRequest(f"invalid limit: {limit}")
        rows = [self._shown(trace) for trace in self._after(query.get("next", ""))]
        if query.get("trace_id"):
            rows = [row for row in rows if row["trace_id"] == query["trace_id"]]
        else:
            wanted = {name: query[name] for name in FILTERS if query.get(name)}
            rows = [
                row
                for row in rows
                if since < row["time"] < until
                and query["trace_type"] == "system"
                and query.get("user") in (None, "", row["user"]["name"])
                and all(row[name] == value for name, value in wanted.items())
            ]
        page = rows[:limit]
        marker = page[-1]["trace_id"] if len(rows) > limit else None
        return JSONResponse({"traces": page, "meta_data": {"count": len(page), "marker": marker}})

    def _after(self, trace_id: str) -> list[Trace]:
        traces = self._region.traces.kept()
        if not trace_id:
            return traces
        ids = [trace.id for trace in traces]
        if trace_id not in ids:
            raise BadRequest(f"invalid next: {trace_id}")
        return traces[ids.index(trace_id) + 1 :]

    def _shown(self, trace: Trace) -> dict[str, Any]:
        moment, domain_id = epoch_ms(trace.at), self._region.domain_id
        return {
            "trace_id": trace.id,
            "trace_name": trace.name,
            "trace_rating": "normal",
            "trace_type": "ConsoleAction",
            "time": moment,
            "record_time": moment,
            "user": {
                "id": identifier("user", trace.user).replace("-", ""),
                "name": trace.user,
                "domain": {"id": domain_id, "name": "emulated"},
            },
            "service_type": "ECS",
            "resource_type": "ecs",
            "resource_id": trace.host.server_id,
            "resource_name": trace.host.name,
            "source_ip": "192.0.2.1",
            "api_version": "1.0",
            "code": "200",
        }

    def _unless_refused(self, handler: CloudHandler) -> CloudHandler:
        def guarded(call: CloudCall) -> Response:
            set_now = {fault.name for fault in self._region.faults}
            for name, (status, message) in REFUSALS.items():
                if name in set_now:
                    return _refuse(status, "", message)
            return handler(call)

        return guarded


def _refuse(status: int, _code: str, message: str) -> Response:
    return JSONResponse({"error_code": CODES[status], "error_msg": message}, status)
