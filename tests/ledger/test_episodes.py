"""Who acts: one run at a time, by a lease and under a fence, until every alarm has come to an end."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, update

from tasks.ledger.episodes import (
    LEASE,
    VERIFYING,
    Held,
    Holding,
    begin_change,
    episode_of_run,
    let_go,
    renew,
    wait_begun,
    wait_ended,
)
from tasks.ledger.starting import started
from tasks.ledger.tables import Episode, Wait
from tasks.models import Outcome
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND, Story, part, told

pytestmark = pytest.mark.anyio


async def _raise(story: Story, *hosts: str) -> str:
    """Alarms of these hosts; the serial number is the host's name. Returns the episode."""
    seen = await story.see(*(told("raised", host, host, story.now) for host in hosts or ("node-1",)))
    return seen[0].episode


async def _may(story: Story, holding: Holding) -> tuple[bool, bool]:
    """Whether the holder may go on, and begin a change."""
    async with story.ledger.writing() as session:
        return await renew(session, holding, story.now), await begin_change(session, holding, story.now)


async def _let_go(story: Story, holding: Holding) -> bool | None:
    """The holder is a row from now on."""
    async with story.ledger.writing() as session:
        return await let_go(session, holding)


async def test_a_dispatched_run_gets_its_episode(story: Story) -> None:
    """The run that an episode was started for gets it, with its alarmed hosts, and holds it by a lease."""
    episode = await _raise(story, "node-2", "node-1")
    async with story.ledger.writing() as session:
        assert await started(session, episode, 1, "run-1")
    assert await story.take(episode=episode) == Holding(episode, 1, ["node-1", "node-2"], {}, [])
    row = await story.episode()
    assert (row.state, row.holder, row.link, row.lease, row.claimed, row.n, row.runs) == (
        "running",
        "run-1",
        "https://prefect/run-1",
        NOW + LEASE,
        NOW,
        1,
        1,
    )


async def test_a_person_opens_an_episode(story: Story) -> None:
    """A person's run on a quiet cluster opens an episode of its own, which is this run's already."""
    holding = await story.hold(automated=False)
    row = await story.episode()
    assert holding == Holding(row.id, 1, [])
    assert (row.state, row.opened_by, row.run, row.n, row.runs, row.cluster, row.alarm_id, row.backlog) == (
        "running",
        "run",
        "run-1",
        1,
        1,
        "alpha",
        "12110",
        "",
    )


@pytest.mark.parametrize("automated", [True, False])
async def test_a_second_run_is_told_who_has_it(story: Story, automated: bool) -> None:
    """A second run, whoever started it, gets the link to the run that holds the episode, and changes nothing of it."""
    episode = await _raise(story)
    holding = await story.hold()
    assert await story.take("run-2", automated=automated) == Held(episode, "https://prefect/run-1")
    assert await _may(story, holding) == (True, True)
    assert (await story.episode()).token == 1


async def test_a_lease_that_ended_gives_the_episode_away(story: Story) -> None:
    """When its lease has ended the next run gets the episode, and the old holder may not do anything any more."""
    await _raise(story)
    old = await story.hold()
    story.later(LEASE - SECOND)
    assert isinstance(await story.take("run-2"), Held)
    story.later(SECOND)
    new = await story.hold("run-2")
    assert (old.token, new.token) == (1, 2)
    assert await _may(story, old) == (False, False)
    assert await story.end(old, part("node-1", Outcome.END, "node-1")) == ""
    assert await story.alarms() == [("node-1", "node-1", True, "")]
    assert await _may(story, new) == (True, True)


async def test_a_renewed_lease_holds(story: Story) -> None:
    """A holder that renews its lease keeps the episode for another whole lease."""
    await _raise(story)
    holding = await story.hold()
    story.later(LEASE - SECOND)
    async with story.ledger.writing() as session:
        assert await renew(session, holding, story.now)
    story.later(LEASE - SECOND)
    assert isinstance(await story.take("run-2"), Held)
    assert not (await story.episode()).acted


async def test_a_run_that_is_at_work_elsewhere_is_told_so(story: Story) -> None:
    """A run that asks again while its lease holds is told that it is at work itself, and the one at work goes on."""
    await _raise(story)
    first = await story.hold()
    story.later(LEASE - SECOND)
    held = await story.take()
    assert held == Held(first.episode, "https://prefect/run-1", own=True)
    assert await _may(story, first) == (True, True)


