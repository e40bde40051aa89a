"""What must hold at the moment of a mutation. A gate that cannot be read refuses."""

from collections.abc import Sequence

from tasks.blocks import Cluster, cluster_block
from tasks.claims import may_act
from tasks.connections import Connection
from tasks.errors import ConfigurationError, Refused, RemoteError
from tasks.models import Alarm, Case, Outcome


async def may_change(case: Case, connection: Connection, alarms: Sequence[Alarm], *, begun: bool = False) -> Cluster:
    """Let a mutation for these alarms pass, or refuse it with the first gate's reason. Everything is read now.

    The gates: the cluster's mode; each alarmed host is one and the same machine for Manager and the cloud, and not in
    maintenance mode; the cluster is `running`; no other command or agency update runs; an alarm is active; and, last,
    the run still holds its cluster's episode, whose alarm is no old one.

    Args:
        begun: the mutation goes on with one that has begun, as a bind does from node to node. The alarm need not be
            active then: it may be cleared because of the first half, and half of it is worse than all or nothing.

    Returns:
        The cluster's block as it is now: what it allows counts, not what it allowed when the run began.

    Raises:
        Refused: with `outcome` CLEARED or CLEARED_BY_PERSON where the alarms went away meanwhile.
    """
    try:
        cluster = await cluster_block(case.cluster)
        if cluster.mode != "auto" and not case.dry_run:
            why = "nothing is changed without a person; do it as described below"
            raise Refused(f"the cluster's mode is {cluster.mode!r}: {why}")
        _alarms_can_be_read(alarms)
        await _hosts_are_who_they_seem(connection, alarms)
        await _nobody_else_is_at_it(connection)
        if not begun:
            await _an_alarm_is_active(connection, alarms)
        await may_act(case)
    except (RemoteError, ConfigurationError) as error:
        raise Refused(f"a gate cannot be read, so it stays shut: {error}") from error
    return cluster


def _alarms_can_be_read(alarms: Sequence[Alarm]) -> None:
    if any(alarm.reported for alarm in alarms):
        why = "nothing is changed without that; do it as described below"
        raise Refused(f"this Manager offers no route to see whether the alarm is still active: {why}")


async def _an_alarm_is_active(connection: Connection, alarms: Sequence[Alarm]) -> None:
    active = {alarm.host for alarm in await connection.manager.alarms(alarms[0].alarm_id)}
    if active.intersection(alarm.host for alarm in alarms):
        return
    found = [await connection.manager.occurrence(alarm) for alarm in alarms]
    states = {alarm.status.lower() if alarm else "not listed" for alarm in found}
    if states == {"auto"}:
        raise Refused("the alarm was cleared before this step was needed", Outcome.CLEARED)
    if states <= {"auto", "manual"}:
        raise Refused("the alarm was cleared by a person before this step was needed", Outcome.CLEARED_BY_PERSON)
    raise Refused(f"the alarm is no longer active and not cleared either ({', '.join(sorted(states))})")


async def _hosts_are_who_they_seem(connection: Connection, alarms: Sequence[Alarm]) -> None:
    managed = {host.name: host for host in await connection.manager.hosts()}
    nodes = await connection.mrs.nodes(connection.cluster.cluster_id)
    for name in (alarm.host for alarm in alarms):
        host = managed.get(name)
        if host is None:
            raise Refused(f"Manager does not know host {name}")
        servers = [node.server_id for node in nodes if host.ip and node.ip == host.ip]
        if len(servers) != 1:
            id_ = connection.cluster.cluster_id
            ip = host.ip or "none"
            raise Refused(f"{name} has IP {ip} on Manager; {len(servers)} nodes of cluster {id_} have it, not one")
        if host.maintenance:
            raise Refused(f"{name} is in Manager's maintenance mode")


async def _nobody_else_is_at_it(connection: Connection) -> None:
    record = await connection.mrs.cluster(connection.cluster.cluster_id)
    if record.state != "running":
        raise Refused(f"the cluster's state is {record.state!r}, not 'running'")
    if commands := await connection.manager.running_commands():
        raise Refused(f"Manager is running another command: {', '.join(command.name for command in commands)}")
    if await connection.mrs.agency_update_running(connection.cluster.cluster_id):
        raise Refused("MRS is updating the cluster's agency right now")
