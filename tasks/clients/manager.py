"""Manager 3.x: one session, and the reads and the one mutation the runbook needs. Its routes are in `routes.py`."""

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import Field

from tasks.clients.answers import content_of, excerpt, understood
from tasks.clients.http import Answered, Api, Patience
from tasks.clients.logins import Login
from tasks.clients.routes import Route, routes_with
from tasks.errors import NotAuthorized, NotOffered, ServerTrouble, SessionLost
from tasks.models import Alarm, Command, Frozen, Instance, ManagedHost, Text

ROWS_PER_PAGE, MOST_PAGES = 500, 400  # Manager keeps about 110,000 alarms

# What the login page says; the status it comes with is not published. Source: Manager 3.x sample code.
WRONG_PASSWORD = "The credentials you provided cannot be determined to be authentic"  # noqa: S105
FIRST_LOGIN = "modify_password.html"
REJECTED = "the user or password in the Manager block was rejected: correct the block"
LOCKED = re.compile(r"\b(is|has been) locked\b", re.IGNORECASE)
Row = TypeVar("Row", bound=Frozen)


class _Rows(Frozen):
    totalCount: int = Field(ge=0)


class _Masking(Frozen):
    maskedAlarms: tuple[Text, ...]


def _status(alarm: Alarm) -> str:
    """The alarm's status in Manager's words, in lower case. Source: "Overview of Alarms and Events"."""
    status = alarm.status.lower()
    if status not in ("uncleared", "auto", "manual"):
        raise ServerTrouble("Manager GET alarms", f"{alarm} has an unknown status, {alarm.status!r}")
    return status


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
        keep_alive: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(
            "Manager",
            url,
            verify=verify,
            dry_run=dry_run,
            patience=patience,
            keep_alive=keep_alive,
            transport=transport,
        )
        self.acts_as = f"Manager user {user!r}"
        self.cluster = cluster
        self.routes = routes_with(routes or {})
        self._login = Login(str(self.http.base_url), user, password)
        self._basic = httpx.BasicAuth(user, password)
        self._logging_in = asyncio.Lock()
        self._sessions = 0

    async def alarms(self, alarm_id: str, *, status: str = "uncleared", serial: str = "") -> tuple[Alarm, ...]:
        """Occurrences of one alarm. `status`: `uncleared` or `all`; `serial`: only those with this serial number.

        The route is unverified, so what it was asked to leave out is left out here once more.

        Raises:
            ServerTrouble: a row whose status is none of Manager's words.

        Source: O&M > Alarm > Alarms (page step 1); route unverified.
        """
        query = {"alarmId": alarm_id, "clusterId": str(self.cluster), "status": status}
        query |= {"serialNo": serial} if serial else {}
        return tuple(
            row
            for row in await self._rows("alarms", "alarms", Alarm, query)
            if row.alarm_id == alarm_id
            and (_status(row) == "uncleared" or status == "all")
            and serial in ("", row.serial)
        )

    async def active_alarms(self) -> tuple[Alarm, ...]:
        """Every active alarm of the cluster, whatever its id.

        Raises:
            ServerTrouble: as in `alarms`.

        Source: O&M > Alarm > Alarms, without a filter by id; route unverified.
        """
        rows = await self._rows("alarms", "alarms", Alarm, {"clusterId": str(self.cluster), "status": "uncleared"})
        return tuple(row for row in rows if _status(row) == "uncleared")

    async def occurrence(self, alarm: Alarm) -> Alarm | None:
        """This very occurrence, active or cleared, or None where Manager no longer lists it.

        Source: O&M > Alarm > Alarms, filter by serial number; route unverified.
        """
        query = {"alarmId": alarm.alarm_id, "clusterId": str(self.cluster), "status": "all", "serialNo": alarm.serial}
        rows = await self._rows("alarms", "alarms", Alarm, query)
        known = (alarm.alarm_id, alarm.host, alarm.serial, alarm.occurred)
        same = [row for row in rows if (row.alarm_id, row.host, row.serial, row.occurred) == known]
        return same[0] if len(same) == 1 and (alarm.serial or alarm.occurred) else None

    async def is_masked(self, alarm_id: str) -> bool:
        """Whether the alarm is masked: then "not listed" does not mean "not there".

        Source: O&M > Alarm > Masking; route unverified.
        """
        return alarm_id in await self.masked_alarms()

    async def masked_alarms(self) -> frozenset[str]:
        """Ids of all masked alarms. Source: as in `is_masked`."""
        content = await self._read("masking", {"clusterId": str(self.cluster)})
        return frozenset(understood("Manager GET masking", _Masking, content).maskedAlarms)

    async def hosts(self) -> tuple[ManagedHost, ...]:
        """All hosts of the cluster with their management IP. Source: Hosts page; route unverified."""
        return await self._rows("hosts", "hosts", ManagedHost, {})

    async def instances(self, service: str) -> tuple[Instance, ...]:
        """All role instances of a service. Source: Cluster > Services > Meta > Instance (page step 2); unverified."""
        return await self._rows("instances", "instances", Instance, {}, service=service)

    async def restart(self, service: str, instance: Instance) -> str:
        """Restart one role instance; returns the command's id, to be followed with `command`; empty: none was named.

        Raises:
            ServerTrouble: Manager listed the instance with an id that is no number; nothing was sent.

        Source: Instance > More > Restart Instance (page step 3); route unverified.
        """
        if not (instance.id.isascii() and instance.id.isdecimal()):
            why = f"the instance of {instance.host} is listed with the id {excerpt(instance.id)!r}, which is no number"
            raise ServerTrouble("Manager GET instances", why)
        method, path = self._route("restart").method, self._path("restart", service=service)
        would = f"restart the {instance.role or service} instance of {instance.host}"
        content = (await self.act(method, path, body={"instanceIds": [int(instance.id)]}, would=would)).content
        command = content.get("commandId") if isinstance(content, dict) else None
        return str(command) if isinstance(command, int | str) else ""

    async def log_in(self) -> None:
        """Open a session where there is none yet, so that what follows is sent without delay.

        Raises:
            LoginSuspended, NotAuthorized: as any call.
        """
        if not self._sessions:
            await self._open_session(0)

    async def command(self, command_id: str) -> Command:
        """One command's state.

        Raises:
            NotOffered: Manager does not know the command (after an OMS switchover, for one).
        """
        path = self._path("command", command=command_id)
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

    def _path(self, name: str, **parts: str) -> str:
        filled = {part: quote(value, safe="") for part, value in parts.items()}
        return self._route(name).path.format(cluster=self.cluster, **filled)

    async def _read(self, name: str, query: dict[str, str], **parts: str) -> Any:
        return await self.read(self._path(name, **parts), params=query)

    async def _rows(self, name: str, key: str, row: type[Row], query: dict[str, str], **parts: str) -> tuple[Row, ...]:
        """All pages of a list, or an error: never a part of it."""
        call = f"Manager GET {name}"
        found: list[Row] = []
        rows: list[Row] = []
        for _ in range(MOST_PAGES):
            page = {**query, "limit": str(ROWS_PER_PAGE), "offset": str(len(found))}
            content = await self._read(name, page, **parts)
            total = understood(call, _Rows, content).totalCount
            listed = content.get(key) or []
            if not isinstance(listed, list):
                raise ServerTrouble(call, f"the answer is not as described: {key}: not a list")
            before, rows = rows, [understood(call, row, item) for item in listed]
            if rows and rows == before:
                raise ServerTrouble(call, "every page holds the same rows: Manager does not know limit and offset")
            found += rows
            if len(found) >= total:
                return tuple(found)
            if not rows:
                break
        raise ServerTrouble(call, f"{total} rows announced, {len(found)} listed")

    async def _answer(self, method: str, path: str, **request: Any) -> Answered:
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
            NotAuthorized: it is rejected now, and suspended from now on; or the user is locked or new.

        Source: Manager 3.x sample code, basic authentication, GET session/status.
        """
        async with self._logging_in:
            if self._sessions > lost:
                return self._sessions
            path = self._path("session")
            async with self._login.alone(within=self.patience.timeout):
                self._login.check()
                answer, body = await self._send("GET", path, auth=self._basic)
                why = _refusal(answer.status_code, body.decode("utf-8", "replace"))
                if why == REJECTED:
                    self._login.suspend()
            if why:
                raise NotAuthorized(f"{self.name} GET {path}", why, status=answer.status_code)
            if not answer.is_success:
                content_of(f"{self.name} GET {path}", answer, body)
            self._sessions += 1
            return self._sessions


def _refusal(status: int, page: str) -> str:
    """Why Manager does not let the user in, as far as it is about the user; else empty."""
    if WRONG_PASSWORD in page:
        return REJECTED
    if FIRST_LOGIN in page:
        return "the user must set a password of its own first: log in to Manager by hand once"
    if status == 401:
        return (
            "the user is locked on Manager, not rejected: wait, or unlock it there" if LOCKED.search(page) else REJECTED
        )
    return ""
