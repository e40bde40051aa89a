"""How a sweep is shown in a terminal: whether it has ended."""

from datetime import UTC, datetime

import pytest

from deployments.sweep_views import unended
from tasks.ledger.fleet_tables import Sweep
from tasks.sweep.reports import Report

NOW = datetime(2026, 11, 27, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ended", "summary", "line"),
    [
        (NOW, "No findings.", ""),
        (None, "", "sweep 01234567 still goes on: 0 of 7 clusters were looked at"),
        (None, "Broken off: its run is gone.", "sweep 01234567 was broken off: 0 of 7 clusters were looked at"),
    ],
)
def test_a_sweep_that_has_not_ended(ended: datetime | None, summary: str, line: str) -> None:
    """A sweep that goes on, or was broken off, says so and how far it is."""
    sweep = Sweep(id="0123456789", started=NOW, alive=NOW, planned=7, ended=ended, summary=summary)
    assert unended(Report(sweep, [])) == line