async def test_the_same_run_comes_back(story: Story) -> None:
    """A run whose process died gets its episode again as the same attempt, and what it held before is void."""
    await _raise(story)
    first = await story.hold()
    story.later(LEASE)
    again = await story.hold()
    assert (first.episode, again.token, again.attempt) == (again.episode, 2, first.attempt)
    assert await _may(story, first) == (False, False)
    assert (await story.episode()).claimed == NOW


async def test_a_run_that_waits_is_a_row(story: Story) -> None:
    """A run that waits keeps its episode without a lease, and comes back as the same attempt however late."""
    episode = await _raise(story)
    first = await story.hold()
    assert await _let_go(story, first) is False
    row = await story.episode()
    assert (row.state, row.holder, row.link, row.lease, row.claimed, row.token) == (
        "waiting",
        "run-1",
        "https://prefect/run-1",
        None,
        NOW,
        1,
    )
    story.later(100 * HOUR)
    again = await story.hold()
    row = await story.episode()
    assert (again, again.attempt) == (Holding(episode, 2, ["node-1"], {}, []), first.attempt)
    assert (row.state, row.holder, row.lease, row.claimed) == ("running", "run-1", NOW + 100 * HOUR + LEASE, NOW)
    assert await _may(story, first) == (False, False)
    assert await _may(story, again) == (True, True)


@pytest.mark.parametrize("automated", [True, False])
async def test_who_waits_is_not_overtaken(story: Story, automated: bool) -> None:
    """While a run waits no other one gets its episode, a person's neither, and each is told which waits."""
    episode = await _raise(story)
    holding = await story.hold()
    await _let_go(story, holding)
    story.later(100 * HOUR)
    assert await story.take("run-2", automated=automated) == Held(episode, "https://prefect/run-1")
    assert ((await story.episode()).state, (await story.episode()).token) == ("waiting", 1)


async def test_a_clear_that_came_before_the_wait_is_told(story: Story) -> None:
    """A run that is about to wait learns that an alarm was cleared while it worked, and once back that is no news."""
    await _raise(story)
    holding = await story.hold()
    await story.see(told("cleared", serial="node-1"))
    assert await _let_go(story, holding) is True
    again = await story.hold()
    assert await _let_go(story, again) is False


async def test_who_holds_nothing_lets_go_of_nothing(story: Story) -> None:
    """A run whose episode is another's, or is a row already, makes no row of it."""
    await _raise(story)
    old = await story.hold()
    story.later(LEASE)
    new = await story.hold("run-2")
    assert await _let_go(story, old) is None
    assert ((await story.episode()).state, (await story.episode()).holder) == ("running", "run-2")
    assert [await _let_go(story, new), await _let_go(story, new)] == [False, None]


async def test_what_waits_can_be_settled(story: Story) -> None:
    """A run that is cancelled while it waits ends its episode by what it holds."""
    await _raise(story)
    holding = await story.hold()
    await _let_go(story, holding)
    assert await story.end(holding, outcome=Outcome.CANCELLED) == "closed"
    assert await story.alarms() == [("node-1", "node-1", True, "CANCELLED")]


async def test_each_time_it_is_taken_is_an_attempt(story: Story) -> None:
    """A run is another attempt after another run had its episode, and so is each run of a later number."""
    await _raise(story)
    attempts = [(await story.hold()).attempt]
    for run in ("run-2", "run-1"):
        story.later(LEASE)
        attempts.append((await story.hold(run)).attempt)
    assert attempts == ["run-1@20261125T120000.000000", "run-2@20261125T120030.000000", "run-1@20261125T120100.000000"]


async def test_a_deadline_is_fixed_once(story: Story) -> None:
    """The first who waits at a step fixes its deadline for the attempt; another step or attempt has its own."""
    await _raise(story)
    first = await story.hold()

    async def deadline(holding: Holding, step: str, asked: datetime) -> datetime:
        async with story.ledger.writing() as session:
            return await wait_begun(session, holding, step, asked)

    assert await deadline(first, "3", NOW + MINUTE) == NOW + MINUTE
    story.later(LEASE)
    again = await story.hold()
    assert [await deadline(again, "3", NOW + HOUR), await deadline(again, "6", NOW + HOUR)] == [
        NOW + MINUTE,
        NOW + HOUR,
    ]
    story.later(LEASE)
    other = await story.hold("run-2")
    assert await deadline(other, "3", NOW + 2 * HOUR) == NOW + 2 * HOUR


