"""What is seen: in whatever order it is told, each alarm occurs once and belongs to one episode."""

import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, event, update

from tasks.ledger.database import DRIVERS, open_ledger
from tasks.ledger.episodes import VERIFYING
from tasks.ledger.observing import BACKLOG_AGE, STILL_LISTED, Seen
from tasks.ledger.receiving import intake_started, sync_clusters
from tasks.ledger.tables import Episode, Poll
from tasks.models import Observation, Outcome
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND, Story, a_cluster, part, told

pytestmark = pytest.mark.anyio


def _raised(host: str = "node-1", serial: str = "s-1", occurred: datetime | None = NOW) -> Observation:
    return told("raised", host, serial, occurred)


def _cleared(host: str = "node-1", serial: str = "s-1", occurred: datetime | None = NOW) -> Observation:
    return told("cleared", host, serial, occurred, cleared=NOW + MINUTE)


def _changes(seen: list[Seen]) -> list[tuple[bool, bool]]:
    """Whether each was new, and whether it made a run necessary."""
    return [(each.new, each.opened) for each in seen]


async def _repaired(story: Story, outcome: Outcome = Outcome.END) -> str:
    """The alarm of node-1 has come, its run has ended so, and the episode is being verified. Returns the episode."""
    (seen,) = await story.see(_raised())
    await story.end(await story.hold(), part("node-1", outcome, "s-1", NOW), outcome=outcome)
    return seen.episode


async def _put(story: Story, **values: object) -> None:
    async with story.ledger.writing() as session:
        await session.execute(update(Episode).values(**values))


RAISE, CLEAR, BARE_CLEAR = _raised(), _cleared(), told("cleared")
ACTIVE, OVER = ("node-1", "s-1", True, ""), ("node-1", "s-1", False, "")


