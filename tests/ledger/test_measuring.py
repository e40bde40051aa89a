"""What the ledger tells of how alarms are handled: times by their definitions, outcomes, refusals, what is open."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import Question, put
from tasks.ledger.episodes import Holding, let_go, wait_begun, wait_ended
from tasks.ledger.evidence_tables import EvidenceRow
from tasks.ledger.keeping import Line, keep
from tasks.ledger.measuring import OpenNow, made_by, measure, measured, open_now, to_measure
from tasks.ledger.tables import Intent, Poll
from tasks.models import Outcome
from tasks.record import WHOLE_CLUSTER
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND, Story, a_cluster, part, told

pytestmark = pytest.mark.anyio

VERIFIED = 25 * MINUTE
Row = tuple[str, float | None, float | None, float | None, float | None, str]


async def went(story: Story) -> list[Row]:
    """How every episode went that was closed so far: the outcome, seconds to detect, act, verify, recover, refusals."""
    async with story.ledger.writing() as session:
        await measure(session, await to_measure(session, None))
    async with story.ledger.reading() as session:
        rows = await measured(session, 0, 10)
    return [(row.outcome, row.detect, row.act, row.verify, row.recover, row.refused) for row in rows]


async def changes(story: Story, holding: Holding, step: str, takes: timedelta) -> None:
    """The run changes something, which is seen to its end, and then waits for the clear."""
    async with story.ledger.writing() as session:
        session.add(
            Intent(
                attempt=holding.attempt,
                step=step,
                target="node-1",
                episode_id=holding.episode,
                cluster_id="id-of-alpha",
                at=story.now,
                ended=story.now + takes,
            )
        )
        await wait_begun(session, holding, step, story.now + takes + 10 * MINUTE)


async def waited(story: Story, holding: Holding, step: str) -> None:
    """Its wait is over."""
    async with story.ledger.writing() as session:
        await wait_ended(session, holding, step, story.now)


async def closes(story: Story) -> None:
    """The time in which a relapse may come goes by."""
    story.later(VERIFIED)
    assert len(await story.close_verified()) == 1


async def knows(story: Story, *, skew: float | None = None, speed: float = 1) -> None:
    """The ledger knows the cluster, and how far its Manager's clock is ahead."""
    async with story.ledger.writing() as session:
        session.add_all([a_cluster(speed=speed), Poll(cluster="alpha", due=NOW, skew=skew)])


async def repaired(story: Story, *, cleared_after: timedelta | None = 14 * MINUTE) -> None:
    """An alarm of 20 s ago; after 2 min a restart of 3 min; after 12 min in all it is cleared, and the run ends."""
    occurred = NOW - 20 * SECOND
    await story.see(told("raised", serial="7", occurred=occurred))
    story.later(10 * SECOND)
    holding = await story.hold()
    story.later(110 * SECOND)
    await changes(story, holding, "3", 3 * MINUTE)
    story.later(10 * MINUTE)
    cleared = occurred + cleared_after if cleared_after else None
    await story.see(told("cleared", serial="7", occurred=occurred, cleared=cleared))
    await waited(story, holding, "3")
    await story.end(holding, part("node-1", Outcome.END, "7", occurred, "1 2n 3y END"))
    await closes(story)


async def test_a_repair_is_measured(story: Story) -> None:
    """Each time is what its definition says, whoever asks and however often."""
    await repaired(story)
    assert await went(story) == [("END", 20.0, 120.0, 420.0, 840.0, "")] == await went(story)


async def test_a_manager_s_clock_is_not_ours(story: Story) -> None:
    """What Manager's clock is ahead counts in no time that begins there and ends here."""
    await knows(story, skew=15.0)
    await repaired(story, cleared_after=None)
    recover = (12 * MINUTE + 20 * SECOND + 15 * SECOND).total_seconds()
    assert await went(story) == [("END", 35.0, 120.0, 420.0, recover, "")]


