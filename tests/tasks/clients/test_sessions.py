"""One session per client, opened once, opened anew when it is lost; only reads are repeated in it."""

import asyncio

import pytest

from tests.tasks.clients.conftest import World

pytestmark = pytest.mark.anyio
LOGIN = "GET session/status"
IDLE = 20 * 60 + 1


async def test_twenty_reads_share_a_login(served_world: World) -> None:
    """Whoever comes first logs in, the others wait for it and use it."""
    world = served_world
    manager = await world.manager()
    await asyncio.gather(*(manager.clusters() for _ in range(20)))
    assert sorted(world.wire.sent) == sorted([LOGIN, *["GET clusters"] * 20])
    assert len(world.cluster.sessions) == 1


async def test_an_idle_session_is_opened_anew(world: World) -> None:
    """After 20 idle minutes one new login is made and the read is repeated, without the caller noticing."""
    manager = await world.manager()
    before = await manager.clusters()
    world.region.advance(IDLE)
    assert await manager.clusters() == before
    assert world.wire.sent == [LOGIN, "GET clusters", "GET clusters", LOGIN, "GET clusters"]


async def test_many_reads_in_a_lost_session_make_one_login(world: World) -> None:
    """Twenty answers 302 are one lost session."""
    manager = await world.manager()
    await manager.clusters()
    world.region.advance(IDLE)
    await asyncio.gather(*(manager.clusters() for _ in range(20)))
    assert world.wire.sent.count(LOGIN) == 2


async def test_a_mutation_in_an_idle_session_is_not_repeated(world: World) -> None:
    """It is refused with SessionLost, it did not happen, and the next one finds a session."""
    manager, instance = await world.manager(), await world.instance()
    await manager.clusters()
    world.region.advance(IDLE)
    world.wire.sent.clear()
    restart = "POST clusters/1/services/meta/instances/restart"
    assert await world.error_of(manager.restart("meta", instance)) == (
        f"SessionLost: Manager {restart}: redirected to a login page: there is no session"
    )
    assert (world.wire.sent, world.region.log) == ([restart, LOGIN], [])
    await manager.restart("meta", instance)
    assert world.wire.sent == [restart, LOGIN, restart]


async def test_a_session_that_never_lives_is_no_loop(world: World) -> None:
    """A Manager that answers 302 to everything is asked twice, not for ever."""
    manager = await world.manager()
    world.region.trouble.add("GET", "*/clusters", "lost-session", times=None)
    assert await world.error_of(manager.clusters()) == (
        "SessionLost: Manager GET clusters: redirected to a login page: there is no session"
    )
    assert world.wire.sent == [LOGIN, "GET clusters", LOGIN, "GET clusters"]


async def test_a_lost_session_is_not_a_wrong_password(world: World) -> None:
    """A 302 suspends nothing, not even when it comes to the login itself."""
    manager = await world.manager()
    world.region.trouble.add("GET", "*/session/status", "lost-session", times=1)
    assert await world.error_of(manager.clusters()) == (
        "SessionLost: Manager GET session/status: redirected to a login page: there is no session"
    )
    assert len(await manager.clusters()) == 1


async def test_a_switchover_ends_sessions_and_is_survived(served_world: World) -> None:
    """Manager refuses connections for three minutes and forgets its sessions; afterwards the same client reads on."""
    world = served_world
    manager = await world.manager()
    await manager.clusters()
    world.region.set_fault("oms-switchover", world.cluster)
    refused = await world.error_of(manager.clusters())
    assert (
        refused
        == f"Unreachable: Manager GET clusters: {manager.http.base_url} cannot be reached (the connection broke)"
    )
    world.region.advance(181)
    assert len(await manager.clusters()) == 1
