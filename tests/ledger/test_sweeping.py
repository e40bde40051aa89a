"""Sweeps in the ledger: who is at one, which is held against which, and what the ledger knows of clusters."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import put
from tasks.ledger.episodes import LEASE, let_go, wait_begun
from tasks.ledger.fleet_tables import Sweep, Swept
from tasks.ledger.hearing import last_told
from tasks.ledger.knowledge import SETTLING, Told, told_of, waiting_for_a_run
from tasks.ledger.outbox import Filing, file
from tasks.ledger.receiving import intake_started, sync_clusters
from tasks.ledger.starting import give_up
from tasks.ledger.sweeping import (
    KEPT,
    begin_again,
    broken_off,
    end_sweep,
    let_sweep_go,
    names_swept,
    read,
    still_at_it,
    sweep_before,
    sweeps,
    sweeps_called,
    swept,
    take_sweep,
    unended,
    written,
)
from tasks.ledger.tables import Episode, Poll, SourceRow
from tasks.ledger.ticket_tables import ChangeRow
from tasks.models import Outcome
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND, Story, a_cluster, a_question, told

pytestmark = pytest.mark.anyio
ALPHA = {"alpha": ("id-of-alpha", "10.0.0.1")}
LATER = NOW + SETTLING + MINUTE


async def take(story: Story, id_: str = "s1", holder: str = "me", *selection: str) -> bool:
    """Whether a process that wants to be at a sweep is at it now."""
    async with story.ledger.writing() as session:
        return not await take_sweep(session, id_, selection, remediate=False, holder=holder, now=story.now)


async def known(story: Story) -> Told:
    """What the ledger knows of the cluster now."""
    async with story.ledger.reading() as session:
        return (await told_of(session, ALPHA, await last_told(session), story.now))["alpha"]


async def test_one_process_is_at_a_sweep(story: Story) -> None:
    """A sweep is its process's until that has been silent for a lease, or has left; then it is begun once more."""
    first, second = await take(story, holder="a"), await take(story, holder="b")
    story.later(LEASE - SECOND)
    async with story.ledger.writing() as session:
        alive = await still_at_it(session, "s1", "a", story.now)
    story.later(LEASE - SECOND)
    third = await take(story, holder="b")
    story.later(2 * SECOND)
    fourth = await take(story, holder="b")
    async with story.ledger.writing() as session:
        lost = await still_at_it(session, "s1", "a", story.now)
        await let_sweep_go(session, "s1", "b")
    fifth = await take(story, holder="c")
    assert [first, second, alive, third, fourth, lost, fifth] == [True, False, True, False, True, False, True]
    async with story.ledger.reading() as session:
        (row,) = await sweeps(session, 2)
    assert (row.holder, row.runs, row.started, row.alive) == ("c", 3, NOW, story.now)


async def test_a_sweep_that_nobody_is_at(story: Story) -> None:
    """A sweep is left to be gone on with while it has neither ended nor been broken off, and its process is silent."""

    async def left() -> list[str]:
        async with story.ledger.reading() as session:
            return [each.id for each in await unended(session, story.now)]

    for id_ in ("ended", "broken", "left"):
        await take(story, id_)
    alive = await left()
    story.later(LEASE + SECOND)
    async with story.ledger.writing() as session:
        await end_sweep(session, "ended", "all is well", story.now)
        await broken_off(session, "broken", "its run is gone")
    assert (alive, await left()) == ([], ["left"])
    async with story.ledger.reading() as session:
        found = {each.id: (each.summary, each.ended) for each in await sweeps(session, 9)}
    assert found == {"ended": ("all is well", story.now), "broken": ("its run is gone", None), "left": ("", None)}


async def test_what_is_held_against_what(story: Story) -> None:
    """A sweep is held against the last one before it that has ended and was about the same selection."""
    for id_, selection, ends in (
        ("older", ("a=1",), True),
        ("other", (), True),
        ("unended", ("a=1",), False),
        ("this", ("a=1",), True),
        ("later", ("a=1",), True),
    ):
        await take(story, id_, "me", *selection)
        story.later(HOUR)
        if ends:
            async with story.ledger.writing() as session:
                await end_sweep(session, id_, "ended", story.now)
    async with story.ledger.reading() as session:
        this = await session.get_one(Sweep, "this")
        before = await sweep_before(session, this)
        first = await sweep_before(session, await session.get_one(Sweep, "older"))
        called = [[each.id for each in await sweeps_called(session, beginning)] for beginning in ("o", "th", "%")]
    assert (before and before.id, first, called) == ("older", None, [["other", "older"], ["this"], []])


