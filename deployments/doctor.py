"""`runbooks doctor`: call every read route the runbook uses, and say what that means for the steps of the page."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.agencies import ECS_TRUST_DOMAIN
from tasks.clients.manager import ASSUMED, CONFIRMED
from tasks.connections import Connection, connected
from tasks.errors import RemoteError
from tasks.models import Case, Node

NEEDED_TO_CHANGE = frozenset({"alarms", "hosts", "instances", "commands", "record", "nodes", "agency update"})


@dataclass(frozen=True)
class Finding:
    """What one route did: its name, call and rating, whether it answered, what it said, and what that means."""

    name: str
    route: str
    rating: str
    answered: bool
    said: str
    means: str


async def examine(case: Case) -> list[Finding]:
    """Call every read route of the runbook once; nothing is changed.

    Raises:
        UnknownCluster, ConfigurationError: the cluster's block is missing or wrong.
    """
    async with connected(case) as connection:
        return [*await _manager(case, connection), *await _cloud(connection)]


async def _manager(case: Case, connection: Connection) -> list[Finding]:
    manager, meta = connection.manager, connection.cluster.meta_service
    checks: Sequence[tuple[str, str, Callable[[], Awaitable[Any]]]] = (
        ("clusters", "the login works", manager.clusters),
        ("alarms", "steps 1, 3 and 6 see the alarm", lambda: manager.alarms(case.alarm_id)),
        ("masking", "step 1 can tell masked from cleared", lambda: manager.is_masked(case.alarm_id)),
        ("hosts", "a host's identity can be checked before a change", manager.hosts),
        ("instances", "step 2 has a second source, step 3 can see a restart", lambda: manager.instances(meta)),
        ("commands", "a change waits for nobody else's command", manager.running_commands),
    )
    found = []
    for name, means, call in checks:
        route = manager.routes[name]
        found.append(
            await _finding(name, f"Manager {route.method} {route.path or '(none)'}", route.rating, call, means)
        )
    restart = manager.routes["restart"]
    means = "step 3 restarts by itself" if restart.path else "step 3 is handed to a person"
    said = "not called: it changes something"
    return [
        *found,
        Finding("restart", f"Manager {restart.method} {restart.path}", ASSUMED, bool(restart.path), said, means),
    ]


async def _cloud(connection: Connection) -> list[Finding]:
    mrs, ecs, iam, cluster = connection.mrs, connection.ecs, connection.iam, connection.cluster
    nodes: list[Node] = []

    async def record() -> str:
        found = await mrs.cluster(cluster.cluster_id)
        field = (
            "without an agency field: unbound can never be told" if found.agency is None else f"agency {found.agency!r}"
        )
        return f"{found.name}, {found.state}, {found.nodes} nodes, {field}"

    async def list_nodes() -> str:
        nodes.extend(await mrs.nodes(cluster.cluster_id))
        meta = [n for n in nodes for part in n.components if part.service.lower() == cluster.meta_service.lower()]
        return f"{len(nodes)} nodes, {len(meta)} {cluster.meta_service} instances"

    async def agency_of_a_node() -> str:
        return f"{nodes[0].host}: agency {await ecs.agency(nodes[0].server_id)!r}" if nodes else "no node to ask about"

    async def agency_in_iam() -> str:
        if not cluster.agency:
            return "the cluster's block names no agency"
        found = await iam.agency(cluster.agency)
        return f"{cluster.agency}: {'trusts ' + found.trusts if found else 'does not exist'} (needs {ECS_TRUST_DOMAIN})"

    checks = (
        ("record", "MRS GET cluster_infos/{id}", "step 5; changes only while the cluster is running", record),
        ("nodes", "MRS GET clusters/{id}/nodes", "step 2 sees the Meta instances", list_nodes),
        (
            "agency update",
            "MRS GET async_task_status/update_ecs_agency",
            "step 6 waits for it",
            lambda: _updating(connection),
        ),
        ("metadata", "ECS GET cloudservers/{id}", "step 5 sees each node's agency", agency_of_a_node),
        ("agency", "IAM GET OS-AGENCY/agencies", "step 6 binds only a usable agency", agency_in_iam),
    )
    return [await _finding(name, route, CONFIRMED, call, means) for name, route, means, call in checks]


async def _updating(connection: Connection) -> str:
    return (
        "running" if await connection.mrs.agency_update_running(connection.cluster.cluster_id) else "no update running"
    )


async def _finding(name: str, route: str, rating: str, call: Callable[[], Awaitable[Any]], means: str) -> Finding:
    try:
        answer = await call()
    except RemoteError as error:
        return Finding(name, route, rating, False, error.why, f"NOT: {means}")
    said = answer if isinstance(answer, str) else f"{len(answer)} listed" if hasattr(answer, "__len__") else str(answer)
    return Finding(name, route, rating, True, said, means)


async def doctor(cluster: str, console: Console) -> int:
    """Examine one cluster and print what was found; returns the exit code: 0 all answered, 1 something did not."""
    case = Case(cluster=cluster, alarm_id="12110", dry_run=True)
    findings = await examine(case)
    async with connected(case) as connection:
        block = connection.cluster
    table = Table(title=f"{cluster}: what answers, and what it means for ALM-12110", show_lines=False)
    for heading in ("route", "rating", "answered", "it said", "so"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        answered = "[green]yes[/]" if finding.answered else "[red]no[/]"
        table.add_row(finding.route, finding.rating, answered, finding.said, finding.means)
    console.print(table)
    missing = sorted(f.name for f in findings if f.name in NEEDED_TO_CHANGE and not f.answered)
    console.print(f"mode {block.mode}, on_unbound {block.on_unbound}, agency {block.agency or '(none)'}")
    if missing:
        console.print(f"Nothing will be changed: {', '.join(missing)} did not answer. The run says what to do by hand.")
    elif block.mode != "auto":
        console.print(
            f"Nothing will be changed: the mode is {block.mode}. The run diagnoses and says what to do by hand."
        )
    else:
        rebinds = block.on_unbound == "rebind" and bool(block.agency)
        console.print(f"Restarts are done by the run; an unbound cluster is {'bound' if rebinds else 'handed over'}.")
    return 0 if all(finding.answered for finding in findings) else 1
