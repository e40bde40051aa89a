"""The Meta service: when ALM-12110 is raised and cleared, and which keys are held."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.emulator.inventory import Alarm, Cluster, Host
from deployments.emulator.metadata import DATA_PATH, KEY_PATH, NO_AGENCY, TOKEN_PATH
from deployments.emulator.region import Region

START_MS = 1_767_571_200_000


def listed(cluster: Cluster) -> list[tuple[str, str, int, str, float, float]]:
    """(alarm, host, serial, status, raised, cleared) in seconds since the start; 0 for not cleared."""
    return [
        (
            alarm.alarm_id,
            alarm.host.name,
            alarm.serial,
            alarm.status,
            (alarm.occurred_ms - START_MS) / 1000,
            (alarm.cleared_ms - START_MS) / 1000 if alarm.cleared_ms else 0,
        )
        for alarm in cluster.alarms
    ]


def at(seconds: float) -> float:
    """Seconds as Manager's milliseconds keep them."""
    return round(seconds * 1000) / 1000


@pytest.fixture
def host(cluster: Cluster) -> Host:
    """A core node."""
    return cluster.hosts["node-core1"]


def test_hosts_do_not_poll_in_step_and_the_seed_decides() -> None:
    """Each host has its own phase within five minutes; the same seed gives the same ones."""
    phases = [
        [host.polls_from for host in region.cluster("mrs-001").hosts.values()]
        for region in (Region(hosts=50, seed=7), Region(hosts=50, seed=7), Region(hosts=50, seed=8))
    ]
    assert phases[0] == phases[1] != phases[2]
    assert len(set(phases[0])) == 50
    assert all(0 < phase <= 300 for phase in phases[0])


def test_three_failures_in_a_row_raise_the_alarm(region: Region, cluster: Cluster, host: Host) -> None:
    """The alarm comes with the third failed poll, not before."""
    region.set_fault("metadata-down", cluster, host)
    region.advance(host.polls_from + 599)
    before = listed(cluster)
    region.advance(1)
    assert (before, listed(cluster)) == (
        [],
        [("12110", "node-core1", 1001, "Uncleared", at(host.polls_from + 600), 0)],
    )


def test_two_failures_and_a_success_raise_nothing(region: Region, cluster: Cluster, host: Host) -> None:
    """The failures must be in a row."""
    for _ in range(4):
        region.set_fault("metadata-down", cluster, host)
        region.advance(600)
        region.clear_fault("metadata-down", cluster, host)
        region.advance(300)
    assert listed(cluster) == []


def test_the_first_success_clears_under_the_same_serial_number(region: Region, cluster: Cluster, host: Host) -> None:
    """An alarm clears by itself at the first good poll, and a later one has a new serial number."""
    region.set_fault("metadata-down", cluster, host)
    region.advance(host.polls_from + 3600)
    region.clear_fault("metadata-down", cluster, host)
    region.advance(299)
    still = listed(cluster)
    region.advance(1)
    region.set_fault("metadata-down", cluster, host)
    region.advance(900)
    raised, cleared = at(host.polls_from + 600), at(host.polls_from + 3900)
    assert still == [("12110", "node-core1", 1001, "Uncleared", raised, 0)]
    assert listed(cluster) == [
        ("12110", "node-core1", 1001, "Auto", raised, cleared),
        ("12110", "node-core1", 1002, "Uncleared", at(host.polls_from + 4800), 0),
    ]


def test_each_host_raises_its_own_alarm() -> None:
    """The alarm is per host, and only hosts with a Meta instance raise it."""
    region = Region(clusters=2, hosts=3, meta_hosts=2)
    region.set_fault("metadata-down", cluster="mrs-001")
    region.advance(3600)
    hosts = {name: sorted(alarm.host.name for alarm in region.cluster(name).alarms) for name in ("mrs-001", "mrs-002")}
    assert hosts == {"mrs-001": ["node-core1", "node-master1"], "mrs-002": []}


def test_each_manager_counts_its_own_serial_numbers() -> None:
    """Two clusters use the same serial numbers."""
    region = Region(clusters=2, hosts=1)
    region.set_fault("metadata-down")
    region.advance(3600)
    assert [[alarm.serial for alarm in cluster.alarms] for cluster in region.clusters.values()] == [[1001], [1001]]


def test_a_restart_resets_the_failure_counter(region: Region, cluster: Cluster, host: Host) -> None:
    """Two failures before a restart do not count after it; the first poll comes a full period after it ended."""
    region.set_fault("metadata-down", cluster, host)
    region.advance(host.polls_from + 300)
    region.restart(cluster, [host.instance_id or 0], "a test")
    ended = region.clock.elapsed + 60
    region.advance(3600)
    assert listed(cluster) == [("12110", "node-core1", 1001, "Uncleared", at(ended + 900), 0)]


