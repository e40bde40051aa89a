"""The demo's scenarios: what is broken, and the trace the runbook must leave."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deployments.emulator.agencies import bind
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region
from tasks.errors import ConfigurationError

Profile = Literal["assumed", "documented"]

ON_THE_FIRST_HOST = frozenset({"crashed", "wedged", "metadata-down"})


@dataclass(frozen=True)
class Scenario:
    """Faults on a cluster of three nodes whose Meta runs on one, and the trace to be left, per profile.

    On `documented` nothing can be changed: Manager publishes neither a route to restart nor one that says whether the
    alarm is still active, so the run says what to click and hands over.
    """

    faults: tuple[str, ...]
    assumed: str
    documented: str

    def trace(self, profile: Profile) -> str:
        """The trace to be left on this profile."""
        return self.assumed if profile == "assumed" else self.documented


SCENARIOS: Mapping[str, Scenario] = {
    "crashed": Scenario(("crashed",), "1 2n 3y END", "1 2n REFUSED"),
    "unbound": Scenario(("unbound",), "1 2y 4 5n 6y END", "1 2y 4 5n REFUSED"),
    "crashed+unbound": Scenario(("crashed", "unbound"), "1 2n 3n 4 5n 6y END", "1 2n REFUSED"),
    "agency-broken": Scenario(("agency-broken",), "1 2y 4 5y 7 ESCALATE", "1 2y 4 5y 7 ESCALATE"),
    "wedged": Scenario(("wedged",), "1 2n 3n 4 5y 7 ESCALATE", "1 2n REFUSED"),
    "unbound+metadata-down": Scenario(("unbound", "metadata-down"), "1 2y 4 5n 6n 7 ESCALATE", "1 2y 4 5n REFUSED"),
    "wedged+unbound": Scenario(("wedged", "unbound"), "1 2n 3n 4 5n 6n 7 ESCALATE", "1 2n REFUSED"),
}


def give_an_agency(region: Region, cluster: Cluster) -> None:
    """Bind a cluster to an agency of its own, so that a scenario that breaks it breaks no other cluster."""
    name = f"MRS_ECS_AGENCY_{cluster.name}"
    region.agencies.add(name)
    for host in cluster.hosts.values():
        bind(host, name, region.clock.elapsed)
    cluster.agency_record = cluster.last_agency = name


def break_cluster(region: Region, cluster: Cluster, fault: str) -> None:
    """Set one fault, `NAME` or `NAME@HOST`; without a host on the whole cluster, or on the host where Meta runs.

    Raises:
        ConfigurationError: an unknown fault or host, or one that does not fit the other; names the known ones.
    """
    name, at, host = fault.partition("@")
    where = host if at else next(iter(cluster.hosts)) if name in ON_THE_FIRST_HOST else None
    try:
        region.set_fault(name, cluster=cluster, host=where)
    except LookupError:
        raise ConfigurationError(f"--fault {fault}: no host {host!r}: use one of {', '.join(cluster.hosts)}") from None
    except ValueError as error:
        raise ConfigurationError(f"--fault {fault}: {error}") from error


def trouble_region(region: Region, rule: str) -> None:
    """Ask for HTTP trouble, `KIND METHOD PATH-GLOB [TIMES]`; the kind is an HTTP status or one of the emulator's.

    Raises:
        ConfigurationError: not of that form, or an unknown kind; names the known ones.
    """
    form = f"--trouble {rule!r}: write 'KIND METHOD PATH-GLOB [TIMES]', e.g. '503 GET */alarms 3'"
    match rule.split():
        case [kind, method, glob]:
            times = "1"
        case [kind, method, glob, times] if times.isdecimal():
            pass
        case _:
            raise ConfigurationError(form)
    try:
        if not kind.isdecimal():
            region.trouble.add(method, glob, kind, int(times))
        elif 400 <= int(kind) <= 599:
            region.trouble.add(method, glob, "status", int(times), status=int(kind))
        else:
            raise ConfigurationError(f"{form}; an HTTP status is one from 400 to 599")
    except ValueError as error:
        raise ConfigurationError(f"--trouble {rule!r}: {error}, or an HTTP status") from error
