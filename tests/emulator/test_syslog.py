"""Syslog northbound: the lines, their occasions, and the senders."""

import socket

import pytest

from deployments.emulator.inventory import Cluster, Host
from deployments.emulator.region import Region
from deployments.emulator.syslog import SyslogSender


@pytest.fixture
def host(cluster: Cluster) -> Host:
    """A core node that polls at 00:00:40 and every five minutes."""
    found = cluster.hosts["node-core1"]
    found.polls_from = 40.0
    return found


@pytest.fixture
def lines(region: Region) -> list[str]:
    """The lines the region sends."""
    sent: list[str] = []
    region.alarms.sinks.append(sent.append)
    return sent


def test_raise_and_clear_are_one_line_each(region: Region, cluster: Cluster, host: Host, lines: list[str]) -> None:
    """RFC 3164: PRI 134, Manager's time and address, `MRS Manager`, then the template's fields."""
    region.set_fault("metadata-down", cluster, host)
    region.advance(900)
    region.clear_fault("metadata-down", cluster, host)
    region.advance(300)
    location = "Source=mrs-001;ServiceName=meta;RoleName=meta;HostName=node-core1"
    name, cause = (
        "Failed to get ECS temporary AK/SK",
        "The meta service fails to obtain the temporary AK/SK of the ECS.",
    )
    assert lines == [
        f"<134>Jan  5 00:10:40 10.0.0.11 MRS Manager: mrs-001|12110|{name}|1001|0|2026-01-05 00:10:40|--|1|"
        f"{location}|-1|2|{cause}||meta",
        f"<134>Jan  5 00:15:40 10.0.0.11 MRS Manager: mrs-001|12110|{name}|1001|1|2026-01-05 00:10:40|"
        f"2026-01-05 00:15:40|1|{location}|0|2|{cause}||meta",
    ]


def test_the_template_is_the_operators(region: Region, cluster: Cluster, host: Host, lines: list[str]) -> None:
    """Known fields are filled in, others stay as they are; a manual clear has clear type 2."""
    region.alarms.template = "${id} ${serialNo} ${clearType} ${unknown}"
    region.set_fault("wedged", cluster, host)
    region.advance(700)
    region.clear_alarm(1001)
    assert [line.partition(": ")[2] for line in lines] == ["12110 1001 -1 ${unknown}", "12110 1001 2 ${unknown}"]


def test_times_are_those_of_managers_clock(region: Region, cluster: Cluster, host: Host, lines: list[str]) -> None:
    """A clock that is an hour behind writes times of an hour ago."""
    region.alarms.template = "${occurTime}"
    region.set_fault("clock-skew", cluster, seconds=-3600)
    region.set_fault("crashed", cluster, host)
    region.advance(700)
    assert lines == ["<134>Jan  4 23:10:40 10.0.0.11 MRS Manager: 2026-01-04 23:10:40"]


def test_uncleared_alarms_are_reported_again(region: Region, cluster: Cluster, host: Host, lines: list[str]) -> None:
    """Switched on, the same line comes every 15 minutes until the alarm clears."""
    region.alarms.template = "${serialNo} ${category}"
    region.set_fault("crashed", cluster, host)
    region.advance(640)
    region.alarms.rereport_every(900, list(region.clusters.values()))
    region.advance(1800)
    region.clear_fault("crashed", cluster, host)
    region.advance(3600)
    assert [line.partition(": ")[2] for line in lines] == ["1001 0", "1001 0", "1001 0", "1001 1"]


def test_masked_alarms_are_not_sent(region: Region, cluster: Cluster, host: Host, lines: list[str]) -> None:
    """What is not reported has no line."""
    region.set_fault("masked", cluster)
    region.set_fault("crashed", cluster, host)
    region.advance(3600)
    assert lines == []


def test_udp_sends_a_datagram_per_line() -> None:
    """The receiver gets each line as it is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(2)
        with SyslogSender(receiver.getsockname()) as send:
            send("<134>one")
            send("<134>two")
        assert [receiver.recv(1000), receiver.recv(1000)] == [b"<134>one", b"<134>two"]


def test_tcp_sends_a_line_per_line_and_loses_what_nobody_takes() -> None:
    """Lines end with a newline; without a receiver they are lost and counted, and a later one connects again."""
    with socket.socket() as receiver:
        receiver.bind(("127.0.0.1", 0))
        with SyslogSender(receiver.getsockname(), "tcp") as send:
            send("<134>nobody listens")
            receiver.listen()
            send("<134>one")
            send("<134>two")
            connection, _ = receiver.accept()
            with connection, connection.makefile("rb") as stream:
                received = [stream.readline(), stream.readline()]
            assert (received, send.lost) == ([b"<134>one\n", b"<134>two\n"], 1)
