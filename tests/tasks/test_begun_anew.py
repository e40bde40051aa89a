"""Acts of a run that is begun anew: whatever it had begun is settled by reading the world, and never done twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from tasks import timing
from tasks.agencies import bind_node
from tasks.claims import claimed, noted
from tasks.connections import Connection, connected
from tasks.errors import EndNotSeen, Refused
from tasks.gates import intend, still_at_once
from tasks.instances import restart_instance
from tasks.intents import command_is
from tasks.ledger.episodes import Asking, Holding, let_go
from tasks.ledger.learning import begun_elsewhere
from tasks.models import Alarm, Case, Deed, Instance, Node, Outcome
from tests.flows.conftest import World, Worlds, no_pauses, world
from tests.ledger.conftest import sqlite_with_schema
from tests.tasks.acting import ledger_at_home

__all__ = ["ledger_at_home", "no_pauses", "sqlite_with_schema", "world"]  # fixtures: a served region, an empty ledger
pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.usefixtures("ledger_at_home")]


def a_case(cluster: World) -> Case:
    """What the run is about."""
    return Case(cluster=cluster.block, alarm_id="12110", dry_run=False, run="run-17")


@asynccontextmanager
async def segment(cluster: World) -> AsyncIterator[Connection]:
    """The run is at work; at the end it dies, and what its step had learned dies with it."""
    case = a_case(cluster)
    asking = Asking(case.run, "a link", automated=True)
    async with claimed(case, asking, cluster_id=cluster.cluster.id) as mine, connected(case) as connection:
        assert isinstance(mine, Holding)
        yield connection
        await noted(case, let_go)


async def broken(cluster: World, connection: Connection) -> tuple[Alarm, Instance]:
    """The alarm of the first host, and its Meta instance as Manager shows it."""
    (alarm,) = await connection.manager.alarms("12110")
    found = await connection.manager.instances(connection.cluster.meta_service)
    return alarm, next(each for each in found if each.host == cluster.host)


async def restarted(cluster: World, connection: Connection) -> tuple[Alarm, str]:
    """The run has set out to restart the first host's instance and sent it; the alarm, and the command's id."""
    alarm, before = await broken(cluster, connection)
    await intend(
        a_case(cluster), connection.cluster, "restart", cluster.host, cluster.host, before=before.model_dump_json()
    )
    return alarm, await connection.manager.restart(connection.cluster.meta_service, before)


def done(cluster: World) -> list[tuple[str, str]]:
    """What was changed in the region."""
    return [(entry.action, entry.target) for entry in cluster.region.log]


async def test_a_restart_that_was_perhaps_not_sent(world: Worlds) -> None:
    """Of a restart that was to be sent and left no sign the run cannot tell, and it is not sent any more."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        async with segment(cluster) as connection:
            alarm, before = await broken(cluster, connection)
            host = cluster.host
            await intend(a_case(cluster), connection.cluster, "restart", host, host, before=before.model_dump_json())
        async with segment(cluster):
            deed = await restart_instance.fn(a_case(cluster), alarm)
        assert (deed.ended, deed.changed, done(cluster)) == (Outcome.CANNOT_TELL, False, [])
        assert deed.did.startswith("a restart was about to be sent at ")
        assert deed.did.endswith("it is never sent twice, for it may come yet")


async def test_a_change_whose_process_stood_still(world: Worlds) -> None:
    """Held up between its gates and the change, a run asks again whether it holds its episode, and for the alarm."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        case, long_ago = a_case(cluster), timing.wall() - timedelta(seconds=11)
        async with segment(cluster) as connection:
            alarm, _ = await broken(cluster, connection)
            await still_at_once(case, connection, [alarm], long_ago)
            await noted(case, let_go)
            async with segment(cluster):
                pass  # it has gone on elsewhere
            await still_at_once(case, connection, [alarm], timing.wall())
            with pytest.raises(Refused, match="this run has lost its claim on the cluster"):
                await still_at_once(case, connection, [], long_ago)
            cluster.region.clear_alarm(alarm.serial, cluster.cluster)
            with pytest.raises(Refused) as cleared:
                await still_at_once(case, connection, [alarm], long_ago)
            assert cleared.value.outcome is Outcome.CLEARED_BY_PERSON


@pytest.mark.parametrize("known", [False, True])
async def test_a_restart_that_was_sent(world: Worlds, known: bool) -> None:
    """A restart whose end the run did not see is followed to it, by its command or the instance, and not sent again."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        case, host = a_case(cluster), cluster.host
        async with segment(cluster) as connection:
            _, before = await broken(cluster, connection)
            alarm, command = await restarted(cluster, connection)
            if known:
                await command_is(case, "3", host, command)
        async with segment(cluster) as connection:
            deed = await restart_instance.fn(case, alarm)
            _, after = await broken(cluster, connection)
        was, is_ = (f"{each.status!r}, started {each.started:%Y-%m-%d %H:%M:%S}" for each in (before, after))
        by = f"(command {command if known else 'unknown'}) by Manager user {cluster.cluster.manager_user!r}"
        did = f"restarted {by}: was {was}, is {is_}"
        assert (before.status, after.status) == ("Faulty", "Normal")
        assert deed == Deed(host=host, did=did, at=deed.at, changed=True)
        assert done(cluster) == cluster.restarts()


