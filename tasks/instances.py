"""The Meta role instance of an alarmed host: is it normal, and its restart. Steps 2 and 3 of the page."""

import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import timing, waits
from tasks.answering import restart_was_refused
from tasks.approvals import agreement, by_hand, deeds_of
from tasks.connections import Connection, connected
from tasks.errors import (
    CannotTell,
    DryRun,
    LedgerUnavailable,
    NotOffered,
    OutcomeUnknown,
    Refused,
    RemoteError,
    StepFailed,
)
from tasks.gates import intend, kept_from, may_change, still_at_once
from tasks.health import ABNORMAL, health
from tasks.intents import begun_before, command_is, seen_to_its_end
from tasks.journal import once
from tasks.models import Alarm, Answer, Case, Deed, Instance, ManagedHost, Node, Outcome, hosts_of
from tasks.restarts import follow
from tasks.retrying import DELAYS, RETRIES, may_pass
from tasks.snapshots import look_before_restart

TRANSITION_TAKES = 600.0  # seconds of the cluster's time
RESTARTS_PER_RUN = 3

logger = logging.getLogger("runbooks")


@task(
    task_run_name="2 look at the Meta instances of {hosts}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
async def look_at_instances(case: Case, alarms: Sequence[Alarm], hosts: str) -> dict[str, tuple[str, str]]:
    """Host name -> what `health` says now. A route this cloud or Manager does not offer says nothing.

    Source: ALM-12110, step 2 (Cluster > Services > Meta > Instance).
    """
    async with connected(case) as connection:
        meta = connection.cluster.meta_service
        nodes = await _offered_nodes(connection)
        managed = await _offered_hosts(connection)
        instances = await _offered_instances(connection)
    return {alarm.host: health(alarm.host, meta, nodes, managed, instances) for alarm in alarms}


async def _offered_nodes(connection: Connection) -> Sequence[Node] | None:
    try:
        return await connection.mrs.nodes(connection.cluster.cluster_id)
    except NotOffered:
        return None


async def _offered_hosts(connection: Connection) -> Sequence[ManagedHost] | None:
    try:
        return await connection.manager.hosts()
    except NotOffered:
        return None


async def _offered_instances(connection: Connection) -> Sequence[Instance] | None:
    try:
        return await connection.manager.instances(connection.cluster.meta_service)
    except NotOffered:
        return None


@once("2")
async def instances_are_normal(case: Case, alarms: Sequence[Alarm]) -> list[Answer]:
    """Whether the Meta instance of each host is normal; one in transition is given ten minutes to settle.

    Source: ALM-12110, step 2.
    """
    if not alarms:
        return []
    async with connected(case) as connection:
        speed = connection.cluster.speed
    seen: dict[str, tuple[str, str]] = {}
    until = await waits.deadline(case, "2", timing.later(TRANSITION_TAKES, since=timing.now(), speed=speed))
    async for _ in waits.looks(case, until, every=60.0, speed=speed):
        unsettled = [alarm for alarm in alarms if seen.get(alarm.host, ("wait", ""))[0] == "wait"]
        try:
            seen |= await look_at_instances(case, unsettled, hosts_of(unsettled))
        except RemoteError:
            if not seen:
                raise
            break  # what is known of the others is not lost with it
        if all(verdict != "wait" for verdict, _ in seen.values()):
            break
    await waits.ended(case, "2")
    return [
        Answer.model_validate(
            {"host": host, "value": verdict, "seen": words, "at": timing.now()}
            if verdict != "wait"
            else {
                "host": host,
                "value": Outcome.CANNOT_TELL,
                "seen": f"{words}, and does not settle",
                "at": timing.now(),
            }
        )
        for host, (verdict, words) in seen.items()
    ]


async def restart_instances(case: Case, alarms: Sequence[Alarm], *, so_far: str = "") -> AsyncIterator[Deed]:
    """Restart the Meta instances of these hosts, one at a time, at most three in a run; says each when it is done.

    A person is asked first, where one must agree; and asked to do it by hand, where no API does. Before each the
    instances and alarms are looked at, for the record. After a restart that failed, or whose outcome is unknown, no
    further one is begun.

    Args:
        so_far: the evidence, for a person who is asked.

    Raises:
        Pause: a person is asked.

    Source: ALM-12110, step 3.
    """
    agreed = await agreement(case, "restart", alarms, so_far)
    async for deed in deeds_of(agreed, partial(restarted_by_hand, case, alarms)):
        yield deed
    if not agreed.go:
        return
    stopped = ""
    restarts = 0
    for alarm in alarms:
        if not stopped and restarts >= RESTARTS_PER_RUN:
            stopped = f"this run has restarted {RESTARTS_PER_RUN} instances, which is its budget"
        if stopped:
            yield Deed(host=alarm.host, did=f"not restarted: {stopped}", at=timing.now(), ended=Outcome.REFUSED)
            continue
        yield await look_before_restart(case, alarm)
        try:
            deed = await restart_instance(case, alarm)
        except StepFailed as error:
            deed = Deed(host=alarm.host, did=f"the restart failed: {error}", at=timing.now(), ended=Outcome.ERROR)
        except RemoteError as error:
            deed = Deed(host=alarm.host, did=f"not restarted: {error}", at=timing.now(), ended=Outcome.ERROR)
        if deed.by_hand and not case.dry_run:
            left = alarms[alarms.index(alarm) :]
            handed = await by_hand(case, "restart", left, deed.did, so_far)
            async for each in deeds_of(handed, partial(restarted_by_hand, case, left)):
                yield each
            return
        restarts += deed.changed
        if deed.ended in (Outcome.ERROR, Outcome.CANNOT_TELL):
            stopped = f"the restart on {alarm.host} did not go as it should"
        yield deed


@once("3 by hand {alarms}")
async def restarted_by_hand(case: Case, alarms: Sequence[Alarm], who: str) -> list[Deed]:
    """What the world shows of a restart that a person says to have made: an instance that is not normal has ended.

    Source: ALM-12110, step 3; read as in step 2.
    """
    try:
        seen = await look_at_instances(case, alarms, hosts_of(alarms))
    except RemoteError as error:
        seen = {alarm.host: (Outcome.CANNOT_TELL, f"it cannot be looked at: {error}") for alarm in alarms}
    return [
        Deed(host=host, did=f"restarted by hand by {who}, and it is normal now: {words}", at=timing.now(), changed=True)
        if verdict == "y"
        else Deed(
            host=host,
            did=f"{who} says that it was restarted, and it does not show: {words}",
            at=timing.now(),
            ended=Outcome.CANNOT_TELL,
        )
        for host, (verdict, words) in seen.items()
    ]


@once("3 {alarm.host}")
@task(task_run_name="3 restart the Meta instance of {alarm.host}", retries=0, cache_policy=NO_CACHE)
async def restart_instance(case: Case, alarm: Alarm) -> Deed:
    """Restart one host's Meta instance, if it is still abnormal and the gates let it pass, and follow it to its end.

    A run that is begun anew after it set out to restart it restarts nothing: it reads how that ended.

    Raises:
        StepFailed: Manager says that the command failed.
        RemoteError: it was not restarted: Manager refused it, or could not be reached.

    Source: ALM-12110, step 3 (More > Restart Instance).
    """
    host = alarm.host
    async with connected(case) as connection:
        try:
            deed = await _restarted(case, connection, alarm)
        except CannotTell as error:  # the intent stays open: nobody else is to restart it meanwhile
            return Deed(host=host, did=str(error), at=timing.now(), ended=Outcome.CANNOT_TELL)
        except (StepFailed, RemoteError) as error:
            await seen_to_its_end(case, "3", host, str(error))
            if not isinstance(error, NotOffered):
                raise
            await restart_was_refused(case, connection, error)
            why = f"this Manager offers no route to restart it ({error}): restart it by hand as described below"
            return Deed(host=host, did=why, at=timing.now(), ended=Outcome.REFUSED, by_hand=True)
        await seen_to_its_end(case, "3", host, deed.did)
        return deed


async def _restarted(case: Case, connection: Connection, alarm: Alarm) -> Deed:
    host = alarm.host
    try:
        if begun := await begun_before(case, "3", host):
            return await follow(
                connection, Instance.model_validate_json(begun.before), begun.command, begun.at, sure=False
            )
        verdict, words = (await look_at_instances.fn(case, [alarm], host))[host]
        if verdict == "y":
            return Deed(host=host, did=f"not restarted: it is normal now ({words})", at=timing.now())
        if verdict != "n":
            raise Refused(f"no longer clearly abnormal: {words}")
        asked = timing.wall()
        cluster = await may_change(case, connection, [alarm], "restart")
        found = [each for each in await connection.manager.instances(cluster.meta_service) if each.host == host]
        if len(found) != 1 or found[0].status.lower() not in ABNORMAL:
            raise Refused(f"no longer clearly abnormal: Manager says {[each.status for each in found]}")
        await connection.manager_for_changes.log_in()
        await intend(case, cluster, "restart", host, host, before=found[0].model_dump_json())
        await still_at_once(case, connection, [alarm], asked)
        return await _restart(case, connection, found[0])
    except (Refused, DryRun) as error:
        return kept_from(case, host, "not restarted", error)


async def _restart(case: Case, connection: Connection, instance: Instance) -> Deed:
    """Restart the very instance that was looked at, and follow the restart to its end."""
    sent = timing.now()
    try:
        command = await connection.manager_for_changes.restart(connection.cluster.meta_service, instance)
    except OutcomeUnknown:
        command = ""
    try:
        if command:
            await command_is(case, "3", instance.host, command)
    except LedgerUnavailable as error:  # it has been sent: what counts now is how it ends
        logger.warning("that Manager calls the restart %s is not in the ledger: %s", command, error)
    return await follow(connection, instance, command, sent)
