"""Which episodes need a run, a wake or a look: what is decided elsewhere is written only if nothing has changed."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from sqlalchemy import update

from tasks.ledger.episodes import LEASE, Held, Holding, let_go, renew, wait_begun, wait_ended
from tasks.ledger.starting import (
    LATE,
    LATELY,
    SETTLING,
    give_up,
    overdue,
    start_again,
    started,
    suspects,
    through,
    to_start,
    to_wake,
    waiting,
    woken,
)
from tasks.ledger.tables import Episode, Wait
from tasks.models import Outcome
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND, Story, a_cluster, part, told

pytestmark = pytest.mark.anyio


async def _raise(story: Story, name: str = "alpha") -> str:
    (seen,) = await story.see(told("raised", "node-1", "s-1", story.now), of=a_cluster(name))
    return seen.episode


async def _to_start(story: Story, limit: int = 10) -> list[str]:
    async with story.ledger.reading() as session:
        return [each.cluster for each in await to_start(session, limit)]


async def _started(story: Story, episode: str, n: int = 1, run: str = "run-1") -> bool:
    async with story.ledger.writing() as session:
        return await started(session, episode, n, run)


async def _suspects(story: Story) -> list[str]:
    async with story.ledger.reading() as session:
        return [each.id for each in await suspects(session, story.now)]


async def _wait(story: Story, holding: Holding) -> None:
    async with story.ledger.writing() as session:
        await let_go(session, holding)


async def _to_wake(story: Story) -> list[Episode]:
    async with story.ledger.reading() as session:
        return await to_wake(session, story.now)


async def _woken(story: Story, seen: Episode) -> None:
    async with story.ledger.writing() as session:
        await woken(session, seen)


async def _again(story: Story, seen: Episode, *, same_run: bool = True) -> bool:
    async with story.ledger.writing() as session:
        return await start_again(session, seen, story.now, same_run=same_run)


async def _give_up(story: Story, seen: Episode, outcome: Outcome = Outcome.ERROR) -> bool:
    async with story.ledger.writing() as session:
        return await give_up(session, seen, outcome, story.now)


async def _put(story: Story, **values: object) -> None:
    async with story.ledger.writing() as session:
        await session.execute(update(Episode).values(**values))


async def test_what_needs_a_run(story: Story) -> None:
    """Raised episodes without a run are to be started, the oldest first and so many at most, until each has one."""
    found = {}
    for name in ("gamma", "alpha", "beta"):
        found[name] = await _raise(story, name)
        story.later(SECOND)
    assert await _to_start(story) == ["gamma", "alpha", "beta"]
    assert await _to_start(story, 2) == ["gamma", "alpha"]
    await story.hold()  # of alpha, by a person's run
    assert await _started(story, found["gamma"])
    assert await _to_start(story) == ["beta"]


async def test_a_run_is_written_down_for_its_number(story: Story) -> None:
    """The run of a number is written down and counted once, and not for another number or a closed episode."""
    episode = await _raise(story)
    assert not await _started(story, episode, 2)
    assert not await _started(story, "another")
    assert ((await story.episode()).run, (await story.episode()).runs) == (None, 0)
    assert await _started(story, episode)
    assert await _started(story, episode)
    assert ((await story.episode()).run, (await story.episode()).runs) == ("run-1", 1)
    await _put(story, state="closed")
    assert not await _started(story, episode, run="run-2")
    assert (await story.episode()).run == "run-1"


async def test_a_run_that_was_quicker_than_its_dispatcher(story: Story) -> None:
    """A run that claimed its episode before the dispatcher wrote it down keeps it, and is written down all the same."""
    episode = await _raise(story)
    await story.hold()
    assert await _started(story, episode)
    row = await story.episode()
    assert (row.state, row.holder, row.run, row.runs) == ("running", "run-1", "run-1", 1)


async def test_who_is_woken(story: Story) -> None:
    """An episode whose run waits is to be woken once a clear has come, until that was passed on."""
    episode = await _raise(story)
    holding = await story.hold()
    await _wait(story, holding)
    assert await _to_wake(story) == []
    await story.see(told("cleared", serial="s-1"))
    (seen,) = await _to_wake(story)
    assert (seen.id, seen.holder) == (episode, "run-1")
    await _woken(story, seen)
    assert await _to_wake(story) == []
    await _put(story, wake=True)
    await story.end(holding, part("node-1", Outcome.CLEARED, "s-1"), outcome=Outcome.CLEARED)
    assert await _to_wake(story) == []
    assert not (await story.episode()).wake


async def test_who_is_at_work_is_not_woken(story: Story) -> None:
    """A run at work looks itself, so it is to be woken only once it waits, or has died before it did."""
    episode = await _raise(story)
    holding = await story.hold()
    await story.see(told("cleared", serial="s-1"))
    story.later(LEASE)
    assert await _to_wake(story) == []
    story.later(SECOND)
    assert [each.id for each in await _to_wake(story)] == [episode]
    async with story.ledger.writing() as session:
        await renew(session, holding, story.now)
    assert await _to_wake(story) == []
    await _wait(story, holding)
    assert [each.id for each in await _to_wake(story)] == [episode]


async def test_a_clear_after_the_wake_stays(story: Story) -> None:
    """A clear that came after the run was at work again is not lost when an older one has been passed on."""
    await _raise(story)
    await _wait(story, await story.hold())
    await story.see(told("cleared", serial="s-1"))
    (seen,) = await _to_wake(story)
    again = await story.hold()
    assert not (await story.episode()).wake
    await story.see(told("raised", "node-2", "s-2", story.now), told("cleared", "node-2", "s-2"))
    await _woken(story, seen)
    await _wait(story, again)
    assert [(each.id, each.token) for each in await _to_wake(story)] == [(seen.id, 2)]


async def test_how_long_a_wait_is_overdue(story: Story) -> None:
    """The oldest wait whose run still waits tells how long it is overdue; before its time, or once ended, none is."""
    await _raise(story)
    holding = await story.hold()

    async def since() -> timedelta:
        async with story.ledger.reading() as session:
            return await overdue(session, story.now)

    found = [await since()]
    async with story.ledger.writing() as session:
        await wait_begun(session, holding, "2", NOW)  # its run is at work, and looks when it is through
    story.later(SECOND)
    found.append(await since())
    async with story.ledger.writing() as session:
        await wait_ended(session, holding, "2", story.now)
        await wait_begun(session, holding, "3", NOW + MINUTE)
        await wait_begun(session, holding, "6", NOW + HOUR)
    await _wait(story, holding)
    for moment in (NOW + MINUTE, NOW + MINUTE + SECOND, NOW + 3 * HOUR):
        story.now = moment
        found.append(await since())
    async with story.ledger.writing() as session:
        await wait_ended(session, holding, "3", story.now)
    found.append(await since())
    await story.hold()
    found.append(await since())
    none = timedelta(0)
    assert found == [none, none, none, SECOND, 3 * HOUR - MINUTE, 2 * HOUR, none]


async def test_a_wait_that_nobody_goes_on_with_is_not_overdue(story: Story) -> None:
    """The wait of a run that is gone from Prefect ends when the next run takes the episode, and is no false alarm."""
    await _raise(story)
    gone = await story.hold()
    async with story.ledger.writing() as session:
        await wait_begun(session, gone, "3", NOW + MINUTE)
    await _wait(story, gone)
    assert await _again(story, await story.episode(), same_run=False)
    story.later(HOUR)
    next_ = await story.hold("run-2")
    async with story.ledger.writing() as session:
        await wait_begun(session, next_, "3", story.now + MINUTE)
    await _wait(story, next_)
    async with story.ledger.reading() as session:
        assert await overdue(session, story.now) == timedelta(0)


async def test_a_run_that_never_began_is_suspect(story: Story) -> None:
    """A run that was started and holds nothing is suspect after half a minute, one that does not exist yet never."""
    episode = await _raise(story)
    story.later(HOUR)
    assert await _suspects(story) == []
    await _put(story, raised=story.now)
    await _started(story, episode)
    story.later(SETTLING)
    assert await _suspects(story) == []
    story.later(SECOND)
    assert await _suspects(story) == [episode]


async def test_a_lost_lease_is_suspect(story: Story) -> None:
    """A holder is suspect some seconds after its lease has ended, in which it may renew it, and not once settled."""
    episode = await _raise(story)
    holding = await story.hold()
    story.later(LEASE + LATE)
    assert await _suspects(story) == []
    story.later(SECOND)
    assert await _suspects(story) == [episode]
    await story.end(holding, part("node-1", Outcome.END, "s-1"))
    assert await _suspects(story) == []


async def test_who_waits_is_looked_at(story: Story) -> None:
    """Runs that wait are looked at page by page, for one that dies then has no lease to end; late ones at once."""
    found = []
    for name in ("alpha", "beta", "gamma"):
        found.append(await _raise(story, name))
    found.sort()
    await _put(story, state="waiting")

    async def page(after: str) -> list[str]:
        async with story.ledger.reading() as session:
            return [each.id for each in await waiting(session, after=after, most=2)]

    assert [await page(after) for after in ("", found[1], found[2])] == [found[:2], found[2:], []]
    assert await _suspects(story) == []
    async with story.ledger.writing() as session:
        session.add(Wait(attempt="run-1@1", step="3", episode_id=found[1], deadline=story.now + MINUTE))
    assert await _suspects(story) == []
    story.later(MINUTE + SECOND)
    assert await _suspects(story) == [found[1]]


async def _through(story: Story) -> list[tuple[str, str | None]]:
    async with story.ledger.reading() as session:
        return [(each.outcome, each.run) for each in await through(session, story.now)]


@pytest.mark.parametrize("run", ["run-1", "by-hand"])
async def test_whose_run_is_through(story: Story, run: str) -> None:
    """An episode whose run came to its end names it while it is verified, and for some minutes after it is closed."""
    episode = await _raise(story)
    await _started(story, episode)
    holding = await story.hold(run, automated=run == "run-1")
    assert await _through(story) == []
    await _wait(story, holding)
    assert await _through(story) == []
    await story.end(await story.hold(run), part("node-1", Outcome.END, "s-1"))
    found = [await _through(story)]
    story.later(HOUR)
    found.append(await _through(story))
    await story.close_verified()
    story.later(LATELY - SECOND)
    found.append(await _through(story))
    assert found == [[("END", run)]] * 3
    story.later(SECOND)
    assert await _through(story) == []


async def test_a_run_that_is_to_be_followed_is_not_through(story: Story) -> None:
    """An episode that needs another run, for an alarm came too late for the first one, names none that is through."""
    await _raise(story)
    holding = await story.hold()
    story.later(MINUTE)
    await story.see(told("raised", "node-2", "s-2", story.now))
    assert await story.end(holding, part("node-1", Outcome.END, "s-1")) == "raised"
    assert await _through(story) == []


async def test_the_same_run_again(story: Story) -> None:
    """A dead run that is scheduled anew keeps its number and episode, counts once more, and comes back as it was; a
    segment of it that only stood still holds nothing from then on."""
    episode = await _raise(story)
    await _started(story, episode)
    old = await story.hold()
    story.later(HOUR)
    assert await _again(story, await story.episode())
    row = await story.episode()
    assert (row.state, row.n, row.run, row.runs, row.holder, row.lease, row.raised) == (
        "waiting",
        1,
        "run-1",
        2,
        "run-1",
        None,
        NOW + HOUR,
    )
    assert await _to_start(story) == []
    async with story.ledger.writing() as session:
        assert not await renew(session, old, story.now)
    assert await story.take("run-2", automated=False) == Held(episode, "https://prefect/run-1")
    again = await story.hold()
    assert (again, again.attempt) == (Holding(episode, 3, ["node-1"], {}, []), old.attempt)


async def test_a_run_that_never_began_again(story: Story) -> None:
    """A dead run that never held its episode is scheduled anew, and the episode is free until it takes it."""
    episode = await _raise(story)
    await _started(story, episode)
    story.later(HOUR)
    assert await _again(story, await story.episode())
    row = await story.episode()
    assert (row.state, row.n, row.run, row.runs, row.holder, row.lease, row.raised) == (
        "raised",
        1,
        "run-1",
        2,
        None,
        None,
        NOW + HOUR,
    )
    assert await story.take("run-2", automated=False) == Holding(episode, 1, ["node-1"])


async def test_a_person_s_run_again(story: Story) -> None:
    """A person's run that died and is scheduled anew is from then on the episode's run, and no other one is started."""
    await _raise(story)
    await story.hold("by-hand", automated=False)
    story.later(HOUR)
    assert await _again(story, await story.episode())
    row = await story.episode()
    assert (row.state, row.n, row.run, row.runs, row.holder) == ("waiting", 1, "by-hand", 1, "by-hand")
    assert await _to_start(story) == []


@pytest.mark.parametrize("waited", [False, True])
async def test_another_run(story: Story, waited: bool) -> None:
    """An episode whose run is gone from Prefect, waiting or not, needs the next number, and its runs are counted on."""
    episode = await _raise(story)
    await _started(story, episode)
    holding = await story.hold()
    if waited:
        await _wait(story, holding)
    story.later(HOUR)
    assert await _again(story, await story.episode(), same_run=False)
    row = await story.episode()
    assert (row.state, row.n, row.run, row.runs, row.holder, row.lease) == ("raised", 2, None, 1, None, None)
    assert await _to_start(story) == ["alpha"]
    assert not await _started(story, episode, 1)
    assert await _started(story, episode, 2, "run-2")
    assert (await story.episode()).runs == 2
    assert (await story.hold("run-2")).attempt != holding.attempt


async def test_giving_up(story: Story) -> None:
    """An episode that no run follows any more is closed, and its alarms that had not ended end with that word."""
    await _raise(story)
    await story.end(await story.hold(), part("node-1", Outcome.END, "s-1"))
    await story.see(told("raised", "node-2", "s-2", NOW))
    await story.hold("run-2")
    await _put(story, acted=True)
    story.later(MINUTE)
    assert await _give_up(story, await story.episode())
    row = await story.episode()
    assert (row.state, row.outcome, row.closed, row.holder, row.lease, row.acted, row.wake) == (
        "closed",
        "ERROR",
        NOW + MINUTE,
        None,
        None,
        False,
        False,
    )
    assert sorted(await story.alarms()) == [("node-1", "s-1", False, "END"), ("node-2", "s-2", True, "ERROR")]
    assert [each.new for each in await story.see(told("raised", "node-2", "s-2", NOW))] == [False]


@pytest.mark.parametrize(
    ("outcome", "by"),
    [(Outcome.END, "auto"), (Outcome.CLEARED, "auto"), (Outcome.CLEARED_BY_PERSON, "person")],
)
async def test_a_good_end_that_was_not_settled(story: Story, outcome: Outcome, by: str) -> None:
    """A run whose good end did not reach the ledger leaves its alarms cleared, so that their like is another alarm."""
    await story.see(told("raised"))
    await story.hold()
    story.later(HOUR)
    assert await _give_up(story, await story.episode(), outcome)
    (occurrence,) = await story.occurrences()
    assert (occurrence.ended, occurrence.cleared_seen, occurrence.cleared_by) == (outcome, story.now, by)
    (seen,) = await story.see(told("raised"))
    assert (seen.opened, await story.states()) == (True, [("closed", 1), ("raised", 1)])


@pytest.mark.parametrize(
    ("outcome", "states", "ended"), [(Outcome.END, [("raised", 2)], ""), (Outcome.ERROR, [("closed", 1)], "ERROR")]
)
async def test_a_late_host_outlives_its_run(
    story: Story, outcome: Outcome, states: list[tuple[str, int]], ended: str
) -> None:
    """An active alarm that came too late for a run with a good end gets another run, and after a bad one a person."""
    await _raise(story)
    await story.hold()
    story.later(MINUTE)
    await story.see(told("raised", "node-2", "s-2", story.now))
    story.later(HOUR)
    assert await _give_up(story, await story.episode(), outcome)
    assert await story.states() == states
    assert (await story.alarms())[1:] == [("node-2", "s-2", True, ended)]


async def _taken_up(story: Story) -> None:
    await story.hold("run-2", automated=False)


async def _renewed(story: Story) -> None:
    row = await story.episode()
    async with story.ledger.writing() as session:
        await renew(session, Holding(row.id, row.token), story.now)


async def _waits_now(story: Story) -> None:
    row = await story.episode()
    await _wait(story, Holding(row.id, row.token))


async def _dispatched(story: Story) -> None:
    await _started(story, (await story.episode()).id, run="run-2")


async def _started_again(story: Story) -> None:
    await _again(story, await story.episode(), same_run=False)


async def _closed(story: Story) -> None:
    await _give_up(story, await story.episode(), Outcome.CANCELLED)


@pytest.mark.parametrize("change", [_taken_up, _renewed, _waits_now, _dispatched, _started_again, _closed])
async def test_only_what_is_as_it_was_seen(story: Story, change: Callable[[Story], Awaitable[None]]) -> None:
    """An episode that anybody has touched since it was looked at is neither started again nor given up."""
    await _raise(story)
    await story.hold()
    story.later(LEASE + SETTLING + SECOND)
    seen = await story.episode()
    await change(story)
    before = await story.episode()
    assert [
        await _again(story, seen),
        await _again(story, seen, same_run=False),
        await _give_up(story, seen),
    ] == [False, False, False]
    after = await story.episode()
    names = [column.key for column in Episode.__table__.columns]
    assert [getattr(after, name) for name in names] == [getattr(before, name) for name in names]


async def test_a_joining_alarm_does_not_make_it_another(story: Story) -> None:
    """A host that joined since the look does not keep an episode's dead run from being started again."""
    episode = await _raise(story)
    await _started(story, episode)
    story.later(timedelta(minutes=5))
    seen = await story.episode()
    await story.see(told("raised", "node-2", "s-2", story.now))
    assert await _again(story, seen)
    assert (await story.hold()).hosts == ["node-1", "node-2"]
