"""A run that changes nothing sees which run is at its cluster; without a ledger it sees none, and says nothing."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks import timing
from tasks.claims import noted
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import put
from tasks.ledger.database import URL_VARIABLE
from tasks.ledger.episodes import Holding, let_go, wait_begun
from tasks.others import other_run
from tests.ledger.conftest import a_question, sqlite_with_schema
from tests.tasks.acting import PROD, a_case, holding, ledger_at_home

__all__ = ["ledger_at_home", "sqlite_with_schema"]  # fixtures: a ledger with nothing in it

pytestmark = pytest.mark.anyio
DRY = a_case("run-18", dry_run=True)
UNTIL = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)


async def seen() -> str:
    """What a dry run sees, without the time since when."""
    return re.sub(r"since \S+ \S+ UTC", "since then", await other_run(DRY, PROD))


async def test_the_run_that_holds_the_episode_is_seen(ledger_at_home: Path) -> None:
    """At work, waiting, or asking a person: which run, since when, for what and until when; once it has let go none."""
    assert await seen() == ""
    case = a_case("run-17")
    async with holding("17") as mine:
        assert await seen() == "run the run 17 is at this cluster since then, and is at work"
        assert (await other_run(DRY, "another"), await other_run(DRY.model_copy(update={"alarm_id": "1"}), PROD)) == (
            "",
            "",
        )
        await noted(case, lambda session, held: wait_begun(session, held, "3", UNTIL))
        await noted(case, let_go)
        until = "until 2026-11-27 12:30:00 UTC"
        assert await seen() == f"run the run 17 is at this cluster since then, and waits for step 3, {until}"
        await noted(case, lambda session, held: put(session, held, question(mine)))
        waits = f"waits for a person: restart, approve, {until}"
        assert await seen() == f"run the run 17 is at this cluster since then, and {waits}"


def question(mine: Holding) -> Approval:
    """Whether to restart."""
    return a_question(mine, run="run-17", cluster="prod-1", asked=timing.wall(), expires=UNTIL)


async def test_no_ledger_is_made_to_look_into(runbooks_home: Path) -> None:
    """Where there is no ledger there is none afterwards."""
    assert await other_run(DRY, PROD) == ""
    assert not (runbooks_home / "ledger.db").exists()


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:9/runbooks", "mysql://nowhere/x"])
async def test_a_ledger_that_cannot_be_asked_is_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer, or whose address is wrong, keeps no dry run from its work."""
    monkeypatch.setenv(URL_VARIABLE, url)
    assert await other_run(DRY, PROD) == ""


@pytest.fixture
def without_tables(runbooks_home: Path) -> Path:
    """A ledger's file with nothing in it."""
    runbooks_home.mkdir()
    file = runbooks_home / "ledger.db"
    file.touch()
    return file


async def test_a_ledger_of_another_version_is_left_as_it_is(without_tables: Path) -> None:
    """A file without the tables is not upgraded by a run that only looks."""
    assert await other_run(DRY, PROD) == ""
    assert not has_tables(without_tables)


def has_tables(file: Path) -> bool:
    """Whether anything was written there."""
    return b"episodes" in file.read_bytes()
