"""What the cluster is like right before a restart: its Meta instances and every active alarm. It only reads."""

import re
from collections import Counter
from collections.abc import Sequence

from tasks import timing
from tasks.connections import Connection, connected
from tasks.errors import RemoteError
from tasks.health import NORMAL
from tasks.journal import once
from tasks.models import Alarm, Case, Deed, Instance, few
from tasks.restarts import state_of

# Alarms that tell a lost node or trouble on the cloud's side from a sick instance come first: the node; Meta and IAM;
# Guardian and the three layers of its keys, and its other alarms. Source: the alarm pages of these ids.
FIRST = ("12006", "45192", "45741", "45742", "45743")
RELATED = re.compile(r"457[34]\d")
MOST_IDS = 8


@once("3 before {alarm.host}")
async def look_before_restart(case: Case, alarm: Alarm) -> Deed:
    """How the instances and the alarms are before one host's restart. What cannot be read is said, and stops nothing.

    Source: O&M > Alarm > Alarms; Cluster > Services > Meta > Instance.
    """
    async with connected(case) as connection:
        seen = f"before the restart: {await _instances(connection, alarm.host)}; {await _alarms(connection)}"
    return Deed(host=alarm.host, did=seen, at=timing.now(), looked=True)


async def _instances(connection: Connection, host: str) -> str:
    try:
        found = await connection.manager.instances(connection.cluster.meta_service)
    except RemoteError as error:
        return f"the Meta instances cannot be read ({error})"
    return instances_in_words(found, host)


async def _alarms(connection: Connection) -> str:
    try:
        found = await connection.manager.active_alarms()
    except RemoteError as error:
        return f"the active alarms cannot be read ({error})"
    return alarms_in_words(found)


def instances_in_words(instances: Sequence[Instance], host: str) -> str:
    """How many instances are in which state; this host's, and others that are not normal, by name."""
    counts = Counter(each.status for each in instances)
    named = [each for each in instances if each.host == host or each.status.lower() not in NORMAL]
    named.sort(key=lambda each: each.host != host)  # the one that is to be restarted comes first
    states = ", ".join(f"{many} {status!r}" for status, many in counts.most_common())
    words = few([f"{each.host} {state_of(each)}" for each in named])
    return f"Meta instances: {states or 'none'}{f' ({words})' if words else ''}"


def alarms_in_words(alarms: Sequence[Alarm]) -> str:
    """Which alarms are active on which hosts, those first that bear on Meta's keys."""
    hosts: dict[str, list[str]] = {}
    for alarm in alarms:
        hosts.setdefault(alarm.alarm_id, []).append(alarm.host or "no host")
    ids = sorted(hosts, key=_rank)
    words = [f"{id_} on {few(sorted(hosts[id_]))}" for id_ in ids[:MOST_IDS]]
    left = [f"and {sum(len(hosts[id_]) for id_ in ids[MOST_IDS:])} of other ids"] if ids[MOST_IDS:] else []
    named = "; ".join([*words, *left])
    return f"active alarms: {len(alarms)}{f' ({named})' if named else ''}"


def _rank(alarm_id: str) -> tuple[int, str]:
    if alarm_id in FIRST:
        return FIRST.index(alarm_id), alarm_id
    return (len(FIRST) if RELATED.fullmatch(alarm_id) else len(FIRST) + 1), alarm_id
