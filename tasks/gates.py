"""What must hold at the moment of a mutation. A gate that cannot be read refuses."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from tasks import timing
from tasks.answering import have_answered
from tasks.blocks import Cluster
from tasks.brakes import stop_file
from tasks.claims import holding, holds, looked_up
from tasks.connections import Connection
from tasks.errors import ConfigurationError, DryRun, LedgerUnavailable, NotOffered, Refused, RemoteError
from tasks.ledger.approving import question_of
from tasks.ledger.braking import braked, open_breaker, stops, trip_if_shared
from tasks.ledger.episodes import LEASE, Holding, begin_change
from tasks.ledger.learning import begun_elsewhere, count_intents
from tasks.ledger.observing import raises_of
from tasks.ledger.tables import Episode, Intent
from tasks.loading import cluster_block
from tasks.models import Alarm, Case, Deed, Outcome
from tasks.preconditions import (
    alarms_can_be_read,
    an_alarm_is_active,
    hosts_are_who_they_seem,
    nobody_else_is_at_it,
)
from tasks.windows import why_not_now

Action = Literal["restart", "rebind"]
STEP_OF = {"restart": "3", "rebind": "6"}

BREAKER = "RUNBOOKS_BREAKER"  # `off`: many clusters may alarm together, as in a demo of all scenarios

# Of the cluster's time; a node of a bind is a target of its own, and no restart.
RESTARTS_PER_CLUSTER_HOUR = 3
RESTARTS_PER_FLEET_HOUR = 10
CHANGES_PER_TARGET, PER_TARGET = 2, timedelta(hours=6)
RAISES, WITHIN = 3, timedelta(hours=1)
UNENDED = timedelta(hours=1)
HOUR = timedelta(hours=1)
AT_ONCE = LEASE / 3  # of our own time, from the gates to the change; after that the fence and the alarm are read again


async def may_change(
    case: Case,
    connection: Connection,
    alarms: Sequence[Alarm],
    action: Action,
    *,
    begun: bool = False,
    asking: bool = False,
) -> Cluster:
    """Let a mutation for these alarms pass, or refuse it with the first gate's reason. Everything is read now.

    The gates: the stop file; the cluster's mode for this action, its windows and freezes; each alarmed host is one and
    the same machine for Manager and the cloud, and not in maintenance mode; the cluster is `running`; no other command
    or agency update runs; an alarm is active. Those of the ledger follow in `intend`, but for one: a route that never
    answered `runbooks doctor` is not counted on, and a person is asked. A cluster that it never examined passes that
    one, for the others read the same routes themselves.

    Args:
        begun: the mutation goes on with one that has begun, as a bind does from node to node. The alarm need not be
            active then: it may be cleared because of the first half, and half of it is worse than all or nothing.
        asking: whether a person is to be asked for it is being found out, so none need have agreed.

    Returns:
        The cluster's block as it is now: what it allows counts, not what it allowed when the run began.

    Raises:
        Refused: with `outcome` CLEARED or CLEARED_BY_PERSON where the alarms went away meanwhile.
    """
    try:
        if stopped := stop_file():
            raise Refused(stopped)
        cluster = await cluster_block(case.cluster)
        await _the_mode_lets_it(case, cluster, action, asking=asking)
        if asking:
            await _nobody_stops_it(case)
        if closed := why_not_now(cluster.windows, cluster.freezes, cluster.time_zone, timing.now()):
            raise Refused(closed)
        await alarms_can_be_read(case, alarms)
        if not begun:
            await have_answered(case, connection, action)
        await hosts_are_who_they_seem(connection, alarms)
        await nobody_else_is_at_it(connection)
        if not begun:
            await an_alarm_is_active(connection, alarms)
    except LedgerUnavailable as error:
        raise Refused(f"without the ledger nothing is changed: {error}") from error
    except (RemoteError, ConfigurationError) as error:
        by_hand = isinstance(error, NotOffered)
        raise Refused(f"a gate cannot be read, so it stays shut: {error}", by_hand=by_hand) from error
    return cluster


async def agreed(case: Case, action: Action) -> bool:
    """Whether a person has agreed to this change of the run."""
    if not holds(case):
        return False
    step = STEP_OF[action]
    asked = await looked_up(case, lambda session, mine: question_of(session, mine, step, "approve"))
    return asked is not None and asked.decision == "approved"


async def _the_mode_lets_it(case: Case, cluster: Cluster, action: Action, *, asking: bool) -> None:
    mode = cluster.mode_of(action)
    if case.dry_run or mode == "auto" or (mode == "approve" and (asking or await agreed(case, action))):
        return
    why = "nothing is changed without a person; do it as described below"
    raise Refused(f"the cluster's mode for a {action} is {mode!r}: {why}")


async def _nobody_stops_it(case: Case) -> None:
    async def read(session: AsyncSession, mine: Holding) -> Refused | None:
        episode = await session.get(Episode, mine.episode)
        return await _refusal(session, await braked(session, episode.cluster if episode else ""))

    if refused := await looked_up(case, read):
        raise refused


async def intend(case: Case, cluster: Cluster, action: Action, target: str, host: str, before: str = "") -> None:
    """The gates of the ledger, and the intent on disk: from here on the change may have been made.

    The gates: the alarm is no old one; no brake, no tripped breaker; no other run's change of the cluster that was not
    seen to its end; the budgets; the host does not flap; and the run still holds its cluster's episode.

    Args:
        target: what is changed, a host or a node.
        host: the alarmed host for whose sake; of a bind any.
        before: what the target is like now, as JSON.

    Raises:
        Refused: a gate does not let it pass, or the ledger does not answer. Nothing is intended then.
    """
    if case.dry_run:
        return
    if stopped := stop_file():
        raise Refused(stopped)
    async with _at_the_ledger(case) as (session, mine):
        why = await _the_ledger_refuses(session, mine, cluster, action, target, host)
        refused = await _refusal(session, why or await _lost(session, mine))
        if refused is None:
            session.add(
                Intent(
                    attempt=mine.attempt,
                    step=STEP_OF[action],
                    target=target,
                    episode_id=mine.episode,
                    cluster_id=cluster.cluster_id,
                    at=timing.wall(),
                    before=before,
                )
            )
    if refused:  # only now: what the look has written down, a breaker that tripped, stays
        raise refused


async def still_at_once(case: Case, connection: Connection, alarms: Sequence[Alarm], since: datetime) -> None:
    """Between the intent and the change: where this process stood still meanwhile, another may have gone on.

    Args:
        alarms: one of them must still be active; none: that need not be.
        since: when the gates were asked.

    Raises:
        Refused: as in `may_change` and `may_go_on`. What was intended is not sent.
        RemoteError: whether the alarm is active cannot be read. It is not sent either.
    """
    if timing.wall() - since > AT_ONCE:
        if alarms:
            await an_alarm_is_active(connection, alarms)
        await may_go_on(case)


async def may_go_on(case: Case) -> None:
    """The gates that a change passes once more which was put off after its intent: brake, breaker, and the fence.

    Raises:
        Refused: one does not let it pass, or the ledger does not answer.
    """
    if case.dry_run:
        return
    async with _at_the_ledger(case) as (session, mine):
        episode = await session.get(Episode, mine.episode)
        if why := await braked(session, episode.cluster if episode else "") or await _lost(session, mine):
            raise Refused(why)


async def _refusal(session: AsyncSession, why: str) -> Refused | None:
    """The refusal for this reason, with the incident where the breaker is the reason; None: there is no reason."""
    if not why:
        return None
    tripped = await open_breaker(session)
    return Refused(why, incident=tripped.id if tripped and why == stops(tripped) else "")


@asynccontextmanager
async def _at_the_ledger(case: Case) -> AsyncIterator[tuple[AsyncSession, Holding]]:
    try:
        async with holding(case) as held:
            yield held
    except LedgerUnavailable as error:
        raise Refused(f"without the ledger nothing is changed: {error}") from error


async def _lost(session: AsyncSession, mine: Holding) -> str:
    """The fence, from which on the run may have changed something; empty: it holds."""
    if await begin_change(session, mine, timing.wall()):
        return ""
    return "this run has lost its claim on the cluster: another one may be at work"


def kept_from(case: Case, host: str, what: str, error: Refused | DryRun) -> Deed:
    """What a step says of a change that was not made: a gate refused it, or the client was dry.

    A client that is dry although the run is not belongs to a cluster that was in `observe` when the run began.
    """
    if isinstance(error, Refused):
        did, by_hand = f"{what}: {error}", error.by_hand
        return Deed(host=host, did=did, at=timing.now(), ended=error.outcome, incident=error.incident, by_hand=by_hand)
    ended = Outcome.DRY_RUN if case.dry_run else Outcome.REFUSED
    return Deed(host=host, did=str(error), at=timing.now(), ended=ended)


async def _the_ledger_refuses(
    session: AsyncSession, mine: Holding, cluster: Cluster, action: Action, target: str, host: str
) -> str:
    """The first gate's reason; empty: all let it pass."""
    episode = await session.get(Episode, mine.episode)
    if episode is not None and episode.backlog:
        return f"{episode.backlog}: nothing is changed by itself then; do it as described below, or start a run by hand"
    now, id_, hour = timing.wall(), cluster.cluster_id, HOUR / cluster.speed
    if why := await braked(session, episode.cluster if episode else ""):
        return why
    if os.environ.get(BREAKER) != "off" and (why := await trip_if_shared(session, id_, now, cluster.speed)):
        return why
    if other := await begun_elsewhere(session, id_, mine.attempt, now - UNENDED / cluster.speed):
        return f"another run began to change {other.target} at {other.at:%H:%M:%S} UTC and has not seen the end of it"
    if action == "restart":
        restarts = [STEP_OF["restart"]]
        if await count_intents(session, now - hour, steps=restarts, cluster_id=id_) >= RESTARTS_PER_CLUSTER_HOUR:
            return f"{RESTARTS_PER_CLUSTER_HOUR} instances of this cluster were restarted within the last hour"
        if await count_intents(session, now - hour, steps=restarts) >= RESTARTS_PER_FLEET_HOUR:
            return f"{RESTARTS_PER_FLEET_HOUR} instances of the whole fleet were restarted within the last hour"
    since = now - PER_TARGET / cluster.speed
    if await count_intents(session, since, steps=list(STEP_OF.values()), cluster_id=id_, target=target) >= (
        CHANGES_PER_TARGET
    ):
        return f"{target} was changed {CHANGES_PER_TARGET} times within the last six hours, and it did not last"
    raises = await raises_of(session, id_, host, now - WITHIN / cluster.speed)
    if raises >= RAISES:
        return (
            f"the alarm of {host} was raised {raises} times within the last hour: what is done about it does not last"
        )
    return ""