async def test_an_emulator_s_clock_is_no_measure(story: Story) -> None:
    """Where the cluster's time runs faster nothing is measured from there to here; its own times are."""
    await knows(story, speed=60)
    await repaired(story)
    assert await went(story) == [("END", None, 120.0, 420.0, 840.0, "")]


async def test_a_backlog_has_no_times(story: Story) -> None:
    """An alarm that was hours old when it was first seen counts by its outcome only."""
    await story.see(told("raised", serial="7", occurred=NOW - 3 * HOUR))
    await story.end(await story.hold(), outcome=Outcome.CANCELLED)
    assert await went(story) == [("CANCELLED", None, None, None, None, "")]


async def test_an_alarm_that_stays_has_not_recovered(story: Story) -> None:
    """While one alarm of the episode is active there is no time to recover; nothing was changed, so none to act."""
    both = [told("raised", host, serial, NOW - 5 * SECOND) for host, serial in (("node-1", "7"), ("node-2", "8"))]
    await story.see(*both)
    holding = await story.hold()
    story.later(MINUTE)
    await story.see(told("cleared", "node-1", "7", NOW - 5 * SECOND))
    ended = part("node-1", Outcome.CLEARED, "7"), part("node-2", Outcome.ESCALATE, "8")
    await story.end(holding, *ended, outcome=Outcome.ESCALATE)
    await closes(story)
    assert await went(story) == [("ESCALATE", 5.0, None, None, None, "")]


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ([("node-1", "did", "not restarted: the breaker has tripped (why)")], "breaker"),
        ([(WHOLE_CLUSTER, "did", "not bound: IAM has no agency 'A'")], "agency"),
        ([("node-2", "did", "not restarted: the breaker has tripped (why)")], "other"),
        (
            [
                ("node-1", "did", "not restarted: Manager does not know host node-1"),
                (WHOLE_CLUSTER, "did", "every node is bound and MRS reports no update in progress"),
                ("node-1", "ended", "JOINED: the page has ended for this alarm before (REFUSED): see its ticket"),
            ],
            "identity",
        ),
        ([], "other"),
    ],
)
async def test_refusals_are_told_apart(story: Story, said: Sequence[tuple[str, str, str]], word: str) -> None:
    """For each host for which the page ended REFUSED the last refusal of its record counts, by its word."""
    await story.see(told("raised", serial="7", occurred=NOW))
    holding = await story.hold()
    async with story.ledger.writing() as session:
        lines = [Line(NOW, "3", host, kind, text) for host, kind, text in said]
        await keep(session, holding, lines, NOW)
    await story.end(holding, part("node-1", Outcome.REFUSED, "7", NOW), outcome=Outcome.REFUSED)
    await closes(story)
    assert await went(story) == [("REFUSED", 0.0, None, None, None, word)]


async def test_each_episode_is_measured_once(story: Story) -> None:
    """What two intakes set out to measure is measured by the first; what was learned since changes nothing."""
    await repaired(story)
    async with story.ledger.reading() as session:
        todo = await to_measure(session, story.now - SECOND)
        assert (len(todo), await to_measure(session, story.now)) == (1, [])
    first = await went(story)
    await knows(story, skew=99.0)
    async with story.ledger.writing() as session:
        await measure(session, todo)
    async with story.ledger.reading() as session:
        assert await to_measure(session, None) == []
        (row,) = await measured(session, 0, 10)
        assert await measured(session, row.id, 10) == []
    assert await went(story) == first


