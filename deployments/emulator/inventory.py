"""The things of the region: clusters and their hosts, with ids and addresses that depend on the seed only."""

import hashlib
import uuid
import zlib
from dataclasses import dataclass, field

from deployments.emulator.clock import Event

POLL_SECONDS = 300.0


@dataclass(slots=True, eq=False)
class Alarm:
    """One occurrence of an alarm on a host; it keeps its serial number when it clears."""

    serial: int
    alarm_id: str
    host: "Host" = field(repr=False)
    occurred_ms: int
    """By Manager's clock, like `cleared_ms`."""
    cleared_ms: int = 0
    status: str = "Uncleared"
    """Uncleared, Auto or Manual, the words of Manager's alarm page."""

    @property
    def location(self) -> str:
        """The four location parameters of the alarm page; the separators are an assumption."""
        return f"Source={self.host.cluster.name};ServiceName=meta;RoleName=meta;HostName={self.host.name}"


@dataclass(slots=True, eq=False)
class Command:
    """A command of Manager: IN_PROGRESS, COMPLETE or FAILED."""

    id: int
    name: str
    started_ms: int
    expected_seconds: float
    began: float
    """Elapsed seconds, for the progress."""
    state: str = "IN_PROGRESS"
    ended_ms: int = 0
    failed: list[str] = field(default_factory=list)
    """Names of the hosts on which it failed."""


@dataclass(slots=True, eq=False)
class Host:
    """A node of a cluster: an ECS server and, if `instance_id` is set, a Meta instance."""

    name: str
    ip: str
    server_id: str
    cluster: "Cluster" = field(repr=False)
    metadata: dict[str, str]
    """The ECS metadata; `agency_name` is the binding."""
    bound_since: float
    """Elapsed seconds at which the present agency was bound; keys are renewed every 50 minutes from there."""
    instance_id: int | None
    polls_from: float
    """Elapsed seconds of one poll of Meta; the others follow every POLL_SECONDS."""
    started_ms: int
    """Start time of the Meta instance, by Manager's clock."""
    healthy: bool = True
    """The last poll succeeded."""
    succeeded: float = 0.0
    issuer: tuple[str, float] | None = None
    """(agency, bound_since) of the keys Meta got last."""
    failures: int = 0
    iam_failures: int = 0
    flaps: int = 0
    active: dict[str, Alarm] = field(default_factory=dict)
    """Uncleared alarms of this host by alarm id."""
    next_poll: Event | None = None
    restarting: bool = False
    failed_to_start: bool = False
    soothed: bool = False
    """A restart made a fault of kind restart-clears-only invisible for a while."""

    @property
    def is_master(self) -> bool:
        """Whether the node is a master node."""
        return self.name.startswith("node-master")

    @property
    def place(self) -> tuple[str, str]:
        """(cluster UUID, host name), as faults are looked up."""
        return (self.cluster.id, self.name)


@dataclass(slots=True, eq=False)
class Cluster:
    """An MRS cluster with its Manager."""

    id: str
    name: str
    created: float
    manager_user: str
    manager_password: str
    agency_record: str
    """What MRS itself remembers as the agency; an ECS-level binding does not change it."""
    last_agency: str
    """The last agency the record ever named."""
    manager_id: int = 1
    hosts: dict[str, Host] = field(default_factory=dict, repr=False)
    alarms: list[Alarm] = field(default_factory=list, repr=False)
    """Every alarm reported, cleared or not, oldest first."""
    commands: dict[int, Command] = field(default_factory=dict, repr=False)
    sessions: dict[str, float] = field(default_factory=dict, repr=False)
    """Session id -> elapsed seconds of the last use."""
    viewer_user: str = "viewer"
    """A user that may look and change nothing (role Manager_viewer)."""
    viewer_password: str = ""
    viewing: set[str] = field(default_factory=set, repr=False)
    """The sessions that are the viewer's."""
    wrong_passwords: int = 0
    locked_until: float = 0.0
    refuses_until: float = 0.0
    """Elapsed seconds until which an OMS switchover refuses everything."""
    next_serial: int = 1001
    next_command: int = 101
    next_instance: int = 11
    next_session: int = 1

    def serial(self) -> int:
        """A new alarm serial number. Each Manager counts its own, so two clusters use the same numbers."""
        self.next_serial += 1
        return self.next_serial - 1

    @property
    def master(self) -> Host:
        """The first node, on which Manager is reached."""
        return next(iter(self.hosts.values()))


def host_names(count: int) -> list[str]:
    """Names of a new cluster's nodes: one master up to three nodes, else two, then core nodes."""
    masters = 1 if count < 4 else 2
    return [f"node-master{n + 1}" if n < masters else f"node-core{n + 1 - masters}" for n in range(count)]


def next_core_name(cluster: Cluster) -> str:
    """The name the next scaled-out node gets; numbers are not reused."""
    numbers = [int(name.removeprefix("node-core")) for name in cluster.hosts if name.startswith("node-core")]
    return f"node-core{max(numbers, default=0) + 1}"


def identifier(*parts: object) -> str:
    """A UUID that depends on the parts only."""
    return str(uuid.UUID(bytes=_digest(parts)[:16], version=4))


def secret(length: int, *parts: object) -> str:
    """Hex digits that depend on the parts only, upper case."""
    return _digest(parts).hex()[:length].upper()


def phase(*parts: object) -> float:
    """Seconds in (0, POLL_SECONDS], so that hosts do not poll in step; a multiple of 1/64, which floats add exactly."""
    steps = int(POLL_SECONDS) * 64
    return (zlib.crc32("/".join(map(str, parts)).encode()) % steps + 1) / 64


def address(number: int) -> str:
    """A private IPv4 address for the n-th node of the region."""
    number += 10
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _digest(parts: tuple[object, ...]) -> bytes:
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()
