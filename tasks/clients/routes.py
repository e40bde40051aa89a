"""The routes, in two tables, Manager's and the cloud's: method, path, and whether a published source states it."""

from collections.abc import Mapping
from string import Formatter
from typing import NamedTuple

from tasks.errors import ConfigurationError

CONFIRMED, ASSUMED = "CONFIRMED", "ASSUMED"


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


class CloudRoute(NamedTuple):
    """A route of a cloud service, in short; `action` is the policy action that its caller needs (IAM, version 1.1)."""

    service: str
    method: str
    path: str
    rating: str
    action: str


CLOUD_ROUTES: Mapping[str, CloudRoute] = {
    "record": CloudRoute("MRS", "GET", "cluster_infos/{id}", CONFIRMED, "mrs:cluster:get"),
    "nodes": CloudRoute("MRS", "GET", "clusters/{id}/nodes", CONFIRMED, "mrs:host:list"),
    # Of the identity policies it needs none; whether the others are asked is not published.
    "agency update": CloudRoute("MRS", "GET", "async_task_status/update_ecs_agency", CONFIRMED, "mrs:cluster:get"),
    "metadata": CloudRoute("ECS", "GET", "cloudservers/{id}", CONFIRMED, "ecs:cloudServers:get"),
    "agency": CloudRoute("IAM", "GET", "OS-AGENCY/agencies", CONFIRMED, "iam:agencies:listAgencies"),
    "changes": CloudRoute("CTS", "GET", "traces", CONFIRMED, "cts:trace:list"),
}


def call_of(route: Route | CloudRoute, service: str) -> str:
    """Service, method and path, for example `Manager GET alarms`."""
    return f"{service} {route.method} {route.path or '(none)'}"


def routes_with(overrides: Mapping[str, str]) -> dict[str, Route]:
    """The table with a cluster's own routes: `{"alarms": "GET monitor/alarms"}`; empty text: not offered.

    The method is that of the table (what restarts may be a PUT, too); the path is below the root, may hold the
    placeholders of the table's path and `{cluster}`, and has no query.

    Raises:
        ConfigurationError: a name that is not in the table, or a value that is not `METHOD path`.
    """
    routes = dict(ROUTES)
    for name, value in overrides.items():
        if name not in ROUTES:
            raise ConfigurationError(f"Manager route {name!r} is unknown: use one of {', '.join(ROUTES)}")
        method, _, path = value.strip().partition(" ")
        path = path.strip().lstrip("/")
        own = ROUTES[name]
        fits = method == own.method or (own.method, method) == ("POST", "PUT")
        if value.strip() and not (fits and path and _placeholders(path) <= _placeholders(own.path) | {"cluster"}):
            raise ConfigurationError(
                f"Manager route {name!r} is {value!r}: write it like '{own.method} {own.path}', or leave it empty"
            )
        routes[name] = Route(method, path, own.rating)
    return routes


def _placeholders(path: str) -> set[str]:
    """Names in braces; what may not be in a path at all (an address, a query, a lone brace) is one that fits nowhere.

    Whatever is left is certain to be filled by `Manager._path`.
    """
    try:
        parts = list(Formatter().parse(path))
    except ValueError:
        return {path}
    wrong = any(mark in path for mark in ("://", "?", "#")) or any(spec or as_ for _, _, spec, as_ in parts)
    return {path} if wrong else {name for _, name, _, _ in parts if name is not None}
