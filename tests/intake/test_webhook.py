"""What a body says: pure functions, judged by tables and by any bytes."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from deployments.intake.webhook import Malformed, read_alarm, read_body
from tasks.models import Observation

OCCURRED = datetime(2026, 11, 22, 12, 47, 42, tzinfo=UTC)
KEYS = "cluster, alarm_id, kind, host, serial, occurred, cleared, cleared_by"
RAISED = {"cluster": "mrs-prod", "alarm_id": "12110", "kind": "raised"}
CLEARED = {"cluster": "mrs-prod", "alarm_id": "12110", "kind": "cleared"}


def refusal(item: object) -> str:
    """Why it is no alarm."""
    with pytest.raises(Malformed) as refused:
        read_alarm(item)
    return str(refused.value)


@pytest.mark.parametrize(
    ("item", "fields"),
    [
        (RAISED, {}),
        ({**RAISED, "alarm_id": 12110}, {}),
        ({**RAISED, "host": "node-1", "serial": "4711"}, {"host": "node-1", "serial": "4711"}),
        ({**RAISED, "serial": 4711}, {"serial": "4711"}),
        ({**RAISED, "occurred": "2026-11-22T13:47:42+01:00"}, {"occurred": OCCURRED}),
        ({**RAISED, "occurred": "2026-11-22t12:47:42.000000000z"}, {"occurred": OCCURRED}),
        ({**RAISED, "occurred": 1795351662000}, {"occurred": OCCURRED}),
        ({**RAISED, "occurred": 1795351662001}, {"occurred": OCCURRED + timedelta(milliseconds=1)}),
        ({**RAISED, "host": None, "serial": None, "occurred": None, "cleared": None, "cleared_by": None}, {}),
        ({**RAISED, "cluster": "{{ 7 * 7 }} $(id) ' ü 集群"}, {"cluster": "{{ 7 * 7 }} $(id) ' ü 集群"}),
        (CLEARED, {"kind": "cleared"}),
        ({**CLEARED, "cleared": None, "cleared_by": None}, {"kind": "cleared"}),
        (
            {**CLEARED, "cleared": "2026-11-22T12:47:42Z", "cleared_by": "person"},
            {"kind": "cleared", "cleared": OCCURRED, "cleared_by": "person"},
        ),
    ],
)
def test_an_alarm_is_read_as_what_it_claims(item: dict[str, object], fields: dict[str, Any]) -> None:
    """An item becomes the observation it states: numbers as text, times in UTC, null like left out, text as it is."""
    assert read_alarm(item) == Observation(**{"cluster": "mrs-prod", "alarm_id": "12110", "kind": "raised", **fields})


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (5, f"it is no JSON object: write one with the keys {KEYS}"),
        ({}, "kind: it is missing: write raised or cleared"),
        ({**RAISED, "kind": "event"}, "kind: write raised or cleared"),
        ({"kind": "raised"}, "cluster: it is missing: add it; alarm_id: it is missing: add it"),
        ({**RAISED, "cluster": ""}, "cluster: it is empty: write one"),
        ({**RAISED, "cluster": None}, "cluster: null is no value: write one"),
        ({**RAISED, "cluster": "x" * 129}, "cluster: it is longer than 128 characters: shorten it"),
        ({**RAISED, "cluster": "a\nb"}, "cluster: it holds control characters: leave them out"),
        ({**RAISED, "host": "a\u202eb"}, "host: it holds control characters: leave them out"),
        ({**RAISED, "host": "x" * 256}, "host: it is longer than 255 characters: shorten it"),
        ({**RAISED, "host": 5}, "host: it is no text: write one"),
        ({**RAISED, "serial": "x" * 65}, "serial: it is longer than 64 characters: shorten it"),
        ({**RAISED, "serial": -1}, "serial: it is no text: write one"),
        ({**RAISED, "alarm_id": True}, "alarm_id: write 1 to 10 digits, like 12110"),
        ({**RAISED, "alarm_id": "12110\n"}, "alarm_id: write 1 to 10 digits, like 12110"),
        ({**RAISED, "alarm_id": None}, "alarm_id: write 1 to 10 digits, like 12110"),
        ({**RAISED, "alarm_id": "ALM-12110"}, "alarm_id: write 1 to 10 digits, like 12110"),
        ({**RAISED, "alarm_id": "١٢"}, "alarm_id: write 1 to 10 digits, like 12110"),
        ({**RAISED, "alarm_id": 10**10}, "alarm_id: write 1 to 10 digits, like 12110"),
        ({**RAISED, "colour": "red"}, f"'colour': there is no such key: the keys are {KEYS}"),
        ({**RAISED, "\x1b" + "x" * 99: 1}, f"'\\x1b{'x' * 36}...': there is no such key: the keys are {KEYS}"),
        (
            {**RAISED, "cleared": 1795351662000, "cleared_by": "auto"},
            "cleared: a raised alarm is not cleared: leave it out, or send the kind cleared; "
            "cleared_by: a raised alarm is not cleared: leave it out, or send the kind cleared",
        ),
        ({**CLEARED, "cleared_by": "me"}, "cleared_by: write 'auto' or 'person'"),
        (
            {"kind": "raised", "host": 1, "serial": [], "occurred": {}},
            "cluster: it is missing: add it; alarm_id: it is missing: add it; host: it is no text: write one; "
            "and 2 more",
        ),
    ],
)
def test_what_is_no_alarm_is_refused_in_a_sentence(item: object, words: str) -> None:
    """An item that does not follow the schema is refused: which key, what is wrong, what to write."""
    assert refusal(item) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2026-11-22T13:47:42", "without an offset it may be any of 24 hours: end it with Z or like +01:00"),
        ("2026-02-30T13:47:42Z", "no such time: write it like 2026-11-22T13:47:42+01:00"),
        ("2026-11-22T13:47:42+25:00", "no such time: write it like 2026-11-22T13:47:42+01:00"),
        ("2026-11-22T13:47:42+01:00:30", "no such time: write it like 2026-11-22T13:47:42+01:00"),
        ("2026-W47-7T13:47:42Z", "no such time: write it like 2026-11-22T13:47:42+01:00"),
        ("0001-01-01T00:00:00+23:59", "no such time: write it like 2026-11-22T13:47:42+01:00"),
        ("1795351662000", "no such time: write it like 2026-11-22T13:47:42+01:00"),
        ("", "no such time: write it like 2026-11-22T13:47:42+01:00"),
        (True, "no such time: write it like 2026-11-22T13:47:42+01:00"),
        (1795351662000.5, "no such time: write it like 2026-11-22T13:47:42+01:00"),
        (1795351662, "not between 2000 and 2100: write milliseconds since 1970"),
        (-1, "not between 2000 and 2100: write milliseconds since 1970"),
        (10**30, "not between 2000 and 2100: write milliseconds since 1970"),
    ],
)
def test_a_time_that_is_none_or_may_be_many_is_refused(value: object, words: str) -> None:
    """A time without an offset, in seconds, out of range or in another form is never guessed."""
    assert refusal({**CLEARED, "cleared": value}) == f"cleared: {words}"


@trials(deadline=None)
@given(st.datetimes(datetime(2000, 1, 3), datetime(2099, 12, 29)), st.integers(-1439, 1439))
def test_every_time_is_read_as_the_moment_it_is(moment: datetime, minutes: int) -> None:
    """Any time with any offset is the same moment in UTC."""
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert read_alarm({**RAISED, "occurred": aware.isoformat()}).occurred == aware.astimezone(UTC)


@pytest.mark.parametrize(
    ("body", "items"),
    [
        (b'{"alarms": [{"a": 1}, 5]}', [{"a": 1}, 5]),
        (b'{"a": 1}', [{"a": 1}]),
        (b"{}", [{}]),
        (b'{"alarms": [' + b",".join([b"1"] * 1000) + b"]}", [1] * 1000),
    ],
)
def test_a_body_is_one_alarm_or_many(body: bytes, items: list[object]) -> None:
    """A body holds one item, or up to a thousand in `alarms`, which are not yet judged."""
    assert read_body(body) == items


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is no JSON (EOF while parsing a value at line 1 column 0): send one alarm as an object, or "
              "many in alarms"),
        (b"[1]", "the body is JSON but no object: send one alarm as an object, or many in alarms"),
        (b'{"alarms": [1], "kind": "raised"}', "the body has other keys beside alarms: send alarms alone"),
        (b'{"alarms": []}', "alarms is no list of 1 to 1000 alarms: send more in several requests"),
        (b'{"alarms": {}}', "alarms is no list of 1 to 1000 alarms: send more in several requests"),
        (
            b'{"alarms": [' + b",".join([b"1"] * 1001) + b"]}",
            "alarms is no list of 1 to 1000 alarms: send more in several requests",
        ),
    ],
)  # fmt: skip
def test_a_body_of_another_shape_is_refused_in_a_sentence(body: bytes, words: str) -> None:
    """What is no JSON, or JSON of another shape, is refused as a whole: what is wrong, what to send."""
    with pytest.raises(Malformed) as refused:
        read_body(body)
    assert str(refused.value) == words


@trials(deadline=None)
@given(st.binary())
@example(b"[" * 100_000)
@example(b'{"a":' * 199 + b"1" + b"}" * 199)
@example(b"9" * 5000)
@example(b'{"alarms": [NaN]}')
@example(b'"\\ud800"')
@example(b"\xef\xbb\xbf{}")
@example(b'{"kind": "raised", "cluster": "a", "alarm_id": ' + b"9" * 4000 + b"}")
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Any bytes are alarms, or refused with a sentence, and nothing else happens."""
    try:
        read: list[Observation | str] = [read_alarm(item) for item in read_body(body)]
    except Malformed as refused:
        read = [str(refused)]
    assert 0 < len(read) <= 1000
    assert all(isinstance(each, Observation) or 0 < len(each) < 500 for each in read)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(KEYS.split(", ")), inner),
    max_leaves=8,
)
ITEMS = st.dictionaries(st.sampled_from([*KEYS.split(", "), "x"]), JSON | st.sampled_from(["raised", "cleared", 12110]))


@trials(deadline=None)
@given(JSON | ITEMS)
def test_any_json_is_an_alarm_or_refused(item: object) -> None:
    """Any JSON value is an alarm, or refused with one line of printable text."""
    try:
        read: Observation | str = read_alarm(item)
    except Malformed as refused:
        read = str(refused)
    assert isinstance(read, Observation) or read.isprintable()