async def test_a_wait_ends_once(story: Story) -> None:
    """When a wait has ended is written down the first time, for that attempt and step only."""
    episode = await _raise(story)
    holding = await story.hold()
    async with story.ledger.writing() as session:
        for step in ("3", "6"):
            await wait_begun(session, holding, step, NOW + HOUR)
    for _ in range(2):
        story.later(MINUTE)
        async with story.ledger.writing() as session:
            await wait_ended(session, holding, "3", story.now)
    async with story.ledger.reading() as session:
        waits = (await session.scalars(select(Wait).order_by(Wait.step))).all()
    assert [(each.attempt, each.step, each.episode_id, each.deadline, each.ended) for each in waits] == [
        (holding.attempt, "3", episode, NOW + HOUR, NOW + MINUTE),
        (holding.attempt, "6", episode, NOW + HOUR, None),
    ]


async def test_a_change_is_noted_before_it_is_made(story: Story) -> None:
    """That a run is about to change something is written down, and outlives its lease until a run is settled."""
    await _raise(story)
    holding = await story.hold()
    async with story.ledger.writing() as session:
        assert await begin_change(session, holding, story.now)
    story.later(HOUR)
    other = await story.hold("run-2")
    assert (await story.episode()).acted
    await story.end(other, part("node-1", Outcome.END, "node-1"))
    assert not (await story.episode()).acted


async def test_what_is_verified_is_not_begun_by_itself(story: Story) -> None:
    """An automated run does not get an episode that is being verified, a person does, at any time."""
    episode = await _raise(story)
    await story.end(await story.hold(), part("node-1", Outcome.END, "node-1"))
    assert await story.take("run-2") == Held(episode, "https://prefect/run-1")
    person = await story.hold("run-3", automated=False)
    row = await story.episode()
    assert (person.episode, row.state, row.verify_until) == (episode, "running", None)


async def test_a_person_ends_the_backlog(story: Story) -> None:
    """An old alarm is only looked at by an automated run, until a person takes the episode."""
    await story.see(told("raised", occurred=NOW - 3 * HOUR))
    await story.hold()
    assert (await story.episode()).backlog == "the alarm was 3.0 hours old when it was first seen"
    story.later(MINUTE)
    await story.hold("run-2", automated=False)
    assert (await story.episode()).backlog == ""


async def test_an_episode_that_is_over_is_not_given(story: Story) -> None:
    """A run that was started for an episode that has ended gets none, neither that one nor another."""
    episode = await _raise(story)
    await story.end(await story.hold(), part("node-1", Outcome.END, "node-1"))
    story.later(VERIFYING)
    assert await story.take("run-2", episode=episode) == Held(episode, "https://prefect/run-1")
    assert await story.states() == [("closed", 1)]
    other = await _raise(story, "node-2")
    assert await story.take("run-2", episode=episode) == Held(episode, "https://prefect/run-1")
    assert (await story.take("run-3", episode=other)) == Holding(other, 1, ["node-2"], {}, [])


async def test_whose_episode_nobody_had(story: Story) -> None:
    """Of an episode that ended without any run a late run is told how it ended."""
    episode = await _raise(story)
    async with story.ledger.writing() as session:
        await session.execute(update(Episode).values(state="closed", outcome="CANCELLED"))
    held = await story.take(episode=episode)
    assert held == Held(episode, f"nobody any more: episode {episode} has ended (CANCELLED)")


async def test_after_the_verification_a_person_opens_another(story: Story) -> None:
    """When the verification is over a person's run closes the episode and gets a new one."""
    await _raise(story)
    await story.end(await story.hold(), part("node-1", Outcome.END, "node-1"))
    story.later(VERIFYING)
    await story.hold("run-2", automated=False)
    assert await story.states() == [("closed", 1), ("running", 1)]


