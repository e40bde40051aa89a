"""What can be wrong with the pretend region, and where it is wrong now."""

from collections.abc import Iterator
from dataclasses import dataclass, field

Scope = tuple[str | None, str | None]
"""(cluster UUID, host name); None means all of them."""

HOST_FAULTS = {
    "crashed": "Meta is Faulty and fails its polls; a restart heals it",
    "wedged": "Meta is Faulty and fails its polls; a restart changes nothing",
    "restart-clears-only": "Meta is Faulty and fails its polls; a restart only clears the alarm, which returns",
    "restart-fails": "a restart of Meta ends FAILED and leaves it Failed to start (breaks nothing by itself)",
    "slow-restart": "a restart of Meta takes `seconds` (1200) instead of 60 (breaks nothing by itself)",
    "status": "`value` is reported as Meta's running status, by `source` manager, nodes or both (default)",
    "status-stale": "the nodes API keeps reporting the status of the moment the fault was set",
    "instance-duplicated": "two Meta instances are listed on one host",
    "host-unlisted": "Manager knows neither the host nor its instance",
    "unbound": "the node's ECS metadata loses agency_name; for a whole cluster its record becomes empty too",
    "agency-slow": "a binding made from now on issues keys only after `seconds` (900)",
    "metadata-down": "the metadata service does not answer; Meta itself is Normal",
    "iam-down": "the metadata service cannot reach IAM: ALM-45192 too; for the whole region the IAM face answers 503",
    "host-down": "the host is off: Faulty, its instance too, its ECS SHUTOFF, a restart on it FAILED",
    "maintenance": "maintenance mode: no new alarms from there",
    "flapping": "three polls fail, one succeeds, and again",
}
CLUSTER_FAULTS = {
    "partly-bound": "the second half of the nodes loses agency_name; the record stays",
    "mixed-agencies": "the last node names another (good) agency",
    "record-absent": "the cluster record has no mrsEcsDefaultAgency",
    "record-empty": "the cluster record's mrsEcsDefaultAgency is an empty string",
    "record-stale": "the cluster record keeps the last agency it ever named (or `value`)",
    "nodes-by-row": "offset of the nodes API is a row number (from 1), not a page number",
    "oms-switchover": "Manager drops connections for `seconds` (180); sessions, command ids and syslog are lost",
    "clock-skew": "Manager's clock is `seconds` ahead (negative: behind)",
    "cloud-clock-skew": "the clocks of the cloud's services are `seconds` (600) ahead, wherever it is set",
    "masked": "alarms with an id in `alarm_ids` (12110) are masked",
    "command-running": "another Manager command is in progress",
    "agency-updating": "async_task_status/update_ecs_agency says running",
    "cluster-state": "`value` is reported as clusterState",
    "agency-changed-by-person": "CTS has one more trace: `trace` (updateServerAgency) on the first node, by `user` "
    "(a-person), `seconds` (3600) ago; nothing else changes",
    "cts-down": "the CTS face answers 503, for the whole region wherever it is set",
    "cts-denied": "the CTS face answers 403, for the whole region wherever it is set",
}
AGENCY_FAULTS = {
    "agency-deleted": "the agency is gone from IAM (for every cluster that uses it)",
    "agency-broken": "the same as agency-deleted",
    "agency-untrusted": "the agency no longer trusts op_svc_ecs",
    "agency-expired": "the agency's expire_time is past",
    "agency-expiring": "the agency's expire_time is a week ahead",
    "agency-without-obs": "the agency has no permission for OBS any more (breaks nothing by itself)",
}
FAULTS = {**HOST_FAULTS, **CLUSTER_FAULTS, **AGENCY_FAULTS}


@dataclass(slots=True, eq=False)
class Fault:
    """A fault that is set: what, where, with which options; `healed` are narrower places where it no longer holds."""

    name: str
    scope: Scope
    since: float = 0.0
    """Elapsed seconds at which it was set."""
    options: dict[str, object] = field(default_factory=dict)
    healed: set[Scope] = field(default_factory=set)
    before: dict[str, str] = field(default_factory=dict)
    """What was true when it was set, by server id, cluster UUID or agency name; with it the world is restored.

    For traces it made: their names by id.
    """

    def seconds(self, default: float) -> float:
        """The option `seconds`, as a number."""
        return float(str(self.options.get("seconds", default)))

    def text(self, option: str, default: str = "") -> str:
        """An option as text."""
        return str(self.options.get(option, default))


class Faults:
    """The faults that are set, found by name and place, the narrowest first."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[Scope, Fault]] = {}

    def __iter__(self) -> Iterator[Fault]:
        for scopes in self._by_name.values():
            yield from scopes.values()

    def find(self, name: str, cluster: str | None = None, host: str | None = None) -> Fault | None:
        """The fault that holds at this place, or None; `cluster` is a UUID."""
        scopes = self._by_name.get(name)
        if not scopes:
            return None
        for scope in dict.fromkeys(((cluster, host), (cluster, None), (None, None))):
            fault = scopes.get(scope)
            if fault and (cluster, host) not in fault.healed and (cluster, None) not in fault.healed:
                return fault
        return None

    def set(self, name: str, scope: Scope, since: float, options: dict[str, object]) -> Fault:
        """Set a fault; setting it again at the same place replaces its options.

        Raises:
            ValueError: the name is unknown, or a fault of a cluster was asked for one host.
        """
        check_name(name)
        if scope[1] is not None and name not in HOST_FAULTS:
            raise ValueError(f"{name} is not a fault of a single host")
        scopes = self._by_name.setdefault(name, {})
        before = scopes[scope].before if scope in scopes else {}
        fault = scopes[scope] = Fault(name, scope, since, options, before=before)
        return fault

    def clear(self, name: str, scope: Scope) -> list[Fault]:
        """Remove a fault here and at every narrower place; a wider one stops holding here. Answers all of these."""
        check_name(name)
        ended = []
        for fault in list(self._by_name.get(name, {}).values()):
            if _covers(scope, fault.scope):
                del self._by_name[name][fault.scope]
            elif _covers(fault.scope, scope):
                fault.healed.add(scope)
            else:
                continue
            ended.append(fault)
        return ended


def check_name(name: str) -> None:
    """Raise ValueError, listing the known names, for an unknown one."""
    if name not in FAULTS:
        raise ValueError(f"no fault is called {name!r}; known: {', '.join(sorted(FAULTS))}")


def _covers(wide: Scope, narrow: Scope) -> bool:
    return wide[0] in (None, narrow[0]) and wide[1] in (None, narrow[1])
