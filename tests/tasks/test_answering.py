"""The gate of the routes: what never answered the doctor is asked of a person."""

from datetime import UTC, datetime

import pytest

from tasks import timing
from tasks.answering import NEEDED, calls_of, have_answered, restart_was_refused
from tasks.errors import NotOffered, Refused
from tasks.gates import Action
from tasks.ledger.answering import Asked, answers_of, keep_answers
from tasks.ledger.database import open_ledger
from tasks.ledger.tables import Intent
from tests.ledger.conftest import sqlite_with_schema
from tests.tasks.acting import a_case, holding, ledger_at_home
from tests.tasks.test_gates import World, connection_to

__all__ = ["ledger_at_home", "sqlite_with_schema"]  # fixtures: a ledger with nothing in it
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("ledger_at_home")]

CONNECTION, CASE = connection_to(World()), a_case("run-17")
CALLS = calls_of(CONNECTION)
THEN = datetime(2026, 11, 25, 12, tzinfo=UTC)
RESTART = "Manager POST clusters/{cluster}/services/{service}/instances/restart"


async def asked(*names: str, answered: bool = False, call: str = "", of: str = "prod-1") -> None:
    """The doctor has asked these routes at noon."""
    rows = [Asked(name, call or CALLS[name], "", answered, "HTTP 404: no") for name in names]
    async with open_ledger() as ledger, ledger.writing() as session:
        await keep_answers(session, of, rows, THEN)


async def why(action: Action) -> str:
    """Why a person must do it instead of the run; empty: the run may."""
    try:
        await have_answered(CASE, CONNECTION, action)
    except Refused as error:
        return str(error) if error.by_hand else f"not by hand: {error}"
    return ""


def refusal(call: str, more: int = 0) -> str:
    """What is said of this call, and of how many more."""
    others = f", and {more} more that it needs" if more else ""
    said = f"{call} was asked at 2026-11-25 12:00 UTC and has never answered (HTTP 404: no){others}"
    return f"{said}; `runbooks doctor prod-1` asks again"


async def test_a_cluster_that_was_never_examined_passes() -> None:
    """Without a word of the doctor, or with one about another cluster, the other gates read the routes themselves."""
    async with holding("17"):
        await asked(*CALLS, of="prod-2")
        assert (await why("restart"), await why("rebind")) == ("", "")


@pytest.mark.parametrize("name", [*CALLS])
async def test_a_route_that_never_answered_hands_off_what_needs_it(name: str) -> None:
    """Each route that an action needs refuses it, and it alone; that the route is asked of a person is said."""
    async with holding("17"):
        await asked(*CALLS, answered=True)
        async with open_ledger() as ledger, ledger.writing() as session:
            (await answers_of(session, "prod-1"))[name].answered = None
            (await answers_of(session, "prod-1"))[name].said = "HTTP 404: no"
        for action in ("restart", "rebind"):
            assert await why(action) == (refusal(CALLS[name]) if name in NEEDED[action] else "")


async def test_several_that_never_answered() -> None:
    """The first one is named, the others are counted."""
    async with holding("17"):
        await asked("alarms", "hosts", "commands", "masking")
        assert await why("restart") == refusal("Manager GET alarms", 2)


async def test_one_that_answered_before_passes() -> None:
    """A route that has answered once is counted on: whether it does now the gates that read it see."""
    async with holding("17"):
        await asked(*CALLS, answered=True)
        await asked(*CALLS)
        assert (await why("restart"), await why("rebind")) == ("", "")


async def test_another_call_passes() -> None:
    """A route that was overridden in the block since is not the one that never answered."""
    async with holding("17"):
        await asked("alarms", call="Manager GET monitor/alarms")
        assert await why("restart") == ""


async def test_a_run_that_holds_nothing_is_not_asked() -> None:
    """A dry run holds no claim: it is not refused by this gate."""
    await asked(*CALLS)
    assert await why("restart") == ""


async def recorded() -> list[tuple[str, str, bool, str]]:
    """Name, call, whether it ever answered and what it said last, of each route that is known."""
    async with open_ledger() as ledger, ledger.reading() as session:
        rows = await answers_of(session, "prod-1")
    return [(row.name, row.call, row.answered is not None, row.said) for row in rows.values()]


async def test_a_restart_that_is_not_offered_is_kept() -> None:
    """Manager answered a restart that it has none: the next run hands off at once."""
    async with holding("17"):
        await restart_was_refused(CASE, CONNECTION, NotOffered("Manager POST x/restart", "HTTP 405: no", status=405))
        assert await recorded() == [("restart", RESTART, False, "HTTP 405: no")]
        assert (await why("restart")).startswith(f"{RESTART} was asked at {timing.wall():%Y-%m-%d} ")
        assert await why("rebind") == ""


async def test_a_read_that_is_not_offered_is_no_restart() -> None:
    """What a read before the restart was answered says nothing about the restart."""
    async with holding("17"):
        await restart_was_refused(CASE, CONNECTION, NotOffered("Manager GET x", "HTTP 404: no", status=404))
        assert await recorded() == []


async def test_where_manager_has_taken_a_restart_it_has_the_route() -> None:
    """A Manager that once took a restart and answers 404 does not know the instance: the next run may try."""
    async with holding("17") as mine:
        at, cluster = timing.wall(), CONNECTION.cluster.cluster_id
        async with open_ledger() as ledger, ledger.writing() as session:
            about = {"attempt": "run-1@then", "episode_id": mine.episode, "cluster_id": cluster, "at": at, "ended": at}
            session.add(Intent(step="3", target="node-1", command="101", **about))
        await restart_was_refused(CASE, CONNECTION, NotOffered("Manager POST x/restart", "HTTP 404: no", status=404))
        assert await recorded() == []
