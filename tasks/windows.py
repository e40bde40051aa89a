"""Maintenance windows and change freezes of ours, as text a person writes, and whether changes may be made now.

What counts is what the clocks of the time zone show. Where they are put forward, the times between do not happen, and
a window that lies between them does not open that day; where they are put back, the times between happen twice.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
# Any week has one of each window; but for a window that the clocks jump over, which is there in the next week.
SEARCHED = 15  # days


@dataclass(frozen=True)
class Span:
    """From `begin` up to, not with, `end`, as the clocks of a time zone show them (without an offset)."""

    begin: datetime
    end: datetime

    def holds(self, shown: datetime) -> bool:
        """Whether it goes on when the clocks show this."""
        return self.begin <= shown < self.end


@dataclass(frozen=True)
class Window:
    """Some hours of some days of the week; 0 is Monday. An `end` over 24 h is on the day after."""

    days: frozenset[int]
    begin: timedelta
    end: timedelta

    def spans(self, days: Iterable[date]) -> list[Span]:
        """The spans that begin on these days."""
        midnights = [datetime.combine(day, time()) for day in days if day.weekday() in self.days]
        return [Span(midnight + self.begin, midnight + self.end) for midnight in midnights]


def parse_window(text: str) -> Window:
    """A maintenance window, from text such as `Mon-Fri 22:00-06:00` or `daily 01:30-04:00`.

    Raises:
        ValueError: it is anything else; tells what is wrong and shows a right one.
    """
    try:
        found = re.fullmatch(r"(\S+) ([^\s-]+)-([^\s-]+)", re.sub(r"\s*([,-])\s*", r"\1", " ".join(text.split())))
        if not found:
            raise ValueError("it is not days, a space, and a time from-to")
        days, begin, end = _days(found[1]), _time_of_day(found[2]), _time_of_day(found[3])
        if begin in (end, DAY):
            raise ValueError("it has no length" if begin == end else "24:00 is an end, and a beginning is 00:00")
    except ValueError as error:
        example = "write it like 'Mon-Fri 22:00-06:00', 'Sat,Sun 00:00-24:00' or 'daily 01:30-04:00'"
        raise ValueError(f"maintenance window {text!r}: {error}; {example}") from None
    return Window(days, begin, end if end > begin else end + DAY)


def parse_freeze(text: str) -> Span:
    """A change freeze, from text such as `2026-12-20 to 2027-01-06` or `2026-12-24 12:00 to 2026-12-27 06:00`.

    Days without a time are whole days, the last one included.

    Raises:
        ValueError: it is anything else; tells what is wrong and shows a right one.
    """
    try:
        found = re.fullmatch(r"(\S+)(?: (\S+))? to (\S+)(?: (\S+))?", " ".join(text.split()))
        if not found:
            raise ValueError("it is not a date, 'to', and a date")
        begin = _midnight(found[1]) + _time_of_day(found[2] or "00:00")
        end = _midnight(found[3]) + _time_of_day(found[4] or "24:00")
        if end <= begin:
            raise ValueError("it does not end after it begins")
    except ValueError as error:
        example = "write it like '2026-12-20 to 2027-01-06' or '2026-12-24 12:00 to 2026-12-27 06:00'"
        raise ValueError(f"change freeze {text!r}: {error}; {example}") from None
    return Span(begin, end)


def parse_time_zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name.

    Raises:
        ValueError: there is none; shows a right one.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(f"no such time zone: {name!r}; write it like Europe/Berlin or UTC") from None


def why_not_now(windows: Sequence[str], freezes: Sequence[str], time_zone: str, now: datetime) -> str:
    """Why no change may be made now, in a sentence that tells when one may be; empty where it may be made now.

    A freeze wins over a window.

    Args:
        windows: as `parse_window` takes them; none means that changes may be made at any time.
        freezes: as `parse_freeze` takes them, may be empty.
        time_zone: the IANA name of the time zone of both.
        now: aware.

    Raises:
        ValueError: one of the texts cannot be read.
    """
    calendar = _Calendar(
        {text: parse_window(text) for text in windows},
        {text: parse_freeze(text) for text in freezes},
        parse_time_zone(time_zone),
    )
    why = calendar.hindrance(now)
    if not why:
        return ""
    chance = calendar.next_chance(now)
    when = f"{DAYS[chance.weekday()]} {chance:%Y-%m-%d %H:%M} ({time_zone})"
    return f"nothing is changed {why}; changes may be made from {when}"


@dataclass(frozen=True)
class _Calendar:
    windows: dict[str, Window]
    freezes: dict[str, Span]
    zone: ZoneInfo

    def shown(self, moment: datetime) -> datetime:
        return moment.astimezone(self.zone).replace(tzinfo=None)

    def hindrance(self, moment: datetime) -> str:
        shown = self.shown(moment)
        if frozen := next((text for text, freeze in self.freezes.items() if freeze.holds(shown)), ""):
            return f"during a change freeze ({frozen!r})"
        begun = [span for window in self.windows.values() for span in window.spans((shown.date() - DAY, shown.date()))]
        if self.windows and not any(span.holds(shown) for span in begun):
            return f"outside the maintenance windows ({', '.join(map(repr, self.windows))})"
        return ""

    def next_chance(self, now: datetime) -> datetime:
        """The first moment after now without a hindrance. It is at a beginning or an end, or where the clocks jump."""
        spans = list(self.freezes.values())
        starts = [self.shown(now), *(freeze.end for freeze in spans)]
        days = {start.date() + n * DAY for start in starts for n in range(-1, SEARCHED)}
        spans += [span for window in self.windows.values() for span in window.spans(days)]
        moments = {moment for span in spans for edge in (span.begin, span.end) for moment in self.moments(edge)}
        return next(self.shown(m) for m in sorted(moments) if m > now and not self.hindrance(m))

    def moments(self, edge: datetime) -> list[datetime]:
        """When the clocks show this; where they jump over it, or come to it twice, every minute around that."""
        first, last = sorted(edge.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        return [first + n * MINUTE for n in range((last - first) // MINUTE + 1)]


def _days(text: str) -> frozenset[int]:
    if text.lower() == "daily":
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.split(","):
        ends = [_day(name) for name in part.split("-")]
        if len(ends) > 2:
            raise ValueError(f"{part!r} is not from one day to another")
        days.update(day % 7 for day in range(ends[0], ends[-1] + (1 if ends[0] <= ends[-1] else 8)))
    return frozenset(days)


def _day(name: str) -> int:
    if name.capitalize() not in DAYS:
        raise ValueError(f"{name!r} is no day: they are {', '.join(DAYS)}, or daily alone")
    return DAYS.index(name.capitalize())


def _time_of_day(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,2}):([0-5][0-9])", text)
    since_midnight = timedelta(hours=int(found[1]), minutes=int(found[2])) if found else DAY + MINUTE
    if since_midnight > DAY:
        raise ValueError(f"{text!r} is no time between 00:00 and 24:00")
    return since_midnight


def _midnight(text: str) -> datetime:
    with suppress(ValueError):
        if re.fullmatch(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}", text):
            return datetime.combine(date.fromisoformat(text), time())
    raise ValueError(f"{text!r} is no date between 2000-01-01 and 2999-12-31")
