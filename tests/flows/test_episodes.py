"""Several runs, one episode: who acts, what comes too late for a run, what comes back, and what a broken run leaves."""

import asyncio
import contextvars
import re
from datetime import timedelta

import pytest
from sqlalchemy import select

from tasks import timing
from tasks.claims import claimed
from tasks.ledger.database import open_ledger
from tasks.ledger.episodes import Asking
from tasks.ledger.tables import Episode, Occurrence
from tasks.models import Case
from tests.flows.conftest import Result, World, Worlds
from tests.flows.test_conformance import is_legal

pytestmark = [pytest.mark.server, pytest.mark.anyio]
OTHER = Asking("run-17", "http://prefect.example/run-17", automated=True)


async def episode() -> Episode:
    """The only episode."""
    async with open_ledger() as ledger, ledger.reading() as session:
        return (await session.scalars(select(Episode))).one()


async def alarms() -> dict[str, str]:
    """Host and serial number -> how the page ended for the alarm, by the ledger; empty where it has not."""
    async with open_ledger() as ledger, ledger.reading() as session:
        found = (await session.scalars(select(Occurrence).order_by(Occurrence.first_seen))).all()
        return {f"{each.host}/{each.serial}": f"{each.trace}" for each in found}


def serial(cluster: World, host: str) -> str:
    """The serial number of the host's last alarm."""
    return str([alarm.serial for alarm in cluster.cluster.alarms if alarm.host.name == host][-1])


# Joining


@pytest.mark.parametrize("by_alarm", [True, False])
async def test_a_second_run_joins_the_first(world: Worlds, by_alarm: bool) -> None:
    """While a run is at work on a cluster, an alarm's or a person's run ends as JOINED and its message leads there."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        second: list[Result] = []
        holder: list[str | None] = []
        apart = contextvars.copy_context()  # a run of its own, not one within the first

        async def another() -> None:
            holder.append((await episode()).holder)
            second.append(await asyncio.create_task(cluster.run(by_alarm=by_alarm), context=apart))

        cluster.clock.plan(300, another)
        first = await cluster.run()
        assert first == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")
        assert second == [Result("JOINED", {}, cluster.restarts(), [], "")]
        assert f"/flow-runs/flow-run/{holder[0]}" in second[0].message
        assert [len(result.tickets) for result in (first, *second)] == [0, 0]


async def test_a_dry_run_says_who_is_at_work(world: Worlds) -> None:
    """While a run is at work on a cluster a dry run shows its plan all the same, and its state leads to that run."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        before = await cluster.run(by_alarm=False, dry_run=True)
        second: list[Result] = []
        holder: list[str | None] = []
        apart = contextvars.copy_context()

        async def another() -> None:
            holder.append((await episode()).holder)
            second.append(await asyncio.create_task(cluster.run(by_alarm=False, dry_run=True), context=apart))

        cluster.clock.plan(30, another)
        first = await cluster.run()
        assert first == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")
        meanwhile = rf"\. Meanwhile run http\S+/{holder[0]} is at this cluster since \S+ \S+ UTC, and is at work$"
        assert [bool(re.search(meanwhile, each.message)) for each in (before, *second)] == [False, True]


