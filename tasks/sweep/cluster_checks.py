"""The cluster itself: is it known, does it answer, are its instances normal, which alarms are active."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from tasks.blocks import Cluster
from tasks.errors import NotOffered, RunbookError
from tasks.health import health
from tasks.ledger.knowledge import Told
from tasks.models import Alarm, ClusterRecord, Instance, Node, Outcome, hosts_of
from tasks.sweep.seen import Read, Seen
from tasks.sweep.verdicts import Value, Verdict, gives_no_answer, unread

ECS_KEYS = "12110"
META = "meta"  # as the blocks have it by default
# Of OBS calls from the cluster: their time, success rate, failures, throttling. Source: MRS alarm reference.
OBS_ALARMS = frozenset(str(alarm_id) for alarm_id in range(45175, 45183))
TO_BE_TOLD = timedelta(minutes=10)  # a source has that long, by our clock
UNWELL: Sequence[tuple[Value, tuple[str, ...]]] = (
    ("fail", ("n", Outcome.REFUSED)),
    ("cannot tell", ("wait", Outcome.CANNOT_TELL)),
)
NO_INTAKE = "no intake is at work: its run starts when one is"
NOT_OBSERVABLE = "not observable from outside, except through alarms: the keys never leave the node"


def managed(seen: Seen) -> Verdict:
    """Whether there is a block for it that can be used."""
    if isinstance(seen.block, Cluster):
        return "pass", f"it has a block, mode {seen.block.mode}"
    if isinstance(seen.block, str):
        return "fail", seen.block
    shown = seen.record
    called = f"{shown.name!r}, {shown.state}" if isinstance(shown, ClusterRecord) else "a name that cannot be read"
    return "fail", f"unmanaged: the cloud has it as {called}, and no MRS Cluster block names it"


def cloud_answers(seen: Seen) -> Verdict:
    """Whether MRS and ECS could be read."""
    what, error = _cloud_s_error(seen)
    if error:
        return "fail", f"{what} cannot be read: {error}"
    return "pass", f"record, {len(seen.nodes) if isinstance(seen.nodes, Sequence) else 0} nodes and their metadata read"


def _cloud_s_error(seen: Seen) -> tuple[str, RunbookError | None]:
    """The first thing of the cloud's that could not be read, and why; None: all of it could."""
    read: tuple[tuple[str, Read[object]], ...] = (
        ("the record", seen.record),
        ("the nodes", seen.nodes),
        ("their ECS metadata", seen.agencies),
    )
    return next(((what, found) for what, found in read if isinstance(found, RunbookError)), ("", None))


def manager_answers(seen: Seen) -> Verdict:
    """Whether Manager lets us in and answers; routes that it does not offer are no fault of its.

    Where the cloud gives no answer either that is one finding, not two.
    """
    if not isinstance(seen.block, Cluster):
        return unread("its Manager", None)
    read: dict[str, Read[object]] = {"alarms": seen.alarms, "masking": seen.masked, "instances": seen.instances}
    for found in read.values():
        if isinstance(found, RunbookError) and not isinstance(found, NotOffered):
            if gives_no_answer(found) and gives_no_answer(_cloud_s_error(seen)[1]):
                return "cannot tell", f"the cloud cannot be reached either, see `cloud`; {found}"
            return "fail", str(found)
    missing = [(name, found) for name, found in read.items() if isinstance(found, NotOffered)]
    if not missing:
        return "pass", "alarms, masking and instances read"
    words = f"not offered: {', '.join(name for name, _ in missing)}"
    if len(missing) == len(read) and not any(found.status for _, found in missing):
        return "cannot tell", f"nothing was asked, its block says so; {words}"
    return "pass", words


def instances_are_normal(seen: Seen) -> Verdict:
    """Every Meta instance, by the judgement of the runbook's step 2."""
    nodes, instances = seen.nodes, seen.instances
    for what, read in (("the nodes API", nodes), ("Manager's list of instances", instances)):
        if isinstance(read, RunbookError) and not isinstance(read, NotOffered):
            return unread(what, read)
    listed: Sequence[Node] | None = None if nodes is None or isinstance(nodes, RunbookError) else nodes
    known: Sequence[Instance] | None = None if instances is None or isinstance(instances, RunbookError) else instances
    meta = seen.block.meta_service if isinstance(seen.block, Cluster) else META
    hosts = {n.host for n in listed or () for part in n.components if part.service.lower() == meta.lower()}
    hosts |= {instance.host for instance in known or ()}
    if not hosts:
        return "cannot tell", f"no source lists a {meta} instance"
    judged = {host: health(host, meta, listed, None, known) for host in sorted(hosts)}
    for value, values in UNWELL:
        if words := [said for verdict, said in judged.values() if verdict in values]:
            more = f" and {len(words) - 3} more" if len(words) > 3 else ""
            return value, "; ".join(words[:3]) + more
    return "pass", f"{len(judged)} {meta} instances are normal"


