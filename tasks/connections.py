"""The clients of one cluster, opened once and shared by all tasks of a run (and by all runs of a process)."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tasks.blocks import Cluster
from tasks.clients.cts import Cts
from tasks.clients.ecs import Ecs
from tasks.clients.iam import Iam
from tasks.clients.manager import Manager
from tasks.clients.mrs import Mrs
from tasks.loading import cluster_block
from tasks.models import Case
from tasks.sharing import shared


@dataclass(frozen=True)
class Connection:
    """A cluster's block and the clients made from it.

    Attributes:
        cts: None where the block names no CTS.
        changing_manager: with the user that the block names for changes, changing_ecs with the key for them; None where
            it names none, and where nothing may be changed. Where there is one the client that reads is dry.
    """

    cluster: Cluster
    manager: Manager
    mrs: Mrs
    ecs: Ecs
    iam: Iam
    cts: Cts | None = None
    changing_manager: Manager | None = None
    changing_ecs: Ecs | None = None

    @property
    def manager_for_changes(self) -> Manager:
        """The one that restarts."""
        return self.changing_manager or self.manager

    @property
    def ecs_for_changes(self) -> Ecs:
        """The one that binds."""
        return self.changing_ecs or self.ecs


@asynccontextmanager
async def connected(case: Case) -> AsyncIterator[Connection]:
    """The case's connection: made by the first who needs it, closed by the last who leaves.

    Dry runs never share a client with runs that may change something, and an `observe` cluster has only dry ones.

    Raises:
        UnknownCluster, ConfigurationError: the cluster's block is missing or wrong.
    """
    what = ("connection", case.cluster, case.dry_run)
    async with shared(what, lambda stack: _connect(case, stack)) as connection:
        yield connection


async def _connect(case: Case, stack: AsyncExitStack) -> Connection:
    return await clients_of(await cluster_block(case.cluster), stack, dry_run=case.dry_run)


async def clients_of(cluster: Cluster, stack: AsyncExitStack, *, dry_run: bool) -> Connection:
    """Clients of this cluster, closed with the stack. Those that change are made only where something may be changed.

    Raises:
        ConfigurationError: the cluster's block is wrong.
    """
    dry_run = dry_run or cluster.mode == "observe"
    own_manager = None if dry_run else cluster.manager_for_changes()
    own_cloud = None if dry_run else cluster.changing_cloud
    manager = cluster.manager.get_client(dry_run=dry_run or own_manager is not None)
    mrs, ecs, iam = cluster.cloud.get_clients(dry_run=dry_run or own_cloud is not None)
    for client in (manager, mrs, ecs, iam):
        await stack.enter_async_context(client)
    if (cts := cluster.cloud.get_cts()) is not None:
        await stack.enter_async_context(cts)
    changing_manager = changing_ecs = None
    if own_manager is not None:
        changing_manager = await stack.enter_async_context(own_manager.get_client(dry_run=False))
    if own_cloud is not None:
        changing_ecs = await stack.enter_async_context(own_cloud.get_ecs(dry_run=False))
    return Connection(cluster, manager, mrs, ecs, iam, cts, changing_manager, changing_ecs)