@pytest.mark.parametrize(
    ("speed", "until"), [(1, NOW + timedelta(minutes=25)), (50, NOW + timedelta(seconds=30))], ids=["real", "emulated"]
)
async def test_a_settled_episode_is_verified(story: Story, speed: float, until: datetime) -> None:
    """After its run the episode is verified for 25 minutes of the cluster's time, and its repaired alarm is cleared."""
    episode = await _raise(story)
    holding = await story.hold()
    state = await story.end(holding, part("node-1", Outcome.END, "node-1"), ticket="INC-1", speed=speed)
    row = await story.episode()
    assert (state, row.state, row.verify_until, row.outcome, row.ticket, row.holder, row.lease) == (
        "verifying",
        "verifying",
        until,
        "END",
        "INC-1",
        None,
        None,
    )
    (occurrence,) = await story.occurrences()
    assert (
        occurrence.cleared_seen,
        occurrence.cleared_by,
        occurrence.ended,
        occurrence.trace,
        occurrence.episode_id,
    ) == (
        NOW,
        "auto",
        "END",
        "1 END",
        episode,
    )
    assert await story.end(holding, part("node-1", Outcome.END, "node-1")) == ""
    story.now = until - SECOND
    assert await story.close_verified() == []
    story.now = until
    assert await story.close_verified() == [episode]
    row = await story.episode()
    assert (row.state, row.closed, row.outcome, row.verify_until) == ("closed", until, "END", None)


@pytest.mark.parametrize(
    ("outcome", "active", "by"),
    [
        (Outcome.END, False, "auto"),
        (Outcome.CLEARED, False, "auto"),
        (Outcome.CLEARED_BY_PERSON, False, "person"),
        (Outcome.ESCALATE, True, ""),
        (Outcome.CANNOT_TELL, True, ""),
        (Outcome.REFUSED, True, ""),
        (Outcome.DECLINED, True, ""),
        (Outcome.ERROR, True, ""),
    ],
)
async def test_what_each_ending_says_of_the_alarm(story: Story, outcome: Outcome, active: bool, by: str) -> None:
    """An alarm that the page found cleared is so in the ledger, too, and one that was left to a person stays active."""
    await _raise(story)
    await story.end(await story.hold(), part("node-1", outcome, "node-1"), outcome=outcome)
    (occurrence,) = await story.occurrences()
    assert (occurrence.cleared_seen is None, occurrence.cleared_by, occurrence.ended) == (active, by, outcome)


async def test_a_clear_that_came_first_stays_as_it_was_told(story: Story) -> None:
    """An alarm that a source said was cleared keeps that time when the run settles it."""
    await _raise(story)
    holding = await story.hold()
    story.later(MINUTE)
    await story.see(told("cleared", serial="node-1"))
    story.later(MINUTE)
    await story.end(holding, part("node-1", Outcome.END, "node-1"))
    (occurrence,) = await story.occurrences()
    assert occurrence.cleared_seen == NOW + MINUTE


async def test_a_host_that_came_too_late_gets_a_run(story: Story) -> None:
    """An active alarm that came in while the run was at it, and that it did not follow, makes the next number start."""
    episode = await _raise(story)
    holding = await story.hold()
    story.later(MINUTE)
    await _raise(story, "node-2")
    assert await story.end(holding, part("node-1", Outcome.END, "node-1")) == "raised"
    row = await story.episode()
    assert (row.id, row.state, row.n, row.run, row.runs, row.raised, row.claimed) == (
        episode,
        "raised",
        2,
        None,
        0,
        NOW + MINUTE,
        None,
    )
    assert await story.take("run-2") == Holding(episode, 2, ["node-2"], {"node-1": "1 END"}, [])


async def test_a_late_host_that_is_cleared_already_needs_no_run(story: Story) -> None:
    """An alarm that came too late for the run and was cleared since ends so, and no other run starts."""
    await _raise(story)
    holding = await story.hold()
    story.later(MINUTE)
    await _raise(story, "node-2")
    await story.see(told("cleared", "node-2", "node-2"))
    assert await story.end(holding, part("node-1", Outcome.END, "node-1")) == "verifying"
    assert await story.alarms() == [("node-1", "node-1", False, "END"), ("node-2", "node-2", False, "CLEARED")]


