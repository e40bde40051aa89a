"""A clock by hand, and a ledger of the test's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasks import timing
from tasks.ledger.database import Ledger, open_ledger
from tests.tickets.servers import HandClock


@pytest.fixture
async def clock() -> AsyncIterator[HandClock]:
    """A clock by hand, for this test."""
    mine = HandClock()
    token = timing.clock.set(mine)
    yield mine
    timing.clock.reset(token)


@pytest.fixture
async def ledger(runbooks_home: Path) -> AsyncIterator[Ledger]:
    """The ledger in this test's home."""
    async with open_ledger() as opened:
        yield opened
