"""How modes changed: each change once, with what was before."""

from datetime import datetime

import pytest

from tasks.ledger.database import Ledger
from tasks.ledger.modes import mode_changes, note_modes
from tests.ledger.conftest import MINUTE, NOW

pytestmark = pytest.mark.anyio

CAREFUL = {"cluster": "approve", "restart": "as the cluster"}
BOLD = {"cluster": "auto", "restart": "as the cluster"}


async def noted(ledger: Ledger, modes: dict[str, dict[str, str]], now: datetime) -> list[tuple[str, str, str, str]]:
    """Cluster, what, old and new of every change that is kept because of this look."""
    async with ledger.writing() as session:
        return [(each.cluster, each.what, each.old, each.new) for each in await note_modes(session, modes, now)]


async def test_a_change_is_kept_once(ledger: Ledger) -> None:
    """The first sight of a cluster has no old mode; then only what changed is kept, however often it is seen."""
    first = await noted(ledger, {"alpha": CAREFUL, "beta": BOLD}, NOW)
    assert sorted(first) == [
        ("alpha", "cluster", "", "approve"),
        ("alpha", "restart", "", "as the cluster"),
        ("beta", "cluster", "", "auto"),
        ("beta", "restart", "", "as the cluster"),
    ]
    assert await noted(ledger, {"alpha": BOLD, "beta": BOLD}, NOW + MINUTE) == [("alpha", "cluster", "approve", "auto")]
    assert await noted(ledger, {"alpha": BOLD}, NOW + 2 * MINUTE) == []
    assert await noted(ledger, {"alpha": CAREFUL}, NOW + 3 * MINUTE) == [("alpha", "cluster", "auto", "approve")]
    async with ledger.reading() as session:
        kept = [(each.at, each.old, each.new) for each in await mode_changes(session, "alpha", 5)]
        last = [(each.at, each.new) for each in await mode_changes(session, "alpha", 1)]
        none = await mode_changes(session, "beta", 5)
    assert kept == [(NOW + MINUTE, "approve", "auto"), (NOW + 3 * MINUTE, "auto", "approve")]
    assert (last, none) == ([(NOW + 3 * MINUTE, "approve")], [])
