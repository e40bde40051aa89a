"""Answers that come late, for later, by hand or to nobody: what a run that asks a person makes of each."""

import signal
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.input.actions import read_flow_run_input

from deployments.emulator.region import Region
from tasks import timing
from tasks.forms import AFTER_A_BIND, BY_HAND
from tasks.ledger.answering import Asked, keep_answers
from tasks.ledger.braking import brake
from tests.crash.stand import Cell, Stand, until
from tests.crash.test_approvals import answer, questions, until_it_asks
from tests.crash.test_waiting import until_it_waits
from tests.tasks.listening import webhook

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("crash"), pytest.mark.timeout(600)]

NEVER = 36_000.0  # seconds of a cluster's time until its questions expire
HOSTS = "Manager GET clusters/{cluster}/hosts"


async def log_of(stand: Stand, run: str) -> list[str]:
    """What the run has said."""
    found = await stand.client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run)])))
    return [log.message for log in found]


async def asked_by(stand: Stand, asks: FlowRun) -> str:
    """The question as its form shows it, without what markdown needs."""
    assert asks.state is not None
    keyset = asks.state.state_details.run_input_keyset or {}
    return str(await read_flow_run_input(keyset["description"], flow_run_id=asks.id)).replace("\\", "")


async def until_it_ends(stand: Stand, run: FlowRun) -> None:
    """Return as soon as the run is over."""

    async def is_over() -> bool:
        found = await stand.client.read_flow_run(run.id)
        return found.state is not None and found.state.is_final()

    await until(is_over)


@pytest.mark.parametrize(
    ("seed", "settings"),
    [
        (900, {"on_unbound": "escalate"}),
        (901, {"agency": ""}),
        (902, {"agency": "no-such-agency"}),
        (903, {"on_unbound": "escalate", "profile": "documented"}),
    ],
)
async def test_nobody_is_asked_for_a_bind_that_cannot_be(
    standing: Stand, cell: Cell, seed: int, settings: dict[str, Any]
) -> None:
    """Where the block does not say rebind, or its agency is not usable, the run asks nobody and files one ticket."""
    ended = await cell.run("unbound", seed=seed, mode="approve", approval_expires=NEVER, **settings)
    assert (ended.outcome, ended.trace) == ("REFUSED", "1 2y 4 5n REFUSED")
    assert (ended.changes, ended.tickets, await questions(standing, ended.run)) == ([], 1, [])


async def test_an_approved_change_waits_until_its_time(standing: Stand, cell: Cell) -> None:
    """Approved for later, a time without an offset being UTC, the run is a row until then, and then restarts."""
    then: list[datetime] = []

    async def meanwhile(run: FlowRun, region: Region) -> None:
        asks = await until_it_asks(standing, run)
        then.append(timing.wall().replace(microsecond=0) + timedelta(seconds=20))
        await answer(asks, decision="approve", name="Ada", not_before=f"{then[0]:%Y-%m-%dT%H:%M:%S}")
        waiting = await until_it_waits(standing, run)
        assert (waiting.next_scheduled_start_time, region.log) == (then[0], [])

        async def has_restarted() -> bool:
            return bool(region.log)

        await until(has_restarted)
        assert timing.wall() >= then[0]

    ended = await cell.run("crashed", seed=910, meanwhile=meanwhile, mode="approve", approval_expires=NEVER)
    assert (ended.trace, len(ended.changes), ended.tickets) == ("1 2n 3y END", 1, 0)
    (asked,) = await questions(standing, ended.run)
    assert (asked.decision, asked.not_before) == ("approved", then[0])
    said = f"restart approved by Ada ({asked.channel}), not before {then[0]:%Y-%m-%d %H:%M:%S} UTC"
    assert any(line.endswith(said) for line in await log_of(standing, ended.run))


async def test_a_clear_ends_the_wait_for_an_approved_time(standing: Stand, cell: Cell) -> None:
    """Approved for in an hour and cleared meanwhile, the run is woken and ends CLEARED; nothing is changed."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        asks = await until_it_asks(standing, run)
        then = timing.wall() + timedelta(hours=1)
        await answer(asks, decision="approve", name="Ada", not_before=then.isoformat())
        await until_it_waits(standing, run)
        (cluster,) = region.clusters.values()
        region.clear_fault("crashed", cluster=cluster)

    ended = await cell.run("crashed", seed=920, meanwhile=meanwhile, mode="approve", approval_expires=NEVER)
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2n CLEARED", [], 0)


async def test_a_time_too_far_ahead_is_asked_once_more(standing: Stand, cell: Cell) -> None:
    """Approved for in more than seven days, nothing is decided: the form is there again and says why."""
    seen: list[str] = []

    async def meanwhile(run: FlowRun, region: Region) -> None:
        asks = await until_it_asks(standing, run)
        await answer(asks, decision="approve", name="Ada", not_before="2999-01-01T00:00:00Z")
        asks = await until_it_asks(standing, run, 2)
        seen.extend(
            [await asked_by(standing, asks), *(each.decision for each in await questions(standing, str(run.id)))]
        )
        await answer(asks, decision="approve", name="Ada")

    ended = await cell.run("crashed", seed=930, meanwhile=meanwhile, mode="approve", approval_expires=NEVER)
    assert (ended.trace, len(ended.changes), ended.tickets) == ("1 2n 3y END", 1, 0)
    question, decision = seen
    assert "the answer was not taken (not_before: Value error, 2999-01-01 00:00 UTC is more than 7 days ahead)" in (
        question
    )
    assert decision == ""


async def test_an_approval_after_the_clear_changes_nothing(standing: Stand, cell: Cell) -> None:
    """The alarm is cleared, no intake is there to tell the run, and then it is approved: CLEARED, and no change."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        asks = await until_it_asks(standing, run)
        (cluster,) = region.clusters.values()
        alarms = [alarm for alarm in cluster.alarms if alarm.alarm_id == "12110"]

        async def is_cleared() -> bool:
            return all(alarm.status == "Auto" for alarm in alarms)

        intake = standing.processes["intake"]
        intake.signal(signal.SIGSTOP)
        try:
            region.clear_fault("crashed", cluster=cluster)
            await until(is_cleared)
            await answer(asks, decision="approve", name="Ada")
            await until_it_ends(standing, run)
        finally:
            intake.signal(signal.SIGCONT)

    ended = await cell.run("crashed", seed=940, meanwhile=meanwhile, mode="approve", approval_expires=NEVER)
    assert (ended.outcome, ended.trace, ended.changes, ended.tickets) == ("CLEARED", "1 2n CLEARED", [], 0)
    assert [each.decision for each in await questions(standing, ended.run)] == ["approved"]


