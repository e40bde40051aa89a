"""What must hold at the moment of a change, gate by gate, over everything Manager, cloud and ledger may say."""

import re
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from tasks import timing
from tasks.blocks import Cloud, Cluster
from tasks.blocks import Manager as ManagerBlock
from tasks.clients.ecs import Ecs
from tasks.clients.iam import Iam
from tasks.clients.manager import Manager
from tasks.clients.mrs import Mrs
from tasks.connections import Connection
from tasks.errors import Refused
from tasks.gates import (
    BREAKER,
    STEP_OF,
    Action,
    intend,
)
from tasks.ledger.columns import Table as Base
from tasks.ledger.database import open_ledger
from tasks.ledger.episodes import Holding
from tasks.ledger.tables import Brake, Breaker, Episode, Intent, Occurrence
from tasks.ledger.tables import Cluster as LedgerCluster
from tasks.models import Alarm, ClusterRecord, Command, ManagedHost, Node, Outcome
from tasks.preconditions import alarms_can_be_read, an_alarm_is_active, hosts_are_who_they_seem, nobody_else_is_at_it
from tests.ledger.conftest import sqlite_with_schema
from tests.tasks.acting import PROD, a_block, a_case, holding, ledger_at_home

__all__ = ["ledger_at_home", "sqlite_with_schema"]  # fixtures: a ledger with nothing in it
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
    assert await said(an_alarm_is_active(connection_to(World(active=tuple(active), listed=rows)), [A, B])) == refusal


async def test_a_reported_alarm_is_no_active_alarm() -> None:
    """An alarm known from its source only cannot be read again, so nothing is changed for it, nor for its company."""
    reported, case = alarm("node-1", "1", reported=True), a_case("run-17")
    with pytest.raises(Refused, match="no route to see whether the alarm is still active") as refused:
        await alarms_can_be_read(case, [B, reported])
    assert refused.value.by_hand
    await alarms_can_be_read(case, [A, B])


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
    found = await said(hosts_are_who_they_seem(connection_to(World(managed=hosts, nodes=nodes)), [A, B]))
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
    assert await said(nobody_else_is_at_it(connection_to(world))) == (words and (words, Outcome.REFUSED))


Before = Callable[[Holding, datetime], Sequence[Base]]
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
SOON = 30 * SECOND  # longer than a test takes from writing its rows to the gates' look
NEW = "node-1"


def changes(
    *ago: timedelta,
    cluster: str = PROD,
    target: str = "",
    step: str = "3",
    attempt: str = "run-1@then",
    ended: bool = True,
) -> Before:
    """Changes that were begun so long ago, of one target or of one each."""

    def rows(mine: Holding, now: datetime) -> list[Base]:
        return [
            Intent(
                attempt=f"{attempt}-{number}" if target else attempt,
                step=step,
                target=target or f"{cluster}-node-{number}",
                episode_id=mine.episode,
                cluster_id=cluster,
                at=now - each,
                ended=now if ended else None,
            )
            for number, each in enumerate(ago, 10)
        ]

    return rows


def own_changes(step: str, target: str) -> Before:
    """What this very run has begun and not seen to its end."""

    def rows(mine: Holding, now: datetime) -> list[Base]:
        at = now - MINUTE
        return [Intent(attempt=mine.attempt, step=step, target=target, episode_id=mine.episode, cluster_id=PROD, at=at)]

    return rows


def raises(*ago: timedelta, host: str = "node-1", cluster: str = PROD) -> Before:
    """The host's alarm was raised so long ago, so often."""

    def rows(mine: Holding, now: datetime) -> list[Base]:
        return [
            Occurrence(
                id=f"{host}-{number}",
                cluster_id=cluster,
                alarm_id="12110",
                host=host,
                serial=str(number),
                first_seen=now - each,
                last_seen=now,
            )
            for number, each in enumerate(ago)
        ]

    return rows


def brakes(*clusters: str, released: bool = False) -> Before:
    """Ann has stopped these clusters' changes."""

    def rows(mine: Holding, now: datetime) -> list[Base]:
        since, until = datetime(2026, 11, 25, 12, tzinfo=UTC), now if released else None
        return [Brake(cluster=each, reason="a storm", by="ann", since=since, released=until) for each in clusters]

    return rows