async def test_a_restart_whose_instance_is_listed_twice_afterwards(world: Worlds) -> None:
    """Where Manager lists two instances of the host while the restart is followed, how it ended cannot be told."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        case, host = a_case(cluster), cluster.host
        async with segment(cluster) as connection:
            alarm, _ = await restarted(cluster, connection)
        cluster.breaks("instance-duplicated")
        async with segment(cluster):
            deed = await restart_instance.fn(case, alarm)
        assert (deed.ended, done(cluster)) == (Outcome.CANNOT_TELL, cluster.restarts())
        assert deed.did.endswith(f"cannot be told: Manager lists 2 Meta instances on {host} since, not one")


async def test_a_restart_that_was_seen_to_its_end(world: Worlds) -> None:
    """A run that died just after it saw the restart's end says again that it has restarted it, and does not do so."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        deeds: list[Deed] = []
        for _ in range(2):
            async with segment(cluster) as connection:
                if not deeds:
                    alarm, _ = await broken(cluster, connection)
                deeds.append(await restart_instance.fn(a_case(cluster), alarm))
        assert [deed.model_copy(update={"at": deeds[0].at}) for deed in deeds] == [deeds[0]] * 2
        assert (deeds[0].changed, done(cluster)) == (True, cluster.restarts())


async def node_to_bind(cluster: World, connection: Connection) -> tuple[Alarm, Node]:
    """The alarm, and the first node."""
    alarm, _ = await broken(cluster, connection)
    nodes = await connection.mrs.nodes(connection.cluster.cluster_id)
    return alarm, nodes[0]


async def test_a_bind_that_was_perhaps_not_sent(world: Worlds) -> None:
    """A node that was to be bound and names no agency is not told once more: the step has failed, its end not seen."""
    async with world(block={"on_unbound": "rebind"}) as cluster:
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        case = a_case(cluster)
        async with segment(cluster) as connection:
            alarm, node = await node_to_bind(cluster, connection)
            agency = connection.cluster.agency
            await intend(case, connection.cluster, "rebind", node.host, alarm.host, before=agency)
        async with segment(cluster):
            with pytest.raises(EndNotSeen, match="its metadata says 'none'; never told twice"):
                await bind_node.fn(case, node, [alarm], begun=False)
            since = timing.wall() - timedelta(hours=1)
            left = await noted(case, lambda session, _: begun_elsewhere(session, cluster.cluster.id, "another", since))
            assert left is not None
            assert left.target == node.host
        assert done(cluster) == []


async def test_a_bind_that_was_sent(world: Worlds) -> None:
    """A node that was told its agency is read back by the run begun anew, as its own change, and not told again."""
    async with world(block={"on_unbound": "rebind"}) as cluster:
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        case = a_case(cluster)
        async with segment(cluster) as connection:
            alarm, node = await node_to_bind(cluster, connection)
            agency = connection.cluster.agency
            first = await bind_node.fn(case, node, [alarm], begun=False)
        async with segment(cluster):
            again = await bind_node.fn(case, node, [alarm], begun=False)
        request = first.did.partition("X-Request-Id ")[2][:32]
        begun = again.did.partition("begun at ")[2].partition(" UTC")[0]
        by, read = "bound by the credentials of the cluster block", f"agency was none, is {agency}, read back"
        assert [first, again] == [
            Deed(host=node.host, did=f"{by} (X-Request-Id {request}): {read}", at=first.at, changed=True),
            Deed(
                host=node.host,
                did=f"{by} (begun at {begun} UTC, X-Request-Id {request}): {read}",
                at=again.at,
                changed=True,
            ),
        ]
        assert int(request, 16) > 0
        assert done(cluster) == [("set-metadata", node.host)]
