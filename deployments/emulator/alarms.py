"""Manager's alarms: raising, clearing, masking, history, and the syslog stream that tells of them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments.emulator.clock import Clock, epoch_ms
from deployments.emulator.faults import Faults
from deployments.emulator.inventory import Alarm, Cluster, Host
from deployments.emulator.syslog import DEFAULT_TEMPLATE, line_of

ECS_KEYS = "12110"
IAM_TOKEN = "45192"  # noqa: S105 - an alarm id
HISTORY_LIMIT = 110_000
HISTORY_DUMP = 10_000


@dataclass(frozen=True)
class Definition:
    """What Manager knows about an alarm id."""

    name: str
    severity: str
    cause: str


DEFINITIONS = {
    ECS_KEYS: Definition(
        "Failed to get ECS temporary AK/SK", "Major", "The meta service fails to obtain the temporary AK/SK of the ECS."
    ),
    # Severity not read anywhere public; Major like its neighbours.
    IAM_TOKEN: Definition(
        "Failed to obtain the IAM security token", "Major", "The meta service fails to obtain the IAM security token."
    ),
}


class Alarms:
    """Raises and clears alarms on the Managers of the region.

    `sinks` get every syslog line, `watchers` every alarm when it is raised and when it is cleared;
    `rereport_seconds` (None: off, as by default) repeats the lines of uncleared alarms.
    """

    def __init__(self, clock: Clock, faults: Faults) -> None:
        self._clock = clock
        self._faults = faults
        self.sinks: list[Callable[[str], None]] = []
        self.watchers: list[Callable[[Alarm], None]] = []
        self.template = DEFAULT_TEMPLATE
        self.rereport_seconds: float | None = None

    def manager_time(self, cluster: Cluster) -> datetime:
        """The time on Manager's clock, which may be wrong."""
        skew = self._faults.find("clock-skew", cluster.id)
        return self._clock.now + timedelta(seconds=skew.seconds(0) if skew else 0)

    def manager_ms(self, cluster: Cluster) -> int:
        """`manager_time` in milliseconds since 1970."""
        return epoch_ms(self.manager_time(cluster))

    def masked(self, cluster: Cluster) -> list[str]:
        """Ids of the masked alarms."""
        fault = self._faults.find("masked", cluster.id)
        if fault is None:
            return []
        ids = fault.options.get("alarm_ids", [ECS_KEYS])
        return sorted(map(str, ids)) if isinstance(ids, list | tuple) else [str(ids)]

    def raise_alarm(self, host: Host, alarm_id: str) -> Alarm | None:
        """Report an alarm of a host; None if it is masked or the host is in maintenance mode."""
        cluster = host.cluster
        if alarm_id in self.masked(cluster) or self._faults.find("maintenance", *host.place):
            return None
        alarm = Alarm(cluster.serial(), alarm_id, host, self.manager_ms(cluster))
        host.active[alarm_id] = alarm
        cluster.alarms.append(alarm)
        _forget_oldest(cluster)
        self._report(alarm)
        self._show(alarm)
        self._plan_rereport(alarm)
        return alarm

    def clear(self, alarm: Alarm, status: str) -> None:
        """Clear an alarm: `status` is Auto or Manual. A cleared alarm stays as it is."""
        if alarm.status != "Uncleared":
            return
        alarm.status = status
        alarm.cleared_ms = self.manager_ms(alarm.host.cluster)
        alarm.host.active.pop(alarm.alarm_id, None)
        self._report(alarm)
        self._show(alarm)

    def clear_all(self, host: Host) -> None:
        """Clear whatever is uncleared on a host, as the recovered service does."""
        for alarm in list(host.active.values()):
            self.clear(alarm, "Auto")

    def rereport_every(self, seconds: float, clusters: list[Cluster]) -> None:
        """Repeat the lines of uncleared alarms every `seconds` (Manager allows 5 to 1440 minutes) from now on."""
        self.rereport_seconds = seconds
        for cluster in clusters:
            for alarm in cluster.alarms:
                self._plan_rereport(alarm)

    def _plan_rereport(self, alarm: Alarm) -> None:
        if self.rereport_seconds and alarm.status == "Uncleared":
            self._clock.after(self.rereport_seconds, lambda: self._rereport(alarm))

    def _rereport(self, alarm: Alarm) -> None:
        if alarm.status == "Uncleared":
            self._report(alarm)
            self._plan_rereport(alarm)

    def _show(self, alarm: Alarm) -> None:
        for watcher in self.watchers:
            watcher(alarm)

    def _report(self, alarm: Alarm) -> None:
        cluster = alarm.host.cluster
        # An OMS switchover leaves a gap in the stream.
        if not self.sinks or self._clock.elapsed < cluster.refuses_until:
            return
        line = line_of(alarm, DEFINITIONS[alarm.alarm_id], self.manager_time(cluster), self.template)
        for sink in self.sinks:
            sink(line)


def _forget_oldest(cluster: Cluster) -> None:
    # Source: Manager keeps the latest 100,000; at 110,000 the oldest 10,000 cleared ones leave the list.
    if len(cluster.alarms) <= HISTORY_LIMIT:
        return
    leaving = {id(alarm) for alarm in [a for a in cluster.alarms if a.status != "Uncleared"][:HISTORY_DUMP]}
    cluster.alarms[:] = [alarm for alarm in cluster.alarms if id(alarm) not in leaving]