async def test_old_sweeps_are_forgotten(story: Story) -> None:
    """When a new sweep begins, those of three months ago go with all that they saw."""
    await take(story, "old")
    answers = written([("managed", "pass", "it has a block"), ("cloud", "cannot tell", "é|\n")])
    async with story.ledger.writing() as session:
        session.add(Swept(sweep_id="old", cluster="alpha", cluster_id="id", at=NOW, answers=answers))
    async with story.ledger.reading() as session:
        (row,), names = await swept(session, "old"), await names_swept(session, "old")
    assert (read(row.answers), names) == (
        {"managed": ("pass", "it has a block"), "cloud": ("cannot tell", "é|\n")},
        {"alpha"},
    )
    story.later(KEPT + SECOND)
    await take(story, "new")
    async with story.ledger.reading() as session:
        left = ([each.id for each in await sweeps(session, 9)], await swept(session, "old"))
    assert left == (["new"], [])


async def test_a_cluster_that_nothing_is_known_of(story: Story) -> None:
    """Of a cluster that the ledger has never heard of nothing is known."""
    assert await known(story) == Told(intake=False)


async def test_when_a_cluster_was_heard(story: Story) -> None:
    """Heard is the last of: an alarm that was told, its list that was read, its Manager's sign of life."""
    cluster = a_cluster()
    async with story.ledger.writing() as session:
        await intake_started(session, "i", story.now)
        await sync_clusters(session, [cluster], story.now)
    connected = await known(story)
    times = []
    await story.see(told("raised", "n1", "s1"))
    times.append((await known(story)).heard)
    async with story.ledger.writing() as session:
        await session.execute(update(Poll).values(answered=NOW + MINUTE, trouble="no answer"))
    times.append((await known(story)).heard)
    async with story.ledger.writing() as session:
        session.add(SourceRow(source="syslog", peer="10.0.0.1", heard=NOW + 2 * MINUTE))
        session.add(SourceRow(source="syslog", peer="10.0.0.2", heard=NOW + 3 * MINUTE))
    last = await known(story)
    assert connected == Told(connected=cluster.connected, intake=True)
    assert [*times, last.heard] == [NOW, NOW + MINUTE, NOW + 2 * MINUTE]
    assert (last.active, last.trouble) == ({"12110": ("n1",)}, "no answer")


async def test_what_a_sweep_finds_is_told_by_no_source(story: Story) -> None:
    """Neither an alarm that a sweep finds, nor one that it finds again, nor a person's word is heard from a source."""
    times = []
    for source in ("sweep", "command", "syslog", "sweep", "poll", "command"):
        await story.see(told("raised", "n1", "s1"), source=source)
        times.append((await known(story)).heard)
        story.later(MINUTE)
    assert times == [None, None, *[NOW + 2 * MINUTE] * 2, *[NOW + 4 * MINUTE] * 2]


async def test_what_follows_an_active_alarm(story: Story) -> None:
    """Of an active alarm the episode is known, also a closed one, and whether one waits for its run."""

    async def followed() -> tuple[object, object, set[str]]:
        async with story.ledger.reading() as session:
            waiting = await waiting_for_a_run(session, ["id-of-alpha", "id-of-beta"], "12110")
        facts = await known(story)
        return facts.episodes, facts.waiting, waiting

    nothing = await followed()
    await story.see(told("raised", "n1", "s1"))
    raised = await followed()
    episode = await story.episode()
    await story.hold()
    held = await followed()
    async with story.ledger.writing() as session:
        assert await give_up(session, (await session.scalars(select(Episode))).one(), Outcome.ESCALATE, story.now)
    closed = await followed()
    await story.see(told("cleared", "n1", "s1", cleared=story.now))
    mine = {"12110": (episode.id,)}
    assert [nothing, raised, held, closed, await followed()] == [
        ({}, frozenset(), set()),
        (mine, frozenset({"12110"}), {"id-of-alpha"}),
        (mine, frozenset(), set()),
        (mine, frozenset(), set()),
        ({}, frozenset(), set()),
    ]


