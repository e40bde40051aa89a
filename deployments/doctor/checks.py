"""The read routes of the runbook: each is asked once, and nothing is changed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any

from deployments.doctor.advice import Advice, Place
from deployments.doctor.clocks import Clocks
from deployments.doctor.findings import Check, Finding, NotAsked, Unfit, negated, tried
from tasks import timing
from tasks.answering import calls_of
from tasks.bindings import unusable
from tasks.blocks import Manager
from tasks.clients.http import Api
from tasks.clients.routes import CLOUD_ROUTES
from tasks.connections import Connection
from tasks.errors import LoginSuspended, NotAuthorized, Unreachable
from tasks.models import Node

ALARM = "12110"
SPARED = "not asked: "  # of a service that did not answer before
VIEWER, OPERATOR = "the role Manager_viewer on Manager", "the role Manager_operator on Manager"


async def ask_routes(connection: Connection, nodes: list[Node], clocks: Clocks) -> tuple[list[Finding], list[Finding]]:
    """Ask every read route of the runbook once. A service that cannot be reached, or lets nobody in, is asked once.

    Args:
        nodes: filled with what the nodes API lists, clocks with what time it was for those who answered.

    Returns:
        Those of Manager, and those of the cloud.
    """
    parts = (_manager(connection), _cloud(connection, nodes))
    manager, cloud = await asyncio.gather(*(_asked(part, clocks) for part in parts))
    return manager, cloud


async def _asked(checks: Iterable[Check], clocks: Clocks) -> list[Finding]:
    found: list[Finding] = []
    closed: dict[str, str] = {}
    for check in checks:
        service, before = check.at.service, check.api.clock if check.api else None
        if service in closed:
            said = f"{SPARED}{closed[service]}"
            found.append(Finding(check.name, check.call, check.rating, False, said, negated(check), answered=False))
            continue
        finding, error = await tried(check)
        found.append(finding)
        if check.api and check.api.clock is not before:
            clocks.read("Manager" if service == "Manager" else "cloud", check.api.clock)
        if isinstance(error, Unreachable):
            closed[service] = f"{service} cannot be reached"
        elif isinstance(error, LoginSuspended) or (isinstance(error, NotAuthorized) and error.status != 403):
            closed[service] = f"{service} does not let us in"
    return found


def at_manager(block: Manager, route: str, *, changes: bool = False) -> Place:
    """Manager, as whom that block logs in."""
    name = "the cluster's block for changes, `changing_manager`" if changes else "the cluster's MRS Manager block"
    right = OPERATOR if changes else VIEWER
    return Place("Manager", block.url, name, f"user {block.user!r}", right, route)


def _manager(connection: Connection) -> Iterable[Check]:
    manager, cluster, calls = connection.manager, connection.cluster, calls_of(connection)

    async def masking() -> str:
        return "masked" if await manager.is_masked(ALARM) else "not masked"

    checks: tuple[tuple[str, str, Callable[[], Awaitable[Any]]], ...] = (
        ("clusters", "the login works", manager.clusters),
        ("alarms", "steps 1, 3 and 6 see the alarm", lambda: manager.alarms(ALARM)),
        ("masking", "step 1 can tell masked from cleared", masking),
        ("hosts", "a host's identity can be checked before a change", manager.hosts),
        (
            "instances",
            "step 2 has a second source, step 3 can see a restart",
            lambda: manager.instances(cluster.meta_service),
        ),
        ("commands", "a change waits for nobody else's command", manager.running_commands),
    )
    for name, means, ask in checks:
        at = at_manager(cluster.manager, name)
        yield Check(name, calls[name], manager.routes[name].rating, means, at, manager, ask)


def _cloud(connection: Connection, nodes: list[Node]) -> Iterable[Check]:
    mrs, ecs, cluster, calls = connection.mrs, connection.ecs, connection.cluster, calls_of(connection)

    async def record() -> str:
        found = await mrs.cluster(cluster.cluster_id)
        said = f"{found.name}, {found.state}, {found.nodes} nodes"
        if found.agency is None:
            what = "nothing can be set for it: whether this cluster is unbound stays for a person to answer"
            absent = Advice("field absent: agency of the cluster's record", what)
            raise Unfit(f"{said}, without an agency field", absent)
        return f"{said}, agency {found.agency!r}"

    async def list_nodes() -> str:
        nodes.extend(await mrs.nodes(cluster.cluster_id))
        meta = [n for n in nodes for part in n.components if part.service.lower() == cluster.meta_service.lower()]
        said = f"{len(nodes)} nodes, {len(meta)} {cluster.meta_service} instances"
        if not meta:
            what = "correct meta_service in the cluster's block, or look whether the service is installed"
            raise Unfit(said, Advice("field absent: Meta instances of the nodes", what))
        return said

    async def updating() -> str:
        return "running" if await mrs.agency_update_running(cluster.cluster_id) else "no update running"

    async def metadata() -> str:
        if not nodes:
            return NotAsked("no node is known to ask about")
        return f"{nodes[0].host}: agency {await ecs.agency(nodes[0].server_id)!r}"

    async def agency() -> str:
        if not cluster.agency:
            return NotAsked("the cluster's block names no agency")
        if why := await unusable(connection, cluster.agency):
            what = "correct the agency in IAM (it must exist and trust ECS), or name another one in the cluster's block"
            raise Unfit(why, Advice(f"agency not usable: {cluster.agency}", what))
        return f"{cluster.agency} exists and trusts ECS"

    async def changes() -> str:
        if connection.cts is None:
            return NotAsked("the cloud's block names no CTS")
        until, servers = timing.wall(), [node.server_id for node in nodes] or None
        since = until - timedelta(days=1)
        found = await connection.cts.agency_changes(cluster.cluster_id, since, until, servers=servers)
        return f"{len(found)} changes of its agency within the last day"

    checks: tuple[tuple[str, str, Api | None, Callable[[], Awaitable[Any]]], ...] = (
        ("record", "step 5 has the record; changes only while the cluster is running", mrs, record),
        ("nodes", "step 2 sees the Meta instances", mrs, list_nodes),
        ("agency update", "a change waits for it", mrs, updating),
        ("metadata", "step 5 sees each node's agency", ecs, metadata),
        ("agency", "step 6 binds only a usable agency", connection.iam, agency),
        ("changes", "step 6 knows who changed the agency", connection.cts, changes),
    )
    for name, means, api, ask in checks:
        route, cloud = CLOUD_ROUTES[name], cluster.cloud
        url = {"MRS": cloud.mrs_url, "ECS": cloud.ecs_url, "IAM": cloud.iam_url, "CTS": cloud.cts_url}[route.service]
        right = f"the policy action {route.action}"
        block = "the cluster's MRS Cloud block"
        at = Place(route.service, url, block, f"the key of {block}", right)
        yield Check(name, calls[name], route.rating, means, at, api, ask)
