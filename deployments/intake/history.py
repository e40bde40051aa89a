"""What the ledger knows held against what Manager lists. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks.ledger.matching import same_occurrence
from tasks.ledger.tables import Occurrence
from tasks.models import Alarm

ROUNDED = timedelta(seconds=2)  # a `Date` is whole seconds, and a message takes its time


def same_in_history(known: Occurrence, past: Sequence[Alarm], seen: datetime | None) -> Alarm | None:
    """The row of Manager's history that is this very occurrence; None where that cannot be told for certain.

    Args:
        past: rows of this alarm id, of any host.
        seen: when the occurrence was first seen, by Manager's clock. Of one without serial number and time, only this
            tells: a host has one alarm of an id at a time, so it is the one that was active then.
    """
    rows = [row for row in past if row.host == known.host]
    if known.serial or known.occurred:
        found = [row for row in rows if _comparable(row, known) and same_occurrence(row, known)]
    else:
        found = [row for row in rows if seen and _active_at(row, seen)]
    return found[0] if len(found) == 1 else None


def _comparable(row: Alarm, known: Occurrence) -> bool:
    return bool((row.serial and known.serial) or (row.occurred and known.occurred))


def _active_at(row: Alarm, moment: datetime) -> bool:
    ended = row.cleared is not None and row.cleared < moment
    return row.occurred is not None and row.occurred - ROUNDED <= moment and not ended


def is_listed(known: Occurrence, rows: Sequence[Alarm]) -> bool:
    """Whether Manager lists what the ledger takes for active."""
    return any((row.alarm_id, row.host) == (known.alarm_id, known.host) and same_occurrence(row, known) for row in rows)