@pytest.mark.parametrize(
    ("order", "changes", "states", "alarms"),
    [
        ([RAISE], [(True, True)], [("raised", 1)], [ACTIVE]),
        ([RAISE, RAISE], [(True, True), (False, False)], [("raised", 1)], [ACTIVE]),
        ([RAISE, CLEAR], [(True, True), (True, False)], [("raised", 1)], [OVER]),
        ([RAISE, CLEAR, CLEAR], [(True, True), (True, False), (False, False)], [("raised", 1)], [OVER]),
        ([CLEAR], [(True, False)], [], [OVER]),
        ([CLEAR, RAISE], [(True, False), (False, False)], [], [OVER]),
        ([RAISE, CLEAR, RAISE], [(True, True), (True, False), (False, False)], [("raised", 1)], [OVER]),
        ([RAISE, BARE_CLEAR], [(True, True), (True, False)], [("raised", 1)], [OVER]),
        ([BARE_CLEAR], [(False, False)], [], []),
        ([told("raised"), RAISE], [(True, True), (False, False)], [("raised", 1)], [ACTIVE]),
        (
            [CLEAR, _raised(serial="s-2", occurred=NOW + MINUTE)],
            [(True, False), (True, True)],
            [("raised", 1)],
            [OVER, ("node-1", "s-2", True, "")],
        ),
        (
            [RAISE, _raised(serial="s-2", occurred=NOW + MINUTE), CLEAR],
            [(True, True), (True, False), (True, False)],
            [("raised", 1)],
            [OVER, ("node-1", "s-2", True, "")],
        ),
    ],
    ids=[
        "raise",
        "raise twice",
        "raise and clear",
        "clear twice",
        "clear alone",
        "clear before its raise",
        "raise after its clear",
        "a clear without detail",
        "a clear of nothing",
        "more detail later",
        "another alarm after a clear",
        "a clear that comes late",
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
async def test_every_order(
    story: Story,
    order: list[Observation],
    changes: list[tuple[bool, bool]],
    states: list[tuple[str, int]],
    alarms: list[tuple[str, str, bool, str]],
    together: bool,
) -> None:
    """Raises and clears in any order, in one batch or in several, make what really happened of it."""
    if together:
        assert _changes(await story.see(*order)) == changes
    else:
        assert [_changes(await story.see(each))[0] for each in order] == changes
    assert await story.states() == states
    assert sorted(await story.alarms()) == sorted(alarms)


async def test_every_observation_is_kept(story: Story) -> None:
    """Each thing that was said is kept with who said it and when, duplicates too, marked so."""
    await story.see(RAISE)
    story.later(MINUTE)
    await story.see(RAISE, CLEAR, source="smn")
    (occurrence,) = await story.occurrences()
    kept = [
        (row.at, row.source, row.peer, row.kind, row.cluster_id, row.alarm_id, row.occurrence_id, row.duplicate)
        for row in await story.observations()
    ]
    same = ("id-of-alpha", "12110", occurrence.id)
    assert kept == [
        (NOW, "syslog", "192.0.2.1", "raised", *same, False),
        (NOW + MINUTE, "smn", "192.0.2.1", "raised", *same, True),
        (NOW + MINUTE, "smn", "192.0.2.1", "cleared", *same, False),
    ]
    assert (occurrence.first_seen, occurrence.last_seen, occurrence.cleared, occurrence.cleared_seen) == (
        NOW,
        NOW + MINUTE,
        NOW + MINUTE,
        NOW + MINUTE,
    )


async def test_two_sources_tell_of_one_alarm(story: Story) -> None:
    """What one source leaves out another adds, and all their words are about the same occurrence."""
    precise = NOW + timedelta(milliseconds=432)
    assert _changes(await story.see(told("raised", occurred=NOW))) == [(True, True)]
    assert _changes(await story.see(told("raised", serial="s-1", occurred=precise), source="poll")) == [(False, False)]
    assert _changes(await story.see(told("cleared", serial="s-1"), source="smn")) == [(True, False)]
    assert await story.alarms() == [OVER]


@pytest.mark.parametrize("second_tells", [("", NOW), ("s-1", NOW)], ids=["time only", "both"])
async def test_two_sources_in_any_order(story: Story, second_tells: tuple[str, datetime]) -> None:
    """Two sources, the first with serial numbers only, tell of one alarm in any order: in the end nothing is active."""
    raises = [told("raised", "", "s-1"), told("raised", "", *second_tells)]
    orders = list(permutations([*raises, *(replace(word, kind="cleared") for word in raises)]))
    for turn in range(4):
        await story.see(*(replace(words[turn], host=f"node-{n}") for n, words in enumerate(orders)))
    assert [each.host for each in await story.occurrences() if each.cleared_seen is None] == []
    assert await story.states() == [("raised", 1)]


async def test_what_a_clear_tells_is_learned(story: Story) -> None:
    """A raise that is known only by what its clear added is recognised after that clear."""
    await story.see(told("raised", occurred=NOW), CLEAR)
    assert _changes(await story.see(told("raised", serial="s-1"), source="smn")) == [(False, False)]
    assert await story.alarms() == [OVER]


async def test_a_repeated_clear_leaves_the_next_alarm_alone(story: Story) -> None:
    """A clear that is delivered once more does not clear the host's next alarm, of which only the time is known."""
    await story.see(RAISE, CLEAR, told("raised", occurred=NOW + HOUR))
    assert _changes(await story.see(told("cleared", serial="s-1"))) == [(False, False)]
    assert sorted(await story.alarms()) == [("node-1", "", True, ""), OVER]


async def test_a_late_delivery_of_days_ago_is_recognised(story: Story) -> None:
    """An alarm that was repaired and closed a day ago, delivered once more, changes nothing."""
    await _repaired(story)
    story.later(24 * HOUR)
    await story.close_verified()
    assert _changes(await story.see(RAISE, CLEAR)) == [(False, False), (False, False)]
    assert await story.states() == [("closed", 1)]


async def test_an_alarm_that_stays_is_recognised_for_ever(story: Story) -> None:
    """An alarm that a person has had for weeks is not begun anew when it is reported again."""
    await _repaired(story, Outcome.ESCALATE)
    story.later(30 * 24 * HOUR)
    await story.close_verified()
    assert _changes(await story.see(RAISE)) == [(False, False)]


async def test_managers_list_is_believed(story: Story) -> None:
    """What Manager goes on listing as active after its clear has occurred once more, but not while lists are read."""
    await story.see(RAISE, CLEAR)
    story.later(STILL_LISTED)
    assert _changes(await story.see(RAISE, source="poll")) == [(False, False)]
    story.later(SECOND)
    assert _changes(await story.see(RAISE)) == [(False, False)]
    assert _changes(await story.see(RAISE, source="poll")) == [(True, False)]
    assert _changes(await story.see(RAISE, source="poll")) == [(False, False)]
    assert await story.alarms() == [OVER, ACTIVE]


@pytest.mark.parametrize("state", ["raised", "running", "waiting"])
async def test_a_host_joins(story: Story, state: str) -> None:
    """An alarm of another host joins the episode that is open, and no other run is started."""
    (first,) = await story.see(RAISE)
    await story.hold()
    await _put(story, state=state)
    (seen,) = await story.see(_raised("node-2"))
    assert (seen.new, seen.opened, seen.episode) == (True, False, first.episode)
    assert seen.why == f"ALM-12110 on node-2 of alpha joins episode {first.episode}"
    assert await story.states() == [(state, 1)]


async def test_a_host_joins_what_is_verified(story: Story) -> None:
    """An alarm of another host while a repair is verified makes the same episode need its next run."""
    episode = await _repaired(story)
    (seen,) = await story.see(_raised("node-2"))
    assert (seen.opened, seen.episode, await story.states()) == (True, episode, [("raised", 2)])
    assert seen.why == f"ALM-12110 on node-2 of alpha continues episode {episode}"


@pytest.mark.parametrize("outcome", [Outcome.ESCALATE, Outcome.CANNOT_TELL, Outcome.DECLINED, Outcome.ERROR])
async def test_a_person_has_it(story: Story, outcome: Outcome) -> None:
    """A host that was handed to a person and alarms again meanwhile starts nothing, and ends as it did before."""
    episode = await _repaired(story, outcome)
    await story.see(CLEAR)
    (seen,) = await story.see(_raised(serial="s-2", occurred=NOW + MINUTE))
    assert (seen.new, seen.opened, seen.episode) == (True, False, episode)
    assert await story.states() == [("verifying", 1)]
    assert sorted(await story.alarms()) == [
        ("node-1", "s-1", False, outcome),
        ("node-1", "s-2", True, outcome),
    ]


async def test_a_person_has_it_while_others_are_seen_to(story: Story) -> None:
    """A host that was handed to a person and alarms again is left alone also while a run is at the other hosts."""
    episode = await _repaired(story, Outcome.ESCALATE)
    await story.see(CLEAR, _raised("node-2"))
    holding = await story.hold("run-2")
    story.later(MINUTE)
    (seen,) = await story.see(_raised(serial="s-2", occurred=story.now))
    assert (seen.new, seen.opened, seen.episode) == (True, False, episode)
    assert await story.end(holding, part("node-2", Outcome.END)) == "verifying"
    assert (await story.alarms())[-1] == ("node-1", "s-2", True, "ESCALATE")


@pytest.mark.parametrize(
    ("after", "states"),
    [
        (VERIFYING - SECOND, [("raised", 2)]),
        (VERIFYING, [("closed", 1), ("raised", 1)]),
        (VERIFYING + SECOND, [("closed", 1), ("raised", 1)]),
    ],
    ids=["a second before", "then", "a second after"],
)
@pytest.mark.parametrize("closed", [True, False], ids=["closed in time", "nobody closed it"])
async def test_two_alarms_of_one_host(
    story: Story, after: timedelta, states: list[tuple[str, int]], closed: bool
) -> None:
    """A host's next alarm is a relapse until the verification ends, from then on it is another episode."""
    await _repaired(story)
    story.later(after)
    if closed:
        await story.close_verified()
    (seen,) = await story.see(_raised(serial="s-2", occurred=story.now))
    assert seen.opened
    assert await story.states() == states
    episodes = await story.episodes()
    assert (episodes[-1].id, episodes[-1].backlog) == (seen.episode, "")


async def test_a_new_alarm_id_is_another_episode(story: Story) -> None:
    """Different alarms of one cluster, and the same alarm of two clusters, are episodes of their own."""
    await story.see(RAISE, told("raised", alarm="12111"))
    await story.see(RAISE, of=a_cluster("beta"))
    found = Counter((each.cluster, each.alarm_id, each.state) for each in await story.episodes())
    assert found == {("alpha", "12110", "raised"): 1, ("alpha", "12111", "raised"): 1, ("beta", "12110", "raised"): 1}


async def test_the_second_name_of_a_cluster(story: Story) -> None:
    """Two blocks of one cluster are one cluster: its id in the cloud decides, not a name."""
    await story.see(RAISE)
    other = a_cluster("alias")
    other.cluster_id = "id-of-alpha"
    assert _changes(await story.see(RAISE, _raised("node-2"), of=other)) == [(False, False), (True, False)]
    assert await story.states() == [("raised", 1)]


@pytest.mark.parametrize(("state", "wakes"), [("running", True), ("waiting", True), ("raised", False)])
async def test_a_clear_wakes_the_run(story: Story, state: str, wakes: bool) -> None:
    """A clear of an alarm of the episode wakes the run that holds it, and a repeated clear does not once more."""
    await story.see(RAISE)
    await story.hold()
    await _put(story, state=state)
    await story.see(CLEAR)
    assert (await story.episode()).wake is wakes
    await _put(story, wake=False)
    await story.see(CLEAR)
    assert not (await story.episode()).wake


async def test_a_clear_of_another_episode_wakes_nobody(story: Story) -> None:
    """A clear of an alarm that an earlier episode left to a person does not wake the run of this one."""
    await _repaired(story, Outcome.ESCALATE)
    story.later(VERIFYING)
    await story.see(_raised("node-2", "s-2", story.now))
    await story.hold("run-2")
    assert _changes(await story.see(CLEAR)) == [(True, False)]
    assert [each.wake for each in await story.episodes()] == [False, False]


@pytest.mark.parametrize("hours", [-9, 9])
@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("old", [False, True])
async def test_manager_has_another_clock(story: Story, hours: int, measured: bool, old: bool) -> None:
    """However far Manager's clock is off, only what is old by that clock is backlog."""
    skew = hours * HOUR
    if measured:
        async with story.ledger.writing() as session:
            session.add(Poll(cluster="alpha", due=NOW, skew=skew.total_seconds()))
    occurred = NOW + skew - (BACKLOG_AGE if old else BACKLOG_AGE - SECOND)
    await story.see(told("raised", occurred=occurred, sent=None if measured else NOW + skew))
    expected = "the alarm was 2.0 hours old when it was first seen" if old else ""
    assert (await story.episode()).backlog == expected


@pytest.mark.parametrize(
    ("connected", "occurred", "backlog"),
    [
        (NOW - HOUR, NOW - HOUR - 2 * MINUTE, "the alarm was raised before the cluster was connected"),
        (NOW - HOUR, NOW - HOUR + SECOND, ""),
        (NOW, None, ""),
        (NOW - 24 * HOUR, NOW - 3 * HOUR, "the alarm was 3.0 hours old when it was first seen"),
        (NOW - 24 * HOUR, NOW + HOUR, ""),
    ],
    ids=["before it was connected", "after", "no time", "old", "in the future"],
)
async def test_backlog(story: Story, connected: datetime, occurred: datetime | None, backlog: str) -> None:
    """What is old, or was there before the cluster was, is no emergency."""
    await story.see(_raised(occurred=occurred), of=a_cluster(connected=connected))
    assert (await story.episode()).backlog == backlog


@pytest.mark.parametrize(
    ("minutes_ago", "backlog"),
    [(50, ""), (30, "the alarm was raised while no intake was running"), (5, "")],
    ids=["before", "within", "after"],
)
async def test_our_own_outage(story: Story, minutes_ago: int, backlog: str) -> None:
    """What was raised while no intake was running is no emergency when it is found."""
    for name, ago in (("first", 45), ("second", 20)):
        async with story.ledger.writing() as session:
            await intake_started(session, name, NOW - ago * MINUTE)
    await story.see(_raised(occurred=NOW - minutes_ago * MINUTE))
    assert (await story.episode()).backlog == backlog


async def test_an_emulated_cluster_ages_faster(story: Story) -> None:
    """An alarm's age is of the cluster's time, and no skew is believed where that time runs away from ours."""
    cluster = a_cluster(speed=60, connected=NOW - HOUR)
    async with story.ledger.writing() as session:
        session.add(Poll(cluster="alpha", due=NOW, skew=10 * 3600))
    sent = NOW + 10 * HOUR
    await story.see(told("raised", occurred=sent - HOUR, sent=sent), of=cluster)
    assert (await story.episode()).backlog == ""
    await story.see(told("raised", occurred=sent - 2 * HOUR, sent=sent, alarm="12111"), of=cluster)
    assert sorted(each.backlog for each in await story.episodes()) == [
        "",
        "the alarm was 2.0 hours old when it was first seen",
    ]


async def test_an_emergency_joins_the_backlog(story: Story) -> None:
    """A fresh alarm makes a backlog episode an emergency, and an old one does not make an emergency a backlog."""
    await story.see(_raised(occurred=NOW - 3 * HOUR))
    await story.see(_raised("node-2", occurred=NOW - 4 * HOUR))
    assert (await story.episode()).backlog == "the alarm was 4.0 hours old when it was first seen"
    await story.see(_raised("node-3"))
    await story.see(_raised("node-4", occurred=NOW - 3 * HOUR))
    assert ((await story.episode()).backlog, await story.states()) == ("", [("raised", 1)])


@pytest.mark.parametrize(
    ("first", "second", "backlog"),
    [
        (timedelta(0), 3 * HOUR, "the alarm was 3.0 hours old when it was first seen"),
        (3 * HOUR, timedelta(0), ""),
    ],
    ids=["an old one", "a fresh one"],
)
async def test_the_next_run_is_for_the_alarm_that_needs_it(
    story: Story, first: timedelta, second: timedelta, backlog: str
) -> None:
    """Whether the run after a repair may change something depends on the alarm that came then, not on those before."""
    await story.see(_raised(occurred=NOW - first))
    await story.end(await story.hold(), part("node-1", Outcome.END, "s-1"))
    await story.see(_raised("node-2", "s-2", NOW - second))
    assert ((await story.episode()).backlog, await story.states()) == (backlog, [("raised", 2)])


async def test_a_trigger_asks_for_a_look(story: Story) -> None:
    """A trigger makes the cluster's alarm list due now, once, with the alarm that was named, and starts nothing."""
    cluster = a_cluster()
    async with story.ledger.writing() as session:
        await sync_clusters(session, [cluster], NOW + HOUR)
    first, again = await story.see(told("trigger", host=""), told("trigger", host="", alarm="12111"))
    assert (first, again) == (
        Seen(True, "the alarms of alpha are read from its Manager now"),
        Seen(False, "the alarms of alpha are read from its Manager now"),
    )
    async with story.ledger.reading() as session:
        poll = await session.get(Poll, "alpha")
    assert poll is not None
    assert (poll.due, poll.triggered, poll.trigger_alarm) == (NOW, NOW, "12111")
    assert await story.states() == []
    assert [(row.kind, row.occurrence_id, row.duplicate) for row in await story.observations()] == [
        ("trigger", None, False),
        ("trigger", None, True),
    ]


async def test_ten_thousand_copies_are_one_episode(story: Story) -> None:
    """Two hundred alarmed hosts, each reported fifty times in any order, are one episode with one run to start."""
    alarms = [_raised(f"node-{n}", f"s-{n}", NOW + n * SECOND) for n in range(200)] * 50
    random.Random(12110).shuffle(alarms)
    seen = []
    for start in range(0, len(alarms), 2_000):
        seen += await story.see(*alarms[start : start + 2_000])
    assert await story.states() == [("raised", 1)]
    assert len(await story.occurrences()) == 200
    kept = Counter(row.duplicate for row in await story.observations())
    assert kept == {False: 200, True: 9_800}
    assert Counter(_changes(seen)) == {(True, True): 1, (True, False): 199, (False, False): 9_800}


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_comes(story: Story, seed: int) -> None:
    """In any history no two episodes of an alarm are open, each new raise has one, and cleared stays cleared."""
    dice = random.Random(seed)
    cleared: dict[str, datetime | None] = {}
    for step in range(40):
        host, serial = f"node-{dice.randrange(3)}", f"s-{dice.randrange(4)}"
        occurred = NOW + int(serial[2:]) * HOUR
        detail = dice.choice([(serial, occurred), (serial, None), ("", occurred)])
        what = dice.random()
        if what < 0.75:
            kind = dice.choice(["raised", "raised", "cleared"])
            for seen in await story.see(told(kind, host, *detail), told(kind, host, *detail)):  # type: ignore[arg-type]
                assert seen.episode or kind == "cleared" or "was cleared already" in seen.why
        elif what < 0.9:
            holding = await story.hold(f"run-{step}", automated=False)
            outcome = dice.choice([Outcome.END, Outcome.ESCALATE])
            await story.end(holding, *(part(each, outcome) for each in holding.hosts), outcome=outcome)
        else:
            story.later(dice.choice([MINUTE, HOUR]))
        going = Counter((each.cluster_id, each.alarm_id) for each in await story.episodes() if each.state != "closed")
        assert set(going.values()) <= {1}
        occurrences = await story.occurrences()
        assert {key: value for key, value in cleared.items() if value} == {
            each.id: each.cleared_seen for each in occurrences if cleared.get(each.id)
        }
        cleared = {each.id: each.cleared_seen for each in occurrences}
        assert [each.id for each in occurrences if each.cleared_seen is None and each.episode_id is None] == []


async def test_no_table_that_grows_is_scanned(sqlite_with_schema: Path, tmp_path: Path) -> None:
    """However many alarms there have been: to take some in, SQLite looks up by an index whatever grows with them."""
    path, statements = shutil.copy(sqlite_with_schema, tmp_path / "ledger.db"), []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    async with open_ledger(URL.create(DRIVERS["sqlite"], database=str(path))) as ledger:
        event.listen(ledger.engine.sync_engine, "before_cursor_execute", note)
        story = Story(ledger)
        await story.see(_raised("node-1"), _raised("node-2"))
        await story.see(_raised("node-1"), _cleared("node-2"))
    with closing(sqlite3.connect(path)) as connection:
        plans = [
            row[3]
            for statement, values in statements
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    searched = {words[1] for words in map(str.split, plans) if words[0] == "SEARCH"}
    scanned = {words[1] for words in map(str.split, plans) if words[0] == "SCAN"}
    assert searched >= {"occurrences", "episodes"}
    assert scanned.isdisjoint({"occurrences", "episodes", "observations"})
