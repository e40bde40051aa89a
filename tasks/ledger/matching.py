"""Whether two accounts of an alarm are about the same occurrence. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

QUARTER = 900.0
WIDEST_ZONE = 26 * 3600.0  # UTC-12 to UTC+14
LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Account(Protocol):
    """What is told of an occurrence, by whoever; unknown serial is empty, unknown time None."""

    @property
    def serial(self) -> str:
        """Manager's serial number."""

    @property
    def occurred(self) -> datetime | None:
        """When it occurred, by Manager's clock."""


class Known(Account, Protocol):
    """An occurrence that the ledger has."""

    @property
    def cleared_seen(self) -> datetime | None:
        """When we learned that it was cleared."""


Found = TypeVar("Found", bound=Known)


def same_moment(one: datetime, other: datetime) -> bool:
    """Equal to the second, for sources write times more or less finely."""
    return abs((one - other).total_seconds()) < 1


def a_zone_apart(one: datetime, other: datetime) -> bool:
    """Equal but for a time zone that was set or read wrongly: some quarters of an hour apart, to the second."""
    apart = abs((one - other).total_seconds())
    return apart <= WIDEST_ZONE + 1 and min(apart % QUARTER, QUARTER - apart % QUARTER) < 1


def same_occurrence(told: Account, known: Known) -> bool:
    """Whether what is told of a host's alarm is about this occurrence of the same host, cluster and alarm id.

    With both serial numbers: these are equal, and the times, if both are told, differ by a time zone at most (Manager
    counts anew after it was installed anew). With both times and not both serials: the times are equal. Where neither
    can be compared, an account is about the occurrence that is active.
    """
    if told.serial and known.serial:
        if told.serial != known.serial:
            return False
        return told.occurred is None or known.occurred is None or a_zone_apart(told.occurred, known.occurred)
    if told.occurred and known.occurred:
        return same_moment(told.occurred, known.occurred)
    return known.cleared_seen is None


def the_one(told: Account, known: Iterable[Found]) -> Found | None:
    """The occurrence an account is about; None: a new one.

    Of several the one with the same serial number, else with the same time, else the one that is active, else the last:
    a clear that is told twice must not clear what came after it.
    """
    found = [each for each in known if same_occurrence(told, each)]
    return max(found, key=lambda each: _likeness(told, each), default=None)


def _likeness(told: Account, known: Known) -> tuple[bool, bool, bool, datetime, datetime]:
    return (
        bool(told.serial) and told.serial == known.serial,
        bool(told.occurred and known.occurred and same_moment(told.occurred, known.occurred)),
        known.cleared_seen is None,
        known.occurred or LONG_AGO,
        known.cleared_seen or LONG_AGO,
    )


def age(told_at: datetime, occurred: datetime | None, sent: datetime | None, skew: float | None) -> timedelta:
    """How old an alarm is now, as well as can be told; never negative; zero where its time is not told.

    Args:
        told_at: when it was received, by our clock.
        sent: when the source wrote it, by Manager's clock.
        skew: Manager's clock less ours, in seconds, where it was measured.
    """
    if occurred is None:
        return timedelta(0)
    manager_now = told_at + timedelta(seconds=skew) if skew is not None else sent or told_at
    return max(manager_now - occurred, timedelta(0))
