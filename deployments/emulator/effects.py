"""Faults that change the world when they are set, and how they are taken back. The others are only looked up."""

from typing import TYPE_CHECKING

from deployments.emulator.agencies import OTHER_AGENCY, Agency, bind
from deployments.emulator.faults import AGENCY_FAULTS, Fault
from deployments.emulator.inventory import Cluster, Host
from deployments.emulator.traces import AGENCY_CHANGED

if TYPE_CHECKING:
    from deployments.emulator.region import Region


def apply(region: "Region", fault: Fault, clusters: list[Cluster], hosts: list[Host]) -> None:
    """Change the world as the fault says; `clusters` and `hosts` are those in its scope.

    Raises:
        ValueError: the fault cannot hold there (one node cannot be partly bound; an unknown agency).
    """
    if fault.name in AGENCY_FAULTS:
        _set_agency(region, fault, clusters)
    elif fault.name == "unbound":
        _unbind(region, fault, hosts)
        for cluster in clusters if fault.scope[1] is None else []:
            fault.before.setdefault(cluster.id, cluster.agency_record)
            cluster.agency_record = ""
    elif fault.name in ("partly-bound", "mixed-agencies"):
        region.agencies.add(OTHER_AGENCY)
        for cluster in clusters:
            nodes = list(cluster.hosts.values())
            if len(nodes) < 2:
                raise ValueError(f"{fault.name} needs two nodes, {cluster.name} has {len(nodes)}")
            if fault.name == "partly-bound":
                _unbind(region, fault, nodes[len(nodes) // 2 :])
            else:
                _bind(region, fault, nodes[-1], OTHER_AGENCY)
    elif fault.name == "status-stale":
        fault.before.update({host.server_id: region.meta.status(host) for host in hosts})
    elif fault.name == "oms-switchover":
        for cluster in clusters:
            cluster.sessions.clear()
            cluster.commands.clear()
            cluster.refuses_until = region.clock.elapsed + fault.seconds(180)
        region.clock.after(fault.seconds(180), lambda: region.forget(fault))
    elif fault.name == "agency-changed-by-person":
        user, name, age = fault.text("user", "a-person"), fault.text("trace", AGENCY_CHANGED), fault.seconds(3600)
        for cluster in clusters:
            trace = region.traces.add(cluster.master, user, name, age)
            fault.before[trace.id] = trace.name


def undo(region: "Region", fault: Fault, clusters: list[Cluster], hosts: list[Host]) -> None:
    """Take a change of the world back, as far as nobody else changed it meanwhile."""
    if fault.name in AGENCY_FAULTS:
        for name in fault.before:
            _mark(region.agencies.known(name), fault.name, False)
    elif fault.name in ("unbound", "partly-bound", "mixed-agencies"):
        left_by_fault = OTHER_AGENCY if fault.name == "mixed-agencies" else None
        for host in hosts:
            if host.server_id in fault.before and host.metadata.get("agency_name") == left_by_fault:
                bind(host, fault.before[host.server_id] or None, region.clock.elapsed)
        for cluster in clusters:
            cluster.agency_record = cluster.agency_record or fault.before.get(cluster.id, "")
    elif fault.name == "oms-switchover":
        for cluster in clusters:
            cluster.refuses_until = 0.0
    elif fault.name == "agency-changed-by-person":
        region.traces.remove(fault.before, clusters)


def _set_agency(region: "Region", fault: Fault, clusters: list[Cluster]) -> None:
    named = fault.options.get("agency")
    names = {str(named)} if named else {cluster.last_agency for cluster in clusters}
    for name in names:
        agency = region.agencies.known(name)
        region.meta.wake(host for host in region.servers.values() if host.metadata.get("agency_name") == name)
        _mark(agency, fault.name, True)
        fault.before[name] = name


def _mark(agency: Agency, fault: str, value: bool) -> None:
    if fault == "agency-untrusted":
        agency.untrusted = value
    elif fault == "agency-expired":
        agency.expired = value
    elif fault == "agency-expiring":
        agency.expiring = value
    elif fault == "agency-without-obs":
        agency.without_obs = value
    else:
        agency.deleted = value


def _unbind(region: "Region", fault: Fault, hosts: list[Host]) -> None:
    for host in hosts:
        _bind(region, fault, host, None)


def _bind(region: "Region", fault: Fault, host: Host, agency: str | None) -> None:
    fault.before.setdefault(host.server_id, host.metadata.get("agency_name", ""))
    bind(host, agency, region.clock.elapsed)
