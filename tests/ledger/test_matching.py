"""Whether two accounts are about one occurrence: the same alarm told with more or less detail, and what is another."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.ledger.matching import age, same_occurrence, the_one
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND

MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Account:
    """What is told, or known, of an occurrence."""

    serial: str = ""
    occurred: datetime | None = None
    cleared_seen: datetime | None = None


@pytest.mark.parametrize(
    ("told", "known", "same"),
    [
        (Account("1", NOW), Account("1", NOW), True),
        (Account("1", NOW), Account("2", NOW), False),
        (Account("1", NOW), Account("1", NOW + 24 * HOUR), True),
        (Account("1", NOW), Account("1", NOW + 27 * HOUR), False),
        (Account("1", NOW), Account("1", NOW + MINUTE), False),
        (Account("1", NOW), Account("1", NOW + 8 * HOUR), True),
        (Account("1", NOW), Account("1", NOW - 5 * HOUR - 45 * MINUTE), True),
        (Account("1", NOW), Account("1", NOW + 8 * HOUR + 999 * MILLISECOND), True),
        (Account("1", NOW), Account("1", NOW + 8 * HOUR - 999 * MILLISECOND), True),
        (Account("1", NOW), Account("1", NOW + 8 * HOUR + 2 * SECOND), False),
        (Account("1", NOW), Account("1", NOW + 10 * MINUTE), False),
        (Account("1"), Account("1", NOW, NOW), True),
        (Account("1", NOW), Account("1", None, NOW), True),
        (Account("1", NOW), Account("", NOW, NOW), True),
        (Account("", NOW), Account("1", NOW, NOW), True),
        (Account("", NOW), Account("", NOW + 999 * MILLISECOND), True),
        (Account("", NOW + 999 * MILLISECOND), Account("", NOW), True),
        (Account("", NOW), Account("", NOW + SECOND), False),
        (Account("", NOW), Account("", NOW + 8 * HOUR), False),
        (Account("1", NOW), Account("", NOW + 8 * HOUR), False),
        (Account(), Account("1", NOW), True),
        (Account(), Account("1", NOW, NOW), False),
        (Account("1"), Account("", NOW), True),
        (Account("1"), Account("", NOW, NOW), False),
        (Account("", NOW), Account("1"), True),
        (Account("", NOW), Account("1", None, NOW), False),
    ],
    ids=str,
)
def test_the_same_occurrence(told: Account, known: Account, same: bool) -> None:
    """Serial numbers decide, then times, then whether it is active; a wrong time zone is forgiven a serial number."""
    assert same_occurrence(told, known) is same


@pytest.mark.parametrize(
    ("told", "known", "found"),
    [
        (Account("1", NOW), [], None),
        (Account("1", NOW), [Account("2", NOW), Account("3", NOW)], None),
        (Account("1", NOW), [Account("", NOW), Account("1", NOW)], 1),
        (Account("1", NOW), [Account("1", NOW + 8 * HOUR), Account("1", NOW)], 1),
        (Account("1", NOW), [Account("1", NOW, NOW), Account("1", NOW)], 1),
        (Account("1", NOW), [Account("1", NOW, NOW), Account("1", NOW, NOW + HOUR)], 1),
        (Account("1"), [Account("1", NOW, NOW), Account("2", NOW)], 0),
        (Account("", NOW), [Account("1", NOW, NOW), Account("2", NOW + HOUR)], 0),
        (Account(), [Account("1", NOW, NOW), Account("2", NOW + HOUR)], 1),
        (Account(), [Account("1", NOW), Account("2", NOW + HOUR)], 1),
    ],
    ids=range(10),
)
def test_the_one_of_several(told: Account, known: list[Account], found: int | None) -> None:
    """Of several the one with the same serial number is meant, else the same time, else the active, else the last."""
    assert the_one(told, known) is (None if found is None else known[found])


times = st.none() | st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
serials = st.sampled_from(["", "1", "2", "3"])
accounts = st.builds(Account, serials, times, times)


@given(told=accounts, known=st.lists(accounts, max_size=6))
def test_never_two_serials(told: Account, known: list[Account]) -> None:
    """What is found has no other serial number, is one of those known, and is missed only where nothing fits."""
    found = the_one(told, known)
    assert found is None or found in known
    assert found is None or not told.serial or found.serial in ("", told.serial)
    assert (found is None) is not any(same_occurrence(told, each) for each in known)


@given(one=accounts, other=accounts)
def test_it_does_not_matter_who_told_first(one: Account, other: Account) -> None:
    """Two accounts of active alarms are about the same occurrence whichever of them came first."""
    one, other = Account(one.serial, one.occurred), Account(other.serial, other.occurred)
    assert same_occurrence(one, other) is same_occurrence(other, one)


@pytest.mark.parametrize(
    ("occurred", "sent", "skew", "old"),
    [
        (None, NOW, 3600.0, timedelta(0)),
        (NOW - HOUR, None, None, HOUR),
        (NOW - HOUR, NOW - HOUR + MINUTE, None, MINUTE),
        (NOW - HOUR, None, 3600.0, 2 * HOUR),
        (NOW - HOUR, None, -1800.0, HOUR / 2),
        (NOW - HOUR, NOW - HOUR, 0.0, HOUR),
        (NOW + HOUR, None, None, timedelta(0)),
    ],
)
def test_age(occurred: datetime | None, sent: datetime | None, skew: float | None, old: timedelta) -> None:
    """An alarm is as old as Manager's clock says, by the measured skew, else by when it was sent, else by our clock."""
    assert age(NOW, occurred, sent, skew) == old
