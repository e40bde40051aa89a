"""Reads one cluster, its cloud's side and its Manager's at the same time. What cannot be read is kept as the error.

A call is given up after ten seconds; one to the cloud is tried twice. Where Manager does not answer the first question,
or MRS the one for the record, the next ones are not asked there; what hangs only later takes its own time, so a cluster
may take a minute. It holds up no others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Self, TypeVar

from tasks import timing
from tasks.blocks import Cloud, Cluster
from tasks.clients.ecs import Ecs
from tasks.clients.http import Patience
from tasks.clients.iam import Iam
from tasks.clients.manager import Manager
from tasks.clients.mrs import Mrs
from tasks.errors import LoginSuspended, NotAuthorized, RunbookError, Unreachable
from tasks.models import Agency, Node
from tasks.sweep.agency_checks import in_question
from tasks.sweep.pacing import Pace
from tasks.sweep.rights import ENOUGH
from tasks.sweep.seen import Permissions, Read, Seen
from tasks.sweep.targets import Account, Target, account_of

PATIENCE = Patience(timeout=10.0, attempts=2, first_pause=0.5, longest_pause=10.0)
ONCE = Patience(timeout=10.0, attempts=1)
GONE = (Unreachable, LoginSuspended, NotAuthorized)  # of Manager: what else is asked would fail the same way
T = TypeVar("T")


class CloudClients:
    """The clients of one account's project, shared by all its clusters, and what IAM has said so far."""

    def __init__(self, mrs: Mrs, ecs: Ecs, iam: Iam) -> None:
        self.mrs, self.ecs, self.iam = mrs, ecs, iam
        self._agencies: dict[str, asyncio.Task[tuple[Read[tuple[Agency, ...]], Read[Permissions]]]] = {}

    async def agency(self, name: str) -> tuple[Read[tuple[Agency, ...]], Read[Permissions]]:
        """What IAM has under this name, and what that may do; asked once for all clusters."""
        if name not in self._agencies:
            self._agencies[name] = asyncio.create_task(self._ask_iam(name))
        return await asyncio.shield(self._agencies[name])

    async def _ask_iam(self, name: str) -> tuple[Read[tuple[Agency, ...]], Read[Permissions]]:
        found = await asked(lambda: self.iam.agency(name))
        if isinstance(found, RunbookError) or found is None:
            return (found if found is not None else ()), None
        agency = found
        return (agency,), await asked(lambda: self._permissions(agency.id))

    async def _permissions(self, agency_id: str) -> Permissions:
        here = await self.iam.permissions(agency_id)
        if any(each.shown in ENOUGH or each.name in ENOUGH for each in here):
            return Permissions(here)
        return Permissions(here, await self.iam.permissions_everywhere(agency_id))


class Looker:
    """Opens what it takes to look at clusters, and looks. An async context, which closes it all again."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._stack = AsyncExitStack()
        self._clouds: dict[Account, CloudClients] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def clients(self, cloud: Cloud) -> CloudClients:
        """The clients of this cloud block; they never change anything.

        Raises:
            ConfigurationError: an address or a CA in it cannot be used.
        """
        account = account_of(cloud)
        if account not in self._clouds:
            mrs, ecs, iam = cloud.get_clients(dry_run=True)
            for client in (mrs, ecs, iam):
                client.patience, client.turn = PATIENCE, self._pace.turn(f"{client.name} {client.http.base_url.host}")
                await self._stack.enter_async_context(client)
            self._clouds[account] = CloudClients(mrs, ecs, iam)
        return self._clouds[account]

    async def look(self, target: Target) -> Seen:
        """Read one cluster. What the ledger knows of it is not read here."""
        known = Seen(
            name=target.name,
            cluster_id=target.cluster_id,
            block=target.block,
            at=timing.now(),
            now=timing.wall(),
        )
        if target.cloud is None:
            return known
        cloud, manager = await asyncio.gather(
            self._look_at_cloud(target, target.cloud),
            self._look_at_manager(target.block) if isinstance(target.block, Cluster) else _nothing(),
        )
        return Seen(**{**vars(known), **cloud, **manager})

    async def _look_at_cloud(self, target: Target, cloud: Cloud) -> Mapping[str, object]:
        clients = await asked(lambda: self.clients(cloud))
        if isinstance(clients, RunbookError):
            return dict.fromkeys(("record", "nodes", "agencies", "agency", "permissions"), clients)
        record = await asked(lambda: clients.mrs.cluster(target.cluster_id))
        nodes = record if isinstance(record, Unreachable) else await asked(lambda: clients.mrs.nodes(target.cluster_id))
        agencies = nodes if isinstance(nodes, RunbookError) else await asked(lambda: _agencies(clients.ecs, nodes))
        block = target.block if isinstance(target.block, Cluster) else None
        name = in_question(block, record, agencies)
        agency, permissions = await clients.agency(name) if name else (None, None)
        return {
            "record": record,
            "nodes": nodes,
            "agencies": agencies,
            "in_question": name,
            "agency": agency,
            "permissions": permissions,
        }

    async def _look_at_manager(self, block: Cluster) -> Mapping[str, object]:
        client = await asked(lambda: _client_of(block))
        if isinstance(client, RunbookError):
            return dict.fromkeys(("alarms", "masked", "instances"), client)
        client.turn = self._pace.turn(f"Manager {client.http.base_url}")
        async with client:
            alarms = await asked(client.active_alarms)
            clock = client.clock
            if isinstance(alarms, GONE):
                return dict.fromkeys(("alarms", "masked", "instances"), alarms)
            masked = await asked(client.masked_alarms)
            instances = await asked(lambda: client.instances(block.meta_service))
        return {"alarms": alarms, "clock": clock, "masked": masked, "instances": instances}


async def asked(question: Callable[[], Awaitable[T]]) -> T | RunbookError:
    """The answer, or the error in its place."""
    try:
        return await question()
    except RunbookError as error:
        # What it was raised from holds the frames of the request: a fleet's worth of them is a lot of memory.
        return error.with_traceback(None)


async def _nothing() -> Mapping[str, object]:
    return {}


async def _client_of(block: Cluster) -> Manager:
    return block.manager.get_client(dry_run=True, patience=ONCE)


async def _agencies(ecs: Ecs, nodes: Sequence[Node]) -> Mapping[str, str]:
    """Host -> the agency in its ECS metadata. Raises the first error, when all others are answered, too."""
    found = await asyncio.gather(*(ecs.agency(node.server_id) for node in nodes), return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return {node.host: str(name) for node, name in zip(nodes, found, strict=True)}
