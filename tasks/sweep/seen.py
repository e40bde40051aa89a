"""What a sweep has read of one cluster. What could not be read is the error in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, TypeVar

from tasks.blocks import Cluster
from tasks.errors import RunbookError
from tasks.ledger.knowledge import Told
from tasks.models import Agency, Alarm, ClusterRecord, Instance, Node
from tasks.permissions import Permission

T = TypeVar("T")
Read: TypeAlias = T | RunbookError | None  # None: it was not asked


@dataclass(frozen=True)
class Permissions:
    """What an agency may do: with global services, and in all projects (empty where that was not needed)."""

    here: Sequence[Permission]
    everywhere: Sequence[Permission] = ()


@dataclass(frozen=True)
class Followed:
    """What the ledger has of one host's active alarm.

    Attributes:
        episode: its id.
        found: only the sweep told of the alarm.
        waits: an episode of the cluster waits for its run.
    """

    episode: str
    found: bool = False
    waits: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One cluster.

    Attributes:
        name: of its block; of a cluster without one its id in the cloud.
        block: None where it has none; where it cannot be used, why.
        at: when it was read; `now` is the same by the clock of the ledger.
        agencies: host -> the agency in its ECS metadata, empty where none.
        in_question: the agency that is bound, or else expected; empty: neither.
        agency: what IAM has under that name, in a tuple: empty where it has nothing.
        masked: ids of the alarms that are masked on Manager.
        clock: what time it was there when its alarms were listed; None where it did not say.
        followed: host -> what follows its active ALM-12110.
    """

    name: str
    cluster_id: str = ""
    block: Cluster | str | None = None
    at: datetime
    now: datetime
    record: Read[ClusterRecord] = None
    nodes: Read[Sequence[Node]] = None
    agencies: Read[Mapping[str, str]] = None
    in_question: str = ""
    agency: Read[tuple[Agency, ...]] = None
    permissions: Read[Permissions] = None
    alarms: Read[Sequence[Alarm]] = None
    masked: Read[frozenset[str]] = None
    clock: datetime | None = None
    instances: Read[Sequence[Instance]] = None
    told: Read[Told] = None
    followed: Mapping[str, Followed] = field(default_factory=dict)
