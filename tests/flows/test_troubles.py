"""A cloud that is not at its best: the run still ends right, and does nothing twice."""

import itertools
from typing import Any

import pytest

from tests.flows.conftest import Result, World, Worlds

pytestmark = [pytest.mark.server, pytest.mark.anyio]


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("slow-restart", {}),
        ("clock-skew", {"seconds": 7200}),
        ("clock-skew", {"seconds": -7200}),
        ("nodes-by-row", {}),
    ],
)
async def test_a_crashed_instance_is_restarted_although(world: Worlds, fault: str, options: dict[str, Any]) -> None:
    """A restart of 20 minutes, a Manager whose clock is hours off, or paging by row change nothing of the outcome."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.breaks(fault, host=cluster.host if fault == "slow-restart" else None, **options)
        cluster.raises_the_alarm()
        assert await cluster.run() == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")


@pytest.mark.parametrize(
    ("method", "route", "kind", "options"),
    [
        ("GET", "*/alarms", "status", {"status": 503, "times": 4}),
        ("GET", "*/nodes", "status", {"status": 429, "retry_after": 0, "times": 2}),
        ("GET", "*/instances", "reset", {"times": 2}),
        ("GET", "*/cluster_infos/*", "truncated", {"times": 2}),
        ("GET", "*/hosts", "wrong-type", {"times": 1}),
        ("GET", "*/alarms", "lost-session", {"times": 1}),
        ("POST", "*/restart", "answer-lost", {"times": 1}),
        ("GET", "*/commands/*", "status", {"status": 500, "times": 9}),
    ],
)
async def test_http_trouble_passes(world: Worlds, method: str, route: str, kind: str, options: dict[str, Any]) -> None:
    """Trouble that passes is outlasted; a restart whose answer was lost is seen to have happened and not repeated."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        cluster.region.trouble.add(method, route, kind, **options)
        assert await cluster.run() == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")


async def test_a_bind_whose_answer_is_lost_is_read_back_and_not_repeated(world: Worlds) -> None:
    """ECS binds a node and the answer is lost: the metadata shows it, and every node is written exactly once."""
    async with world() as cluster:
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        cluster.region.trouble.add("POST", "*/metadata", "answer-lost", times=2)
        assert await cluster.run() == Result("END", {cluster.host: "1 2y 4 5n 6y END"}, cluster.binds(), [], "")


def is_unbound_with_trouble_at_the_second_node(cluster: World, *, times: int | None, **answer: Any) -> None:
    """The alarm is raised, and ECS answers so when the second node is to be bound."""
    cluster.breaks("unbound")
    cluster.raises_the_alarm()
    second = list(cluster.cluster.hosts.values())[1]
    cluster.region.trouble.add("POST", f"*/{second.server_id}/metadata", "status", times=times, **answer)


async def test_a_bind_that_breaks_off_names_the_nodes_that_were_bound(world: Worlds) -> None:
    """When ECS refuses the second node, nothing more is written and the ticket says how far it came."""
    async with world() as cluster:
        is_unbound_with_trouble_at_the_second_node(cluster, times=None, status=403)
        result = await cluster.run()
        assert result == Result("ERROR", {cluster.host: "1 2y 4 5n ERROR"}, cluster.binds()[:1], [], "")
        assert f"nodes bound before that, and left so: {cluster.host}\n" in result.tickets[0].body


async def test_a_bind_is_finished_although_its_first_node_cleared_the_alarm(world: Worlds) -> None:
    """Meta gets keys and clears the alarm while the second node is waited for: every node is bound all the same."""
    async with world() as cluster:
        is_unbound_with_trouble_at_the_second_node(cluster, times=1, status=429, retry_after=400)
        assert await cluster.run() == Result("END", {cluster.host: "1 2y 4 5n 6y END"}, cluster.binds(), [], "")


async def test_a_bind_that_is_stopped_between_two_nodes_says_which_are_bound(world: Worlds) -> None:
    """Rebinding is forbidden after the first node was bound: nothing more is written and the ticket names that node."""
    async with world() as cluster:
        is_unbound_with_trouble_at_the_second_node(cluster, times=1, status=429, retry_after=400)
        await cluster.meanwhile(200, on_unbound="escalate")
        result = await cluster.run()
        assert result == Result("REFUSED", {cluster.host: "1 2y 4 5n REFUSED"}, cluster.binds()[:1], [], "")
        assert f"nodes bound before that, and left so: {cluster.host}\n" in result.tickets[0].body