def a_breaker(*, reset: bool = False) -> Before:
    """The breaker has tripped."""

    def rows(mine: Holding, now: datetime) -> list[Base]:
        return [Breaker(id="b-1", since=now, why="5 of 20 clusters", clusters="c", reset=now if reset else None)]

    return rows


def fleet(size: int, alarmed: int) -> Before:
    """A fleet, in which this cluster and others have alarmed together."""

    def rows(mine: Holding, now: datetime) -> list[Base]:
        ids = [PROD, *(f"other-{number}" for number in range(1, size))]
        names = ["prod-1", *ids[1:]]
        known: list[Base] = [
            LedgerCluster(name=name, cluster_id=id_, source=name, speed=1, connected=now - 30 * 24 * HOUR)
            for id_, name in zip(ids, names, strict=True)
        ]
        return known + [
            Episode(
                id=f"episode-of-{id_}",
                cluster_id=id_,
                cluster=name,
                alarm_id="12110",
                state="raised",
                opened=now,
                opened_by="syslog",
                raised=now,
            )
            for id_, name in list(zip(ids, names, strict=True))[1:alarmed]
        ]

    return rows


def together(*before: Before) -> Before:
    """All of these."""

    def rows(mine: Holding, now: datetime) -> list[Base]:
        return [row for each in before for row in each(mine, now)]

    return rows


STOPPED = "ann has stopped {} since 2026-11-25 12:00 UTC (a storm); `runbooks resume{}` ends it"
TRIPPED = "the breaker has tripped ({}); see its incident ticket, `runbooks breaker reset` lets changes go on"
SHARED = "{} clusters alarmed within 15 minutes: their cause may be a shared one"
BUSY = "3 instances of this cluster were restarted within the last hour"
BUSY_FLEET = "10 instances of the whole fleet were restarted within the last hour"
FLAPS = "the alarm of node-1 was raised {} times within the last hour: what is done about it does not last"
WORN = "node-1 was changed 2 times within the last six hours, and it did not last"
BEGUN = "another run began to change uuid-of-prod-1-{} at {} UTC and has not seen the end of it"
JUST = HOUR - SOON  # not yet an hour ago