async def test_a_run_by_another_block_of_the_cluster_joins(world: Worlds) -> None:
    """The claim is of the cluster, not of a block's name; when its holder is gone the next run is at work."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        case = Case(cluster="another block of it", alarm_id="12110", dry_run=False, run=OTHER.run)
        async with claimed(case, OTHER, cluster_id=cluster.cluster.id):
            result = await cluster.run()
        assert (result, OTHER.link in result.message) == (Result("JOINED", {}, [], [], ""), True)
        async with open_ledger() as ledger, ledger.writing() as session:
            (await session.scalars(select(Episode))).one().lease = timing.wall()
        assert await cluster.run() == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")


# What comes too late for a run


async def test_a_host_that_alarms_while_a_run_is_at_work_gets_the_next_one(world: Worlds) -> None:
    """The next run follows only the late host: the other's alarm is left to its ticket, which stays the only one."""
    async with world(hosts=2, meta_hosts=2) as cluster:
        first, late = cluster.cluster.hosts
        cluster.breaks("wedged", host=first)
        cluster.raises_the_alarm()
        cluster.breaks("crashed", host=late)

        async def alarm() -> None:
            cluster.region.advance(20 * 60)
            await cluster.reports(late)

        cluster.clock.plan(300, alarm)
        result = await cluster.run()
        assert result == Result("ESCALATE", {first: "1 2n 3n 4 5y 7 ESCALATE"}, cluster.restarts(first), [], "")
        row = await episode()
        assert (row.state, row.n, row.run, row.holder, row.acted) == ("raised", 2, None, None, False)

        after = await cluster.run(episode=row.id)
        traces = {first: "1 JOINED", late: "1 2n 3y END"}
        assert after == Result("END", traces, cluster.restarts(first, late), [], "")
        assert all(is_legal(trace) for trace in traces.values())
        assert [ticket.id for ticket in after.tickets] == [ticket.id for ticket in result.tickets] == [row.ticket]
        assert ((await episode()).state, (await episode()).ticket) == ("verifying", row.ticket)


async def test_two_runs_of_an_episode_have_one_ticket(world: Worlds) -> None:
    """When the late host's run ends in a ticket too, it is the first one's, with what was written there below."""
    async with world(hosts=2, meta_hosts=2) as cluster:
        first, late = cluster.cluster.hosts
        cluster.breaks("wedged", host=first)
        cluster.raises_the_alarm()
        cluster.breaks("wedged", host=late)

        async def alarm() -> None:
            cluster.region.advance(20 * 60)
            await cluster.reports(late)

        cluster.clock.plan(300, alarm)
        await cluster.run()
        result = await cluster.run(episode=(await episode()).id)
        traces = {first: "1 JOINED", late: "1 2n 3n 4 5y 7 ESCALATE"}
        assert result == Result("ESCALATE", traces, cluster.restarts(first, late), [], "")
        (ticket,) = result.tickets
        now, earlier = ticket.body.split("Earlier:")
        assert traces[late] in now
        assert f"`1 2n 3n 4 5y 7 ESCALATE` | ALM-12110 on {first}" in earlier


# What comes back


async def test_a_relapse_after_a_restart_is_not_restarted_again(world: Worlds) -> None:
    """A 12110 that comes back within verification goes on after step 3: no second restart, and a person is told."""
    async with world() as cluster:
        cluster.breaks("restart-clears-only")
        cluster.raises_the_alarm()
        first = await cluster.run()
        assert first == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")
        repaired = serial(cluster, cluster.host)
        assert (await episode()).state == "verifying"

        cluster.raises_the_alarm()
        assert await cluster.reports() == (await episode()).id
        assert ((await episode()).state, (await episode()).n) == ("raised", 2)
        result = await cluster.run(episode=(await episode()).id)
        trace = "1 2n 3n (recurred) 4 5y 7 ESCALATE"
        assert result == Result("ESCALATE", {cluster.host: trace}, cluster.restarts(), [], "")
        assert (is_legal(trace), len(result.tickets)) == (True, 1)
        assert await alarms() == {
            f"{cluster.host}/{repaired}": "1 2n 3y END",
            f"{cluster.host}/{serial(cluster, cluster.host)}": trace,
        }


async def test_a_relapse_after_a_bind_is_not_bound_again(world: Worlds) -> None:
    """An alarm that comes back after step 6, its agency gone again even, goes on at step 7: nothing is bound."""
    async with world() as cluster:
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        first = await cluster.run()
        assert first == Result("END", {cluster.host: "1 2y 4 5n 6y END"}, cluster.binds(), [], "")
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        await cluster.reports()
        result = await cluster.run(episode=(await episode()).id)
        trace = "1 2y 4 5n 6n (recurred) 7 ESCALATE"
        assert result == Result("ESCALATE", {cluster.host: trace}, cluster.binds(), [], "")
        assert (is_legal(trace), len(result.tickets)) == (True, 1)


