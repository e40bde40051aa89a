"""What CTS remembers: who changed what, and when. A change in the region is no trace by itself; traces are added."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from deployments.emulator.clock import Clock
from deployments.emulator.inventory import Cluster, Host, identifier

KEPT_SECONDS = 7 * 86_400.0
AGENCY_CHANGED = "updateServerAgency"


@dataclass(frozen=True)
class Trace:
    """One operation on a server: its name, the user who did it, and when (emulated)."""

    id: str
    at: datetime
    name: str
    user: str
    host: Host = field(repr=False)


class Traces:
    """The traces of the region's project."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: list[Trace] = []
        self._made = 0

    def add(self, host: Host, user: str, name: str = AGENCY_CHANGED, age: float = 0.0) -> Trace:
        """Record an operation on a node that happened `age` seconds ago.

        Raises:
            ValueError: it would lie in the future, or before any calendar.
        """
        if not 0 <= age <= 100 * KEPT_SECONDS:
            raise ValueError(f"a trace is {age:g} seconds old: give 0 to {100 * KEPT_SECONDS:g}")
        self._made += 1
        moment = self._clock.now - timedelta(seconds=age)
        trace = Trace(identifier("trace", host.server_id, self._made), moment, name, user, host)
        self._kept.append(trace)
        return trace

    def kept(self) -> list[Trace]:
        """The traces of the last seven days, the newest first."""
        oldest = self._clock.now - timedelta(seconds=KEPT_SECONDS)
        self._kept = [trace for trace in self._kept if trace.at >= oldest]
        return sorted(self._kept, key=lambda trace: trace.at)[::-1]

    def remove(self, ids: Collection[str], clusters: list[Cluster]) -> None:
        """Take back the traces with these ids, as far as they are about these clusters."""
        self._kept = [trace for trace in self._kept if trace.id not in ids or trace.host.cluster not in clusters]