# What is in the ledger before, the change, and why it is refused; empty: it is not.
LEDGER_GATES: list[tuple[str, Before, Action, str]] = [
    ("nothing before", together(), "restart", ""),
    ("a brake of all", brakes(""), "restart", STOPPED.format("all changes", "")),
    ("a brake of all, for a bind", brakes(""), "rebind", STOPPED.format("all changes", "")),
    ("a brake of this cluster", brakes("prod-1"), "restart", STOPPED.format("changes of prod-1", " prod-1")),
    ("a brake of another cluster", brakes("prod-2", "prod-10"), "restart", ""),
    ("brakes that were released", brakes("", "prod-1", released=True), "restart", ""),
    ("a tripped breaker", a_breaker(), "restart", TRIPPED.format("5 of 20 clusters")),
    ("a breaker that was reset", a_breaker(reset=True), "rebind", ""),
    ("4 of 20 clusters alarm", fleet(20, 4), "restart", ""),
    ("5 of 20 clusters alarm", fleet(20, 5), "restart", TRIPPED.format(SHARED.format("5 of 20"))),
    ("1 of 4 clusters alarms", fleet(4, 1), "rebind", ""),
    ("2 of 4 clusters alarm", fleet(4, 2), "rebind", TRIPPED.format(SHARED.format("2 of 4"))),
    ("another run's change is open", changes(JUST, ended=False), "rebind", BEGUN.format("node-10", "HH:MM:SS")),
    ("another run's change is open for an hour", changes(HOUR, ended=False), "rebind", ""),
    ("another run's change has ended", changes(MINUTE), "rebind", ""),
    ("a change of another cluster is open", changes(MINUTE, cluster="other", ended=False), "restart", ""),
    ("a change of its own is open", own_changes("6", "node-2"), "rebind", ""),
    ("2 restarts in the cluster", changes(*[MINUTE] * 2), "restart", ""),
    ("3 restarts in the cluster", changes(JUST, MINUTE, SOON), "restart", BUSY),
    ("3 restarts, one an hour ago", changes(HOUR, MINUTE, MINUTE), "restart", ""),
    ("3 restarts, and a bind", changes(*[MINUTE] * 3), "rebind", ""),
    ("3 binds, and a restart", changes(*[MINUTE] * 3, step="6"), "restart", ""),
    ("9 restarts in the fleet", changes(*[MINUTE] * 9, cluster="other"), "restart", ""),
    ("10 restarts in the fleet", changes(JUST, *[MINUTE] * 9, cluster="other"), "restart", BUSY_FLEET),
    ("10 restarts, one an hour ago", changes(HOUR, *[MINUTE] * 9, cluster="other"), "restart", ""),
    ("10 restarts, and a bind", changes(*[MINUTE] * 10, cluster="other"), "rebind", ""),
    ("10 binds in the fleet", changes(*[MINUTE] * 10, cluster="other", step="6"), "restart", ""),
    ("1 change of the host", changes(5 * HOUR, target=NEW), "restart", ""),
    ("2 changes of the host", changes(6 * HOUR - SOON, 2 * HOUR, target=NEW), "restart", WORN),
    ("2 changes, one six hours ago", changes(6 * HOUR, 2 * HOUR, target=NEW), "restart", ""),
    ("2 binds of the host", changes(2 * HOUR, 3 * HOUR, target=NEW, step="6"), "restart", WORN),
    ("2 restarts of the host, and a bind", changes(2 * HOUR, 3 * HOUR, target=NEW), "rebind", WORN),
    (
        "a restart and a bind of the host",
        together(changes(2 * HOUR, target=NEW), changes(2 * HOUR, target=NEW, step="6")),
        "rebind",
        WORN,
    ),
    ("2 changes of another host", changes(2 * HOUR, 2 * HOUR, target="node-10"), "restart", ""),
    ("2 changes of its namesake", changes(2 * HOUR, 2 * HOUR, target=NEW, cluster="other"), "restart", ""),
    ("2 raises", raises(MINUTE, SOON), "restart", ""),
    ("3 raises", raises(JUST, MINUTE, SOON), "restart", FLAPS.format(3)),
    ("4 raises, for a bind", raises(*[MINUTE] * 4), "rebind", FLAPS.format(4)),
    ("3 raises, one an hour ago", raises(HOUR, MINUTE, SOON), "restart", ""),
    ("3 raises of another host", raises(*[MINUTE] * 3, host="node-10"), "restart", ""),
    ("3 raises of its namesake", raises(*[MINUTE] * 3, cluster="other"), "restart", ""),
]


async def write(before: Before, mine: Holding) -> None:
    """This was in the ledger before."""
    async with open_ledger() as ledger, ledger.writing() as session:
        session.add_all(before(mine, timing.wall()))


async def intents(mine: Holding) -> list[tuple[str, str, str, str, bool]]:
    """What the run has set out to do: step, target, cluster, what it was before, and whether it has ended."""
    async with open_ledger() as ledger, ledger.reading() as session:
        rows = await session.scalars(select(Intent).where(Intent.attempt == mine.attempt).order_by(Intent.target))
        return [(each.step, each.target, each.cluster_id, each.before, each.ended is not None) for each in rows]


async def acted(mine: Holding) -> bool:
    """Whether the episode may have been changed."""
    async with open_ledger() as ledger, ledger.reading() as session:
        episode = await session.get(Episode, mine.episode)
    return episode is not None and episode.acted


async def refused(
    action: Action = "restart", run: str = "17", *, of: str = PROD, speed: float = 1, **about: Any
) -> tuple[str, str]:
    """Why the run may not change node-1, and the incident of that; empty where it may, and then it has begun."""
    try:
        await intend(a_case(f"run-{run}", **about), a_block(of, speed=speed), action, NEW, "node-1", before="{}")
    except Refused as error:
        word = "" if error.outcome is Outcome.REFUSED else f"{error.outcome}: "
        return f"{word}{error}", error.incident
    return "", ""


ON_LEDGER = pytest.mark.usefixtures("ledger_at_home")


