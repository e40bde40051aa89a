"""Where the page is left early: the word, the legal prefix before it, and that nothing was changed on its account."""

from typing import Any

import pytest

from tasks.loading import cluster_block
from tests.flows.conftest import Result, World, Worlds
from tests.flows.test_conformance import is_legal

pytestmark = [pytest.mark.server, pytest.mark.anyio]

# What is broken (and how) before the alarm; what else is wrong when the run starts; the trace it must leave.
UNREADABLE_INSTANCES: list[tuple[dict[str, Any], str]] = [
    ({"status": {"value": "Unknown"}}, "1 CANNOT-TELL"),
    ({"status": {"value": "Zombie"}}, "1 CANNOT-TELL"),
    ({"status": {"value": "Failed to stop"}}, "1 CANNOT-TELL"),
    ({"status": {"value": "Normal", "source": "nodes"}}, "1 CANNOT-TELL"),
    ({"status": {"value": "Starting"}}, "1 CANNOT-TELL"),
    ({"status": {"value": "Not started"}}, "1 REFUSED"),
    ({"status": {"value": "Decommissioned"}}, "1 REFUSED"),
    ({"instance-duplicated": {}}, "1 CANNOT-TELL"),
    ({"host-unlisted": {}}, "1 CANNOT-TELL"),
    ({"host-down": {}}, "1 REFUSED"),
]
# All that the cloud's API names but `running`, and one that it does not.
STATES = ("starting", "terminated", "failed", "abnormal", "terminating", "frozen", "scaling-out", "scaling-in", "")
CLOSED_GATES: list[tuple[dict[str, Any], str]] = [
    ({"maintenance": {}}, "1 2n REFUSED"),
    ({"command-running": {}}, "1 2n REFUSED"),
    ({"agency-updating": {}}, "1 2n REFUSED"),
    *[({"cluster-state": {"value": value}}, "1 2n REFUSED") for value in STATES],
]
UNCLEAR_AGENCIES: list[tuple[dict[str, Any], str]] = [
    ({"record-absent": {}}, "1 2y 4 CANNOT-TELL"),
    ({"record-stale": {}}, "1 2y 4 CANNOT-TELL"),
    ({"agency-deleted": {}}, "1 2y 4 5n REFUSED"),
    ({"agency-untrusted": {}}, "1 2y 4 5n REFUSED"),
    ({"agency-expired": {}}, "1 2y 4 5n REFUSED"),
    *[({"cluster-state": {"value": value}}, "1 2y 4 5n REFUSED") for value in STATES],
]


def ended(cluster: World, trace: str, mutations: list[tuple[str, str]] | None = None) -> Result:
    """The result of a run on the one alarmed host that left this trace; by default nothing was changed."""
    assert is_legal(trace)
    return Result(trace.split()[-1], {cluster.host: trace}, mutations or [], [], "")


