"""Which row of Manager's history is the occurrence that the ledger knows: that very one, or none."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployments.intake.history import is_listed, same_in_history
from tasks.ledger.tables import Occurrence
from tasks.models import Alarm

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def row(serial: str = "", occurred: float | None = None, cleared: float | None = None, host: str = "node-1") -> Alarm:
    """What Manager lists; times are minutes after noon."""
    return Alarm(
        alarm_id="12110",
        serial=serial,
        status="Auto",
        occurred=None if occurred is None else NOON + timedelta(minutes=occurred),
        cleared=None if cleared is None else NOON + timedelta(minutes=cleared),
        location=f"HostName={host}",
    )


def known(serial: str = "", occurred: float | None = None) -> Occurrence:
    """What the ledger takes for active on node-1."""
    at = None if occurred is None else NOON + timedelta(minutes=occurred)
    return Occurrence(
        id="o",
        cluster_id="c",
        alarm_id="12110",
        host="node-1",
        serial=serial,
        occurred=at,
        first_seen=NOON,
        last_seen=NOON,
    )


@pytest.mark.parametrize(
    ("ours", "past", "found"),
    [
        (known("7"), [row("6"), row("7", 0, 5)], 1),
        (known("7"), [row("7", 0, 5, host="node-2")], None),
        (known("7", 0), [row("7", 60, 65)], 0),  # a time zone apart
        (known("7", 0), [row("7", 4, 9)], None),  # Manager counts anew
        (known("7"), [row("7", 0, 5), row("7", 500, 505)], None),  # one of two
        (known("7"), [row("", 0, 5)], None),  # nothing to compare
        (known("", 0), [row("8", 0, 5), row("9", 10, 12)], 0),
        (known("", 0), [row("8", 1, 5)], None),
        (known("", 0), [row("8")], None),
        (known(), [row("8", -3, 5), row("9", 10, 12)], 0),  # active when ours was first seen
        (known(), [row("8", -3, -1)], None),  # over by then
        (known(), [row("8", 1, 5)], None),  # began later
        (known(), [row("8", 0.02, 5)], 0),  # began later by less than clocks are read
        (known(), [row("8", None, 5)], None),
        (known(), [row("8", -3, 5), row("9", -2, 5)], None),  # one of two
        (known(), [row("8", -3, 5, host="node-2")], None),
    ],
)
def test_only_the_same_occurrence_is_found(ours: Occurrence, past: list[Alarm], found: int | None) -> None:
    """By serial number, by time, or as the only one that was active when it was first seen; else none."""
    assert same_in_history(ours, past, NOON) == (None if found is None else past[found])


def test_without_managers_clock_first_seen_tells_nothing() -> None:
    """An occurrence without serial number and time is not guessed."""
    assert same_in_history(known(), [row("8", -3, 5)], None) is None


@pytest.mark.parametrize(
    ("rows", "listed"),
    [
        ([row("7", 0)], True),
        ([row("8", 9)], False),
        ([row("7", 0, host="node-2")], False),
        ([row("7", 0).model_copy(update={"alarm_id": "45192"})], False),
        ([], False),
    ],
)
def test_listed_is_the_same_occurrence_of_the_same_host(rows: list[Alarm], listed: Any) -> None:
    """Another host's, another alarm's or a later one is not it."""
    assert is_listed(known("7", 0), rows) is listed