async def test_a_brake_holds_after_the_approval(standing: Stand, cell: Cell) -> None:
    """Stopped between the question and the approval, the run is REFUSED with one ticket, and nothing is changed."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        asks = await until_it_asks(standing, run)
        (cluster,) = region.clusters.values()
        async with standing.ledger.writing() as session:
            await brake(session, cluster.name, "a change night", "Bob", timing.wall())
        await answer(asks, decision="approve", name="Ada")

    ended = await cell.run("crashed", seed=950, meanwhile=meanwhile, mode="approve", approval_expires=NEVER)
    assert (ended.outcome, ended.trace, ended.changes, ended.tickets) == ("REFUSED", "1 2n REFUSED", [], 1)
    assert [each.decision for each in await questions(standing, ended.run)] == ["approved"]


async def test_a_bind_by_hand_is_seen(standing: Stand, cell: Cell) -> None:
    """Where no API tells of the alarm a person is asked to bind; the run sees that it shows, and the clear."""
    seen: list[str] = []

    async def meanwhile(run: FlowRun, region: Region) -> None:
        asks = await until_it_asks(standing, run)
        seen.append(await asked_by(standing, asks))
        (cluster,) = region.clusters.values()
        region.clear_fault("unbound", cluster=cluster)  # as a person's bind does
        await answer(asks, answer="done", name="Ada")

    ended = await cell.run("unbound", seed=960, speed=30, meanwhile=meanwhile, profile="documented")
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2y 4 5n 6y END", [], 0)
    (asked,) = await questions(standing, ended.run)
    assert (asked.action, asked.kind, asked.decision) == ("rebind", "by hand", "done")
    assert (BY_HAND["rebind"] in seen[0], seen[0].count(AFTER_A_BIND)) == (True, 1)


async def test_a_bind_that_nobody_could_make_is_a_ticket(standing: Stand, cell: Cell) -> None:
    """Answered with "could not", the run ends DECLINED with one ticket."""

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await answer(await until_it_asks(standing, run), answer="could not", name="Ada")

    ended = await cell.run("unbound", seed=970, meanwhile=meanwhile, profile="documented", approval_expires=NEVER)
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2y 4 5n DECLINED", [], 1)


async def test_a_route_that_never_answered_is_a_form(standing: Stand, cell: Cell) -> None:
    """Where the doctor never got an answer the run does not try: it asks a person to do it by hand, and says why."""
    async with standing.ledger.writing() as session:
        never = Asked("hosts", HOSTS, "ASSUMED", False, "HTTP 404: no")
        await keep_answers(session, f"{cell.name}-980", [never], timing.wall())

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await answer(await until_it_asks(standing, run), answer="could not", name="Ada")

    ended = await cell.run("crashed", seed=980, meanwhile=meanwhile, approval_expires=NEVER)
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2n DECLINED", [], 1)
    (asked,) = await questions(standing, ended.run)
    assert (asked.kind, asked.decision) == ("by hand", "could not")
    assert "and has never answered (HTTP 404: no)" in asked.why


async def test_people_are_told_and_trouble_with_that_hinders_nothing(standing: Stand, cell: Cell) -> None:
    """One webhook is not there, another is told the question with the run's link; the run asks all the same."""
    text = {"subject": "{{subject}}", "text": "{{body}}"}

    async def meanwhile(run: FlowRun, region: Region) -> None:
        await answer(await until_it_asks(standing, run), decision="reject", name="Ada")

    with webhook() as hook:
        await CustomWebhookNotificationBlock(name="on-call", url=hook.url, json_data=text).save("on-call")
        told = ["custom-webhook/nobody", "custom-webhook/on-call"]
        ended = await cell.run(
            "crashed", seed=990, meanwhile=meanwhile, mode="approve", approval_expires=NEVER, notifications=told
        )
    assert (ended.trace, ended.changes, ended.tickets) == ("1 2n DECLINED", [], 1)
    (heard,) = hook.heard
    assert heard["subject"] == f"Restart the Meta instance of these hosts, one after the other? {cell.name}-990"
    question, link = heard["text"].rsplit("\n\n", 1)
    assert question.startswith("**Restart the Meta instance of these hosts, one after the other**")
    assert link.startswith("http://127.0.0.1:")
    assert ended.run in link
    said = (standing.home / f"{cell.name}.log").read_text()
    assert "notification 'custom-webhook/nobody' cannot be loaded (ValueError)" in said
    assert "is of no use on another machine: set PREFECT_UI_URL of the workers" in said
