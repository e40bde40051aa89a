"""Manager 3.x: one table of routes, one session, and the reads and the one mutation the runbook needs."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import httpx

from tasks.clients.http import Api, Patience, understood
from tasks.clients.logins import Login
from tasks.errors import ConfigurationError, NotAuthorized, NotOffered, ServerTrouble, SessionLost
from tasks.models import Alarm, Command, Frozen, Instance, ManagedHost

CONFIRMED, ASSUMED = "CONFIRMED", "ASSUMED"
ROWS_PER_PAGE = 500
Row = TypeVar("Row", bound=Frozen)


class Route(NamedTuple):
    """A route of Manager below its root; `rating` says whether a published source states it."""

    method: str
    path: str
    rating: str


# The root is https://<ip>:28443/web/api/v2 or https://<eip>:9022/mrsmanager/api/v2.
# ASSUMED: Manager has the function (its pages say so) but publishes no API; settle the real path on a live
# Manager with the browser's developer tools and override it in the cluster's Manager block.
ROUTES: Mapping[str, Route] = {
    "session": Route("GET", "session/status", CONFIRMED),
    "clusters": Route("GET", "clusters", CONFIRMED),
    "alarms": Route("GET", "alarms", ASSUMED),
    "masking": Route("GET", "alarms/masking", ASSUMED),
    "hosts": Route("GET", "clusters/{cluster}/hosts", ASSUMED),
    "instances": Route("GET", "clusters/{cluster}/services/{service}/instances", ASSUMED),
    "restart": Route("POST", "clusters/{cluster}/services/{service}/instances/restart", ASSUMED),
    "commands": Route("GET", "commands", ASSUMED),
    "command": Route("GET", "commands/{command}", ASSUMED),
}


def routes_with(overrides: Mapping[str, str]) -> dict[str, Route]:
    """The table with a cluster's own routes: `{"alarms": "GET monitor/alarms"}`; empty text: not offered.

    Raises:
        ConfigurationError: a name that is not in the table, or a value that is not `METHOD path`.
    """
    routes = dict(ROUTES)
    for name, value in overrides.items():
        method, _, path = value.strip().partition(" ")
        if name not in ROUTES:
            raise ConfigurationError(f"Manager route {name!r} is unknown: use one of {', '.join(ROUTES)}")
        if value.strip() and (method not in ("GET", "POST") or not path.strip()):
            raise ConfigurationError(
                f"Manager route {name!r} is {value!r}: write it as 'GET some/path', or leave it empty"
            )
        routes[name] = Route(method, path.strip().lstrip("/"), ROUTES[name].rating)
    return routes


class _Rows(Frozen):
    totalCount: int


class Manager(Api):
    """One cluster's Manager, with one session shared by everybody who uses this object.

    Args:
        url: Manager's REST root, see ROUTES.
        cluster: Manager's own number of the cluster, usually 1 (not the cloud's UUID).
    """

    def __init__(
        self,
        url: str,
        *,
        user: str,
        password: str,
        cluster: int = 1,
        routes: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
        dry_run: bool = True,
        patience: Patience | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__("Manager", url, verify=verify, dry_run=dry_run, patience=patience, transport=transport)
        self.cluster = cluster
        self.routes = routes_with(routes or {})
        self._login = Login(url, user, password)
        self._basic = httpx.BasicAuth(user, password)
        self._logging_in = asyncio.Lock()
        self._sessions = 0

    async def alarms(self, alarm_id: str, *, status: str = "uncleared") -> tuple[Alarm, ...]:
        """Occurrences of one alarm. `status`: `uncleared`, `cleared` or `all`.

        Source: O&M > Alarm > Alarms (page step 1); route unverified.
        """
        query = {"alarmId": alarm_id, "clusterId": str(self.cluster), "status": status}
        return await self._rows("alarms", "alarms", Alarm, query)

    async def occurrence(self, alarm: Alarm) -> Alarm | None:
        """This very occurrence, active or cleared, or None where Manager no longer lists it.

        Source: O&M > Alarm > Alarms, filter by serial number; route unverified.
        """
        query = {"alarmId": alarm.alarm_id, "clusterId": str(self.cluster), "status": "all", "serialNo": alarm.serial}
        rows = await self._rows("alarms", "alarms", Alarm, query)
        return next((row for row in rows if (row.serial, row.host) == (alarm.serial, alarm.host)), None)

    async def is_masked(self, alarm_id: str) -> bool:
        """Whether the alarm is masked: then "not listed" does not mean "not there".

        Source: O&M > Alarm > Masking; route unverified.
        """
        content = await self._read("masking", {"clusterId": str(self.cluster)})
        if not isinstance(content, dict) or not isinstance(content.get("maskedAlarms"), list):
            raise ServerTrouble("Manager GET masking", "no list of masked alarms in the answer")
        return alarm_id in map(str, content["maskedAlarms"])

    async def hosts(self) -> tuple[ManagedHost, ...]:
        """All hosts of the cluster with their management IP. Source: Hosts page; route unverified."""
        return await self._rows("hosts", "hosts", ManagedHost, {})

    async def instances(self, service: str) -> tuple[Instance, ...]:
        """All role instances of a service. Source: Cluster > Services > Meta > Instance (page step 2); unverified."""
        return await self._rows("instances", "instances", Instance, {}, service=service)

    async def restart(self, service: str, instance: Instance) -> str:
        """Restart one role instance; returns the command's id, to be followed with `command`.

        Source: Instance > More > Restart Instance (page step 3); route unverified.
        """
        route = self._route("restart")
        path = route.path.format(cluster=self.cluster, service=service)
        would = f"restart the {instance.role or service} instance of {instance.host}"
        content = await self.act(route.method, path, body={"instanceIds": [int(instance.id)]}, would=would)
        return str(content.get("commandId", "")) if isinstance(content, dict) else ""

    async def command(self, command_id: str) -> Command:
        """One command's state.

        Raises:
            NotOffered: Manager does not know the command (after an OMS switchover, for one).
        """
        path = f"{self._route('command').path.format(command=command_id)}"
        return understood(f"{self.name} GET {path}", Command, await self.read(path))

    async def running_commands(self) -> tuple[Command, ...]:
        """Commands in progress on the cluster, whoever started them."""
        return await self._rows(
            "commands", "commands", Command, {"clusterId": str(self.cluster), "state": "IN_PROGRESS"}
        )

    async def clusters(self) -> Any:
        """The clusters this Manager manages. Source: lists of public clients of Manager 3.x."""
        return await self._read("clusters", {})

    def _route(self, name: str) -> Route:
        route = self.routes[name]
        if not route.path:
            raise NotOffered(f"Manager {name}", "the Manager block says that this Manager does not offer it")
        return route

    async def _read(self, name: str, query: dict[str, str], **parts: str) -> Any:
        path = self._route(name).path.format(cluster=self.cluster, **parts)
        return await self.read(path, params=query)

    async def _rows(self, name: str, key: str, row: type[Row], query: dict[str, str], **parts: str) -> tuple[Row, ...]:
        """All pages of a list, or an error: never a part of it."""
        found: list[Row] = []
        while True:
            page = {**query, "limit": str(ROWS_PER_PAGE), "offset": str(len(found))}
            content = await self._read(name, page, **parts)
            call = f"Manager GET {name}"
            total = understood(call, _Rows, content).totalCount
            rows = [understood(call, row, item) for item in content.get(key) or ()]
            found += rows
            if len(found) >= total:
                return tuple(found)
            if not rows:
                raise ServerTrouble(call, f"{total} rows announced, {len(found)} listed")

    async def _answer(self, method: str, path: str, **request: Any) -> Any:
        """As `Api`, within the session: a lost one is opened anew once, and only a read is repeated."""
        seen = self._sessions or await self._open_session(0)
        try:
            return await super()._answer(method, path, **request)
        except SessionLost:
            await self._open_session(seen)
            if method != "GET":
                raise
            return await super()._answer(method, path, **request)

    async def _open_session(self, lost: int) -> int:
        """Log in, unless another task did so meanwhile; returns the session's number.

        Raises:
            LoginSuspended: this password was rejected before; nothing was sent.
            NotAuthorized: it is rejected now, and suspended from now on.

        Source: Manager 3.x sample code, basic authentication, GET session/status.
        """
        async with self._logging_in:
            if self._sessions > lost:
                return self._sessions
            self._login.check()
            route = self._route("session")
            try:
                await super()._answer(route.method, route.path, auth=self._basic)
            except NotAuthorized as error:
                if error.status != 401 or "locked" in error.why:
                    raise
                self._login.suspend()
                why = f"the user or password in the Manager block was rejected: correct the block ({error.why})"
                raise NotAuthorized(error.call, why, status=error.status) from error
            self._sessions += 1
            return self._sessions
