"""The pretend region: its clusters, time, faults and what happened. It knows nothing of HTTP."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from deployments.emulator import effects
from deployments.emulator.agencies import DEFAULT_AGENCY, Agencies, bind
from deployments.emulator.alarms import Alarms
from deployments.emulator.clock import DEFAULT_START, Clock
from deployments.emulator.commands import Commands
from deployments.emulator.faults import AGENCY_FAULTS, Fault, Faults
from deployments.emulator.inventory import (
    Cluster,
    Command,
    Host,
    address,
    host_names,
    identifier,
    next_core_name,
    phase,
    secret,
)
from deployments.emulator.meta import Meta
from deployments.emulator.metadata import MetadataService
from deployments.emulator.mutations import Mutation
from deployments.emulator.signatures import Keys
from deployments.emulator.topics import Topics
from deployments.emulator.traces import Traces
from deployments.emulator.trouble import Trouble

Profile = Literal["documented", "assumed"]


class Region:
    """A region with `clusters` clusters of `hosts` nodes, Meta on the first `meta_hosts` of each (None: on all).

    `profile` documented serves only what is publicly documented; `seed` decides every id, address and poll phase.
    The access key `reading_access_key` may read, and change nothing. `calls` counts calls by who sent them and method.
    """

    def __init__(
        self,
        clusters: int = 1,
        hosts: int = 3,
        meta_hosts: int | None = None,
        profile: Profile = "assumed",
        seed: int = 0,
        start: datetime = DEFAULT_START,
    ) -> None:
        self.profile: Profile = profile
        self.seed = seed
        self.region = "emulated-1"
        self.project_id = secret(32, seed, "project").lower()
        self.domain_id = secret(32, seed, "domain").lower()
        self.access_key = "EMU" + secret(17, seed, "access")
        self.secret_key = secret(40, seed, "secret")
        self.reading_access_key = "EMU" + secret(17, seed, "reading access")
        self.reading_secret_key = secret(40, seed, "reading secret")
        self.token = "MII" + secret(61, seed, "token")
        self.clock = Clock(start)
        self.faults = Faults()
        self.agencies = Agencies(self.clock, self.domain_id)
        self.metadata = MetadataService(self.clock, self.faults, self.agencies)
        self.alarms = Alarms(self.clock, self.faults)
        self.meta = Meta(self.clock, self.faults, self.metadata, self.alarms)
        self.commands = Commands(self.clock, self.faults, self.meta, self.alarms)
        self.smn = Topics(self.region, self.project_id, self.alarms)
        self.traces = Traces(self.clock)
        self.trouble = Trouble()
        self.clusters: dict[str, Cluster] = {}
        self.servers: dict[str, Host] = {}
        self.temporary_keys: dict[str, Keys] = {}
        self.log: list[Mutation] = []
        self.calls: Counter[tuple[str, str]] = Counter()
        self._hosts = hosts
        self._meta_hosts = hosts if meta_hosts is None else meta_hosts
        self._built = 0
        self._addresses = 0
        for _ in range(clusters):
            self.add_cluster()

    @property
    def now(self) -> datetime:
        """The emulated time, aware, UTC."""
        return self.clock.now

    def advance(self, seconds: float) -> None:
        """Move emulated time forward; everything due meanwhile happens in order. ValueError if negative."""
        self.clock.advance(seconds)

    def cluster(self, name_or_id: str) -> Cluster:
        """The cluster with this UUID or name.

        Raises:
            LookupError: there is none, or two have this name.
        """
        if name_or_id in self.clusters:
            return self.clusters[name_or_id]
        named = [cluster for cluster in self.clusters.values() if cluster.name == name_or_id]
        if len(named) != 1:
            raise LookupError(f"{len(named)} clusters are called {name_or_id!r}")
        return named[0]

    def set_fault(
        self, name: str, cluster: Cluster | str | None = None, host: Host | str | None = None, **options: object
    ) -> Fault:
        """Set a fault on a host, a whole cluster or (both None) the whole region; faults combine.

        Raises:
            ValueError: unknown name (the known ones are listed), or it cannot hold there.
            LookupError: no such cluster or host.
        """
        scope, clusters, hosts = self._scope(cluster, host)
        self.meta.wake(hosts)
        fault = self.faults.set(name, scope, self.clock.elapsed, options)
        try:
            effects.apply(self, fault, clusters, hosts)
        except ValueError:
            self.faults.clear(name, scope)
            raise
        return fault

    def clear_fault(self, name: str, cluster: Cluster | str | None = None, host: Host | str | None = None) -> None:
        """Take a fault away from a host, a whole cluster or the whole region; one that is not set is no error.

        Raises:
            ValueError: unknown name.
            LookupError: no such cluster or host.
        """
        scope, clusters, hosts = self._scope(cluster, host)
        self.meta.wake(hosts)
        for fault in self.faults.clear(name, scope):
            if fault.name in AGENCY_FAULTS:
                self.meta.wake(self.servers.values())
            effects.undo(self, fault, clusters, hosts)

    def forget(self, fault: Fault) -> None:
        """Remove a fault that ended by itself, unless it was set again meanwhile."""
        if self.faults.find(fault.name, *fault.scope) is fault:
            self.faults.clear(fault.name, fault.scope)

    def restart(self, cluster: Cluster, instance_ids: list[int], who: str) -> Command:
        """Restart Meta instances as Manager does; see `Commands.restart` for what it raises."""
        command, hosts = self.commands.restart(cluster, instance_ids)
        for host in hosts:
            self.note(who, "restart-instance", host.name, cluster, {"commandId": command.id})
        return command

    def set_metadata(self, host: Host, metadata: Mapping[str, str], who: str) -> None:
        """Merge keys into a node's ECS metadata; `agency_name` binds the node, an empty one unbinds it."""
        self.meta.wake([host])
        if "agency_name" in metadata:
            bind(host, metadata["agency_name"] or None, self.clock.elapsed)
        host.metadata.update({key: value for key, value in metadata.items() if key != "agency_name"})
        self.note(who, "set-metadata", host.name, host.cluster, dict(metadata))

    def delete_metadata(self, host: Host, key: str, who: str) -> None:
        """Remove a key from a node's ECS metadata; KeyError if it is not there."""
        if key not in host.metadata:
            raise KeyError(key)
        self.meta.wake([host])
        if key == "agency_name":
            bind(host, None, self.clock.elapsed)
        else:
            del host.metadata[key]
        self.note(who, "delete-metadata", host.name, host.cluster, {"key": key})

    def clear_alarm(self, serial: int | str, cluster: Cluster | str | None = None) -> None:
        """Clear an alarm as a person does in Manager; an unrepaired fault raises a new one three polls later.

        Raises:
            LookupError: no uncleared alarm has this serial number, or those of two clusters have it.
        """
        clusters = self._scope(cluster, None)[1]
        found = [a for c in clusters for a in c.alarms if a.serial == int(serial) and a.status == "Uncleared"]
        if len(found) != 1:
            raise LookupError(f"{len(found)} uncleared alarms have the serial number {serial}")
        host = found[0].host
        self.meta.wake([host])
        self.alarms.clear(found[0], "Manual")
        host.failures = host.iam_failures = 0
        self.note("a person", "clear-alarm", str(serial), host.cluster, {"alarmId": found[0].alarm_id})

    def add_cluster(self, name: str | None = None) -> Cluster:
        """Add a cluster; the name may be one that is taken."""
        self._built += 1
        cluster_id = identifier(self.seed, "cluster", self._built)
        cluster = Cluster(
            id=cluster_id,
            name=name or f"mrs-{self._built:03d}",
            created=self.clock.elapsed,
            manager_user="runbooks",
            manager_password="Emu." + secret(12, self.seed, "password", cluster_id),
            viewer_password="Emu." + secret(12, self.seed, "viewer", cluster_id),
            agency_record=DEFAULT_AGENCY,
            last_agency=DEFAULT_AGENCY,
        )
        self.clusters[cluster_id] = cluster
        for index, host_name in enumerate(host_names(self._hosts)):
            self._add_host(cluster, host_name, with_meta=index < self._meta_hosts)
        return cluster

    def scale_out(self, cluster: Cluster | str) -> Host:
        """Add a core node with Meta; it gets the agency of the cluster's record, not that of the other nodes."""
        found = self._scope(cluster, None)[1][0]
        return self._add_host(found, next_core_name(found), with_meta=True)

    def scale_in(self, cluster: Cluster | str, host: Host | str) -> None:
        """Remove a node and its server; an uncleared alarm of it stays, because nobody is left to clear it."""
        gone = self._scope(cluster, host)[2][0]
        self.meta.stop(gone)
        del gone.cluster.hosts[gone.name]
        del self.servers[gone.server_id]

    def note(self, who: str, action: str, target: str, cluster: Cluster, detail: Mapping[str, object]) -> None:
        """Write a mutation into the log."""
        self.log.append(Mutation(self.now, who, action, target, cluster.id, detail))

    def _add_host(self, cluster: Cluster, name: str, with_meta: bool) -> Host:
        self._addresses += 1
        offset = phase(self.seed, cluster.id, name)
        host = Host(
            name=name,
            ip=address(self._addresses),
            server_id=identifier(cluster.id, name, self._addresses),
            cluster=cluster,
            metadata={"agency_name": cluster.agency_record} if cluster.agency_record else {},
            bound_since=self.clock.elapsed - offset * 10,
            instance_id=cluster.next_instance if with_meta else None,
            polls_from=self.clock.elapsed + offset,
            started_ms=self.alarms.manager_ms(cluster),
            healthy=bool(cluster.agency_record),
        )
        cluster.next_instance += 1
        cluster.hosts[name] = host
        self.servers[host.server_id] = host
        if not host.healthy or any(self.faults):
            self.meta.wake([host])
        return host

    def _scope(
        self, cluster: Cluster | str | None, host: Host | str | None
    ) -> tuple[tuple[str | None, str | None], list[Cluster], list[Host]]:
        if isinstance(host, Host) and cluster is None:
            cluster = host.cluster
        if cluster is None:
            if host is not None:
                raise LookupError(f"which cluster's {host}?")
            return (None, None), list(self.clusters.values()), list(self.servers.values())
        found = cluster if isinstance(cluster, Cluster) else self.cluster(cluster)
        if host is None:
            return (found.id, None), [found], list(found.hosts.values())
        name = host.name if isinstance(host, Host) else host
        if name not in found.hosts:
            raise LookupError(f"{found.name} has no host {name!r}")
        return (found.id, name), [found], [found.hosts[name]]
