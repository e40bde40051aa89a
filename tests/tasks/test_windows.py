"""Maintenance windows and change freezes: what a person may write, and when it says that changes may be made."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.windows import Span, Window, parse_freeze, parse_time_zone, parse_window, why_not_now

WEEK = frozenset(range(7))
WINDOW_LIKE = "write it like 'Mon-Fri 22:00-06:00', 'Sat,Sun 00:00-24:00' or 'daily 01:30-04:00'"
FREEZE_LIKE = "write it like '2026-12-20 to 2027-01-06' or '2026-12-24 12:00 to 2026-12-27 06:00'"
NO_DAY = "is no day: they are Mon, Tue, Wed, Thu, Fri, Sat, Sun, or daily alone"
NO_TIME = "is no time between 00:00 and 24:00"
NO_DATE = "is no date between 2000-01-01 and 2999-12-31"
NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("text", "days", "begin", "end"),
    [
        ("Mon-Fri 22:00-06:00", {0, 1, 2, 3, 4}, 22, 30),
        ("Sat,Sun 00:00-24:00", {5, 6}, 0, 24),
        ("daily 01:30-04:00", WEEK, 1.5, 4),
        ("Wed 9:00-17:30", {2}, 9, 17.5),
        ("Fri-Mon 22:00-00:00", {4, 5, 6, 0}, 22, 24),
        ("Sun-Sat 00:00-00:30", WEEK, 0, 0.5),
        ("Mon-Mon 12:00-11:59", {0}, 12, 36 - 1 / 60),
        ("Mon,Wed-Thu,Mon 20:00-21:00", {0, 2, 3}, 20, 21),
        ("  mon - FRI ,sUn   22:00 -\t06:00 ", {0, 1, 2, 3, 4, 6}, 22, 30),
    ],
)
def test_a_window_is_days_and_a_time_from_to(text: str, days: set[int], begin: float, end: float) -> None:
    """Days are names, ranges, also over the weekend, or daily; an end before the beginning is on the next day."""
    assert parse_window(text) == Window(frozenset(days), timedelta(hours=begin), timedelta(hours=end))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it is not days, a space, and a time from-to"),
        ("22:00-06:00", "it is not days, a space, and a time from-to"),
        ("Mon-Fri", "it is not days, a space, and a time from-to"),
        ("Mon-Fri 22:00", "it is not days, a space, and a time from-to"),
        ("Mon-Fri 22:00-06:00-07:00", "it is not days, a space, and a time from-to"),
        ("Mon Tue 22:00-06:00", "it is not days, a space, and a time from-to"),
        ("Mo-Fr 22:00-06:00", f"'Mo' {NO_DAY}"),
        ("Monday 22:00-06:00", f"'Monday' {NO_DAY}"),
        ("Mon, 22:00-06:00", "it is not days, a space, and a time from-to"),
        ("Mon,,Tue 22:00-06:00", f"'' {NO_DAY}"),
        ("Mon,daily 22:00-06:00", f"'daily' {NO_DAY}"),
        ("Mon-Tue-Wed 22:00-06:00", "'Mon-Tue-Wed' is not from one day to another"),
        ("daily 22-06", f"'22' {NO_TIME}"),
        ("daily 10pm-6am", f"'10pm' {NO_TIME}"),
        ("daily 22:00-6:0", f"'6:0' {NO_TIME}"),
        ("daily 22:60-06:00", f"'22:60' {NO_TIME}"),
        ("daily 22:00-24:01", f"'24:01' {NO_TIME}"),
        ("daily ²2:00-06:00", f"'²2:00' {NO_TIME}"),
        ("daily 22:00-22:00", "it has no length"),
        ("daily 24:00-24:00", "it has no length"),
        ("daily 24:00-06:00", "24:00 is an end, and a beginning is 00:00"),
    ],
)
def test_what_is_no_window(text: str, fault: str) -> None:
    """What is wrong is named, and right ones are shown."""
    with pytest.raises(ValueError, match="maintenance window") as caught:
        parse_window(text)
    assert str(caught.value) == f"maintenance window {text!r}: {fault}; {WINDOW_LIKE}"


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2026-12-20 to 2027-01-06", datetime(2026, 12, 20), datetime(2027, 1, 7)),
        ("2026-12-24 to 2026-12-24", datetime(2026, 12, 24), datetime(2026, 12, 25)),
        ("2026-12-24 12:00 to 2026-12-27 06:00", datetime(2026, 12, 24, 12), datetime(2026, 12, 27, 6)),
        ("2026-12-24 12:00 to 2026-12-27", datetime(2026, 12, 24, 12), datetime(2026, 12, 28)),
        ("2026-12-24 to 2026-12-27 6:00", datetime(2026, 12, 24), datetime(2026, 12, 27, 6)),
        ("2028-02-29 23:59 to 2028-02-29 24:00", datetime(2028, 2, 29, 23, 59), datetime(2028, 3, 1)),
        (" 2999-12-31\tto  2999-12-31 ", datetime(2999, 12, 31), datetime(3000, 1, 1)),
    ],
)
def test_a_freeze_is_from_a_date_to_a_date(text: str, begin: datetime, end: datetime) -> None:
    """Days without a time are whole days, both included; a time may stand on either side."""
    assert parse_freeze(text) == Span(begin, end)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it is not a date, 'to', and a date"),
        ("2026-12-24", "it is not a date, 'to', and a date"),
        ("2026-12-24 - 2026-12-27", "it is not a date, 'to', and a date"),
        ("2026-12-24 12:00 CET to 2026-12-27", "it is not a date, 'to', and a date"),
        ("24.12.2026 to 27.12.2026", f"'24.12.2026' {NO_DATE}"),
        ("20261224 to 20261227", f"'20261224' {NO_DATE}"),
        ("2026-12-24 to 2026-12-32", f"'2026-12-32' {NO_DATE}"),
        ("2027-02-29 to 2027-03-01", f"'2027-02-29' {NO_DATE}"),
        ("2026-12-24 to 9999-12-31", f"'9999-12-31' {NO_DATE}"),
        ("2026-12-24T12:00 to 2026-12-27", f"'2026-12-24T12:00' {NO_DATE}"),
        ("2026-12-24 noon to 2026-12-27", f"'noon' {NO_TIME}"),
        ("2026-12-27 to 2026-12-24", "it does not end after it begins"),
        ("2026-12-24 12:00 to 2026-12-24 12:00", "it does not end after it begins"),
    ],
)
def test_what_is_no_freeze(text: str, fault: str) -> None:
    """What is wrong is named, and right ones are shown."""
    with pytest.raises(ValueError, match="change freeze") as caught:
        parse_freeze(text)
    assert str(caught.value) == f"change freeze {text!r}: {fault}; {FREEZE_LIKE}"


@pytest.mark.parametrize("name", ["", "Berlin", "Europe", "/etc/localtime", "../UTC", "UTC\0", "CEST", "x" * 5000])
def test_what_is_no_time_zone(name: str) -> None:
    """A name the IANA does not have is refused, whatever the file system makes of it."""
    with pytest.raises(ValueError, match="no such time zone") as caught:
        parse_time_zone(name)
    assert str(caught.value) == f"no such time zone: {name!r}; write it like Europe/Berlin or UTC"


LETTERS = st.text("MonTueWdhFriSatdaily0123456789:-, \t\n²–to")


@given(st.text() | LETTERS | st.builds("{} {}-{}".format, LETTERS, LETTERS, LETTERS))
@settings(deadline=None)
def test_any_text_is_read_or_refused_in_our_words(text: str) -> None:
    """Whatever is written, nothing but a ValueError that shows a right example comes of it."""
    for parse, shown in ((parse_window, WINDOW_LIKE), (parse_freeze, FREEZE_LIKE), (parse_time_zone, "Europe/Berlin")):
        try:
            parse(text)
        except ValueError as error:
            assert shown in str(error)  # noqa: PT017  any text may also be right


NIGHTS, WEEKENDS, EARLY = "Mon-Fri 22:00-06:00", "Sat,Sun 00:00-24:00", "daily 01:30-04:00"
CHRISTMAS, HOLIDAYS = "2026-12-24 12:00 to 2026-12-27 06:00", "2026-12-20 to 2027-01-06"


def told(reason: str, chance: str, time_zone: str = "Europe/Berlin") -> str:
    """The sentence with this reason and this next chance."""
    return f"nothing is changed {reason}; changes may be made from {chance} ({time_zone})"


@pytest.mark.parametrize(
    ("windows", "freezes", "shown", "chance"),
    [
        ([], [], "2026-11-26 12:00", ""),
        ([NIGHTS], [], "2026-11-26 21:59", "Thu 2026-11-26 22:00"),  # a Thursday
        ([NIGHTS], [], "2026-11-26 22:00", ""),
        ([NIGHTS], [], "2026-11-27 05:59", ""),
        ([NIGHTS], [], "2026-11-27 06:00", "Fri 2026-11-27 22:00"),
        ([NIGHTS], [], "2026-11-28 05:59", ""),  # Saturday's early hours are Friday's night
        ([NIGHTS], [], "2026-11-28 06:00", "Mon 2026-11-30 22:00"),
        ([NIGHTS], [], "2026-11-30 05:59", "Mon 2026-11-30 22:00"),  # Monday's early hours are Sunday's
        ([NIGHTS, WEEKENDS], [], "2026-11-28 06:00", ""),
        ([WEEKENDS], [], "2026-11-29 23:59", ""),
        ([WEEKENDS], [], "2026-11-30 00:00", "Sat 2026-12-05 00:00"),
        ([], [CHRISTMAS], "2026-12-24 11:59", ""),
        ([], [CHRISTMAS], "2026-12-24 12:00", "Sun 2026-12-27 06:00"),
        ([], [CHRISTMAS], "2026-12-27 06:00", ""),
        ([], [HOLIDAYS], "2027-01-06 23:59", "Thu 2027-01-07 00:00"),
        ([NIGHTS], [HOLIDAYS], "2026-12-21 23:00", "Thu 2027-01-07 00:00"),  # Wednesday's window goes on
        ([WEEKENDS], [HOLIDAYS], "2026-12-20 00:00", "Sat 2027-01-09 00:00"),
        ([EARLY], [CHRISTMAS], "2026-12-24 12:00", "Mon 2026-12-28 01:30"),
        ([], ["2026-11-26 to 2026-11-27", "2026-11-27 to 2999-12-31"], "2026-11-26 12:00", "Wed 3000-01-01 00:00"),
    ],
)
def test_when_changes_may_be_made(windows: list[str], freezes: list[str], shown: str, chance: str) -> None:
    """In any window and in no freeze, from its first minute to before its last; else the next such minute is told."""
    now = datetime.fromisoformat(shown).replace(tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
    frozen = any(freeze.holds(datetime.fromisoformat(shown)) for freeze in map(parse_freeze, freezes))
    outside = f"outside the maintenance windows ({', '.join(map(repr, windows))})"
    reason = f"during a change freeze ({freezes[0]!r})" if frozen else outside
    assert why_not_now(windows, freezes, "Europe/Berlin", now) == (told(reason, chance) if chance else "")


@pytest.mark.parametrize(
    ("window", "time_zone", "at", "chance"),
    [
        # Berlin, 2027-03-28: 02:00 becomes 03:00 at 01:00 UTC.
        ("Sun 02:15-02:45", "Europe/Berlin", "2027-03-28 00:59", "Sun 2027-04-04 02:15"),
        ("Sun 02:15-02:45", "Europe/Berlin", "2027-03-28 01:00", "Sun 2027-04-04 02:15"),
        ("Sun 02:15-04:00", "Europe/Berlin", "2027-03-28 00:59", "Sun 2027-03-28 03:00"),
        ("Sun 02:15-04:00", "Europe/Berlin", "2027-03-28 01:00", ""),
        ("Sun 01:30-02:30", "Europe/Berlin", "2027-03-28 00:59", ""),
        ("Sun 01:30-02:30", "Europe/Berlin", "2027-03-28 01:00", "Sun 2027-04-04 01:30"),
        ("Sat 22:00-06:00", "Europe/Berlin", "2027-03-28 03:59", ""),
        ("Sat 22:00-06:00", "Europe/Berlin", "2027-03-28 04:00", "Sat 2027-04-03 22:00"),
        # Berlin, 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC.
        ("Sun 02:15-02:45", "Europe/Berlin", "2026-10-25 00:14", "Sun 2026-10-25 02:15"),
        ("Sun 02:15-02:45", "Europe/Berlin", "2026-10-25 00:15", ""),
        ("Sun 02:15-02:45", "Europe/Berlin", "2026-10-25 00:45", "Sun 2026-10-25 02:15"),
        ("Sun 02:15-02:45", "Europe/Berlin", "2026-10-25 01:15", ""),
        ("Sun 02:15-02:45", "Europe/Berlin", "2026-10-25 01:45", "Sun 2026-11-01 02:15"),
        ("Sun 01:00-02:30", "Europe/Berlin", "2026-10-25 00:30", "Sun 2026-10-25 02:00"),
        ("Sun 01:00-02:30", "Europe/Berlin", "2026-10-25 01:00", ""),
        ("Sat 22:00-02:30", "Europe/Berlin", "2026-10-25 00:45", "Sun 2026-10-25 02:00"),
        # Apia had no 2011-12-30; Lord Howe's clocks go by half an hour, on 2026-10-04 from 02:00 to 02:30.
        ("Fri 00:00-24:00", "Pacific/Apia", "2011-12-30 09:59", "Fri 2012-01-06 00:00"),
        ("Fri 23:00-01:00", "Pacific/Apia", "2011-12-30 09:59", "Sat 2011-12-31 00:00"),
        ("Sun 02:15-03:00", "Australia/Lord_Howe", "2026-10-03 15:29", "Sun 2026-10-04 02:30"),
    ],
)
def test_the_clocks_count_where_they_are_changed(window: str, time_zone: str, at: str, chance: str) -> None:
    """Skipped times do not happen and repeated ones happen twice, for a window as for a person who reads the clock."""
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    sentence = told(f"outside the maintenance windows ({window!r})", chance, time_zone) if chance else ""
    assert why_not_now([window], [], time_zone, now) == sentence


Hours = tuple[frozenset[int], int, int]  # days, and minutes of the day
WEEKS = [  # each with its time zone: plain ones, and those in which the clocks are changed
    (date(2026, 11, 23), "UTC"),
    (date(2026, 11, 23), "Asia/Kathmandu"),
    (date(2027, 3, 24), "Europe/Berlin"),
    (date(2026, 10, 21), "Europe/Berlin"),
    (date(2027, 3, 10), "America/St_Johns"),
    (date(2026, 10, 29), "America/St_Johns"),
    (date(2026, 10, 1), "Australia/Lord_Howe"),
    (date(2027, 4, 1), "Australia/Lord_Howe"),
    (date(2027, 3, 25), "Antarctica/Troll"),
    (date(2026, 10, 22), "Antarctica/Troll"),
    (date(2011, 12, 27), "Pacific/Apia"),
]
HOURS = st.tuples(
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439) | st.integers(90, 240),
    st.integers(0, 1440) | st.integers(90, 240),
).filter(lambda hours: hours[1] != hours[2])


def clock(minutes: int) -> str:
    """Minutes of the day, as written."""
    return f"{minutes // 60:02}:{minutes % 60:02}"


def is_open(hours: Hours, weekday: int, minute: int) -> bool:
    """Whether a window is open on that day at that minute of it."""
    days, begin, end = hours
    if begin < end:
        return weekday in days and begin <= minute < end
    return (weekday in days and minute >= begin) or ((weekday - 1) % 7 in days and minute < end)


@given(
    st.sampled_from(WEEKS),
    st.lists(HOURS, max_size=3),
    st.lists(st.lists(st.integers(0, 7 * 1440), min_size=2, max_size=2, unique=True).map(sorted), max_size=2),
    st.lists(st.integers(0, 7 * 1440 - 1), min_size=1, max_size=20),
)
@example((date(2027, 3, 24), "Europe/Berlin"), [(WEEK, 135, 165)], [], list(range(5700, 5800, 5)))
@settings(deadline=None, max_examples=60)
def test_every_minute_is_as_the_clock_says(
    week: tuple[date, str], hours: list[Hours], frozen: list[list[int]], minutes: list[int]
) -> None:
    """Whether, why not, and when next is what reading the clock minute by minute through a week gives."""
    day, time_zone = week
    start = datetime(day.year, day.month, day.day)
    windows = [f"{','.join(NAMES[d] for d in sorted(days))} {clock(b)}-{clock(e)}" for days, b, e in hours]
    edges = [[f"{start + n * MINUTE:%Y-%m-%d %H:%M}" for n in pair] for pair in frozen]
    freezes = [f"{begin} to {end}" for begin, end in edges]
    outside = f"outside the maintenance windows ({', '.join(map(repr, dict.fromkeys(windows)))})"

    moments = [start.replace(tzinfo=UTC) + n * MINUTE for n in range(7 * 1440)]
    clocks = [moment.astimezone(ZoneInfo(time_zone)) for moment in moments]
    reasons = []
    for shown in clocks:
        written = f"{shown:%Y-%m-%d %H:%M}"
        covering = [f"during a change freeze ({'{} to {}'.format(*e)!r})" for e in edges if e[0] <= written < e[1]]
        within = any(is_open(each, shown.weekday(), shown.hour * 60 + shown.minute) for each in hours)
        reasons.append(covering[0] if covering else "" if within or not hours else outside)

    changes = [n for n, (before, after) in enumerate(pairwise(reasons)) if before != after]
    for minute in {*minutes, *changes[:10], *(n + 1 for n in changes[:10])}:
        said = why_not_now(windows, freezes, time_zone, moments[minute])
        later = (n for n in range(minute, len(reasons)) if not reasons[n])
        chance = next((f"{NAMES[clocks[n].weekday()]} {clocks[n]:%Y-%m-%d %H:%M}" for n in later), None)
        if not reasons[minute]:
            assert said == ""
        elif chance:
            assert said == told(reasons[minute], chance, time_zone)
        else:
            assert said.startswith(f"nothing is changed {reasons[minute]}; changes may be made from ")
