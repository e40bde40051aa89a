"""Routes of Manager that nobody has verified: alarms, hosts, instances, restart, commands.

Source: none that is public. Words and fields are those of Manager's pages and of syslog northbound; paging follows
`permission/users` (`limit`, `offset` from 0). They are served in the profile `assumed` only.
"""

import json
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.emulator.alarms import DEFINITIONS
from deployments.emulator.commands import DUPLICATE_OFFSET, CommandRunning, UnknownInstance
from deployments.emulator.inventory import Alarm, Cluster, Command, Host
from deployments.emulator.manager import ROOT, Manager, ManagerHandler, instances_of, refuse
from deployments.emulator.region import Region
from deployments.emulator.routes import BadRequest, ServedRoute, integer

SERVICE = ROOT + "/clusters/{manager_id}/services/{service}"
MOST = 1000
T = TypeVar("T")


class AssumedManager:
    """Handlers over a region, behind the door of `Manager`."""

    def __init__(self, region: Region, manager: Manager) -> None:
        self._region = region
        self._manager = manager

    def routes(self) -> list[ServedRoute]:
        """What this face serves."""
        table: list[tuple[str, str, ManagerHandler]] = [
            ("GET", ROOT + "/alarms", self.list_alarms),
            ("GET", ROOT + "/alarms/masking", self.list_masked),
            ("GET", ROOT + "/clusters/{manager_id}/hosts", self.list_hosts),
            ("GET", SERVICE + "/instances", self.list_instances),
            ("POST", SERVICE + "/instances/restart", self.restart_instances),
            ("GET", ROOT + "/commands", self.list_commands),
            ("GET", ROOT + "/commands/{command_id}", self.show_command),
        ]
        return [
            ServedRoute(method, path, "manager", "ASSUMED", self._manager.session(handler))
            for method, path, handler in table
        ]

    async def list_alarms(self, cluster: Cluster, request: Request) -> Response:
        """`alarmId, status (uncleared|cleared|all), serialNo` filter; newest first."""
        query = request.query_params
        status = query.get("status", "all")
        if status not in ("uncleared", "cleared", "all"):
            raise BadRequest(f"invalid status: {status}")
        found = [
            alarm
            for alarm in reversed(cluster.alarms)
            if query.get("clusterId", str(cluster.manager_id)) == str(cluster.manager_id)
            and query.get("alarmId", alarm.alarm_id) == alarm.alarm_id
            and query.get("serialNo", str(alarm.serial)) == str(alarm.serial)
            and (status == "all" or (alarm.status == "Uncleared") == (status == "uncleared"))
        ]
        return _page("alarms", [_alarm(alarm) for alarm in _slice(request, found)], len(found))

    async def list_masked(self, cluster: Cluster, request: Request) -> Response:
        """`{"maskedAlarms": [alarm ids]}`."""
        return JSONResponse({"maskedAlarms": self._region.alarms.masked(cluster)})

    async def list_hosts(self, cluster: Cluster, request: Request) -> Response:
        """The hosts Manager knows."""
        hosts = [host for host in cluster.hosts.values() if not self._region.faults.find("host-unlisted", *host.place)]
        return _page("hosts", [self._host(host) for host in _slice(request, hosts)], len(hosts))

    async def list_instances(self, cluster: Cluster, request: Request) -> Response:
        """The Meta instances; a duplicated one is listed twice with two ids."""
        found = []
        for host in instances_of(cluster):
            if self._region.faults.find("host-unlisted", *host.place):
                continue
            found.append((host, 0))
            if self._region.faults.find("instance-duplicated", *host.place):
                found.append((host, DUPLICATE_OFFSET))
        shown = [self._instance(host, offset) for host, offset in _slice(request, found)]
        return _page("instances", shown, len(found))

    async def restart_instances(self, cluster: Cluster, request: Request) -> Response:
        """`{"instanceIds": [int]}` -> `{"commandId": int}`; 404 unknown instance, 409 another command runs."""
        numbers = _instance_ids(await request.body())
        try:
            command = self._region.restart(cluster, numbers, cluster.manager_user)
        except UnknownInstance as error:
            return refuse(404, f"there is no instance {error}")
        except CommandRunning as error:
            return refuse(409, f"another command is running: {error}")
        return JSONResponse({"commandId": command.id})

    async def list_commands(self, cluster: Cluster, request: Request) -> Response:
        """`state` filters; newest first."""
        query = request.query_params
        found = [
            command
            for command in self._region.commands.listed(cluster)
            if query.get("state", command.state) == command.state
            and query.get("clusterId", str(cluster.manager_id)) == str(cluster.manager_id)
        ]
        return _page("commands", [self._command(command) for command in _slice(request, found)], len(found))

    async def show_command(self, cluster: Cluster, request: Request) -> Response:
        """One command with `failedEntities` (host names); 404 if Manager does not know it (any more)."""
        wanted = request.path_params["command_id"]
        for command in self._region.commands.listed(cluster):
            if str(command.id) == wanted:
                return JSONResponse(self._command(command) | {"failedEntities": command.failed})
        return refuse(404, f"there is no command {wanted}")

    def _host(self, host: Host) -> dict[str, object]:
        find = self._region.faults.find
        return {
            "hostName": host.name,
            "managementIp": host.ip,
            "businessIp": host.ip,
            "runningStatus": "Faulty" if find("host-down", *host.place) else "Normal",
            "maintenanceMode": find("maintenance", *host.place) is not None,
        }

    def _instance(self, host: Host, offset: int) -> dict[str, object]:
        return {
            "id": (host.instance_id or 0) + offset,
            "roleName": "meta",
            "hostName": host.name,
            "managementIp": host.ip,
            "businessIp": host.ip,
            "instanceGroup": "default",
            "runningStatus": self._region.meta.reported(host, "manager"),
            "configStatus": "Synchronized",
            "startTime": host.started_ms,
        }

    def _command(self, command: Command) -> dict[str, object]:
        return {
            "commandId": command.id,
            "name": command.name,
            "state": command.state,
            "progress": self._region.commands.progress(command),
            "startTime": command.started_ms,
            "endTime": command.ended_ms,
        }


def _alarm(alarm: Alarm) -> dict[str, object]:
    definition = DEFINITIONS[alarm.alarm_id]
    return {
        "alarmId": alarm.alarm_id,
        "alarmName": definition.name,
        "severity": definition.severity,
        "serialNo": str(alarm.serial),
        "occurTime": alarm.occurred_ms,
        "clearTime": alarm.cleared_ms,
        "status": alarm.status,
        "autoClear": True,
        "source": alarm.host.cluster.name,
        "object": "meta",
        "location": alarm.location,
        "cause": definition.cause,
        "additionalInfo": "",
    }


def _instance_ids(body: bytes) -> list[int]:
    try:
        numbers = json.loads(body)["instanceIds"]
    except (ValueError, TypeError, KeyError):
        raise BadRequest("the body must be an object with a list `instanceIds`") from None
    if not isinstance(numbers, list) or not numbers or not all(type(number) is int for number in numbers):
        raise BadRequest("instanceIds must be a list of numbers, not empty")
    return numbers


def _slice(request: Request, found: list[T]) -> list[T]:
    first = integer(request.query_params, "offset", 0)
    return found[first : first + min(integer(request.query_params, "limit", 10, 1), MOST)]


def _page(name: str, shown: list[dict[str, object]], total: int) -> Response:
    return JSONResponse({"totalCount": total, name: shown})
