"""`runbooks doctor`: call every read route the runbook uses, and say what that means for the steps of the page."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.bindings import ECS_TRUST_DOMAIN
from tasks.blocks import Cluster
from tasks.clients.routes import CONFIRMED
from tasks.connections import Connection, connected
from tasks.errors import ConfigurationError, Refused, RemoteError, Unreachable
from tasks.models import Case, Node
from tasks.ticket_systems import look_at, ticket_system

NEEDED_TO_CHANGE = frozenset({"alarms", "hosts", "instances", "commands", "record", "nodes", "agency update"})
NEEDED_TO_BIND = frozenset({"metadata", "agency"})
SHOWN = {True: "[green]yes[/]", False: "[red]no[/]", None: "not called"}


@dataclass(frozen=True)
class Finding:
    """What one route did: its name, call and rating, what it said and what that means for the page's steps.

    `fine`: it answered with something the runbook can use; None: it was not called.
    """

    name: str
    route: str
    rating: str
    fine: bool | None
    said: str
    means: str


@dataclass(frozen=True)
class Check:
    """A route, what its answer is good for, and how to call it. `call` raises Refused for an answer of no use."""

    name: str
    route: str
    rating: str
    means: str
    call: Callable[[], Awaitable[Any]]


class NotCalled(str):
    """Why a route was not called, in place of an answer."""


async def examine(case: Case, connection: Connection) -> list[Finding]:
    """Call every read route of the runbook once; nothing is changed. A service that is unreachable is called once."""
    found: list[Finding] = []
    unreachable: set[str] = set()
    for check in [*_manager(case, connection), *_cloud(connection)]:
        service = check.route.partition(" ")[0]
        fine: bool | None = False
        said = f"not called: {service} cannot be reached"
        if service not in unreachable:
            try:
                answer = await check.call()
                fine, said = None if isinstance(answer, NotCalled) else True, _words(answer)
            except Refused as error:
                said = str(error)
            except RemoteError as error:
                said = error.why
                unreachable |= {service} if isinstance(error, Unreachable) else set()
        means = f"{'NOT: ' if fine is False else ''}{check.means}"
        found.append(Finding(check.name, check.route, check.rating, fine, said, means))
    return found


def _words(answer: Any) -> str:
    return str(answer) if isinstance(answer, str) or not hasattr(answer, "__len__") else f"{len(answer)} listed"


def _manager(case: Case, connection: Connection) -> Iterable[Check]:
    manager, meta = connection.manager, connection.cluster.meta_service

    async def masking() -> str:
        return "masked" if await manager.is_masked(case.alarm_id) else "not masked"

    async def restart() -> str:
        return NotCalled("it changes something" if manager.routes["restart"].path else "the block says: not offered")

    restarts = "by itself, if Manager offers this" if manager.routes["restart"].path else "by a person"
    checks: tuple[tuple[str, str, Callable[[], Awaitable[Any]]], ...] = (
        ("clusters", "the login works", manager.clusters),
        ("alarms", "steps 1, 3 and 6 see the alarm", lambda: manager.alarms(case.alarm_id)),
        ("masking", "step 1 can tell masked from cleared", masking),
        ("hosts", "a host's identity can be checked before a change", manager.hosts),
        ("instances", "step 2 has a second source, step 3 can see a restart", lambda: manager.instances(meta)),
        ("commands", "a change waits for nobody else's command", manager.running_commands),
        ("restart", f"step 3 is done {restarts}", restart),
    )
    for name, means, call in checks:
        route = manager.routes[name]
        yield Check(name, f"Manager {route.method} {route.path or '(none)'}", route.rating, means, call)


def _cloud(connection: Connection) -> Iterable[Check]:
    mrs, ecs, iam, cluster = connection.mrs, connection.ecs, connection.iam, connection.cluster
    nodes: list[Node] = []

    async def record() -> str:
        found = await mrs.cluster(cluster.cluster_id)
        unknown = "without an agency field: unbound can never be told"
        field = unknown if found.agency is None else f"agency {found.agency!r}"
        return f"{found.name}, {found.state}, {found.nodes} nodes, {field}"

    async def list_nodes() -> str:
        nodes.extend(await mrs.nodes(cluster.cluster_id))
        meta = [n for n in nodes for part in n.components if part.service.lower() == cluster.meta_service.lower()]
        return f"{len(nodes)} nodes, {len(meta)} {cluster.meta_service} instances"

    async def updating() -> str:
        return "running" if await mrs.agency_update_running(cluster.cluster_id) else "no update running"

    async def metadata() -> str:
        if not nodes:
            return NotCalled("no node is known to ask about")
        return f"{nodes[0].host}: agency {await ecs.agency(nodes[0].server_id)!r}"

    async def agency() -> str:
        if not cluster.agency:
            return NotCalled("the cluster's block names no agency")
        found = await iam.agency(cluster.agency)
        if found is None:
            raise Refused(f"{cluster.agency} does not exist")
        if found.trusts != ECS_TRUST_DOMAIN:
            raise Refused(f"{cluster.agency} trusts {found.trusts}, not {ECS_TRUST_DOMAIN}")
        if found.expires and found.expires <= datetime.now(UTC):
            raise Refused(f"{cluster.agency} expired at {found.expires:%Y-%m-%d %H:%M}")
        return f"{cluster.agency} trusts {found.trusts}"

    async def changes() -> str:
        if connection.cts is None:
            return NotCalled("the cloud's block names no CTS")
        until, servers = datetime.now(UTC), [node.server_id for node in nodes] or None
        since = until - timedelta(days=1)
        found = await connection.cts.agency_changes(cluster.cluster_id, since, until, servers=servers)
        return f"{len(found)} traces of the last day"

    checks = (
        ("record", "MRS GET cluster_infos/{id}", "step 5; changes only while the cluster is running", record),
        ("nodes", "MRS GET clusters/{id}/nodes", "step 2 sees the Meta instances", list_nodes),
        ("agency update", "MRS GET async_task_status/update_ecs_agency", "step 6 waits for it", updating),
        ("metadata", "ECS GET cloudservers/{id}", "step 5 sees each node's agency", metadata),
        ("agency", "IAM GET OS-AGENCY/agencies", "step 6 binds only a usable agency", agency),
        ("changes", "CTS GET traces", "step 6 knows who changed the agency", changes),
    )
    for name, route, means, call in checks:
        yield Check(name, route, CONFIRMED, means, call)
    yield _tickets(cluster)


def _tickets(cluster: Cluster) -> Check:
    async def look() -> str:
        if not cluster.tickets:
            return NotCalled("the cluster's block names none: tickets are files, `runbooks tickets`")
        try:
            said = await look_at(await ticket_system(cluster.tickets))
        except ConfigurationError as error:
            raise Refused(str(error)) from error
        return said or NotCalled("a webhook cannot be asked")

    return Check("tickets", "tickets", "", "step 7 reaches a person where tickets are looked at", look)


def conclusion(cluster: Cluster, findings: Iterable[Finding]) -> str:
    """What a run that is no dry run will do on this cluster, in a sentence or two."""
    fine = {finding.name for finding in findings if finding.fine}
    if missing := sorted(NEEDED_TO_CHANGE - fine):
        return f"Nothing will be changed: no use of {', '.join(missing)}. The run says what to do by hand."
    if cluster.mode != "auto":
        return f"Nothing will be changed: the mode is {cluster.mode}. The run diagnoses and says what to do by hand."
    restarts = "done by the run" if cluster.manager.routes.get("restart", "offered") else "handed to a person"
    if cluster.on_unbound == "rebind" and fine >= NEEDED_TO_BIND:
        unbound = f"bound to {cluster.agency} by the run"
    else:
        unbound = "handed to a person"
    return f"Restarts are {restarts}; an unbound cluster is {unbound}."


async def doctor(cluster: str, console: Console) -> int:
    """Examine one cluster and print what was found; returns the exit code: 0 all is fine, 1 something is not.

    Raises:
        UnknownCluster, ConfigurationError: the cluster's block is missing or wrong.
    """
    case = Case(cluster=cluster, alarm_id="12110", dry_run=True)
    async with connected(case) as connection:
        findings, block = await examine(case, connection), connection.cluster
    table = Table(title=Text(f"{cluster}: what answers, and what it means for ALM-12110"))
    for heading in ("route", "rating", "fine", "it said", "so"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        said = Text(finding.said)
        table.add_row(Text(finding.route), finding.rating, SHOWN[finding.fine], said, finding.means)
    console.print(table)
    console.print(f"mode {block.mode}, on_unbound {block.on_unbound}, agency {block.agency or '(none)'}", markup=False)
    console.print(conclusion(block, findings), markup=False)
    return 1 if any(finding.fine is False for finding in findings) else 0