def no_active(alarm_id: str) -> Callable[[Seen], Verdict]:
    """The check that no such alarm is active."""

    def check(seen: Seen) -> Verdict:
        if not isinstance(seen.block, Cluster):
            return unread("its Manager", None)
        if isinstance(seen.alarms, NotOffered):
            return _as_told(seen, alarm_id)
        if isinstance(seen.alarms, RunbookError) or seen.alarms is None:
            return unread("Manager's list of alarms", seen.alarms)
        if active := active_of(seen, alarm_id):
            since = min((alarm.occurred for alarm in active if alarm.occurred), default=None)
            return "fail", f"active on {hosts_of(active)}{f', since {since:%Y-%m-%d %H:%M} UTC' if since else ''}"
        if isinstance(seen.masked, RunbookError) or seen.masked is None:
            return "cannot tell", f"not listed; {unread('whether it is masked', seen.masked)[1]}"
        if alarm_id in seen.masked:
            return "cannot tell", "not listed, and masked on Manager: that says nothing"
        return "pass", "not active"

    return check


def active_of(seen: Seen, *alarm_ids: str) -> list[Alarm]:
    """The active alarms of these ids; none where they could not be read."""
    if seen.alarms is None or isinstance(seen.alarms, RunbookError):
        return []
    return [alarm for alarm in seen.alarms if alarm.alarm_id in alarm_ids]


def _told(seen: Seen, alarm_id: str) -> Sequence[str]:
    """Hosts for which a source told of this alarm, and of no clear since."""
    return seen.told.active.get(alarm_id, ()) if isinstance(seen.told, Told) else ()


def _as_told(seen: Seen, alarm_id: str) -> Verdict:
    if hosts := _told(seen, alarm_id):
        return "fail", f"a source told of it on {', '.join(hosts)}, and of no clear since; Manager lists no alarms"
    return "cannot tell", f"Manager lists no alarms ({seen.alarms}), and no source told of one"


def followed(seen: Seen) -> Verdict:
    """Whether each active ALM-12110 has an episode; one that had none has one now."""
    if not isinstance(seen.block, Cluster):
        return unread("its Manager", None)
    if isinstance(seen.alarms, NotOffered):
        return _followed_as_told(seen)
    if isinstance(seen.alarms, RunbookError):
        return unread("Manager's list of alarms", seen.alarms)
    hosts = {alarm.host for alarm in active_of(seen, ECS_KEYS)}
    if not hosts:
        return "n/a", "Manager lists no active ALM-12110"
    left = sorted(host or "a host that is not named" for host in hosts - set(seen.followed))
    if left:
        return "fail", f"nothing follows it on {', '.join(left)}: start the runbook by hand"
    episodes = ", ".join(sorted({each.episode for each in seen.followed.values()}))
    idle = _has_no_intake(seen) and any(each.waits for each in seen.followed.values())
    if late := sorted({alarm.host for alarm in active_of(seen, ECS_KEYS) if _was_missed(seen, alarm)}):
        words = f"no source had told of it on {', '.join(late)}: the sweep did, now episode {episodes} follows it"
        return "fail", f"{words}; {NO_INTAKE}" if idle else words
    return _under_way(episodes, idle=idle)


def _followed_as_told(seen: Seen) -> Verdict:
    """The same where Manager lists no alarms: by what sources told of it."""
    if not (hosts := _told(seen, ECS_KEYS)):
        return _as_told(seen, ECS_KEYS)
    told = seen.told if isinstance(seen.told, Told) else Told()
    if not (episodes := told.episodes.get(ECS_KEYS)):
        return "fail", f"a source told of it on {', '.join(hosts)}, nothing follows it: start the runbook by hand"
    return _under_way(", ".join(episodes), idle=_has_no_intake(seen) and ECS_KEYS in told.waiting)


def _under_way(episodes: str, *, idle: bool) -> Verdict:
    return ("fail", f"episode {episodes} waits; {NO_INTAKE}") if idle else ("pass", f"episode {episodes}")


def _has_no_intake(seen: Seen) -> bool:
    return isinstance(seen.told, Told) and not seen.told.intake


def _was_missed(seen: Seen, alarm: Alarm) -> bool:
    """Whether nobody told of it but the sweep, though there was time enough."""
    speed = seen.block.speed if isinstance(seen.block, Cluster) else 1
    new = alarm.occurred and seen.clock and seen.clock - alarm.occurred < TO_BE_TOLD * speed
    return seen.followed[alarm.host].found and not new


def gets_keys(seen: Seen) -> Verdict:
    """Whether Meta gets temporary keys: only its alarm tells."""
    if active := active_of(seen, ECS_KEYS):
        return "fail", f"Meta says that it does not, by ALM-12110 on {hosts_of(active)}"
    if isinstance(seen.alarms, NotOffered) and (hosts := _told(seen, ECS_KEYS)):
        return "fail", f"Meta said that it does not, by ALM-12110 on {', '.join(hosts)}"
    return "cannot tell", NOT_OBSERVABLE


def reaches_obs(seen: Seen) -> Verdict:
    """Whether calls of OBS work: only alarms tell."""
    if active := active_of(seen, *OBS_ALARMS):
        ids = ", ".join(sorted({f"ALM-{alarm.alarm_id}" for alarm in active}))
        return "fail", f"{ids} active on {hosts_of(active)}"
    return "cannot tell", NOT_OBSERVABLE
