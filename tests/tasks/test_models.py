"""What the clouds answer, read into frozen values, whatever type they chose to write it in."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.models import Agency, Alarm, ClusterRecord, Command, Component, Instance, hosts_of

MOMENT = datetime(2026, 7, 1, 8, 0, 0, 123000, tzinfo=UTC)
MILLISECONDS = 1782892800123


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (MILLISECONDS, MOMENT),
        (str(MILLISECONDS), MOMENT),
        (float(MILLISECONDS), MOMENT),
        ("2026-07-01T08:00:00.123Z", MOMENT),
        (MOMENT, MOMENT),
        (0, None),
        ("0", None),
        ("", None),
        (None, None),
    ],
)
def test_a_moment_is_epoch_milliseconds(value: Any, read: datetime | None) -> None:
    """Epoch milliseconds as number or text are an aware UTC time; 0, empty and null mean not yet."""
    assert Alarm(alarm_id="1", occurred=value).occurred == read


@given(st.one_of(st.integers(), st.text(), st.floats(), st.booleans(), st.lists(st.integers(), max_size=2)))
@settings(deadline=None)
def test_any_moment_is_a_time_or_a_validation_error(value: Any) -> None:
    """Nothing an answer can hold as a time, however large or odd, is any other error than pydantic's."""
    for given_ in (value, str(value)):
        try:
            Instance.model_validate({"startTime": given_})
        except ValidationError:
            continue


@pytest.mark.parametrize("value", [10**18, 10**40, 10**400, "9" * 30, "9" * 5000, "²", "soon"])
def test_a_moment_out_of_range_is_refused(value: Any) -> None:
    """A time no calendar holds is a validation error, not an overflow."""
    with pytest.raises(ValidationError):
        Alarm(alarm_id="1", occurred=value)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (3, 3),
        ("3", 3),
        ("03", 3),
        (0, 0),
        ("", None),
        (None, None),
        ("three", None),
        (-1, None),
        ("²", None),
        ([], None),
    ],
)
def test_a_count_is_a_number_or_nothing(value: Any, count: int | None) -> None:
    """A node count is a number, also as text; anything else is no count, and no error."""
    assert ClusterRecord.model_validate({"totalNodeNum": value}).nodes == count


def test_numbers_for_texts_and_nulls_are_read() -> None:
    """Numbers where the page says string and nulls are texts; unknown fields are ignored; both names are understood."""
    row = {"alarmId": 12110, "serialNo": 1017, "status": None, "source": None, "location": None, "news": {"a": 1}}
    read = Alarm.model_validate(row)
    assert read == Alarm(alarm_id="12110", serial="1017", status="")
    assert Instance.model_validate({"id": 7, "hostName": "n", "runningStatus": "Normal"}) == Instance(
        id="7", host="n", status="Normal"
    )
    assert Component.model_validate({"service_name": "Meta", "running_status": None}) == Component(service="Meta")
    assert Command.model_validate({"commandId": 5, "failedEntities": None}) == Command(id="5")


@pytest.mark.parametrize(
    ("answer", "agency"), [({}, None), ({"mrsEcsDefaultAgency": None}, None), ({"agency": ""}, "")]
)
def test_an_absent_agency_is_not_an_empty_one(answer: dict[str, Any], agency: str | None) -> None:
    """A record without the agency field, or with null, says nothing; an empty one says that none is bound."""
    assert ClusterRecord.model_validate(answer).agency == agency


def test_iam_times_without_an_offset_are_utc() -> None:
    """IAM's expiry is UTC, with or without an offset."""
    written = ["2026-07-01T08:00:00.123", "2026-07-01T08:00:00.123Z", "2026-07-01T10:00:00.123+02:00"]
    assert [Agency.model_validate({"expire_time": text}).expires for text in written] == [MOMENT] * 3


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("Source=c;ServiceName=Meta;RoleName=Meta;HostName=node-1", "node-1"),
        ("Source=c,ServiceName=Meta,RoleName=Meta,HostName=node-1", "node-1"),
        (" hostname = node-1 ; SERVICENAME = Meta ", "node-1"),
        ("HostName=node-1;HostName=node-2", "node-1"),
        ("MyHostName=node-2;HostName=node-1", "node-1"),
        ("HostName=a=b", "a=b"),
        ("HostName", ""),
        ("HostName=", ""),
        (";;,=,", ""),
        ("", ""),
    ],
)
def test_the_host_is_found_in_the_location(location: str, host: str) -> None:
    """The location's parts are found between `;` or `,`, with spaces and in any case; a missing one is empty."""
    alarm = Alarm(alarm_id="12110", location=location)
    assert alarm.host == host


@given(st.text())
@settings(deadline=None)
def test_any_location_has_a_host_or_none(location: str) -> None:
    """No location is an error."""
    alarm = Alarm(alarm_id="12110", location=location)
    assert alarm.host == "" or alarm.host in location


@pytest.mark.parametrize(
    ("alarm", "words"),
    [
        (Alarm(alarm_id="12110"), "ALM-12110 on an unnamed host"),
        (Alarm(alarm_id="12110", location="HostName=n", serial="7"), "ALM-12110 on n serial 7"),
        (
            Alarm(alarm_id="12110", location="HostName=n", serial="7", occurred=MOMENT),
            "ALM-12110 on n serial 7 since 2026-07-01 08:00:00",
        ),
    ],
)
def test_an_alarm_reads_as_a_phrase(alarm: Alarm, words: str) -> None:
    """As text an alarm is its id, host, serial number and time, as far as they are known."""
    assert str(alarm) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, ""),
        (1, "n1"),
        (5, "n1, n2, n3, n4, n5"),
        (6, "n1, n2, n3, n4 and 2 more"),
        (200, "n1, n2, n3, n4 and 196 more"),
    ],
)
def test_many_hosts_fit_in_a_run_s_name(count: int, words: str) -> None:
    """Up to five hosts are all named, of more the first four and how many more."""
    assert hosts_of([Alarm(alarm_id="1", location=f"HostName=n{n + 1}") for n in range(count)]) == words


def test_a_value_never_changes() -> None:
    """Models are frozen, equal by content, and hashable."""
    alarm = Alarm(alarm_id="12110")
    with pytest.raises(ValidationError):
        alarm.serial = "2"  # type: ignore[misc]  # mypy knows it as well
    assert {alarm, Alarm(alarm_id="12110")} == {alarm}
