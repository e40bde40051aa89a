"""Emulated time: it moves only when told, and runs what was planned for the moments it passes."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

DEFAULT_START = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(order=True, slots=True)
class Event:
    """Something planned: `at` is in seconds since the start of the region."""

    at: float
    order: int
    act: Callable[[], object] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class Clock:
    """The time of the region and its agenda.

    `elapsed` is in seconds since `start`. Everything inside the emulator is planned in these seconds; `now` is for
    people.
    """

    def __init__(self, start: datetime = DEFAULT_START) -> None:
        if start.tzinfo is None:
            raise ValueError("start must be an aware datetime")
        self.start = start.astimezone(UTC)
        self.elapsed = 0.0
        self._agenda: list[Event] = []
        self._order = itertools.count()

    @property
    def now(self) -> datetime:
        """The emulated time, aware, UTC."""
        return self.start + timedelta(seconds=self.elapsed)

    def at(self, when: float, act: Callable[[], object]) -> Event:
        """Plan `act` for `when` (seconds since the start); set `cancelled` on the answer to drop it."""
        event = Event(when, next(self._order), act)
        heapq.heappush(self._agenda, event)
        return event

    def after(self, seconds: float, act: Callable[[], object]) -> Event:
        """Plan `act` for `seconds` from now."""
        return self.at(self.elapsed + seconds, act)

    def advance(self, seconds: float) -> None:
        """Move time forward, running what falls due in order, each at its own moment.

        Raises:
            ValueError: `seconds` is negative; time does not run backwards.
        """
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        target = self.elapsed + seconds
        while self._agenda and self._agenda[0].at <= target:
            event = heapq.heappop(self._agenda)
            if not event.cancelled:
                self.elapsed = max(self.elapsed, event.at)
                event.act()
        self.elapsed = target


def epoch_ms(moment: datetime) -> int:
    """Milliseconds since 1970, as Manager writes times."""
    return round(moment.timestamp() * 1000)