@ON_LEDGER
@pytest.mark.parametrize(
    ("before", "action", "words"), [row[1:] for row in LEDGER_GATES], ids=[row[0] for row in LEDGER_GATES]
)
async def test_the_gates_of_the_ledger(before: Before, action: Action, words: str) -> None:
    """Each gate of the ledger refuses at its limit in its own words, without an intent, and lets pass just under it."""
    async with holding("17") as mine:
        await write(before, mine)
        others = await intents(mine)
        said, _ = await refused(action)
        left = await intents(mine)
        assert re.sub(r"\d\d:\d\d:\d\d", "HH:MM:SS", said) == words
        assert (left, await acted(mine)) == (
            (others, False) if words else (sorted([(STEP_OF[action], NEW, PROD, "{}", False), *others]), True)
        )


@ON_LEDGER
async def test_what_another_run_has_begun_is_named() -> None:
    """A change that another run has not seen to the end is named with its target and time, the oldest of several."""
    async with holding("17") as mine:
        await write(changes(MINUTE, 2 * MINUTE, ended=False), mine)
        async with open_ledger() as ledger, ledger.reading() as session:
            oldest = (await session.scalars(select(Intent).order_by(Intent.at))).first()
        assert oldest is not None
        assert await refused() == (BEGUN.format("node-11", f"{oldest.at:%H:%M:%S}"), "")


@ON_LEDGER
@pytest.mark.parametrize(
    ("before", "words"),
    [
        (changes(*[MINUTE - SOON] * 3), BUSY),
        (changes(MINUTE, SOON, SOON), ""),
        (changes(*[MINUTE - SOON] * 10, cluster="other"), BUSY_FLEET),
        (changes(*[MINUTE] * 10, cluster="other"), ""),
        (changes(6 * MINUTE - SOON, 2 * MINUTE, target=NEW), WORN),
        (changes(6 * MINUTE, 2 * MINUTE, target=NEW), ""),
        (raises(*[MINUTE - SOON] * 3), FLAPS.format(3)),
        (raises(MINUTE, SOON, SOON), ""),
        (changes(MINUTE, ended=False), ""),
    ],
)
async def test_the_limits_are_of_the_cluster_s_time(before: Before, words: str) -> None:
    """For a cluster whose time runs sixty times as fast an hour of each limit is a minute."""
    async with holding("17") as mine:
        await write(before, mine)
        assert await refused(speed=60) == (words, "")


@ON_LEDGER
async def test_a_trip_of_the_breaker_is_kept() -> None:
    """The breaker that trips at a change stays tripped though the change is refused, and names its incident to all."""
    words = TRIPPED.format(SHARED.format("5 of 20"))
    async with holding("17") as mine, holding("18", "other-19", cluster="other-19") as other:
        await write(fleet(20, 5), mine)
        async with open_ledger() as ledger, ledger.writing() as session:
            late = await session.get(Episode, other.episode)
            assert late is not None
            late.opened -= HOUR
        said = [await refused(), await refused("rebind")]
        async with open_ledger() as ledger, ledger.reading() as session:
            (tripped,) = (await session.scalars(select(Breaker))).all()
        said.append(await refused(run="18", of="other-19", cluster="other-19"))
        assert said == [(words, tripped.id)] * 3
        assert tripped.clusters.split("\n") == ["other-1", "other-2", "other-3", "other-4", "prod-1"]
        assert [await intents(mine), await intents(other), await acted(mine), await acted(other)] == [
            [],
            [],
            False,
            False,
        ]


