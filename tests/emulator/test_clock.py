"""Emulated time."""

from datetime import UTC, datetime, timedelta

import pytest

from deployments.emulator.clock import Clock, epoch_ms
from deployments.emulator.region import Region


def test_time_moves_only_when_told() -> None:
    """A region starts at the given time and stands still until `advance`."""
    region = Region(start=datetime(2026, 1, 5, tzinfo=UTC))
    before = region.now
    region.advance(90.5)
    assert (before, region.now) == (
        datetime(2026, 1, 5, tzinfo=UTC),
        datetime(2026, 1, 5, 0, 1, 30, 500_000, tzinfo=UTC),
    )


def test_events_run_in_order_at_their_own_moment() -> None:
    """What falls due during one advance runs in the order of time, then of planning, and sees its own time."""
    clock = Clock()
    seen: list[tuple[str, float]] = []
    clock.at(20, lambda: seen.append(("late", clock.elapsed)))
    clock.at(10, lambda: seen.append(("first", clock.elapsed)))
    clock.at(10, lambda: clock.after(5, lambda: seen.append(("planned meanwhile", clock.elapsed))))
    clock.at(12, lambda: seen.append(("dropped", clock.elapsed))).cancelled = True
    clock.at(31, lambda: seen.append(("not yet", clock.elapsed)))
    clock.advance(30)
    assert (seen, clock.elapsed) == ([("first", 10), ("planned meanwhile", 15), ("late", 20)], 30)


def test_time_does_not_run_backwards() -> None:
    """A negative advance is refused."""
    with pytest.raises(ValueError, match="backwards"):
        Clock().advance(-1)


def test_a_naive_start_is_refused() -> None:
    """The start must say its time zone."""
    with pytest.raises(ValueError, match="aware"):
        Clock(datetime(2026, 1, 5))


def test_epoch_ms_is_milliseconds_since_1970() -> None:
    """Manager's times are whole milliseconds."""
    assert epoch_ms(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1.5)) == 1500
