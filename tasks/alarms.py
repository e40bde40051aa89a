"""The alarm itself: which occurrences are active, and whether they have been cleared. Steps 1, 3 and 6 of the page."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import timing, waits
from tasks.claims import holds, looked_up
from tasks.connections import Connection, connected
from tasks.errors import CannotTell, ConfigurationError, NotOffered, RemoteError, ServerTrouble, Unreachable
from tasks.journal import once
from tasks.ledger.learning import told_of
from tasks.models import NOT_LISTED, Alarm, Answer, Case, Outcome, hosts_of
from tasks.retrying import DELAYS, RETRIES, may_pass

LOOK_EVERY = 60.0  # seconds of the cluster's time
UNSETTLED = ("n", Outcome.CANNOT_TELL)
WHILE_UNREACHABLE = 900.0  # an OMS switchover takes minutes: look that much longer before saying cannot tell


@once("1")
@task(
    task_run_name="1 find ALM-{case.alarm_id} of {case.cluster}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
async def find_alarms(case: Case) -> tuple[Alarm, ...]:
    """All active occurrences of the case's alarm on its cluster, one per host, the newest; may be empty.

    Where Manager offers no alarm route, the hosts that the alarm sources reported are taken, marked `reported`. Where
    it does, and a host that the run is about has no active alarm, its last one is among them, as it was cleared.

    Raises:
        CannotTell: no route and no reported host; not listed at all; or none listed while the alarm is masked.
        ConfigurationError: the case is about a host that Manager does not know.

    Source: ALM-12110, step 1 (O&M > Alarm > Alarms).
    """
    async with connected(case) as connection:
        manager = connection.manager
        about = (case.host,) if case.host else case.reported
        try:
            rows = await manager.alarms(case.alarm_id)
        except NotOffered as error:
            if about:
                return tuple(
                    Alarm(alarm_id=case.alarm_id, location=f"HostName={host}", reported=True) for host in about
                )
            where = "on Manager, O&M > Alarm > Alarms, find the alarm's host and start a run with it"
            raise CannotTell(f"no route to read alarms, and no host was reported: {where} ({error})") from error
        newest: dict[str, Alarm] = {}
        for alarm in sorted(rows, key=_age):
            if case.host in ("", alarm.host):
                newest[alarm.host] = alarm
        if missing := [host for host in about if host not in newest]:
            newest |= await _last_of(connection, case, missing, alone=not newest)
        if not newest:
            await _check_masking(connection, case.alarm_id)
        return tuple(newest.values())


async def _last_of(connection: Connection, case: Case, hosts: Sequence[str], *, alone: bool) -> dict[str, Alarm]:
    """The newest occurrence of hosts that have no active one: it tells whether the alarm was cleared, and by whom.

    Args:
        alone: no other host has an active alarm. Else a host of which nothing is listed is marked `NOT_LISTED`.

    Raises:
        CannotTell: nothing is listed of any: not being listed is not the same as being cleared.
        ConfigurationError: the case is about a host that Manager does not know.
    """
    rows = sorted(await connection.manager.alarms(case.alarm_id, status="all"), key=_age)
    last = {row.host: row for row in rows if row.host in hosts}
    unlisted = [host for host in hosts if host not in last]
    if alone and not last:
        await _check_masking(connection, case.alarm_id)
        known = sorted(each.name for each in await connection.manager.hosts())
        if case.host and case.host not in known:
            few = ", ".join(known[:10]) + (" ..." if len(known) > 10 else "")
            raise ConfigurationError(f"Manager does not know host {case.host!r}: the cluster's hosts are {few}")
        of = ", ".join(unlisted)
        raise CannotTell(f"Manager lists no ALM-{case.alarm_id} of {of}, active or cleared: that does not mean cleared")
    marked = {"alarm_id": case.alarm_id, "status": NOT_LISTED}
    return last | {host: Alarm(**marked, location=f"HostName={host}") for host in unlisted}


async def _check_masking(connection: Connection, alarm_id: str) -> None:
    try:
        masked = await connection.manager.is_masked(alarm_id)
    except NotOffered as error:
        why = f"no ALM-{alarm_id} is listed, and whether it is masked cannot be read"
        raise CannotTell(f"{why} ({error})") from error
    if masked:
        where = "O&M > Alarm > Masking"
        raise CannotTell(f"ALM-{alarm_id} is masked on Manager ({where}): not listed does not mean cleared")


def _age(alarm: Alarm) -> tuple[bool, float]:
    return (alarm.occurred is not None, alarm.occurred.timestamp() if alarm.occurred else 0.0)


@task(task_run_name="look at the alarms of {hosts}", retries=0, cache_policy=NO_CACHE)
async def look_at_alarms(
    case: Case, alarms: Sequence[Alarm], hosts: str, since: datetime | None = None
) -> tuple[Answer, ...]:
    """Whether each occurrence is cleared now: yes, not yet, by a person, or cannot tell.

    Only the cleared state of the occurrence counts as cleared; not being listed does not. A host whose alarm was
    cleared and raised again, under whatever serial number, is not cleared. Where Manager offers no alarm route, what
    the alarm sources have told counts.

    Args:
        since: when the repair was done: a source that tells the alarm as active after that says that it did not help.

    Source: ALM-12110, steps 3 and 6 ("check whether the alarm is cleared").
    """
    async with connected(case) as connection:
        try:
            active = {alarm.host: alarm for alarm in await connection.manager.alarms(case.alarm_id)}
        except NotOffered as error:
            if not holds(case):
                raise
            return await _as_told(case, alarms, since, str(error))
        return tuple([await _is_cleared(connection, alarm, active.get(alarm.host)) for alarm in alarms])


async def _as_told(case: Case, alarms: Sequence[Alarm], since: datetime | None, why: str) -> tuple[Answer, ...]:
    """What the alarm sources have told of these hosts; a source that says nothing says nothing."""
    told = await looked_up(case, told_of)
    at, answers = timing.now(), []
    for alarm in alarms:
        last = told.get(alarm.host)
        if last and last.cleared_seen and last.cleared_by == "person":
            words = f"{alarm} was cleared by a person, as a source told at {_utc(last.cleared_seen)}"
            answers.append(Answer(host=alarm.host, value=Outcome.CLEARED_BY_PERSON, seen=words, at=at))
        elif last and last.cleared_seen:
            words = f"{alarm} was cleared by Meta, as a source told at {_utc(last.cleared_seen)}"
            answers.append(Answer(host=alarm.host, value="y", seen=words, at=at))
        elif last and since and last.last_seen > since:
            words = f"{alarm} is not cleared: a source told it once more at {_utc(last.last_seen)}"
            answers.append(Answer(host=alarm.host, value="n", seen=words, at=at))
        else:
            words = f"{alarm}: no source has told of it since, and it cannot be read ({why})"
            answers.append(Answer(host=alarm.host, value=Outcome.CANNOT_TELL, seen=words, at=at))
    return tuple(answers)


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


async def _is_cleared(connection: Connection, alarm: Alarm, active: Alarm | None) -> Answer:
    at, host = timing.now(), alarm.host
    if active:
        again = "" if active.serial == alarm.serial else f" (raised again: was serial {alarm.serial})"
        return Answer(host=host, value="n", seen=f"{active} is not cleared{again}", at=at)
    found = await connection.manager.occurrence(alarm)
    if found is None:
        why = "Manager lists it neither as active nor as cleared"
        return Answer(host=host, value=Outcome.CANNOT_TELL, seen=f"{alarm}: {why}", at=at)
    match found.status.lower():
        case "auto":
            return Answer(host=host, value="y", seen=f"{alarm} was cleared by Meta at {_when(found.cleared)}", at=at)
        case "manual":
            why = f"{alarm} was cleared by a person at {_when(found.cleared)}: that says nothing of a repair"
            return Answer(host=host, value=Outcome.CLEARED_BY_PERSON, seen=why, at=at)
    why = f"Manager gives {found.status!r} as its status"
    return Answer(host=host, value=Outcome.CANNOT_TELL, seen=f"{alarm}: {why}", at=at)


@once("{step} {alarms}")
async def alarms_clear(
    case: Case, alarms: Sequence[Alarm], *, step: str, done_at: Mapping[str, datetime]
) -> list[Answer]:
    """Wait until the alarms are cleared, or the time for it is over. Reads like a sleep and costs a row.

    Meta asks ECS every 5 minutes and clears on the first success, so the block's wait is never under 6 minutes.
    Manager unreachable at the deadline: look for 15 minutes more, then cannot tell.

    Args:
        step: `3` waits as long as the cluster's block says after a restart, `6` as after a rebind.
        done_at: mutating step -> when it was seen to be done; the clock starts there.

    Returns:
        One answer per alarm: cleared, not cleared in time, by a person, or cannot tell.

    Source: ALM-12110, step 3 ("several minutes later") and step 6 ("a few minutes later").
    """
    if not alarms:
        return []
    async with connected(case) as connection:
        cluster = connection.cluster
    wait = cluster.wait_after_restart if step == "3" else cluster.wait_after_rebind
    answers: dict[str, Answer] = {}
    until = timing.later(wait, since=done_at[step], speed=cluster.speed)
    for part in (step, f"{step} unreachable"):
        until = await waits.deadline(case, part, until)
        async for moment in waits.looks(case, until, every=LOOK_EVERY, speed=cluster.speed):
            open_ = [alarm for alarm in alarms if alarm.host not in answers or answers[alarm.host].value in UNSETTLED]
            try:
                answers |= {
                    answer.host: answer for answer in await look_at_alarms(case, open_, hosts_of(open_), done_at[step])
                }
                seen = True
            except (Unreachable, ServerTrouble) as error:
                why = f"Manager could not be read when the time was up: {error}"
                answers |= {a.host: Answer(host=a.host, value=Outcome.CANNOT_TELL, seen=why, at=moment) for a in open_}
                seen = False
            if all(answer.value not in UNSETTLED for answer in answers.values()):
                break
        await waits.ended(case, part)
        if seen:
            break
        until = timing.later(WHILE_UNREACHABLE, since=until, speed=cluster.speed)
    return list(answers.values())


@once("{step} {alarms}")
async def cleared_meanwhile(case: Case, alarms: Sequence[Alarm], *, step: str) -> list[Answer]:
    """Those of the alarms that need nobody any more, because they were cleared while the run went on; may be empty.

    Where alarms cannot be read now, none is taken for cleared.

    Args:
        step: the page's, that is to come next.
    """
    readable = [alarm for alarm in alarms if not alarm.reported]
    try:
        answers = await look_at_alarms(case, readable, hosts_of(readable)) if readable else ()
    except RemoteError:
        return []
    gone = {"y": Outcome.CLEARED, Outcome.CLEARED_BY_PERSON: Outcome.CLEARED_BY_PERSON}
    return [answer.model_copy(update={"value": gone[answer.value]}) for answer in answers if answer.value in gone]


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} (Manager's time)" if moment else "an unknown time"
