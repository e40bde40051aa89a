"""Runs that lose their claim, their ledger or their life: what they still do, and what they leave to others."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Crashed
from sqlalchemy import select

from flows.alm_12110 import alm_12110
from flows.escalation import ticket_for_a_failure
from tasks import timing
from tasks.ledger.database import open_ledger
from tasks.ledger.episodes import Asking, Holding, begin_change, claim
from tasks.ledger.keeping import Line, digest_of, keep, records_of
from tasks.ledger.receiving import intake_started
from tasks.ledger.starting import started
from tasks.ledger.tables import Episode
from tests.flows.conftest import Result, World, Worlds
from tests.flows.test_episodes import OTHER, alarms, episode, serial

pytestmark = [pytest.mark.server, pytest.mark.anyio]


async def taken_over(cluster: World) -> None:
    """The lease of the run that is at work has ended, and another run has its episode."""
    async with open_ledger() as ledger, ledger.writing() as session:
        row = (await session.scalars(select(Episode))).one()
        row.lease = timing.wall() - timedelta(seconds=1)
        await session.flush()
        got = await claim(session, cluster.cluster.id, cluster.block, "12110", OTHER, timing.wall())
        assert isinstance(got, Holding)


def settling(cluster: World, *hosts: str) -> None:
    """Let the instances be Starting, so that step 2 of a run waits for them, for ten minutes at most."""
    for host in hosts or (cluster.host,):
        cluster.breaks("status", host=host, value="Starting")


# Losing the claim


async def test_a_run_that_was_taken_over_restarts_nothing(world: Worlds) -> None:
    """Its lease ended and another run has the episode: it is refused before its first change, and ends nothing."""
    async with world() as cluster:
        cluster.breaks("crashed")
        settling(cluster)
        cluster.raises_the_alarm()

        async def take_over() -> None:
            await taken_over(cluster)
            cluster.region.clear_fault("status", cluster=cluster.cluster, host=cluster.host)

        cluster.clock.plan(90, take_over)
        result = await cluster.run()
        assert result == Result("REFUSED", {cluster.host: "1 2n REFUSED"}, [], [], "")
        assert "this run has lost its claim on the cluster: another one may be at work" in result.tickets[0].body
        row = await episode()
        assert (row.state, row.holder, row.acted) == ("running", OTHER.run, False)


@pytest.mark.parametrize(("after", "restarts"), [(30, 1), (90, 2), (300, 2)])
async def test_a_run_that_is_taken_over_stops_before_its_next_change(world: Worlds, after: int, restarts: int) -> None:
    """Taken over while it follows a restart or waits after it, it looks on, and begins no other restart and no bind."""
    async with world(hosts=2, meta_hosts=2) as cluster:
        cluster.breaks("unbound")
        for host in cluster.cluster.hosts:
            cluster.breaks("wedged", host=host)
        cluster.raises_the_alarm()
        hosts = sorted(cluster.cluster.hosts, key=lambda host: int(serial(cluster, host)))  # the oldest alarm first
        cluster.clock.plan(after, lambda: taken_over(cluster))
        result = await cluster.run()
        restarted = hosts[:restarts]
        traces = {host: "1 2n 3n 4 5n REFUSED" if host in restarted else "1 2n REFUSED" for host in hosts}
        assert result == Result("REFUSED", traces, cluster.restarts(*restarted), [], "")
        assert (await episode()).holder == OTHER.run


async def test_without_a_ledger_nothing_is_changed(world: Worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that cannot reach the ledger changes nothing, asks nothing, and fails with a sentence and a ticket."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        monkeypatch.setenv("RUNBOOKS_LEDGER_URL", "postgresql://nobody@127.0.0.1:9/none")
        result = await cluster.run(by_alarm=False)
        assert result == Result("Failed", {}, [], [], "")
        assert result.message.startswith("the ledger postgresql+asyncpg://nobody@127.0.0.1:9/none does not answer (")
        assert [ticket.title for ticket in result.tickets] == [f"ALM-12110 {cluster.block}: ERROR"]
        dry = await cluster.run(by_alarm=False, dry_run=True)
        assert dry == Result("DRY-RUN", {cluster.host: "1 2n DRY-RUN"}, [], [], "")


# Runs that break off


async def an_intake_is_at_work() -> None:
    """Runs that die are begun anew by somebody."""
    async with open_ledger() as ledger, ledger.writing() as session:
        await intake_started(session, "intake", timing.wall())


def nobody_foresaw() -> None:
    """Break the run off."""
    raise ZeroDivisionError("nobody foresaw this")


async def is_the_intake_s() -> str:
    """The run at work is the one that the intake started for the episode's number; returns its id."""
    row = await episode()
    assert row.holder is not None
    async with open_ledger() as ledger, ledger.writing() as session:
        assert await started(session, row.id, row.n, row.holder)
    return row.holder


