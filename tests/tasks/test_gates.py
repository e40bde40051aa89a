"""What must hold at the moment of a change, gate by gate, over everything Manager and the cloud may say."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tasks.blocks import Cloud, Cluster
from tasks.blocks import Manager as ManagerBlock
from tasks.clients.ecs import Ecs
from tasks.clients.iam import Iam
from tasks.clients.manager import Manager
from tasks.clients.mrs import Mrs
from tasks.connections import Connection
from tasks.errors import Refused
from tasks.gates import _alarms_can_be_read, _an_alarm_is_active, _hosts_are_who_they_seem, _nobody_else_is_at_it
from tasks.models import Alarm, ClusterRecord, Command, ManagedHost, Node, Outcome

pytestmark = pytest.mark.anyio
URL = "http://127.0.0.1:9"
ECS, IAM = Ecs("ECS", URL, verify=False), Iam("IAM", URL, verify=False)  # no gate asks them


@dataclass
class World:
    """What Manager and the cloud say."""

    active: tuple[Alarm, ...] = ()
    listed: tuple[Alarm, ...] = ()
    managed: tuple[ManagedHost, ...] = ()
    nodes: tuple[Node, ...] = ()
    record: ClusterRecord = field(default_factory=lambda: ClusterRecord(state="running"))
    commands: tuple[Command, ...] = ()
    updating: bool = False


class SaidByManager(Manager):
    """A Manager whose answers are given."""

    def __init__(self, world: World) -> None:
        super().__init__(URL, user="u", password="p", verify=False)
        self.world = world

    async def alarms(self, alarm_id: str, *, status: str = "uncleared", serial: str = "") -> tuple[Alarm, ...]:
        """The active alarms."""
        return self.world.active

    async def occurrence(self, alarm: Alarm) -> Alarm | None:
        """The alarm of that serial number."""
        return next((each for each in self.world.listed if each.serial == alarm.serial), None)

    async def hosts(self) -> tuple[ManagedHost, ...]:
        """The hosts."""
        return self.world.managed

    async def running_commands(self) -> tuple[Command, ...]:
        """The commands."""
        return self.world.commands


class SaidByMrs(Mrs):
    """An MRS whose answers are given."""

    def __init__(self, world: World) -> None:
        super().__init__("MRS", URL, verify=False)
        self.world = world

    async def cluster(self, cluster_id: str) -> ClusterRecord:
        """The record."""
        return self.world.record

    async def nodes(self, cluster_id: str) -> tuple[Node, ...]:
        """The nodes."""
        return self.world.nodes

    async def agency_update_running(self, cluster_id: str) -> bool:
        """Whether an update runs."""
        return self.world.updating


def connection_to(world: World) -> Connection:
    """A connection whose clients say what this world says."""
    manager = ManagerBlock(url=URL, user="u", password="p")
    cloud = Cloud(project_id="p", domain_id="d", mrs_url=URL, ecs_url=URL, iam_url=URL, token="t")
    cluster = Cluster(cluster_id="c-1", source="prod", manager=manager, cloud=cloud)
    return Connection(cluster, SaidByManager(world), SaidByMrs(world), ECS, IAM)


def alarm(host: str, serial: str, status: str = "Uncleared", **more: Any) -> Alarm:
    """An occurrence."""
    return Alarm(alarm_id="12110", serial=serial, status=status, location=f"HostName={host}", **more)


async def said(gate: Awaitable[None]) -> tuple[str, Outcome] | None:
    """With which words and outcome a gate refuses; None where it lets pass."""
    try:
        await gate
    except Refused as error:
        return str(error), error.outcome
    return None


A, B = alarm("node-1", "1"), alarm("node-2", "2")
GONE = "the alarm is no longer active and not cleared either"
CLEARED = ("the alarm was cleared before this step was needed", Outcome.CLEARED)
BY_PERSON = ("the alarm was cleared by a person before this step was needed", Outcome.CLEARED_BY_PERSON)


@pytest.mark.parametrize(
    ("active", "listed", "refusal"),
    [
        ([A, B], "Uncleared Uncleared", None),
        ([B], "Auto Uncleared", None),
        ([alarm("node-2", "9")], "Auto Auto", None),
        ([alarm("node-3", "3")], "Auto Auto", CLEARED),
        ([], "Auto Auto", CLEARED),
        ([], "AUTO auto", CLEARED),
        ([], "Manual Manual", BY_PERSON),
        ([], "Auto Manual", BY_PERSON),
        ([], "Auto -", (f"{GONE} (auto, not listed)", Outcome.REFUSED)),
        ([], "- -", (f"{GONE} (not listed)", Outcome.REFUSED)),
        ([], "Manual Acknowledged", (f"{GONE} (acknowledged, manual)", Outcome.REFUSED)),
        ([], "Auto Uncleared", (f"{GONE} (auto, uncleared)", Outcome.REFUSED)),
    ],
)
async def test_a_change_needs_an_active_alarm(
    active: list[Alarm], listed: str, refusal: tuple[str, Outcome] | None
) -> None:
    """One active alarm of these hosts, under any serial, is enough; none refuses with what became of them."""
    states = [(each, state) for each, state in zip((A, B), listed.split(), strict=True) if state != "-"]
    rows = tuple(each.model_copy(update={"status": state}) for each, state in states)
    assert await said(_an_alarm_is_active(connection_to(World(active=tuple(active), listed=rows)), [A, B])) == refusal


def test_a_reported_alarm_is_no_active_alarm() -> None:
    """An alarm known from its source only cannot be read again, so nothing is changed for it, nor for its company."""
    reported = alarm("node-1", "1", reported=True)
    with pytest.raises(Refused, match="no route to see whether the alarm is still active"):
        _alarms_can_be_read([B, reported])
    _alarms_can_be_read([A, B])


def managed(name: str, ip: str, *, maintenance: bool = False) -> ManagedHost:
    """A host of Manager."""
    return ManagedHost(name=name, ip=ip, status="Normal", maintenance=maintenance)


def node(host: str, ip: str) -> Node:
    """A node of the cloud."""
    return Node(host=host, ip=ip, server_id=f"server-of-{host}")


KNOWN = (managed("node-1", "10.0.0.1"), managed("node-2", "10.0.0.2"))
NODES = (node("node-1", "10.0.0.1"), node("node-2", "10.0.0.2"))


@pytest.mark.parametrize(
    ("hosts", "nodes", "words"),
    [
        (KNOWN, NODES, None),
        (KNOWN, (*NODES, node("node-3", "10.0.0.3")), None),
        (KNOWN[:1], NODES, "Manager does not know host node-2"),
        ((), NODES, "Manager does not know host node-1"),
        (KNOWN, NODES[:1], "node-2 has IP 10.0.0.2 on Manager; 0 nodes of cluster c-1 have it, not one"),
        (KNOWN, (), "node-1 has IP 10.0.0.1 on Manager; 0 nodes of cluster c-1 have it, not one"),
        (
            KNOWN,
            (*NODES, node("node-3", "10.0.0.2")),
            "node-2 has IP 10.0.0.2 on Manager; 2 nodes of cluster c-1 have it, not one",
        ),
        (
            (managed("node-1", ""), KNOWN[1]),
            (node("node-1", ""), NODES[1]),
            "node-1 has IP none on Manager; 0 nodes of cluster c-1 have it, not one",
        ),
        (
            (managed("node-1", "10.0.0.1", maintenance=True), KNOWN[1]),
            NODES,
            "node-1 is in Manager's maintenance mode",
        ),
    ],
)
async def test_each_host_is_one_machine_for_manager_and_cloud(
    hosts: tuple[ManagedHost, ...], nodes: tuple[Node, ...], words: str | None
) -> None:
    """Every alarmed host is known to Manager, has the IP of exactly one node of this cluster, and no maintenance."""
    found = await said(_hosts_are_who_they_seem(connection_to(World(managed=hosts, nodes=nodes)), [A, B]))
    assert found == (words and (words, Outcome.REFUSED))


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (World(), None),
        (World(record=ClusterRecord(state="scaling-in")), "the cluster's state is 'scaling-in', not 'running'"),
        (World(record=ClusterRecord(state="Running")), "the cluster's state is 'Running', not 'running'"),
        (World(record=ClusterRecord()), "the cluster's state is '', not 'running'"),
        (
            World(commands=(Command(name="StopService"), Command(name="Restart"))),
            "Manager is running another command: StopService, Restart",
        ),
        (World(updating=True), "MRS is updating the cluster's agency right now"),
    ],
)
async def test_nobody_else_is_at_work_on_the_cluster(world: World, words: str | None) -> None:
    """The cluster is `running`, Manager runs no command and MRS no agency update; anything else refuses."""
    assert await said(_nobody_else_is_at_it(connection_to(world))) == (words and (words, Outcome.REFUSED))
