"""The routes under /emulator/ with which tests and demos look behind the scenes and break things."""

import json
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.emulator.inventory import Alarm, Cluster
from deployments.emulator.metadata import Credential
from deployments.emulator.region import Region
from deployments.emulator.routes import Endpoint, ServedRoute
from deployments.emulator.smn import SmnSender


class Control:
    """Handlers over a region; what cannot be done answers 400 with `{"error": text}`."""

    def __init__(self, region: Region, served: list[ServedRoute]) -> None:
        self._region = region
        self._served = served

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        """(method, path, endpoint) of each control route."""
        return [
            ("GET", "/emulator/routes", self.routes_served),
            ("GET", "/emulator/state", self.state),
            ("GET", "/emulator/log", self.log),
            ("POST", "/emulator/faults", self.set_fault),
            ("DELETE", "/emulator/faults", self.clear_fault),
            ("POST", "/emulator/trouble", self.add_trouble),
            ("DELETE", "/emulator/trouble", self.clear_trouble),
            ("POST", "/emulator/advance", self.advance),
            ("POST", "/emulator/actions", self.act),
        ]

    async def routes_served(self, request: Request) -> Response:
        """`[{method, path, face, rating, served}]`; `served` is whether this profile has it."""
        assumed = self._region.profile == "assumed"
        shown = [
            {"method": route.method, "path": route.path, "face": route.face, "rating": route.rating}
            | {"served": assumed or route.rating == "CONFIRMED"}
            for route in self._served
        ]
        return JSONResponse(shown)

    async def state(self, request: Request) -> Response:
        """Time, profile, credentials, faults, clusters with hosts and alarms; `?cluster=` (name or id) shows one."""
        wanted = request.query_params.get("cluster")
        try:
            clusters = [self._region.cluster(wanted)] if wanted else list(self._region.clusters.values())
        except LookupError as error:
            return JSONResponse({"error": str(error)}, 400)
        region = self._region
        return JSONResponse(
            {
                "now": region.now.isoformat(),
                "profile": region.profile,
                "region": region.region,
                "project_id": region.project_id,
                "domain_id": region.domain_id,
                "access_key": region.access_key,
                "secret_key": region.secret_key,
                "token": region.token,
                "clusters": [self._cluster(cluster) for cluster in clusters],
                "subscriptions": [
                    {"topic": each.topic, "endpoint": each.endpoint, "confirmed": each.confirmed}
                    for each in region.smn.subscriptions
                ],
                "faults": [
                    {"name": fault.name, "cluster": fault.scope[0], "host": fault.scope[1], "options": fault.options}
                    for fault in region.faults
                ],
            }
        )

    async def log(self, request: Request) -> Response:
        """The accepted mutating calls, oldest first; `?since=N` leaves out the first N."""
        since = int(request.query_params.get("since", "0"))
        entries = [asdict(entry) | {"at": entry.at.isoformat()} for entry in self._region.log[since:]]
        return JSONResponse(entries)

    async def set_fault(self, request: Request) -> Response:
        """`{name, cluster?, host?, options?}`."""
        return await self._do(
            request, lambda wanted: self._region.set_fault(*_place(wanted), **wanted.get("options", {}))
        )

    async def clear_fault(self, request: Request) -> Response:
        """`{name, cluster?, host?}`."""
        return await self._do(request, lambda wanted: self._region.clear_fault(*_place(wanted)))

    async def add_trouble(self, request: Request) -> Response:
        """`{method, route, kind, times? (1; null: until removed), options?}`."""

        def add(wanted: dict[str, Any]) -> None:
            route = (wanted["method"], wanted["route"], wanted["kind"])
            self._region.trouble.add(*route, times=wanted.get("times", 1), **wanted.get("options", {}))

        return await self._do(request, add)

    async def clear_trouble(self, request: Request) -> Response:
        """Remove all trouble; no body."""
        self._region.trouble.clear()
        return JSONResponse({"now": self._region.now.isoformat()})

    async def advance(self, request: Request) -> Response:
        """`{seconds}` of emulated time."""
        return await self._do(request, lambda wanted: self._region.advance(float(wanted["seconds"])))

    async def act(self, request: Request) -> Response:
        """`{action, ...}`, which is clear-alarm, scale-out, scale-in, add-cluster, smn-subscribe or smn-unsubscribe.

        They take {serial, cluster?}, {cluster}, {cluster, host}, {name?}, and twice {endpoint, topic}.
        """

        def do(wanted: dict[str, Any]) -> None:
            region = self._region
            match wanted["action"]:
                case "clear-alarm":
                    region.clear_alarm(wanted["serial"], wanted.get("cluster"))
                case "scale-out":
                    region.scale_out(wanted["cluster"])
                case "scale-in":
                    region.scale_in(wanted["cluster"], wanted["host"])
                case "add-cluster":
                    region.add_cluster(wanted.get("name"))
                case "smn-subscribe":
                    if not region.smn.sinks:
                        region.smn.sinks.append(SmnSender())
                    region.smn.address = str(request.base_url).rstrip("/")
                    region.smn.subscribe(wanted["endpoint"], wanted["topic"])
                case "smn-unsubscribe":
                    region.smn.unsubscribe(wanted["endpoint"], wanted["topic"])
                case unknown:
                    raise ValueError(f"no action is called {unknown!r}")

        return await self._do(request, do)

    async def _do(self, request: Request, act: Any) -> Response:
        try:
            act(json.loads(await request.body()))
        except (ValueError, LookupError, TypeError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)
        return JSONResponse({"now": self._region.now.isoformat()})

    def _cluster(self, cluster: Cluster) -> dict[str, object]:
        return {
            "id": cluster.id,
            "name": cluster.name,
            "manager_id": cluster.manager_id,
            "manager_user": cluster.manager_user,
            "manager_password": cluster.manager_password,
            "manager_root": f"/managers/{cluster.id}/web/api/v2/",
            "hosts": [
                {
                    "name": host.name,
                    "ip": host.ip,
                    "server_id": host.server_id,
                    "agency": host.metadata.get("agency_name"),
                    "meta": None if host.instance_id is None else self._region.meta.status(host),
                    "keys": None if (keys := self._region.meta.credential(host)) is None else _shown(keys),
                }
                for host in cluster.hosts.values()
            ],
            "alarms": [_alarm(alarm) for alarm in cluster.alarms],
        }


def _alarm(alarm: Alarm) -> dict[str, object]:
    shown = {"alarm_id": alarm.alarm_id, "serial": alarm.serial, "host": alarm.host.name, "status": alarm.status}
    return shown | {"occurred_ms": alarm.occurred_ms, "cleared_ms": alarm.cleared_ms}


def _shown(keys: Credential) -> dict[str, str]:
    return {"access": keys.access, "secret": keys.secret, "securitytoken": keys.securitytoken}


def _place(wanted: dict[str, Any]) -> tuple[str, str | None, str | None]:
    return wanted["name"], wanted.get("cluster"), wanted.get("host")