async def test_a_relapse_can_relapse_once_more(world: Worlds) -> None:
    """Back after step 3 it is bound; back after that, too, it is handed over: every step was tried once."""
    async with world() as cluster:
        cluster.breaks("restart-clears-only")
        cluster.raises_the_alarm()
        await cluster.run()
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        cluster.region.clear_fault("restart-clears-only", cluster=cluster.cluster, host=cluster.host)
        await cluster.reports()
        second = await cluster.run(episode=(await episode()).id)
        changes = [*cluster.restarts(), *cluster.binds()]
        assert second == Result("END", {cluster.host: "1 2n 3n (recurred) 4 5n 6y END"}, changes, [], "")
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        await cluster.reports()
        third = await cluster.run(episode=(await episode()).id)
        trace = "1 2n 3n (recurred) 4 5n 6n (recurred) 7 ESCALATE"
        assert third == Result("ESCALATE", {cluster.host: trace}, changes, [], "")
        assert (is_legal(trace), (await episode()).n, len(third.tickets)) == (True, 3, 1)


# Old alarms


async def test_an_old_alarm_is_diagnosed_only_until_a_person_decides(world: Worlds) -> None:
    """Of a backlog nothing is changed, the ticket says why, and a run that a person starts may act."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        occurred = cluster.region.now - timedelta(hours=3)
        await cluster.reports(
            serial=serial(cluster, cluster.host), occurred=occurred, sent=occurred + timedelta(hours=3)
        )
        result = await cluster.run(episode=(await episode()).id)
        assert result == Result("REFUSED", {cluster.host: "1 2n REFUSED"}, [], [], "")
        assert "the alarm was 3.0 hours old when it was first seen: nothing is changed" in result.tickets[0].body
        by_hand = await cluster.run(by_alarm=False)
        assert by_hand == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")


# What the sources tell


async def test_every_reported_host_is_followed_where_there_is_no_alarm_list(world: Worlds) -> None:
    """On a Manager without the route, all hosts that the sources told of are followed in one run, with one ticket."""
    async with world(profile="documented", hosts=3, meta_hosts=3) as cluster:
        crashed, normal, quiet = cluster.cluster.hosts
        cluster.breaks("crashed", host=crashed)
        cluster.breaks("metadata-down", host=normal)
        cluster.raises_the_alarm()
        id_ = await cluster.reports(crashed, normal)
        result = await cluster.run(episode=id_)
        traces = {crashed: "1 2n REFUSED", normal: "1 2y 4 5y 7 ESCALATE"}
        assert result == Result("REFUSED", traces, [], [], "")
        assert (quiet in result.traces, len(result.tickets)) == (False, 1)
        assert sorted((await alarms()).values()) == sorted(traces.values())
        assert (await episode()).state == "verifying"

        await cluster.reports(quiet)
        after = await cluster.run(episode=id_)
        assert after == Result("ESCALATE", {quiet: "1 2y 4 5y 7 ESCALATE"}, [], [], "")
        assert [ticket.id for ticket in after.tickets] == [ticket.id for ticket in result.tickets]


async def test_a_reported_host_that_is_not_listed_is_cannot_tell_beside_another(world: Worlds) -> None:
    """Of two reported hosts Manager lists one: that one is repaired, the other is cannot tell, and none starts anew."""
    async with world(hosts=2, meta_hosts=2) as cluster:
        crashed, unlisted = cluster.cluster.hosts
        cluster.breaks("crashed", host=crashed)
        cluster.raises_the_alarm()
        id_ = await cluster.reports(crashed, unlisted)
        result = await cluster.run(episode=id_)
        traces = {crashed: "1 2n 3y END", unlisted: "1 CANNOT-TELL"}
        assert result == Result("CANNOT-TELL", traces, cluster.restarts(crashed), [], "")
        assert f"{unlisted}: On Manager" in result.tickets[0].body
        assert (await episode()).state == "verifying"
        assert await alarms() == {
            f"{crashed}/{serial(cluster, crashed)}": traces[crashed],
            f"{unlisted}/": "1 CANNOT-TELL",
        }
