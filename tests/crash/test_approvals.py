"""A person is asked before a change, by a form in Prefect: what the run does with each answer, and with none."""

import json
from typing import Any

import pytest
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.client.schemas.objects import FlowRun
from prefect.flow_runs import resume_flow_run
from prefect.input.actions import read_flow_run_input
from prefect.states import Cancelling
from sqlalchemy import select

from deployments.emulator.region import Region
from tasks import timing
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import Decision, decide, open_questions
from tests.crash.stand import Cell, Stand, until
from tests.crash.test_waiting import until_closed

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("crash"), pytest.mark.timeout(600)]

SLOW = 15.0


async def until_it_asks(stand: Stand, run: FlowRun, n: int = 1) -> FlowRun:
    """The run, as it is while a person is asked for the n-th time."""

    async def asks() -> bool:
        found = await stand.client.read_flow_run(run.id)
        key = found.state and found.state.state_details.pause_key
        return bool(found.state and found.state.name == "Suspended" and str(key).endswith(f"-{n}"))

    await until(asks)
    return await stand.client.read_flow_run(run.id)


async def questions(stand: Stand, run: str) -> list[Approval]:
    """What the run has asked."""
    async with stand.ledger.reading() as session:
        return list((await session.scalars(select(Approval).where(Approval.run == run))).all())


async def answer(run: FlowRun, **filled: Any) -> None:
    """Fill in the form and send it, as the Prefect UI does."""
    await resume_flow_run(run.id, run_input=filled)  # type: ignore[misc]


async def published(stand: Stand, run: FlowRun) -> bool:
    """Whether the last artifact `open-episodes` says that the run asks a person."""
    wanted = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=["open-episodes"]))
    found = await stand.client.read_latest_artifacts(artifact_filter=wanted)
    listed = [row for each in found for row in json.loads(str(each.data))]
    return [row["state"] for row in listed if row["run"].endswith(str(run.id))] == ["a person is asked"]


async def test_an_approved_restart_is_made(standing: Stand, cell: Cell) -> None:
    """The run asks with its targets and evidence, is listed as asking meanwhile, and restarts once it is approved."""
    seen: list[object] = []

    async def meanwhile(run: FlowRun, region: Region) -> None:
        asks = await until_it_asks(standing, run)
        seen.append(region.log.copy())
        assert asks.state is not None
        keyset = asks.state.state_details.run_input_keyset or {}
        seen.append(await read_flow_run_input(keyset["description"], flow_run_id=run.id))
        await until(lambda: published(standing, run))
        await answer(asks, decision="approve", name="Ada", comment="go ahead")

    ended = await cell.run("crashed", seed=800, speed=SLOW, meanwhile=meanwhile, mode="approve")
    assert (ended.trace, len(ended.changes), ended.tickets) == ("1 2n 3y END", 1, 0)
    log, description = seen
    assert log == []
    assert "**Restart the Meta instance of these hosts, one after the other**" in str(description)
    assert "says 'Faulty'" in str(description)
    (asked,) = await questions(standing, ended.run)
    said = (asked.decision, asked.by, asked.comment, asked.kind, asked.starter, asked.n)
    assert said == ("approved", "Ada", "go ahead", "approve", "alarm", 1)


async def test_a_rejected_restart_is_a_ticket(standing: Stand, cell: Cell) -> None:
    """Rejected, nothing is changed, the run ends DECLINED, and there is one ticket."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await answer(await until_it_asks(standing, run), decision="reject", name="Ada", comment="not tonight")

    ended = await cell.run("crashed", seed=810, speed=SLOW, meanwhile=meanwhile, mode="approve")
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2n DECLINED", [], 1)


async def test_a_question_that_nobody_answers_is_a_ticket(standing: Stand, cell: Cell) -> None:
    """When the time is over the intake lets the run go on: nothing is changed, one ticket says that nobody answered."""
    ended = await cell.run("crashed", seed=820, speed=SLOW, mode="approve", approval_expires=60)
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2n REFUSED", [], 1)
    (asked,) = await questions(standing, ended.run)
    assert (asked.decision, asked.n) == ("expired", 1)


async def test_an_alarm_that_is_cleared_meanwhile_needs_no_answer(standing: Stand, cell: Cell) -> None:
    """Cleared while a person is asked, the run goes on by itself and ends CLEARED; nothing is changed."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await until_it_asks(standing, run)
        (cluster,) = region.clusters.values()
        region.clear_fault("crashed", cluster=cluster)

    ended = await cell.run("crashed", seed=830, speed=60, meanwhile=meanwhile, mode="approve", approval_expires=36000)
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2n CLEARED", [], 0)