async def test_a_run_that_found_nothing_ends_all_it_looked_for(story: Story) -> None:
    """A run that followed no alarm ends every one that was known when it began, and leaves a later one to the next."""
    await _raise(story, "node-1", "node-2")
    holding = await story.hold()
    assert await story.end(holding, outcome=Outcome.CLEARED) == "verifying"
    assert await story.alarms() == [("node-1", "node-1", False, "CLEARED"), ("node-2", "node-2", False, "CLEARED")]

    story.later(HOUR)
    await _raise(story, "node-3")
    holding = await story.hold("run-2")
    story.later(MINUTE)
    await _raise(story, "node-4")
    assert await story.end(holding, outcome=Outcome.CANNOT_TELL) == "raised"
    assert (await story.alarms())[2:] == [("node-3", "node-3", True, "CANNOT-TELL"), ("node-4", "node-4", True, "")]


async def test_a_run_for_one_host_leaves_the_others_to_another(story: Story) -> None:
    """A run that was to look at one host, and found nothing, ends no other host's alarm: that one gets a run."""
    await _raise(story, "node-1", "node-2")
    holding = await story.hold("a person's", automated=False)
    assert await story.end(holding, outcome=Outcome.ERROR, host="node-2") == "raised"
    assert await story.alarms() == [("node-1", "node-1", True, ""), ("node-2", "node-2", True, "ERROR")]


async def test_an_alarm_that_came_after_the_claim_is_not_ended_by_a_slow_clock(story: Story) -> None:
    """A host that was not known when the run took the episode gets a run, also if the intake's clock was behind."""
    await _raise(story, "node-1")
    holding = await story.hold()
    story.later(-MINUTE)
    await _raise(story, "node-2")
    story.later(2 * MINUTE)
    assert await story.end(holding, outcome=Outcome.CLEARED) == "raised"
    assert sorted(await story.alarms()) == [("node-1", "node-1", False, "CLEARED"), ("node-2", "node-2", True, "")]


async def test_a_cancelled_run_ends_its_episode(story: Story) -> None:
    """A run that a person cancelled closes the episode with all its alarms, and nothing starts again."""
    await _raise(story, "node-1", "node-2")
    holding = await story.hold()
    assert await story.end(holding, part("node-1", Outcome.END, "node-1"), outcome=Outcome.CANCELLED) == "closed"
    row = await story.episode()
    assert (row.state, row.outcome, row.closed, row.holder, row.lease) == ("closed", "CANCELLED", NOW, None, None)
    assert await story.alarms() == [("node-1", "node-1", False, "END"), ("node-2", "node-2", True, "CANCELLED")]
    assert [(each.new, each.opened) for each in await story.see(told("raised", "node-2", "node-2"))] == [(False, False)]


async def test_an_alarm_no_source_told_of_is_written_down(story: Story) -> None:
    """What the run found on Manager by itself is an occurrence of the episode like any other."""
    holding = await story.hold(automated=False)
    await story.end(holding, part("node-7", Outcome.ESCALATE, "s-7", NOW), outcome=Outcome.ESCALATE)
    (occurrence,) = await story.occurrences()
    assert (occurrence.host, occurrence.serial, occurrence.occurred, occurrence.episode_id, occurrence.ended) == (
        "node-7",
        "s-7",
        NOW,
        holding.episode,
        "ESCALATE",
    )
    assert [each.new for each in await story.see(told("raised", "node-7", "s-7", NOW))] == [False]


async def test_what_manager_knows_more_precisely_is_learned(story: Story) -> None:
    """The serial number and time that the run read are kept where the source had told neither."""
    await story.see(told("raised"))
    await story.end(await story.hold(), part("node-1", Outcome.ESCALATE, "s-1", NOW), outcome=Outcome.ESCALATE)
    (occurrence,) = await story.occurrences()
    assert (occurrence.serial, occurrence.occurred) == ("s-1", NOW)


async def test_a_relapse_knows_what_was_repaired(story: Story) -> None:
    """An alarm of the same host under another serial within the verification comes with the trace that repaired it."""
    episode = await _raise(story)
    holding = await story.hold()
    await story.end(holding, part("node-1", Outcome.END, "node-1", trace="1 2n 3n 4 5n 6y END"))
    story.later(VERIFYING - SECOND)
    (seen,) = await story.see(told("raised", serial="s-2", occurred=story.now))
    assert (seen.episode, seen.opened) == (episode, True)
    assert await story.states() == [("raised", 2)]
    assert await story.take("run-2") == Holding(episode, 2, ["node-1"], {"node-1": "1 2n 3n 4 5n 6y END"}, [])