async def test_a_run_that_dies_before_a_change_is_the_intake_s(world: Worlds) -> None:
    """A run of the intake's that breaks off and had changed nothing leaves no ticket: its episode waits for another."""
    await an_intake_is_at_work()
    async with world() as cluster:
        cluster.breaks("crashed")
        settling(cluster)
        cluster.raises_the_alarm()
        id_ = await cluster.reports()
        run: list[str] = []

        async def dies() -> None:
            run.append(await is_the_intake_s())
            nobody_foresaw()

        cluster.clock.plan(90, dies)
        result = await cluster.run(episode=id_)
        assert result == Result("Failed", {}, [], [], "")
        assert result.tickets == []
        row = await episode()
        assert (row.id, row.state, row.run, row.holder, row.acted) == (id_, "running", run[0], run[0], False)
        assert await alarms() == {f"{cluster.host}/{serial(cluster, cluster.host)}": ""}

        async with open_ledger() as ledger, ledger.writing() as session:  # what the intake does half a minute later
            mine = (await session.scalars(select(Episode))).one()
            mine.state, mine.holder, mine.lease = "raised", None, None
        cluster.region.clear_fault("status", cluster=cluster.cluster, host=cluster.host)
        again = await cluster.run(episode=id_)
        assert again == Result("END", {cluster.host: "1 2n 3y END"}, cluster.restarts(), [], "")


async def test_a_run_that_dies_after_a_change_ends_in_a_ticket(world: Worlds) -> None:
    """A run that nobody can begin anew and that breaks off after a restart ends its episode as ERROR, with a ticket."""
    await an_intake_is_at_work()
    async with world() as cluster:
        cluster.breaks("wedged")
        cluster.raises_the_alarm()
        id_ = await cluster.reports()

        async def dies() -> None:
            await is_the_intake_s()
            nobody_foresaw()

        cluster.clock.plan(300, dies)
        result = await cluster.run(episode=id_)
        assert (result.outcome, result.mutations) == ("Failed", cluster.restarts())
        row = await episode()
        assert (row.id, row.state, row.outcome, row.holder) == (id_, "closed", "ERROR", None)
        (ticket,) = result.tickets
        assert ticket.title == f"ALM-12110 {cluster.block}: ERROR"
        assert "restarted (command 101)" in ticket.body
        assert f"| {cluster.host} | `1 2n ERROR` | " in ticket.body
        assert f"Flow run: {row.link}\n" in ticket.body
        async with open_ledger() as ledger, ledger.reading() as session:
            (lines,) = (await records_of(session, id_)).values()
        assert f"SHA-256 of what happened, line by line: {digest_of(lines)}\n" in ticket.body
        late = await cluster.run(episode=id_)
        assert (late.outcome, late.mutations) == ("JOINED", cluster.restarts())