def test_keys_last_an_hour_and_are_renewed_early(region: Region, host: Host) -> None:
    """At each poll the held keys are valid for more than five minutes, and they change every 50 minutes."""
    held = []
    for _ in range(36):
        region.advance(300)
        keys = region.meta.credential(host)
        assert keys is not None
        assert timedelta(minutes=5) < keys.expires_at - region.now <= timedelta(hours=1)
        held.append(keys.access)
    assert len(set(held)) == 4  # 3 h hold at least three renewals, whatever the phase
    assert [held.count(access) for access in dict.fromkeys(held)][1:3] == [10, 10]


def test_keys_outlive_the_failure_to_renew_them(region: Region, cluster: Cluster, host: Host) -> None:
    """While polls fail Meta holds the last keys it got; a restarted one holds none until it gets new ones."""
    region.advance(1000)
    last = region.meta.credential(host)
    region.set_fault("metadata-down", cluster, host)
    region.advance(1200)
    kept = region.meta.credential(host)
    region.restart(cluster, [host.instance_id or 0], "a test")
    region.advance(1200)
    restarted = region.meta.credential(host)
    region.clear_fault("metadata-down", cluster, host)
    region.advance(300)
    new = region.meta.credential(host)
    assert last is not None
    assert new is not None
    assert (kept, restarted, new.access == last.access) == (last, None, False)


def test_the_metadata_service_speaks_token_mode(region: Region, host: Host) -> None:
    """With tokens required, a request needs a token of this node; Meta gets one and goes on as before."""
    region.metadata.tokens = "required"
    ask = region.metadata.request
    refused = ask(host, "GET", KEY_PATH)
    token = ask(host, "PUT", TOKEN_PATH, {"X-Metadata-Token-Ttl-Seconds": "60"}).body
    given = {"X-Metadata-Token": token}
    other = region.cluster("mrs-001").master
    statuses = [
        ask(host, "GET", KEY_PATH, given).status,
        ask(host, "GET", DATA_PATH, given).status,
        ask(other, "GET", KEY_PATH, given).status,
        ask(host, "GET", KEY_PATH, {"X-Metadata-Token": "nonsense"}).status,
        ask(host, "PUT", TOKEN_PATH, {"X-Metadata-Token-Ttl-Seconds": "59"}).status,
        ask(host, "GET", KEY_PATH, given | {"X-Forwarded-For": "1.2.3.4"}).status,
        ask(host, "GET", "/openstack/latest/other", given).status,
    ]
    region.advance(61)
    statuses.append(ask(host, "GET", KEY_PATH, given).status)
    assert NO_AGENCY not in refused.body
    assert (refused.status, statuses) == (401, [200, 200, 401, 401, 400, 403, 404, 401])
    region.meta.wake([host])
    region.advance(900)
    assert host.failures == 0


def test_without_an_agency_the_metadata_service_answers_401(region: Region, cluster: Cluster, host: Host) -> None:
    """The text of the 401 says what is missing."""
    region.set_fault("unbound", cluster)
    answer = region.metadata.request(host, "GET", KEY_PATH)
    assert (answer.status, NO_AGENCY in answer.body) == (401, True)


NAMES = [
    *("crashed", "wedged", "metadata-down", "iam-down", "unbound", "maintenance", "masked", "flapping", "agency-slow"),
    *("agency-deleted", "host-down", "restart-clears-only", "restart", "rebind", "manual-clear"),
]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.booleans(),
        st.integers(1, 1500),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(changes=CHANGES)
def test_settled_hosts_behave_as_if_they_polled(changes: list[tuple[str, bool, int]]) -> None:
    """Whatever happens, a region whose hosts rest shows the alarms and keys of one whose hosts really poll."""
    seen = []
    for polls_really in (False, True):
        region = Region(hosts=2)
        cluster = region.cluster("mrs-001")
        moments: list[object] = []
        for name, on, seconds in changes:
            _change(region, cluster, name, on)
            for _ in range(seconds // 100 + 1):
                if polls_really:
                    region.meta.wake(cluster.hosts.values())
                region.advance(100)
            moments.append([region.meta.credential(host) for host in cluster.hosts.values()])
            moments.append([region.meta.status(host) for host in cluster.hosts.values()])
        seen.append((listed(cluster), moments))
    assert seen[0] == seen[1]


def _change(region: Region, cluster: Cluster, name: str, on: bool) -> None:
    host = cluster.hosts["node-core1"]
    uncleared: list[Alarm] = [alarm for alarm in cluster.alarms if alarm.status == "Uncleared"]
    if name == "restart":
        if not region.commands.running(cluster):
            region.restart(cluster, [host.instance_id or 0], "a test")
    elif name == "rebind":
        region.set_metadata(host, {"agency_name": "MRS_ECS_DEFAULT_AGENCY"}, "a test")
    elif name == "manual-clear":
        if uncleared:
            region.clear_alarm(uncleared[0].serial)
    elif on:
        region.set_fault(name, cluster)
    else:
        region.clear_fault(name, cluster)
