"""The logins that no read of the runbook uses: those for changes, and the ticket system's."""

from dataclasses import replace
from functools import partial

from deployments.doctor.advice import Place
from deployments.doctor.checks import at_manager
from deployments.doctor.findings import Check, Finding, NotAsked, asked
from tasks.blocks import Cloud, Cluster, Manager
from tasks.errors import ConfigurationError, NotAuthorized, Unreachable
from tasks.models import Node
from tasks.ticket_systems import look_at, ticket_system


async def logins_for_changes(cluster: Cluster, nodes: list[Node]) -> list[Finding]:
    """Whether the logins that are used for changes only are known; by dry clients, which change nothing."""

    async def manager() -> str:
        block = cluster.manager_for_changes()
        if block is None or cluster.mode == "observe":
            return _unused(block)
        async with block.get_client(dry_run=True) as client:
            await client.clusters()
        return f"user {block.user!r} is known"

    async def cloud() -> str:
        block = cluster.changing_cloud
        if block is None or cluster.mode == "observe":
            return _unused(block)
        if not nodes:
            return NotAsked("no node is known to ask about")
        async with block.get_ecs(dry_run=True) as client:
            try:
                await client.agency(nodes[0].server_id)
            except NotAuthorized as error:
                if error.status != 403:
                    raise
                return "the key is known, and may not read"
        return "the key is known"

    means, right = "changes have a login of their own", "the policy action ecs:cloudServers:updateMetadata"
    own_manager, own_cloud = cluster.changing_manager or cluster.manager, cluster.changing_cloud or cluster.cloud
    in_manager = at_manager(own_manager, "", changes=True)
    name = "the cluster's block for changes, `changing_cloud`"
    in_ecs = Place("ECS", own_cloud.ecs_url, name, f"the key of {name}", right)
    checks = (
        Check("login for restarts", "Manager login for changes", "", means, in_manager, None, manager),
        Check("key for binding", "ECS key for changes", "", means, in_ecs, None, cloud),
    )
    return [_no_route(await asked(check)) for check in checks]


def _unused(block: Manager | Cloud | None) -> NotAsked:
    """Why the login in this block is used for nothing."""
    if block is None:
        return NotAsked("the block names none: the one that reads makes changes, too")
    return NotAsked("the mode is observe: nothing is changed by it")


def _no_route(finding: Finding) -> Finding:
    """What is not asked for the sake of its route says nothing about that one."""
    return replace(finding, answered=None)


async def tickets(name: str) -> Finding:
    """Whether the ticket system of that block lets us in; empty: tickets are files."""
    means = "step 7 reaches a person where tickets are looked at"
    told = partial(Finding, "tickets", "tickets", "")
    if not name:
        return told(None, "the cluster's block names none: tickets are files, `runbooks tickets`", means)
    try:
        block = await ticket_system(name)
    except (ConfigurationError, Unreachable) as error:
        return told(False, str(error), f"NOT: {means}", "correct the block", f"wrong block: tickets {name}", warns=True)

    async def look() -> str:
        return await look_at(block) or NotAsked("a webhook cannot be asked")

    at = Place("tickets", block.url, f"the block MRS Ticket System/{name}", "its login", "the rights of its kind")
    return replace(await asked(Check("tickets", "tickets", "", means, at, None, look)), answered=None, warns=True)
