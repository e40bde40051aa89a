"""Whether an occurrence is cleared, and which occurrences are followed."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.alarms import _is_cleared, find_alarms
from tasks.errors import CannotTell, ConfigurationError
from tasks.models import Alarm, Answer, Case, Outcome
from tests.flows.conftest import Worlds, world
from tests.tasks.test_gates import World, connection_to

__all__ = ["world"]  # a fixture: a served region, its block saved
pytestmark = pytest.mark.anyio
AT = datetime(2026, 7, 1, 8, tzinfo=UTC)
NAME = "ALM-12110 on node-1 serial 17"


def occurrence(serial: str = "17", status: str = "Uncleared", **more: Any) -> Alarm:
    """An occurrence on node-1."""
    return Alarm(alarm_id="12110", serial=serial, status=status, location="HostName=node-1", **more)


@pytest.mark.parametrize(
    ("active", "listed", "value", "seen"),
    [
        (occurrence(), None, "n", f"{NAME} is not cleared"),
        (
            occurrence("18"),
            occurrence(status="Auto", cleared=AT),
            "n",
            "ALM-12110 on node-1 serial 18 is not cleared (raised again: was serial 17)",
        ),
        (
            None,
            occurrence(status="Auto", cleared=AT),
            "y",
            f"{NAME} was cleared by Meta at 2026-07-01 08:00:00 (Manager's time)",
        ),
        (None, occurrence(status="AUTO"), "y", f"{NAME} was cleared by Meta at an unknown time"),
        (
            None,
            occurrence(status="manual", cleared=AT),
            Outcome.CLEARED_BY_PERSON,
            f"{NAME} was cleared by a person at 2026-07-01 08:00:00 (Manager's time): that says nothing of a repair",
        ),
        (None, None, Outcome.CANNOT_TELL, f"{NAME}: Manager lists it neither as active nor as cleared"),
        (
            None,
            occurrence("18", "Auto"),
            Outcome.CANNOT_TELL,
            f"{NAME}: Manager lists it neither as active nor as cleared",
        ),
        (None, occurrence(), Outcome.CANNOT_TELL, f"{NAME}: Manager gives 'Uncleared' as its status"),
        (None, occurrence(status=""), Outcome.CANNOT_TELL, f"{NAME}: Manager gives '' as its status"),
        (None, occurrence(status="Masked"), Outcome.CANNOT_TELL, f"{NAME}: Manager gives 'Masked' as its status"),
    ],
)
async def test_only_the_cleared_state_is_cleared(
    active: Alarm | None, listed: Alarm | None, value: str, seen: str
) -> None:
    """Cleared by Meta is yes, active under any serial is no, by a person is said so, anything else is cannot tell."""
    connection = connection_to(World(listed=(listed,) if listed else ()))
    answer = await _is_cleared(connection, occurrence(), active)
    assert answer == Answer.model_validate({"host": "node-1", "value": value, "seen": seen, "at": answer.at})


@pytest.mark.server
async def test_the_newest_alarm_of_each_host_is_followed(world: Worlds) -> None:
    """Of several active occurrences of a host the newest is followed, whatever their order, and each host has one."""
    async with world(hosts=3, meta_hosts=3) as cluster:
        first, second, _ = cluster.cluster.hosts
        for host in (first, second):
            cluster.breaks("crashed", host=host)
        cluster.raises_the_alarm()
        newest = {row.host.name: str(row.serial) for row in cluster.cluster.alarms}
        for row in list(cluster.cluster.alarms):
            older = replace(row, serial=row.serial + 900, occurred_ms=row.occurred_ms - 3_600_000)
            cluster.cluster.alarms.append(older)
        case = Case(cluster=cluster.block, alarm_id="12110")
        found = await find_alarms.fn(case)
        assert {alarm.host: alarm.serial for alarm in found} == newest
        (picked,) = await find_alarms.fn(case.model_copy(update={"host": second}))
        assert (picked.host, picked.serial, picked.reported) == (second, newest[second], False)


@pytest.mark.server
async def test_a_host_that_manager_does_not_know_is_a_wrong_parameter(world: Worlds) -> None:
    """A case about an unknown host names the hosts there are; about a known one without an alarm nobody can tell."""
    async with world(hosts=3) as cluster:
        case = Case(cluster=cluster.block, alarm_id="12110", host="no-such-host")
        with pytest.raises(ConfigurationError) as raised:
            await find_alarms.fn(case)
        hosts = ", ".join(sorted(cluster.cluster.hosts))
        assert str(raised.value) == f"Manager does not know host 'no-such-host': the cluster's hosts are {hosts}"
        with pytest.raises(CannotTell, match=f"Manager lists no ALM-12110 of {cluster.host}, active or cleared"):
            await find_alarms.fn(case.model_copy(update={"host": cluster.host}))
