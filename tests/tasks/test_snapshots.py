"""What is looked at before a restart: the words about instances and alarms, and what a trouble leaves of them."""

from datetime import UTC, datetime

import pytest

from tasks.models import Alarm, Case, Deed, Instance
from tasks.snapshots import alarms_in_words, instances_in_words, look_before_restart
from tests.flows.conftest import World, Worlds, no_pauses, world

__all__ = ["no_pauses", "world"]  # fixtures: a served region, its block saved, whose reads pause for nothing

STARTED = datetime(2026, 7, 1, 8, tzinfo=UTC)


def alarm(alarm_id: str, host: str) -> Alarm:
    """An active alarm."""
    return Alarm(alarm_id=alarm_id, status="Uncleared", location=f"HostName={host}" if host else "")


def test_alarms_that_bear_on_the_keys_come_first() -> None:
    """A lost node, Meta's IAM token, the three layers of Guardian, its other alarms; then the rest by number."""
    ids = ("12110", "45736", "45743", "45741", "12006", "45750", "12001", "45192", "45742")
    said = alarms_in_words([alarm(id_, "node-1") for id_ in ids])
    order = ("12006", "45192", "45741", "45742", "45743", "45736", "12001", "12110")
    named = "; ".join(f"{id_} on node-1" for id_ in order)
    assert said == f"active alarms: 9 ({named}; and 1 of other ids)"


def test_many_hosts_are_counted() -> None:
    """Of an alarm's hosts the first four are named; an alarm without a host is none's; no alarm is said as such."""
    alarms = [alarm("12110", f"node-{n}") for n in range(200)]
    assert alarms_in_words(alarms) == "active alarms: 200 (12110 on node-0, node-1, node-10, node-100 and 196 more)"
    assert alarms_in_words([alarm("12110", "")]) == "active alarms: 1 (12110 on no host)"
    assert alarms_in_words([]) == "active alarms: 0"


def test_the_instance_that_is_to_be_restarted_comes_first() -> None:
    """Instances are counted by state; named are the host's own, and others that are not normal."""
    states = {"node-1": "Normal", "node-2": "Faulty", "node-3": "Faulty", "node-4": "Normal"}
    found = [Instance(host=host, status=status, started=STARTED) for host, status in states.items()]
    found.append(Instance(host="node-5", status="Unknown"))
    assert instances_in_words(found, "node-3") == (
        "Meta instances: 2 'Normal', 2 'Faulty', 1 'Unknown' (node-3 'Faulty', started 2026-07-01 08:00:00, "
        "node-2 'Faulty', started 2026-07-01 08:00:00, node-5 'Unknown', start time unknown)"
    )
    assert instances_in_words([], "node-3") == "Meta instances: none"


async def look(cluster: World) -> Deed:
    """What is said of the first host."""
    case = Case(cluster=cluster.block, alarm_id="12110", dry_run=False)
    return await look_before_restart(case, alarm("12110", cluster.host))  # a run that holds nothing looks each time


@pytest.mark.server
@pytest.mark.anyio
async def test_the_cluster_is_looked_at_as_it_is(world: Worlds) -> None:
    """Every active alarm is named, whatever its id, those that are over are not, and the deed changes nothing."""
    async with world(meta_hosts=2) as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        first, second, _ = cluster.cluster.hosts.values()
        alarms = cluster.region.alarms
        alarms.raise_alarm(second, "45192")
        over = alarms.raise_alarm(first, "45192")
        assert over is not None
        alarms.clear(over, "Auto")
        deed = await look(cluster)
        states = f"Meta instances: 1 'Faulty', 1 'Normal' ({cluster.host} 'Faulty', started "
        assert deed.did.startswith(f"before the restart: {states}")
        assert deed.did.endswith(f"; active alarms: 2 (45192 on {second.name}; 12110 on {cluster.host})")
        assert deed == Deed(host=cluster.host, did=deed.did, at=cluster.region.now, looked=True)
        assert cluster.region.log == []


@pytest.mark.server
@pytest.mark.anyio
async def test_what_cannot_be_read_is_said(world: Worlds) -> None:
    """Where instances or alarms cannot be read it is said so, each for itself, and that is no error."""
    async with world() as cluster:
        cluster.region.trouble.add("GET", "*/alarms", "status", times=None, status=403)
        said = (await look(cluster)).did
        assert said.endswith("; the active alarms cannot be read (Manager GET alarms: HTTP 403: 403 403)")
        cluster.region.trouble.add("GET", "*/instances", "status", times=None, status=403)
        assert (await look(cluster)).did == (
            "before the restart: the Meta instances cannot be read (Manager GET "
            f"clusters/{cluster.cluster.manager_id}/services/meta/instances: HTTP 403: 403 403); "
            "the active alarms cannot be read (Manager GET alarms: HTTP 403: 403 403)"
        )