@pytest.mark.parametrize("after", [30, 200])
async def test_an_oms_switchover_is_outlasted(world: Worlds, after: int) -> None:
    """Manager refuses for three minutes and forgets sessions and commands, during the restart or the wait: repaired."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        cluster.clock.plan(after, lambda: cluster.breaks("oms-switchover"))
        assert await cluster.run() == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")


async def test_a_manager_that_stays_away_at_the_deadline_is_cannot_tell(world: Worlds) -> None:
    """Manager gone from the wait on: fifteen minutes more, then cannot tell, never "not cleared", and no rebind."""
    async with world() as cluster:
        cluster.breaks("wedged", "unbound")
        cluster.raises_the_alarm()
        cluster.clock.plan(120, lambda: cluster.breaks("oms-switchover", seconds=7200))
        began = cluster.region.now
        result = await cluster.run()
        assert result == Result("CANNOT-TELL", {cluster.host: "1 2n CANNOT-TELL"}, cluster.restarts(), [], "")
        assert (cluster.region.now - began).total_seconds() == pytest.approx(60 + 600 + 900, abs=60)


async def test_an_instance_in_transition_is_waited_for(world: Worlds) -> None:
    """An instance that is Starting is given time to settle, and the page goes on with what it settled to."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.breaks("status", host=cluster.host, value="Starting")
        cluster.raises_the_alarm()
        clear = cluster.region.clear_fault
        cluster.clock.plan(200, lambda: clear("status", cluster=cluster.cluster, host=cluster.host))
        assert await cluster.run() == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")


async def test_an_agency_that_takes_effect_slowly_is_waited_for(world: Worlds) -> None:
    """A binding that issues keys only after five minutes still ends as repaired within the wait."""
    async with world() as cluster:
        cluster.breaks("unbound")
        cluster.breaks("agency-slow", seconds=300)
        cluster.raises_the_alarm()
        assert await cluster.run() == Result("END", {cluster.host: "1 2y 4 5n 6y END"}, cluster.binds(), [], "")


async def test_an_alarm_cleared_before_its_restart_needs_no_restart(world: Worlds) -> None:
    """The alarm is read again right before the change: cleared meanwhile, nothing is restarted."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        cluster.breaks("status", host=cluster.host, value="Faulty")
        clear = cluster.region.clear_fault
        clear("crashed", cluster=cluster.cluster, host=cluster.host)
        cluster.breaks("status", host=cluster.host, value="Starting")

        def settles() -> None:
            cluster.region.advance(300)
            cluster.breaks("status", host=cluster.host, value="Faulty")

        cluster.clock.plan(60, settles)
        assert await cluster.run() == Result("CLEARED", {cluster.host: "1 2n CLEARED"}, [], [], "")


async def test_what_the_block_allows_counts_at_the_moment_of_the_change(world: Worlds) -> None:
    """Rebinding is forbidden while the run waits for a restart to help: nothing is bound any more."""
    async with world() as cluster:
        cluster.breaks("crashed", "unbound")
        cluster.raises_the_alarm()
        await cluster.meanwhile(300, on_unbound="escalate")
        result = await cluster.run()
        assert result == Result("REFUSED", {cluster.host: "1 2n 3n 4 5n REFUSED"}, cluster.restarts(), [], "")


async def test_an_agency_removed_again_is_not_bound_twice(world: Worlds) -> None:
    """Bound for one host by this run, removed by somebody while another host's restart is waited for: cannot tell."""
    async with world(hosts=2, meta_hosts=2) as cluster:
        crashed, normal = cluster.cluster.hosts
        cluster.breaks("unbound")
        cluster.breaks("wedged", host=crashed)
        cluster.raises_the_alarm()
        cluster.clock.plan(500, lambda: cluster.breaks("unbound"))
        result = await cluster.run()
        assert result.mutations == [*cluster.binds(), *cluster.restarts(crashed)]
        assert result.traces == {crashed: "1 2n 3n 4 CANNOT-TELL", normal: "1 2y 4 5n 6y END"}


async def test_a_throttled_bind_is_continued(world: Worlds) -> None:
    """ECS answering 429 to a bind has done nothing, so the run waits, asks the gates again and goes on."""
    async with world() as cluster:
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        cluster.region.trouble.add("POST", "*/metadata", "status", times=2, status=429, retry_after=1)
        assert await cluster.run() == Result("END", {cluster.host: "1 2y 4 5n 6y END"}, cluster.binds(), [], "")


