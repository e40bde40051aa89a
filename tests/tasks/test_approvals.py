"""Who started a run, as far as anybody knows: nobody may approve what he has started himself."""

from pathlib import Path

import pytest
from sqlalchemy import select

from tasks import timing
from tasks.approvals import starter_of
from tasks.ledger.database import open_ledger
from tasks.ledger.lifecycle import needs_a_run
from tasks.ledger.observing import Sighting, observe
from tasks.ledger.tables import Cluster, Episode
from tasks.loading import approver_name
from tasks.models import Observation
from tests.ledger.conftest import sqlite_with_schema
from tests.tasks.acting import PROD, a_case, holding, ledger_at_home

__all__ = ["ledger_at_home", "sqlite_with_schema"]  # fixtures: a ledger with nothing in it

pytestmark = pytest.mark.anyio
FOR_ALARMS = ("mrs", "alarm:12110", "started-by:alarm")  # the tags of the deployment that the intake starts


async def an_alarm() -> str:
    """A source tells of an alarm; the episode."""
    cluster = Cluster(name="prod-1", cluster_id=PROD, source="prod", speed=1, connected=timing.wall())
    told = Observation(alarm_id="12110", kind="raised", cluster="prod-1", host="node-1", serial="17")
    async with open_ledger() as ledger, ledger.writing() as session:
        (seen,) = await observe(session, [Sighting(told, cluster, "syslog", "127.0.0.1", "")], timing.wall())
    return seen.episode


@pytest.mark.parametrize(
    ("tags", "key", "starter"),
    [
        (FOR_ALARMS, "{episode}:1", "alarm"),
        (FOR_ALARMS, "{episode}:2", ""),
        (FOR_ALARMS, "another:1", ""),
        (FOR_ALARMS, "", ""),
        (FOR_ALARMS, "scheduled 6f1 2026-11-27", ""),
        ((*FOR_ALARMS, "started-by:Bob"), "", ""),
        (("mrs", "alarm:12110"), "", ""),
        (("mrs", "started-by:J.Doe"), "", "J.Doe"),
        (("started-by:Ada", "started-by:Bob"), "", ""),
    ],
    ids=[
        "by the intake",
        "a number that the episode has not had",
        "for another episode",
        "from-alarms in the UI",
        "by a schedule",
        "with another name as well",
        "by-hand in the UI",
        "from a terminal",
        "two names",
    ],
)
async def test_who_started_a_run(ledger_at_home: Path, tags: tuple[str, ...], key: str, starter: str) -> None:
    """An alarm has, where the run has a key of its episode's; else whoever its one tag names, or nobody knows."""
    episode = await an_alarm()
    async with holding("17"):
        assert await starter_of(a_case("run-17"), tags, key.format(episode=episode)) == starter


async def test_a_later_run_of_an_episode_is_an_alarm_s_too(ledger_at_home: Path) -> None:
    """The episode's second run, and its first begun anew, are known by their keys."""
    episode = await an_alarm()
    async with open_ledger() as ledger, ledger.writing() as session:
        needs_a_run((await session.scalars(select(Episode))).one(), timing.wall())
    async with holding("17"):
        keys = [f"{episode}:{n}" for n in (0, 1, 2, 3)]
        assert [await starter_of(a_case("run-17"), FOR_ALARMS, key) for key in keys] == ["", "alarm", "alarm", ""]


async def test_an_episode_that_a_person_opened_is_no_alarm_s(ledger_at_home: Path) -> None:
    """Started in the UI with the tag of alarms, on a cluster without an alarm, a run is nobody's."""
    async with holding("17"):
        assert await starter_of(a_case("run-17"), FOR_ALARMS, "") == ""


@pytest.mark.parametrize(
    ("name", "key"),
    [("grace", "grace"), ("Grace", "grace"), ("j.doe", "j-doe"), ("J. Doe", "j-doe"), ("_ops_", "ops"), ("!", "")],
)
def test_names_are_compared_as_blocks_are_named(name: str, key: str) -> None:
    """Small letters and digits, with a dash for whatever is between them."""
    assert approver_name(name) == key
