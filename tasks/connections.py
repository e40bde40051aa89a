"""The clients of one cluster, opened once and shared by all tasks of a run (and by all runs of a process)."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tasks.blocks import Cluster, cluster_block
from tasks.clients.cts import Cts
from tasks.clients.ecs import Ecs
from tasks.clients.iam import Iam
from tasks.clients.manager import Manager
from tasks.clients.mrs import Mrs
from tasks.models import Case
from tasks.sharing import shared


@dataclass(frozen=True)
class Connection:
    """A cluster's block and the clients made from it; `cts` is None where the block names no CTS."""

    cluster: Cluster
    manager: Manager
    mrs: Mrs
    ecs: Ecs
    iam: Iam
    cts: Cts | None = None


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
    cluster = await cluster_block(case.cluster)
    dry_run = case.dry_run or cluster.mode == "observe"
    manager = await stack.enter_async_context(cluster.manager.get_client(dry_run=dry_run))
    mrs, ecs, iam = cluster.cloud.get_clients(dry_run=dry_run)
    for client in (mrs, ecs, iam):
        await stack.enter_async_context(client)
    if (cts := cluster.cloud.get_cts()) is not None:
        await stack.enter_async_context(cts)
    return Connection(cluster, manager, mrs, ecs, iam, cts)