@pytest.mark.parametrize(("faults", "trace"), UNREADABLE_INSTANCES + CLOSED_GATES)
async def test_a_crashed_instance_is_not_restarted_when(world: Worlds, faults: dict[str, Any], trace: str) -> None:
    """Unless the instance is plainly abnormal and every gate is open, nothing is restarted and a ticket says why."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        for fault, options in faults.items():
            on_a_host = fault in ("status", "instance-duplicated", "host-unlisted", "host-down", "maintenance")
            cluster.breaks(fault, host=cluster.host if on_a_host else None, **options)
        result = await cluster.run()
        assert result == ended(cluster, trace)
        assert len(result.tickets) == 1


@pytest.mark.parametrize(("faults", "trace"), UNCLEAR_AGENCIES)
async def test_an_unbound_cluster_is_not_bound_when(world: Worlds, faults: dict[str, Any], trace: str) -> None:
    """Unless nodes and record agree that nothing is bound, and agency and cluster are well, nothing is bound."""
    async with world() as cluster:
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        for fault, options in faults.items():
            cluster.breaks(fault, **options)
        result = await cluster.run()
        assert result == ended(cluster, trace)
        assert len(result.tickets) == 1


@pytest.mark.parametrize("fault", ["partly-bound", "mixed-agencies"])
async def test_a_partly_bound_cluster_is_never_written(world: Worlds, fault: str) -> None:
    """Where some nodes are bound, or to different agencies, nothing is written and the ticket lists the nodes."""
    async with world() as cluster:
        cluster.breaks(fault)
        cluster.breaks("metadata-down")
        cluster.raises_the_alarm()
        result = await cluster.run()
        assert result == ended(cluster, "1 2y 4 CANNOT-TELL")
        assert all(host in result.tickets[0].body for host in cluster.cluster.hosts)


@pytest.mark.parametrize(
    ("block", "faults", "trace"),
    [
        ({"mode": "observe"}, ("crashed",), "1 2n REFUSED"),
        ({"mode": "approve"}, ("crashed",), "1 2n REFUSED"),
        ({"mode": "approve"}, ("unbound",), "1 2y 4 5n REFUSED"),
        ({"on_unbound": "escalate"}, ("unbound",), "1 2y 4 5n REFUSED"),
        ({"agency": ""}, ("unbound",), "1 2y 4 5n REFUSED"),
    ],
)
async def test_the_block_decides(world: Worlds, block: dict[str, Any], faults: tuple[str, ...], trace: str) -> None:
    """What the cluster's block does not allow is refused with a ticket that says what to do by hand."""
    async with world(block=block) as cluster:
        cluster.breaks(*faults)
        cluster.raises_the_alarm()
        result = await cluster.run()
        assert result == ended(cluster, trace)
        assert "On " in result.tickets[0].body.split("## What to do next")[1]


@pytest.mark.parametrize(
    ("faults", "trace"),
    [
        (("crashed",), "1 2n DRY-RUN"),
        (("unbound",), "1 2y 4 5n DRY-RUN"),
        (("agency-broken",), "1 2y 4 5y 7 DRY-RUN"),
    ],
)
async def test_a_dry_run_stops_before_the_first_change(world: Worlds, faults: tuple[str, ...], trace: str) -> None:
    """A dry run, also on a cluster in `approve`, leaves the same trace up to the first change, and no ticket."""
    async with world(block={"mode": "approve"}) as cluster:
        cluster.breaks(*faults)
        cluster.raises_the_alarm()
        result = await cluster.run(dry_run=True)
        assert result == ended(cluster, trace)
        assert result.tickets == []


async def test_an_alarm_that_is_gone_needs_nothing(world: Worlds) -> None:
    """With no active alarm a person's run ends as CLEARED, with no trace, no change and no ticket."""
    async with world() as cluster:
        result = await cluster.run(by_alarm=False)
        assert (result, result.tickets) == (Result("CLEARED", {}, [], [], ""), [])


async def test_an_alarm_that_was_cleared_before_the_run_looked(world: Worlds) -> None:
    """The reported host's alarm was cleared by Meta meanwhile: CLEARED, nothing changed, no ticket."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        cluster.region.clear_fault("crashed", cluster=cluster.cluster, host=cluster.host)
        cluster.region.advance(600)
        result = await cluster.run()
        assert (result, result.tickets) == (ended(cluster, "1 CLEARED"), [])


async def test_not_listed_is_not_cleared(world: Worlds) -> None:
    """A reported alarm that Manager lists neither as active nor as cleared is cannot tell, with a ticket."""
    async with world() as cluster:
        result = await cluster.run()
        assert (result, len(result.tickets)) == (Result("CANNOT-TELL", {}, [], [], ""), 1)


async def test_masked_is_not_cleared(world: Worlds) -> None:
    """An alarm that is not listed because it is masked cannot be told from a cleared one, and escalates."""
    async with world() as cluster:
        cluster.breaks("masked", "unbound")
        cluster.region.advance(1200)
        result = await cluster.run()
        assert (result, len(result.tickets)) == (Result("CANNOT-TELL", {}, [], [], ""), 1)


async def test_cleared_by_a_person_is_never_a_repair(world: Worlds) -> None:
    """A person who clears the alarm during the wait ends the run with that word, not as repaired."""
    async with world() as cluster:
        cluster.breaks("wedged")
        cluster.raises_the_alarm()
        serial = cluster.cluster.alarms[0].serial
        cluster.clock.plan(300, lambda: cluster.region.clear_alarm(serial))
        result = await cluster.run()
        by_person = ("clear-alarm", str(serial))
        assert result == ended(cluster, "1 2n CLEARED-BY-PERSON", [*cluster.restarts(), by_person])


async def test_a_restart_that_fails_is_not_followed_by_another_change(world: Worlds) -> None:
    """A restart command that Manager ends as FAILED ends the run as ERROR, a failed run with a ticket."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.breaks("restart-fails", host=cluster.host)
        cluster.raises_the_alarm()
        result = await cluster.run()
        assert result == ended(cluster, "1 2n ERROR", cluster.restarts())
        assert [ticket.title for ticket in result.tickets] == [f"ALM-12110 {cluster.block}: ERROR"]


