"""Looks at many clusters at a time, and writes down what was seen and what is to follow it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncSession

from tasks import timing
from tasks.blocks import Cluster
from tasks.errors import LedgerUnavailable, RunbookError
from tasks.ledger.fleet_tables import Swept
from tasks.ledger.hearing import last_told
from tasks.ledger.knowledge import Told, clusters_called, told_of, waiting_for_a_run
from tasks.ledger.observing import Sighting, observe
from tasks.ledger.sweeping import begin_again, written
from tasks.ledger.tables import Cluster as ClusterRow
from tasks.models import Observation
from tasks.sweep.checks import Answer, answers_of, without_looking
from tasks.sweep.cluster_checks import ECS_KEYS, active_of
from tasks.sweep.seen import Followed, Seen
from tasks.sweep.targets import Target
from tasks.sweep.work import Work

WRITE_EVERY = 2.0  # seconds
LEDGER_AGAIN = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds, while it does not answer

logger = logging.getLogger("runbooks")


async def look_and_keep(work: Work, names: Sequence[str], tell: Callable[[], Awaitable[None]]) -> None:
    """Look at these clusters; what was seen is in the ledger within two seconds. Ends early where the work is lost.

    Args:
        tell: called whenever something was written down.

    Raises:
        LedgerUnavailable: for a minute it took nothing.
    """
    pending = {asyncio.create_task(_look(work, work.left[name])) for name in names}
    try:
        while pending:
            done, pending = await asyncio.wait(pending, timeout=WRITE_EVERY)
            if work.lost:
                break
            await _keep(work, [each.result() for each in done])
            await tell()
    finally:
        for each in pending:
            each.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _look(work: Work, target: Target) -> Seen | tuple[Seen, Sequence[Answer]]:
    async with work.places:
        looking = asyncio.ensure_future(work.looker.look(target))
        try:
            await asyncio.wait({looking})
        finally:
            looking.cancel()
    if error := looking.exception():  # one cluster's odd answer must not end the sweep of all others
        logger.error("looking at %s ended in a fault of this program", target.name, exc_info=error)
        seen = Seen(
            name=target.name,
            cluster_id=target.cluster_id,
            block=target.block,
            at=timing.now(),
            now=timing.wall(),
        )
        return seen, without_looking(seen, RunbookError("a fault of this program: the worker's log holds more"))
    return looking.result()


async def _keep(work: Work, found: Sequence[Seen | tuple[Seen, Sequence[Answer]]]) -> None:
    """Write down what was seen, with what the ledger knows of these clusters, and what is to follow it."""
    if not found:
        return
    for pause in (*LEDGER_AGAIN, 0.0):
        try:
            if work.told is None:
                async with work.ledger.reading() as session:
                    work.told = await last_told(session)
            async with work.ledger.writing() as session:
                session.add_all(await _rows(work, session, found))
            break
        except LedgerUnavailable as error:
            if not pause:
                raise
            logger.warning("%s", error)
            await timing.pause(pause)
    work.done += len(found)


async def _rows(
    work: Work, session: AsyncSession, found: Sequence[Seen | tuple[Seen, Sequence[Answer]]]
) -> Sequence[Swept]:
    now = timing.wall()
    looked = [each for each in found if isinstance(each, Seen)]
    answers = {each[0].name: (each[0], each[1]) for each in found if not isinstance(each, Seen)}
    with_block = [each for each in looked if isinstance(each.block, Cluster)]
    where = {each.name: (each.cluster_id, work.left[each.name].manager_host) for each in with_block}
    # Before anything of ours is written down: what a sweep finds no source has told.
    told: Mapping[str, Told] = await told_of(session, where, work.told or {}, now) if where else {}
    followed = await _follow(work, session, with_block)
    for each in looked:
        complete = replace(each, told=told.get(each.name), followed=followed.get(each.name, {}))
        answers[each.name] = (complete, answers_of(complete))
    return [
        Swept(
            sweep_id=work.order.run,
            cluster=name,
            cluster_id=seen.cluster_id,
            managed=seen.block is not None,
            at=now,
            answers=written(given),
        )
        for name, (seen, given) in answers.items()
    ]


async def _follow(work: Work, session: AsyncSession, looked: Sequence[Seen]) -> dict[str, dict[str, Followed]]:
    """Tell the ledger of active ALM-12110, as every source does: what no source told of gets its episode so.

    Asked to remediate, those that nobody is at get a run again.
    """
    alarmed = [(each, alarms) for each in looked if (alarms := active_of(each, ECS_KEYS))]
    if not alarmed:
        return {}
    rows = await clusters_called(session, [each.name for each, _ in alarmed])
    sightings = []
    for each, alarms in alarmed:
        cluster = rows.get(each.name) or _row_of(each)
        for alarm in alarms:
            told = Observation(
                alarm_id=alarm.alarm_id,
                kind="raised",
                cluster=each.name,
                host=alarm.host,
                serial=alarm.serial,
                occurred=alarm.occurred,
                sent=each.clock,
            )
            sightings.append(Sighting(told, cluster, "sweep", work.order.run, ""))
    observed = await observe(session, sightings, timing.wall())
    if work.order.remediate:
        for cluster in {sighting.cluster.name: sighting.cluster for sighting in sightings}.values():
            await begin_again(session, cluster, ECS_KEYS, timing.wall())
    waiting = await waiting_for_a_run(session, {sighting.cluster.cluster_id for sighting in sightings}, ECS_KEYS)
    found: dict[str, dict[str, Followed]] = {}
    for sighting, seen in zip(sightings, observed, strict=True):
        if seen.episode:
            waits = sighting.cluster.cluster_id in waiting
            followed = found.setdefault(sighting.cluster.name, {})
            followed[sighting.observation.host] = Followed(seen.episode, seen.new, waits)
    return found


def _row_of(seen: Seen) -> ClusterRow:
    """A cluster that no intake has seen yet: connected now, so that its alarms are diagnosed only."""
    source, speed = (seen.block.source, seen.block.speed) if isinstance(seen.block, Cluster) else (seen.name, 1.0)
    return ClusterRow(name=seen.name, cluster_id=seen.cluster_id, source=source, speed=speed, connected=timing.wall())
