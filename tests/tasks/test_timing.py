"""Looking again and again until a deadline, on a clock that is moved by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import timing

START = datetime(2026, 7, 1, 8, tzinfo=UTC)


class HandClock:
    """Time that moves only in `sleep`, and by hand; remembers every sleep."""

    def __init__(self) -> None:
        self.time = START
        self.slept: list[float] = []

    def now(self) -> datetime:
        """The time."""
        return self.time

    def move(self, seconds: float) -> None:
        """Let time go by."""
        self.time += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        """Move at once."""
        self.slept.append(seconds)
        self.move(seconds)


@pytest.fixture
def clock() -> Iterator[HandClock]:
    """A clock by hand, for this test."""
    mine = HandClock()
    token = timing.clock.set(mine)
    yield mine
    timing.clock.reset(token)


async def looked(clock: HandClock, until: float, *, every: float, speed: float, takes: float = 0.0) -> list[float]:
    """Seconds after the start at which there was a look, each of which takes a while."""
    seen = []
    async for moment in timing.looks(START + timedelta(seconds=until), every=every, speed=speed):
        seen.append((moment - START).total_seconds())
        assert moment == clock.now(), "a look is told the time it begins"
        clock.move(takes)
    return seen


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("until", "every", "speed", "takes", "moments"),
    [
        (180, 60, 1, 0, [0, 60, 120, 180]),
        (150, 60, 1, 0, [0, 60, 120, 150]),
        (3, 60, 60, 0, [0, 1, 2, 3]),
        (30, 60, 1, 0, [0, 30]),
        (0, 60, 1, 0, [0]),
        (-10, 60, 1, 0, [0]),
        (100, 60, 1, 30, [0, 90, 120]),
        (100, 60, 1, 70, [0, 100]),
        (100, 60, 1, 500, [0, 500]),
    ],
)
async def test_looks_at_once_then_regularly_and_at_the_end(
    clock: HandClock, until: float, every: float, speed: float, takes: float, moments: list[float]
) -> None:
    """There is a look at once, one every `every / speed` after the last ended, and one when the time is up."""
    assert await looked(clock, until, every=every, speed=speed, takes=takes) == moments


@given(until=st.floats(0, 2000), every=st.floats(1, 600), speed=st.floats(0.5, 20), takes=st.floats(0, 90))
@settings(deadline=None)
@pytest.mark.anyio
async def test_no_sleep_goes_past_the_deadline(until: float, every: float, speed: float, takes: float) -> None:
    """However long a look takes, no sleep is too long or ends after `until`, and the last look is not early."""
    clock = HandClock()
    token = timing.clock.set(clock)
    try:
        moments = await looked(clock, until, every=every, speed=speed, takes=takes)
    finally:
        timing.clock.reset(token)
    end = (START + timedelta(seconds=until) - START).total_seconds()
    assert moments[0] == 0
    assert all(before < end for before in moments[:-1])
    assert moments[-1] >= end
    assert moments[-1] == pytest.approx(max(end, moments[-2] + takes if len(moments) > 1 else 0), abs=1e-5)
    assert all(0 <= slept <= every / speed for slept in clock.slept)


@pytest.mark.anyio
async def test_a_loop_that_is_left_sleeps_no_more(clock: HandClock) -> None:
    """Leaving the loop at the first look costs no sleep."""
    async for _ in timing.looks(START + timedelta(hours=1), every=60, speed=1):
        break
    assert clock.slept == []


@pytest.mark.parametrize(("seconds", "speed", "after"), [(600, 1, 600), (600, 60, 10), (0, 60, 0), (90, 0.5, 180)])
def test_later_is_counted_in_the_clusters_time(seconds: float, speed: float, after: float) -> None:
    """A duration of the cluster's time is as much shorter as its time is faster."""
    assert timing.later(seconds, since=START, speed=speed) == START + timedelta(seconds=after)


def test_the_time_is_utc_and_aware() -> None:
    """Without a clock by hand the time is the machine's, aware, in UTC."""
    before = datetime.now(UTC)
    assert before <= timing.now() <= datetime.now(UTC)
    assert timing.now().tzinfo is UTC