async def test_a_restart_that_cannot_be_followed_says_that_it_was_sent(world: Worlds) -> None:
    """Manager takes the restart and then refuses to tell about it: cannot tell, and the ticket names the command."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        cluster.region.trouble.add("GET", "*/commands/*", "status", times=None, status=403)
        result = await cluster.run()
        assert result == Result("CANNOT-TELL", {cluster.host: "1 2n CANNOT-TELL"}, cluster.restarts(), [], "")
        assert "(command 101) and cannot be followed" in result.tickets[0].body


async def test_a_run_that_breaks_off_files_what_it_knows(world: Worlds) -> None:
    """An error nobody foresaw in the middle of a wait fails the run, and its one ticket tells of the restart."""
    async with world() as cluster:
        cluster.breaks("wedged")
        cluster.raises_the_alarm()

        def nobody_foresaw() -> None:
            raise ZeroDivisionError("nobody foresaw this")

        cluster.clock.plan(300, nobody_foresaw)
        result = await cluster.run()
        assert (result.outcome, result.mutations) == ("Failed", cluster.restarts())
        (ticket,) = result.tickets
        assert ticket.title == f"ALM-12110 {cluster.block}: ERROR"
        assert "restarted (command 101)" in ticket.body
        assert "nobody foresaw this" in ticket.body


async def test_a_question_that_is_refused_is_cannot_tell(world: Worlds) -> None:
    """A 403 to one node's metadata leaves question 5 without an answer: cannot tell, not an error."""
    async with world() as cluster:
        cluster.breaks("unbound")
        cluster.raises_the_alarm()
        cluster.region.trouble.add("GET", "*/cloudservers/*", "status", times=None, status=403)
        assert await cluster.run() == Result("CANNOT-TELL", {cluster.host: "1 2y 4 CANNOT-TELL"}, [], [], "")


async def all_hosts_alarm(cluster: World, *crashed: str) -> None:
    """Crash the instances of these hosts and let the alarms come."""
    for host in crashed:
        cluster.breaks("crashed", host=host)
    cluster.raises_the_alarm()


async def test_every_alarmed_host_is_a_member_of_the_one_run(world: Worlds) -> None:
    """Of five alarmed hosts of an unbound cluster two are crashed: one bind, two restarts, five traces, no ticket."""
    async with world(hosts=5, meta_hosts=5) as cluster:
        names = list(cluster.cluster.hosts)
        cluster.breaks("unbound")
        await all_hosts_alarm(cluster, *names[:2])
        result = await cluster.run()
        traces = {name: "1 2n 3y END" if name in names[:2] else "1 2y 4 5n 6y END" for name in names}
        assert (result.outcome, result.traces, result.tickets) == ("END", traces, [])
        assert result.mutations[:5] == cluster.binds()
        assert sorted(result.mutations[5:]) == sorted(cluster.restarts(*names[:2]))


async def test_a_normal_host_is_escalated_before_another_is_restarted(world: Worlds) -> None:
    """The ticket for a host whose instance is normal does not wait for another host's restart; there is one ticket."""
    async with world(hosts=2, meta_hosts=2) as cluster:
        crashed, normal = cluster.cluster.hosts
        cluster.breaks("metadata-down", host=normal)
        await all_hosts_alarm(cluster, crashed)
        result = await cluster.run()
        traces = {crashed: "1 2n 3y END", normal: "1 2y 4 5y 7 ESCALATE"}
        assert result == Result("ESCALATE", traces, cluster.restarts(crashed), [], "")
        (ticket,) = result.tickets
        assert ticket.created <= cluster.region.log[0].at < ticket.updated


async def test_restarts_are_one_at_a_time_and_three_at_most(world: Worlds) -> None:
    """Of twenty crashed instances three are restarted, one after the other, the rest are refused, in one ticket."""
    async with world(hosts=20, meta_hosts=20) as cluster:
        names = list(cluster.cluster.hosts)
        await all_hosts_alarm(cluster, *names)
        result = await cluster.run()
        restarted = [target for _, target in result.mutations]
        assert len(restarted) == 3
        traces = {name: "1 2n 3y END" if name in restarted else "1 2n REFUSED" for name in names}
        assert (result.outcome, result.traces, len(result.tickets)) == ("REFUSED", traces, 1)
        times = [entry.at for entry in cluster.region.log]
        assert all((later - earlier).total_seconds() >= 60 for earlier, later in itertools.pairwise(times))


async def test_one_host_can_be_picked(world: Worlds) -> None:
    """With `host` given, only that host is followed."""
    async with world(hosts=3, meta_hosts=3) as cluster:
        first, second, _ = cluster.cluster.hosts
        await all_hosts_alarm(cluster, first, second)
        result = await cluster.run(host=second)
        assert result == Result("END", {second: "1 2n 3y END"}, cluster.restarts(second), [], "")