async def test_a_waiting_question_can_be_cancelled(standing: Stand, cell: Cell) -> None:
    """Cancelled in the UI while a person is asked, the run is Cancelled, its episode over, and there is one ticket."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        asks = await until_it_asks(standing, run)
        await standing.client.set_flow_run_state(asks.id, Cancelling())
        await until_closed(standing, region)

    ended = await cell.run("crashed", seed=840, speed=SLOW, meanwhile=meanwhile, mode="approve")
    assert (ended.outcome, ended.changes, ended.tickets) == ("Cancelled", [], 1)


async def test_each_action_has_its_own_question(standing: Stand, cell: Cell) -> None:
    """A run that restarts and then binds asks for each; what was approved is not asked once more."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await answer(await until_it_asks(standing, run), decision="approve", name="Ada")

        async def asks_for_the_bind() -> bool:
            return [each.action for each in await questions(standing, str(run.id))] == ["restart", "rebind"]

        await until(asks_for_the_bind)
        await answer(await until_it_asks(standing, run), decision="approve", name="Ada")

    ended = await cell.run("wedged+unbound", seed=850, speed=60, meanwhile=meanwhile, mode="approve")
    asked = await questions(standing, ended.run)
    assert sorted((each.step, each.decision, each.n) for each in asked) == [("3", "approved", 1), ("6", "approved", 1)]
    assert (ended.trace, len(ended.changes)) == ("1 2n 3n 4 5n 6n 7 ESCALATE", 4)


async def test_a_decision_in_the_ledger_lets_the_run_go_on(standing: Stand, cell: Cell) -> None:
    """Approved elsewhere than by the form, also after the worker was killed, the run goes on within ten seconds."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await until_it_asks(standing, run)
        await cell.kill()
        async with standing.ledger.writing() as session:
            (asked,) = [each for each in await open_questions(session) if each.run == str(run.id)]
            assert await decide(session, asked, Decision("approved", "Ada", "by a key"), timing.wall())
            assert not await decide(session, asked, Decision("rejected", "Bob", "by a key"), timing.wall())

    ended = await cell.run("crashed", seed=860, speed=SLOW, meanwhile=meanwhile, mode="approve")
    assert (ended.trace, len(ended.changes), ended.tickets) == ("1 2n 3y END", 1, 0)
    (asked,) = await questions(standing, ended.run)
    assert (asked.decision, asked.by, asked.channel) == ("approved", "Ada", "by a key")


async def test_what_no_api_does_is_done_by_hand(standing: Stand, cell: Cell) -> None:
    """Where Manager publishes no routes a person is asked to restart; the run sees that it shows, and the clear."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        asks = await until_it_asks(standing, run)
        (cluster,) = region.clusters.values()
        region.clear_fault("crashed", cluster=cluster)  # as a person's restart does
        await answer(asks, answer="done", name="Ada", comment="restarted at the console")

    ended = await cell.run("crashed", seed=870, speed=SLOW, meanwhile=meanwhile, profile="documented")
    (asked,) = await questions(standing, ended.run)
    assert (asked.kind, asked.decision, asked.by) == ("by hand", "done", "Ada")
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2n 3y END", [], 0)


async def test_what_could_not_be_done_by_hand_is_a_ticket(standing: Stand, cell: Cell) -> None:
    """Answered with "could not", the run ends DECLINED with one ticket."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await answer(await until_it_asks(standing, run), answer="could not", name="Ada")

    ended = await cell.run("crashed", seed=880, speed=SLOW, meanwhile=meanwhile, profile="documented")
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2n DECLINED", [], 1)


async def test_what_was_not_done_by_hand_is_seen(standing: Stand, cell: Cell) -> None:
    """Answered with "done" although nothing shows, the run cannot tell, and files a ticket."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await answer(await until_it_asks(standing, run), answer="done", name="Ada")

    ended = await cell.run("crashed", seed=890, speed=SLOW, meanwhile=meanwhile, profile="documented")
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2n CANNOT-TELL", [], 1)