async def a_dead_run(cluster: World, *, acted: bool) -> tuple[str, FlowRun]:
    """A run of the intake's, killed at work in another process; returns its episode and Prefect's record of it."""
    id_ = await cluster.reports()
    async with get_client() as client:
        parameters = {"cluster": cluster.block, "dry_run": False}
        run = await client.create_flow_run(alm_12110, parameters=parameters, tags=[f"episode:{id_}"])
    async with open_ledger() as ledger, ledger.writing() as session:
        assert await started(session, id_, 1, str(run.id))
        asking = Asking(str(run.id), "link", automated=True, episode=id_)
        got = await claim(session, cluster.cluster.id, cluster.block, "12110", asking, timing.wall())
        assert isinstance(got, Holding)
        assert not acted or await begin_change(session, got, timing.wall())
    return id_, run


STATES: list[tuple[Callable[[], State[Any]], bool, tuple[str, str, list[str]]]] = [
    (lambda: Cancelled(message="by a person"), False, ("closed", "CANCELLED", ["CANCELLED"])),
    (lambda: Cancelled(message="by a person"), True, ("closed", "CANCELLED", ["CANCELLED"])),
    (lambda: Crashed(message="killed"), True, ("closed", "ERROR", ["ERROR"])),
    (lambda: Crashed(message="killed"), False, ("running", "", [])),
]


@pytest.mark.parametrize(("state", "acted", "expected"), STATES)
async def test_what_the_hook_leaves_of_a_run_in_another_process(
    world: Worlds, state: Callable[[], State[Any]], acted: bool, expected: tuple[str, str, list[str]]
) -> None:
    """Cancelled, or killed after a change: the episode is over and there is a ticket; killed before: the intake's."""
    await an_intake_is_at_work()
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        _, run = await a_dead_run(cluster, acted=acted)
        await ticket_for_a_failure(alm_12110, run, state())
        row = await episode()
        result = await cluster.run(by_alarm=False, dry_run=True)
        titles = [ticket.title.partition(f"{cluster.block}: ")[2] for ticket in result.tickets]
        assert (row.state, row.outcome, titles) == expected


async def test_a_ticket_that_another_process_files_holds_the_record(world: Worlds) -> None:
    """Cancelled in another process: the ticket says what the run had learned, its digest, its link, and what to do."""
    await an_intake_is_at_work()
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        id_, run = await a_dead_run(cluster, acted=True)
        line = Line(timing.wall(), "1", cluster.host, "asked", "ALM-12110 is active on Manager")
        async with open_ledger() as ledger, ledger.writing() as session:
            row = await session.get_one(Episode, id_)
            holding = Holding(id_, row.token, attempt=f"{run.id}@{row.claimed:%Y%m%dT%H%M%S.%f}")
            await keep(session, holding, [line], timing.wall())
        await ticket_for_a_failure(alm_12110, run, Cancelled(message="by a person"))
        (ticket,) = (await cluster.run(by_alarm=False, dry_run=True)).tickets
        held = [
            "Impact while the alarm is active: jobs that read or write OBS fail",
            f"Flow run: link\n\nSHA-256 of what happened, line by line: {digest_of([line])}\n",
            f"| {cluster.host} | `stopped at step 1` | ALM-12110 on {cluster.host} serial ",
            f"- The flow run {run.name} ({run.id}) is Cancelled: by a person. It may have changed something",
            "read /var/log/Bigdata/meta/mrs-meta.log ",
            "the impact is felt at the latest ",
            f"step 1, {cluster.host}: ALM-12110 is active on Manager\n",
        ]
        assert [each for each in held if each not in ticket.body] == []


async def test_a_cancelled_run_s_alarm_is_not_taken_up_again(world: Worlds) -> None:
    """After a person has cancelled the run, the alarm that is still active starts nothing, told again or not."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        id_, run = await a_dead_run(cluster, acted=False)
        await ticket_for_a_failure(alm_12110, run, Cancelled())
        assert await alarms() == {f"{cluster.host}/{serial(cluster, cluster.host)}": ""}
        assert await cluster.reports() == id_
        assert (await episode()).state == "closed"
        assert UUID((await episode()).run or "") == run.id
        result = await cluster.run(episode=id_)
        assert result == Result("JOINED", {}, [], [], "")