@ON_LEDGER
async def test_the_breaker_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where RUNBOOKS_BREAKER is `off` no breaker trips, and one that has tripped before still refuses."""
    monkeypatch.setenv(BREAKER, "off")
    async with holding("17") as mine:
        await write(fleet(20, 20), mine)
        assert await refused() == ("", "")
        await write(a_breaker(), mine)
        assert await refused("rebind") == (TRIPPED.format("5 of 20 clusters"), "b-1")


@ON_LEDGER
async def test_backlog_is_not_changed() -> None:
    """In an episode of an old alarm nothing is changed by itself, and it is said how a person may."""
    async with holding("17") as mine:
        async with open_ledger() as ledger, ledger.writing() as session:
            await session.execute(update(Episode).values(backlog="the alarm was old"))
        assert await refused() == (
            "the alarm was old: nothing is changed by itself then; do it as described below, or start a run by hand",
            "",
        )
        assert (await intents(mine), await acted(mine)) == ([], False)


@ON_LEDGER
async def test_the_stop_file(runbooks_home: Path) -> None:
    """A stop file that appears after the other gates were asked stops the change, and without it the change passes."""
    async with holding("17") as mine:
        (runbooks_home / "STOP").write_text("the region is down")
        why = (
            f"the stop file {runbooks_home}/STOP is there (the region is down): nothing is changed until it is removed"
        )
        assert (await refused(), await intents(mine), await acted(mine)) == ((why, ""), [], False)
        assert await refused(dry_run=True) == ("", "")
        (runbooks_home / "STOP").unlink()
        assert await refused() == ("", "")


@ON_LEDGER
async def test_the_fence() -> None:
    """A run whose episode another run has taken, or that has ended, intends nothing."""
    lost = ("this run has lost its claim on the cluster: another one may be at work", "")
    for values in ({"token": 2}, {"token": 1, "state": "closed"}, {"token": 1, "state": "verifying"}):
        async with holding("17") as mine:
            async with open_ledger() as ledger, ledger.writing() as session:
                await session.execute(update(Episode).where(Episode.id == mine.episode).values(**values))
            assert await refused() == lost
            assert (await intents(mine), await acted(mine)) == ([], False)
            async with open_ledger() as ledger, ledger.writing() as session:
                await session.execute(update(Episode).values(state="closed"))


@ON_LEDGER
async def test_who_holds_nothing_intends_nothing() -> None:
    """A run without a claim is refused, and a dry run, which changes nothing, needs none and leaves no intent."""
    async with holding("17") as mine:
        assert await refused(run="18") == ("this run holds no claim on its cluster", "")
        assert await refused(run="17", dry_run=True) == ("", "")
        assert (await intents(mine), await acted(mine)) == ([], False)


@ON_LEDGER
async def test_without_the_ledger_nothing_is_intended(ledger_at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the ledger cannot be written the change is refused with its words, and passes when it can be again."""
    monkeypatch.setenv("RUNBOOKS_LEDGER_URL", f"sqlite:///{ledger_at_home}?timeout=0.2")
    async with holding("17") as mine:
        other = sqlite3.connect(ledger_at_home)
        other.execute("BEGIN EXCLUSIVE")
        assert await refused() == (
            f"without the ledger nothing is changed: the ledger sqlite+aiosqlite:///{ledger_at_home} does not answer "
            "(database is locked): it is tried again",
            "",
        )
        other.close()
        assert (await intents(mine), await acted(mine)) == ([], False)
        assert await refused() == ("", "")
        assert (await intents(mine), await acted(mine)) == ([("3", NEW, PROD, "{}", False)], True)


@ON_LEDGER
async def test_the_first_gate_speaks() -> None:
    """Where several gates refuse, the reason is the one that a person can do most about."""
    everything = together(
        changes(*[MINUTE] * 3, ended=False),
        changes(*[MINUTE] * 10, cluster="other"),
        changes(2 * HOUR, 3 * HOUR, target=NEW),
        raises(*[MINUTE] * 3),
        fleet(20, 20),
        brakes("prod-1"),
    )
    async with holding("17") as mine:
        await write(everything, mine)
        heard = [(await refused())[0]]
        async with open_ledger() as ledger, ledger.writing() as session:
            await session.execute(update(Brake).values(released=timing.wall()))
        heard.append((await refused())[0])
        async with open_ledger() as ledger, ledger.writing() as session:
            await session.execute(update(Breaker).values(reset=timing.wall()))
        heard.append((await refused())[0][:27])
        async with open_ledger() as ledger, ledger.writing() as session:
            await session.execute(update(Intent).values(ended=timing.wall()))
        heard.append((await refused())[0])
        async with open_ledger() as ledger, ledger.writing() as session:
            await session.execute(delete(Intent).where(Intent.cluster_id == PROD, Intent.target != NEW))
        heard.append((await refused())[0])
        async with open_ledger() as ledger, ledger.writing() as session:
            await session.execute(delete(Intent).where(Intent.cluster_id != PROD))
        heard.append((await refused())[0])
        async with open_ledger() as ledger, ledger.writing() as session:
            await session.execute(delete(Intent))
        heard.append((await refused())[0])
    assert heard == [
        STOPPED.format("changes of prod-1", " prod-1"),
        TRIPPED.format(SHARED.format("20 of 20")),
        "another run began to change",
        BUSY,
        BUSY_FLEET,
        WORN,
        FLAPS.format(3),
    ]
