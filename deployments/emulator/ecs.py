"""The face of ECS: a server's details and its metadata, whose key `agency_name` is the binding to an agency.

Source: ECS API reference (querying details about an ECS, updating and deleting metadata, metadata options) and
huaweicloudsdkecs v2. The code for an unknown server is an assumption; the shape `{"error": {"code", "message"}}` is
not.
"""

import json

from starlette.responses import JSONResponse, Response

from deployments.emulator.inventory import Host, identifier
from deployments.emulator.region import Region
from deployments.emulator.routes import (
    BadRequest,
    CloudCall,
    CloudHandler,
    Refusal,
    ServedRoute,
    authenticated,
    gateway_denial,
)
from deployments.emulator.signatures import Denied

SERVER = "/v1/{project_id}/cloudservers/{server_id}"
LONGEST = 255


class Ecs:
    """Handlers over a region; an unknown server answers 404."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def routes(self) -> list[ServedRoute]:
        """What this face serves."""
        table: list[tuple[str, str, CloudHandler]] = [
            ("GET", SERVER, self.show_server),
            ("GET", SERVER + "/metadata-options", self.show_metadata_options),
            ("POST", SERVER + "/metadata", self.update_metadata),
            ("DELETE", SERVER + "/metadata/{key}", self.delete_metadata),
        ]
        refuse: Refusal = _refuse
        return [
            ServedRoute(method, path, "ecs", "CONFIRMED", authenticated(self._region, handler, refuse, _denied))
            for method, path, handler in table
        ]

    def show_server(self, call: CloudCall) -> Response:
        """Source: ShowServer: `{"server": {..., "metadata": {"agency_name": ...}}}`."""
        host = self._found(call)
        return JSONResponse({"server": self._server(host)}) if host else _missing(call)

    def show_metadata_options(self, call: CloudCall) -> Response:
        """Source: ShowMetadataOptions."""
        tokens = self._region.metadata.tokens
        return (
            JSONResponse({"http_endpoint": "enabled", "http_tokens": tokens}) if self._found(call) else _missing(call)
        )

    def update_metadata(self, call: CloudCall) -> Response:
        """Source: UpdateServerMetadata: merges `{"metadata": {...}}` and echoes it; an empty agency_name unbinds.

        Nobody checks that the agency exists.
        """
        host = self._found(call)
        if host is None:
            return _missing(call)
        metadata = _metadata_of(call.body)
        self._region.set_metadata(host, metadata, call.who)
        return JSONResponse({"metadata": metadata})

    def delete_metadata(self, call: CloudCall) -> Response:
        """Source: DeleteServerMetadata: 204; 404 if the key is not there."""
        host = self._found(call)
        if host is None:
            return _missing(call)
        key = call.parameter("key")
        if key not in host.metadata:
            return _refuse(404, "Ecs.0114", f"Metadata item {key} could not be found.")
        self._region.delete_metadata(host, key, call.who)
        return Response(status_code=204)

    def _found(self, call: CloudCall) -> Host | None:
        return self._region.servers.get(call.parameter("server_id"))

    def _server(self, host: Host) -> dict[str, object]:
        down = self._region.faults.find("host-down", *host.place)
        created = f"{self._region.clock.start:%Y-%m-%dT%H:%M:%SZ}"
        return {
            "id": host.server_id,
            "name": host.name,
            "status": "SHUTOFF" if down else "ACTIVE",
            "created": created,
            "updated": created,
            "tenant_id": self._region.project_id,
            "hostId": "",
            "addresses": {
                identifier("vpc"): [
                    {
                        "version": "4",
                        "addr": host.ip,
                        "primary": True,
                        "OS-EXT-IPS:type": "fixed",
                        "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:"
                        + ":".join(f"{int(part):02x}" for part in host.ip.split(".")[1:]),
                        "OS-EXT-IPS:port_id": identifier("port", host.server_id),
                    }
                ]
            },
            "flavor": {"id": "c6.4xlarge.4", "name": "c6.4xlarge.4", "disk": "0", "vcpus": "16", "ram": "65536"},
            "image": {"id": identifier("image")},
            "metadata": {
                "charging_mode": "0",
                "vpc_id": identifier("vpc"),
                "image_name": "MRS-EulerOS",
                "os_type": "Linux",
                **host.metadata,
            },
            "security_groups": [{"name": "mrs", "id": identifier("security-group")}],
            "OS-EXT-AZ:availability_zone": self._region.region + "a",
            "OS-EXT-STS:vm_state": "stopped" if down else "active",
            "OS-EXT-STS:task_state": None,
            "OS-EXT-STS:power_state": 4 if down else 1,
            "OS-EXT-SRV-ATTR:hostname": host.name,
            "enterprise_project_id": "0",
            "tags": [],
            "locked": False,
        }


def _metadata_of(body: bytes) -> dict[str, str]:
    try:
        metadata = json.loads(body)["metadata"]
        pairs = list(metadata.items())
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadRequest("the body must be an object with an object `metadata`") from None
    if not pairs or not all(isinstance(text, str) and len(text) <= LONGEST for pair in pairs for text in pair):
        raise BadRequest(f"metadata keys and values are strings of at most {LONGEST} characters")
    return dict(pairs)


def _missing(call: CloudCall) -> Response:
    return _refuse(404, "Ecs.0114", f"Instance[{call.parameter('server_id')}] could not be found.")


def _refuse(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status)


def _denied(error: Denied) -> Response:
    return _refuse(401, "401", error.message) if error.reason == "token" else gateway_denial(error)
