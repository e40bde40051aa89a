"""What Manager and the cloud must say at the moment of a change. Each raises Refused with its reason, or passes.

Whoever asks turns what cannot be read into a refusal.
"""

from collections.abc import Sequence

from tasks.claims import holds, looked_up
from tasks.connections import Connection
from tasks.errors import Refused
from tasks.ledger.learning import told_of
from tasks.models import Alarm, Case, Outcome


async def alarms_can_be_read(case: Case, alarms: Sequence[Alarm]) -> None:
    """Manager lists alarms, so that it can be seen whether these are still active; else what a source told of them."""
    if any(alarm.reported for alarm in alarms):
        told = await looked_up(case, told_of) if holds(case) else {}
        clears = [
            told[alarm.host].cleared_by for alarm in alarms if alarm.host in told and told[alarm.host].cleared_seen
        ]
        if len(clears) == len(alarms):
            person = "person" in clears
            by = "by a person" if person else "by Meta"
            outcome = Outcome.CLEARED_BY_PERSON if person else Outcome.CLEARED
            raise Refused(f"the alarm was cleared {by} before this step was needed, as a source told", outcome)
        why = "nothing is changed without that; do it as described below"
        raise Refused(f"this Manager offers no route to see whether the alarm is still active: {why}", by_hand=True)


async def an_alarm_is_active(connection: Connection, alarms: Sequence[Alarm]) -> None:
    """One of these alarms is active on Manager, by what it lists now."""
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


async def hosts_are_who_they_seem(connection: Connection, alarms: Sequence[Alarm]) -> None:
    """Each alarmed host is one and the same machine for Manager and the cloud, and not in maintenance mode."""
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


async def nobody_else_is_at_it(connection: Connection) -> None:
    """The cluster is `running`; no other command of Manager and no agency update runs."""
    record = await connection.mrs.cluster(connection.cluster.cluster_id)
    if record.state != "running":
        raise Refused(f"the cluster's state is {record.state!r}, not 'running'")
    if commands := await connection.manager.running_commands():
        raise Refused(f"Manager is running another command: {', '.join(command.name for command in commands)}")
    if await connection.mrs.agency_update_running(connection.cluster.cluster_id):
        raise Refused("MRS is updating the cluster's agency right now")