async def test_a_wrong_password_ends_in_a_ticket_and_one_login(world: Worlds) -> None:
    """A rejected password is tried once: a second run of the alarm's joins, a person's has a ticket too, no login."""
    async with world(block={"password": "not-the-password"}) as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        first, again, by_a_person = await cluster.run(), await cluster.run(), await cluster.run(by_alarm=False)
        assert first == by_a_person == Result("CANNOT-TELL", {}, [], [], "")
        assert again == Result("JOINED", {}, [], [], "")
        assert cluster.cluster.wrong_passwords == 1
        assert "not-the-password" not in first.message + first.tickets[0].body + by_a_person.tickets[0].body


async def test_an_alarm_that_ended_in_a_ticket_starts_nothing_anew(world: Worlds) -> None:
    """Another run that the same alarm starts ends as JOINED: it asks Manager nothing and leaves the ticket alone."""
    async with world() as cluster:
        cluster.breaks("agency-broken")
        cluster.raises_the_alarm()
        first = await cluster.run()
        assert first == ended(cluster, "1 2y 4 5y 7 ESCALATE")
        anything = cluster.region.trouble.add("*", "*", "status", times=999, status=500)
        second = await cluster.run()
        assert (second, anything.times) == (Result("JOINED", {}, [], [], ""), 999)
        assert second.tickets == first.tickets


async def test_an_unknown_cluster_starts_nothing_and_says_so(world: Worlds) -> None:
    """A cluster without a block fails the run with a sentence, and leaves a ticket when an alarm started it."""
    async with world() as cluster:
        result = await cluster.run(cluster="no-such-cluster")
        assert result.outcome == "Failed"
        assert result.message.startswith("there is no cluster 'no-such-cluster': ")
        assert len(result.tickets) == 1


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [
        ("agency-changed-by-person", {"user": "bob"}, "not bound: bob changed it (updateServerAgency at "),
        ("cts-down", {}, "not bound: CTS cannot be read, so who changed the agency cannot be seen (CTS GET v3/"),
        ("cts-denied", {}, "not bound: CTS cannot be read, so who changed the agency cannot be seen (CTS GET v3/"),
    ],
)
async def test_an_agency_that_somebody_may_have_removed_is_not_bound_again(
    world: Worlds, fault: str, options: dict[str, Any], words: str
) -> None:
    """A change of the agency in CTS's seven days, or a CTS that cannot be read: nothing is bound, a person is asked."""
    async with world() as cluster:
        cluster.breaks("unbound")
        cluster.breaks(fault, **options)
        cluster.raises_the_alarm()
        result = await cluster.run()
        assert result == Result("REFUSED", {cluster.host: "1 2y 4 5n REFUSED"}, [], [], "")
        assert words in result.tickets[0].body


async def test_without_cts_nothing_is_bound(world: Worlds) -> None:
    """A cloud block that names no CTS cannot tell who removed the agency: nothing is bound."""
    async with world() as cluster:
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        block = await cluster_block(cluster.block)
        cloud = block.cloud.model_copy(update={"cts_url": ""})
        await block.model_copy(update={"cloud": cloud}).save(cluster.block, overwrite=True)
        result = await cluster.run()
        assert result == Result("REFUSED", {cluster.host: "1 2y 4 5n REFUSED"}, [], [], "")
        assert "not bound: the cloud block names no CTS (cts_url)" in result.tickets[0].body