async def test_a_relapse_that_went_away_does_not_begin_the_page_anew(story: Story) -> None:
    """A host that relapsed, was clear before a step was needed, and relapses again still comes with the first trace."""
    episode = await _raise(story)
    await story.end(await story.hold(), part("node-1", Outcome.END, "node-1", trace="1 2n 3y END"))
    for n, run in ((2, "run-2"), (3, "run-3")):
        story.later(MINUTE)
        await story.see(told("raised", serial=f"s-{n}", occurred=story.now))
        holding = await story.hold(run)
        assert (holding.episode, holding.repaired) == (episode, {"node-1": "1 2n 3y END"})
        await story.end(holding, part("node-1", Outcome.CLEARED, f"s-{n}"), outcome=Outcome.CLEARED)


async def test_a_run_that_waited_for_days(story: Story) -> None:
    """A run that ends long after its alarm was cleared still ends this alarm, and does not make another one of it."""
    await _raise(story)
    await _let_go(story, await story.hold())
    await story.see(told("cleared", serial="node-1"))
    story.later(100 * HOUR)
    await story.end(await story.hold(), part("node-1", Outcome.CLEARED, "node-1"), outcome=Outcome.CLEARED)
    assert await story.alarms() == [("node-1", "node-1", False, "CLEARED")]


async def test_a_relapse_that_was_handed_over_is_not_repaired_any_more(story: Story) -> None:
    """A host whose relapse ended in a ticket is no longer taken for one that a step had repaired."""
    await _raise(story)
    await story.end(await story.hold(), part("node-1", Outcome.END, "node-1"))
    story.later(MINUTE)
    await story.see(told("raised", serial="s-2", occurred=story.now))
    await story.end(await story.hold("run-2"), part("node-1", Outcome.ESCALATE, "s-2"), outcome=Outcome.ESCALATE)
    holding = await story.hold("run-3", automated=False)
    assert holding.repaired == {}


async def test_what_a_person_has_is_left_alone_by_automated_runs(story: Story) -> None:
    """Active alarms that ended in a ticket are named to automated runs in later episodes, and kept from no person."""
    await _raise(story)
    await story.end(await story.hold(), part("node-1", Outcome.ESCALATE, "node-1"), outcome=Outcome.ESCALATE)
    story.later(HOUR)
    await story.close_verified()
    episode = await _raise(story, "node-2")
    automated = await story.hold("run-2")
    assert [(each.host, each.serial) for each in automated.handed_over] == [("node-1", "node-1")]
    assert (automated.episode, automated.hosts) == (episode, ["node-2"])
    story.later(HOUR)
    person = await story.hold("run-3", automated=False)
    assert (person.hosts, person.handed_over) == (["node-2"], ())


async def test_what_was_cleared_is_no_more_handed_over(story: Story) -> None:
    """An alarm that ended in a ticket and was cleared since is not handed over any more."""
    await _raise(story)
    await story.end(await story.hold(), part("node-1", Outcome.ESCALATE, "node-1"), outcome=Outcome.ESCALATE)
    await story.see(told("cleared", serial="node-1"))
    story.later(HOUR)
    await _raise(story, "node-2")
    assert (await story.hold("run-2")).handed_over == []


async def test_whose_episode_a_run_is_at(story: Story) -> None:
    """The open episode of a run is found whether it holds it or was started for it, and no more once it is closed."""
    episode = await _raise(story)
    async with story.ledger.writing() as session:
        await started(session, episode, 1, "run-1")
    holding = await story.hold("by-hand", automated=False)

    async def found(run: str) -> str:
        async with story.ledger.reading() as session:
            return getattr(await episode_of_run(session, run), "id", "")

    assert [await found(run) for run in ("run-1", "by-hand", "run-9")] == [episode, episode, ""]
    await story.end(holding, outcome=Outcome.CANCELLED)
    assert [await found(run) for run in ("run-1", "by-hand")] == ["", ""]