async def test_stuck_episodes(story: Story) -> None:
    """An episode is stuck that for ten minutes waits for its run, has lost it, or should have been closed."""
    await story.see(told("raised", "n1", "s1"))
    episode = await story.episode()

    async def stuck(**values: object) -> list[str]:
        async with story.ledger.writing() as session:
            await session.execute(update(Episode).values(**{"cluster": "alpha", **values}))
        return [*(await known(story)).stuck]

    fresh = await stuck()
    story.now = LATER
    found = [
        await stuck(),
        await stuck(state="running", lease=NOW),
        await stuck(state="running", lease=LATER),
        await stuck(state="verifying", verify_until=NOW),
        await stuck(state="waiting"),
        await stuck(state="closed"),
    ]
    assert (fresh, found) == (
        [],
        [
            [f"episode {episode.id} waits for its run since 2026-11-25 12:00 UTC"],
            [f"episode {episode.id} has a run that gave no sign of life since 2026-11-25 12:00 UTC"],
            [],
            [f"episode {episode.id} should have been closed at 2026-11-25 12:00 UTC"],
            [],
            [],
        ],
    )


async def test_overdue_waits(story: Story) -> None:
    """A wait is overdue whose deadline has been over for ten minutes while its run still waits."""
    await story.see(told("raised", "n1", "s1"))
    holding = await story.hold()
    async with story.ledger.writing() as session:
        await wait_begun(session, holding, "3", NOW)
        await let_go(session, holding)
    fresh = (await known(story)).overdue
    story.now = LATER
    words = f"the wait at step 3 of episode {holding.episode} is over since 2026-11-25 12:00 UTC"
    assert (fresh, (await known(story)).overdue) == ((), (words,))


async def test_overdue_approvals(story: Story) -> None:
    """A question is overdue whose time has been over for ten minutes and that nobody decided, while its run holds."""
    await story.see(told("raised", "n1", "s1"))
    holding = await story.hold()
    async with story.ledger.writing() as session:
        question = a_question(holding, asked=NOW - HOUR, expires=NOW)
        await put(session, holding, question)
        await let_go(session, holding)
    fresh = (await known(story)).overdue
    story.now = LATER
    overdue = (await known(story)).overdue
    async with story.ledger.writing() as session:
        await session.execute(update(Approval).values(decision="expired"))
    words = f"the question at step 3 of episode {holding.episode} is undecided, its time is over since 2026-11-25 12:00"
    assert (fresh, overdue, (await known(story)).overdue) == ((), (f"{words} UTC",), ())


async def test_stale_tickets(story: Story) -> None:
    """A ticket is stale whose alarms were cleared ten minutes ago, or whose system has not taken that for so long."""
    await story.see(told("raised", "n1", "s1"))
    holding = await story.hold()
    async with story.ledger.writing() as session:
        about = Filing("alpha/1", "t", "text", cluster="alpha", alarm_id="12110", episode=holding.episode, hosts=["n1"])
        row = await file(session, about, story.now)
    active = (await known(story)).tickets
    story.later(SECOND)
    await story.see(told("cleared", "n1", "s1", cleared=story.now))
    just_now = (await known(story)).tickets
    story.now = LATER + MINUTE
    stale = (await known(story)).tickets
    async with story.ledger.writing() as session:
        await session.execute(update(type(row)).values(state="resolved", key="T-1"))
        session.add(ChangeRow(correlation="alpha/1", n=9, kind="resolve", text="", at=NOW, not_before=NOW))
    assert [active, just_now, stale, (await known(story)).tickets] == [
        (),
        (),
        ("ticket alpha/1 is open, its alarms are cleared",),
        ("ticket T-1 is resolved, and its system has not taken that",),
    ]


async def test_begin_again(story: Story) -> None:
    """What is at work is left alone; an alarm that a person has goes into a new episode; a backlog is one no more."""

    async def again() -> str:
        async with story.ledger.writing() as session:
            return await begin_again(session, a_cluster(), "12110", story.now)

    await story.see(told("raised", "n1", "s1", occurred=NOW - 3 * HOUR, sent=NOW))
    first = await story.episode()
    assert (first.backlog, await again(), (await story.episode()).backlog) == (
        "the alarm was 3.0 hours old when it was first seen",
        first.id,
        "",
    )
    holding = await story.hold()
    assert (await again(), await story.states()) == (first.id, [("running", 1)])
    async with story.ledger.writing() as session:
        row = (await session.scalars(select(Episode))).one()
        assert await give_up(session, row, Outcome.ESCALATE, story.now)
    story.later(timedelta(hours=1))
    second = await again()
    assert (second != holding.episode, await story.states()) == (True, [("closed", 1), ("raised", 1)])
    assert await story.alarms() == [("n1", "s1", True, "")]
    assert list((await story.hold("run-2", episode=second)).hosts) == ["n1"]
