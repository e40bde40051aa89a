"""One connection per cluster, shared by whoever needs it at the same time."""

import asyncio
from uuid import uuid4

import pytest
from pydantic import SecretStr

from tasks.blocks import Cloud, Cluster, Manager
from tasks.connections import Connection, connected
from tasks.errors import ConfigurationError, UnknownCluster
from tasks.models import Case

pytestmark = [pytest.mark.server, pytest.mark.anyio]
NOWHERE = "http://127.0.0.1:9"


async def saved(*, name: str = "", mode: str = "auto", ca_file: str = "", apart: str = "") -> Case:
    """A case about a cluster whose block is saved; its cloud's CA is in this file.

    Args:
        apart: which of `manager cloud` has a login for changes.
    """
    manager = Manager(url=NOWHERE, user="u", password="p")
    cloud = Cloud(
        project_id="p", domain_id="d", mrs_url=NOWHERE, ecs_url=NOWHERE, iam_url=NOWHERE, token="t", ca_file=ca_file
    )
    own = {
        "manager": Manager(url=NOWHERE, user="c", password="c"),
        "cloud": cloud.model_copy(update={"token": SecretStr("c")}),
    }
    block = Cluster.model_validate(
        {"cluster_id": "c", "source": "s", "manager": manager, "cloud": cloud, "mode": mode}
        | {f"changing_{each}": own[each] for each in apart.split()}
    )
    name = name or f"cluster-{uuid4().hex[:8]}"
    await block.save(name, overwrite=True)
    return Case(cluster=name, alarm_id="12110", dry_run=False)


def closed(connection: Connection) -> list[bool]:
    """Which of its clients are closed."""
    clients = (connection.manager, connection.mrs, connection.ecs, connection.iam)
    return [client.http.is_closed for client in clients]


def dry(connection: Connection) -> list[bool]:
    """Which of its clients send nothing that changes something."""
    return [client.dry_run for client in (connection.manager, connection.mrs, connection.ecs, connection.iam)]


async def test_a_connection_is_shared_and_closed_by_the_last(prefect_server: str) -> None:
    """Nested and concurrent users share one connection, the last one closes it, and the next gets a new one."""
    case = await saved()
    everybody = asyncio.Barrier(5)

    async def use() -> Connection:
        async with connected(case) as mine, connected(case) as again:
            assert mine is again
            await everybody.wait()
            return mine

    users = [asyncio.create_task(use()) for _ in range(4)]
    async with connected(case) as connection:
        await everybody.wait()
        assert set(map(id, await asyncio.gather(*users))) == {id(connection)}
        assert closed(connection) == [False] * 4
    assert closed(connection) == [True] * 4
    async with connected(case) as later:
        assert later is not connection
        assert closed(later) == [False] * 4


async def test_a_user_that_fails_leaves_the_others_connected(prefect_server: str) -> None:
    """An error or a cancellation inside one user's block closes nothing while another is at it."""
    case = await saved()

    async def use(error: BaseException) -> None:
        async with connected(case):
            raise error

    async with connected(case) as connection:
        ended = await asyncio.gather(use(KeyError()), use(asyncio.CancelledError()), return_exceptions=True)
        assert [type(error) for error in ended] == [KeyError, asyncio.CancelledError]
        assert closed(connection) == [False] * 4
    assert closed(connection) == [True] * 4


async def test_a_failed_opening_leaves_nothing(prefect_server: str) -> None:
    """Users waiting for an opening that fails all get its error; once the block is right, the next one is connected."""
    case = await saved(ca_file="/no/such/file.pem")

    async def use() -> Connection:
        async with connected(case) as connection:
            return connection

    errors = await asyncio.gather(use(), use(), use(), return_exceptions=True)
    assert [type(error) for error in errors] == [ConfigurationError] * 3
    await saved(name=case.cluster)
    connection = await use()
    assert closed(connection) == [True] * 4


async def test_a_dry_run_has_dry_clients_of_its_own(prefect_server: str) -> None:
    """A dry run shares no client with a run that may act, and an `observe` cluster has only dry ones."""
    acting, watching = await saved(), await saved(mode="observe")
    async with (
        connected(acting) as wet,
        connected(acting.model_copy(update={"dry_run": True})) as other,
        connected(watching) as observed,
    ):
        assert [dry(each) for each in (wet, other, observed)] == [[False] * 4, [True] * 4, [True] * 4]
        assert wet is not other


@pytest.mark.parametrize(
    ("apart", "reading", "changing"),
    [
        ("", (False, False), (None, None)),
        ("manager", (True, False), (False, None)),
        ("cloud", (False, True), (None, False)),
        ("manager cloud", (True, True), (False, False)),
    ],
)
async def test_who_reads_changes_nothing_where_another_login_does(
    prefect_server: str, apart: str, reading: tuple[bool, bool], changing: tuple[bool | None, bool | None]
) -> None:
    """Where a block names a login for changes the client that reads is dry, and the other one is made beside it."""
    async with connected(await saved(apart=apart)) as wet:
        made = tuple(client and client.dry_run for client in (wet.changing_manager, wet.changing_ecs))
        assert ((wet.manager.dry_run, wet.ecs.dry_run), made) == (reading, changing)
        assert wet.manager_for_changes is (wet.changing_manager or wet.manager)
        assert wet.ecs_for_changes is (wet.changing_ecs or wet.ecs)
    for client in (wet.changing_manager, wet.changing_ecs):
        assert client is None or client.http.is_closed


async def test_where_nothing_is_changed_no_login_for_changes_is_used(prefect_server: str) -> None:
    """For an `observe` cluster and for a dry run no client with the login for changes is made."""
    both = await saved(apart="manager cloud")
    watching = await saved(apart="manager cloud", mode="observe")
    async with connected(both.model_copy(update={"dry_run": True})) as one, connected(watching) as other:
        for each in (one, other):
            assert (dry(each), each.changing_manager, each.changing_ecs) == ([True] * 4, None, None)
            assert (each.manager_for_changes, each.ecs_for_changes) == (each.manager, each.ecs)


async def test_a_cluster_without_a_block_is_unknown(prefect_server: str) -> None:
    """A name without a block is an error that says how to make one."""
    with pytest.raises(UnknownCluster, match="there is no cluster 'nowhere': make it in the Prefect UI"):
        async with connected(Case(cluster="nowhere", alarm_id="12110")):
            pass