async def test_what_is_open(story: Story) -> None:
    """An episode is open with its state until it is closed, a wait until it has ended, overdue from a minute on."""

    async def seen() -> OpenNow:
        async with story.ledger.reading() as session:
            return await open_now(session, story.now)

    place = ("alpha", "12110")
    await story.see(told("raised", serial="7", occurred=NOW))
    assert await seen() == OpenNow({(*place, "raised"): 1}, {}, {}, {}, {})
    holding = await story.hold()
    await changes(story, holding, "3", SECOND)
    assert await seen() == OpenNow({(*place, "running"): 1}, {}, {}, {}, {})
    async with story.ledger.writing() as session:
        assert await let_go(session, holding) is False
    assert await seen() == OpenNow({(*place, "waiting"): 1}, {place: 1}, {place: 0}, {}, {})
    story.later(11 * MINUTE + 2 * SECOND)
    assert await seen() == OpenNow({(*place, "waiting"): 1}, {place: 1}, {place: 1}, {}, {})
    holding = await story.hold()
    await waited(story, holding, "3")
    await story.end(holding, part("node-1", Outcome.ESCALATE, "7", NOW), outcome=Outcome.ESCALATE)
    assert await seen() == OpenNow({(*place, "verifying"): 1}, {}, {}, {}, {})
    await closes(story)
    assert await seen() == OpenNow({}, {}, {}, {}, {})


async def asks(story: Story, holding: Holding, kind: Question, decision: str = "") -> None:
    """The run asks a person about a restart, for an hour, and this is decided; empty: nothing yet."""
    about: dict[str, Any] = {"episode_id": holding.episode, "run": "run-1", "link": "", "cluster": "alpha"}
    about |= {"action": "restart", "targets": "node-1", "why": "", "asked": story.now}
    async with story.ledger.writing() as session:
        asked = Approval(attempt=holding.attempt, step="3", kind=kind, expires=story.now + HOUR, **about)
        await put(session, holding, asked)
        asked.decision = decision


@pytest.mark.parametrize(
    ("changed", "said", "by"),
    [
        (False, [], "nobody"),
        (True, [], "auto"),
        (True, [("approve", "approved")], "approved"),
        (False, [("approve", "approved")], "nobody"),
        (False, [("approve", "rejected")], "nobody"),
        (False, [("by hand", "done")], "hand"),
        (False, [("by hand", "could not")], "nobody"),
        (True, [("approve", "approved"), ("by hand", "done")], "hand"),
    ],
)
async def test_who_made_the_changes(story: Story, changed: bool, said: Sequence[tuple[Question, str]], by: str) -> None:
    """A person by hand, the program after a person's approval, the program by itself, or nobody, by the ledger."""
    await story.see(told("raised", serial="7", occurred=NOW))
    holding = await story.hold()
    if changed:
        await changes(story, holding, "3", MINUTE)
    for kind, decision in said:
        await asks(story, holding, kind, decision)
    async with story.ledger.reading() as session:
        assert await made_by(session, [holding.episode, "another"]) == {holding.episode: by, "another": "nobody"}


async def test_what_persons_are_asked_is_open_until_it_is_decided(story: Story) -> None:
    """A question is open until somebody answers, overdue a minute after its time, and over with its episode."""
    place = ("alpha", "12110")

    async def seen() -> tuple[Mapping[tuple[str, ...], int], Mapping[tuple[str, ...], int]]:
        async with story.ledger.reading() as session:
            found = await open_now(session, story.now)
            return found.questions, found.expired

    await story.see(told("raised", serial="7", occurred=NOW))
    holding = await story.hold()
    assert await seen() == ({}, {})
    await asks(story, holding, "approve")
    assert await seen() == ({place: 1}, {place: 0})
    story.later(HOUR + MINUTE + SECOND)
    assert await seen() == ({place: 1}, {place: 1})
    await asks(story, holding, "by hand", "done")
    assert await seen() == ({place: 1}, {place: 1})
    await story.end(holding, part("node-1", Outcome.REFUSED, "7", NOW), outcome=Outcome.REFUSED)
    assert await seen() == ({}, {})


def test_the_record_calls_the_cluster_so() -> None:
    """The line that is about the whole cluster is found by the name that records in the ledger have for it."""
    assert (WHOLE_CLUSTER, EvidenceRow.__tablename__) == ("(the cluster)", "evidence")
