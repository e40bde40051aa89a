"""How well alarms are handled, by the ledger: each episode is measured once when it is closed; what is open is counted.

detect    From the time the alarm occurred, by Manager's clock less its difference from ours, to the time the episode
          was opened by the first source that told of it. Not of an emulator, whose time runs faster.
act       From there to the first change that was begun.
verify    From the last change, once it was seen to be done, to when it was known whether that cleared the alarm.
recover   From the time the alarm occurred to the time the last of the episode's alarms was cleared, both by Manager's
          clock; where it does not tell, to when we learned of it. Not while one of them is active.

Of several hosts the first that alarmed counts. A backlog has no times: how old its alarms were says nothing of us.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import ASKED
from tasks.ledger.evidence_tables import EvidenceRow
from tasks.ledger.fleet_tables import MeasuredRow
from tasks.ledger.lifecycle import OPEN
from tasks.ledger.refusals import OTHER, reason_of
from tasks.ledger.tables import Cluster, Episode, Intent, Occurrence, Poll, Wait
from tasks.models import Outcome
from tasks.record import WHOLE_CLUSTER

AFTER_A_CHANGE = ("3", "3 unreachable", "6", "6 unreachable")  # waits for the clear, by the page's step
BY = ("hand", "approved", "auto", "nobody")  # who made an episode's changes; of several the first of these
OVERDUE = timedelta(minutes=1)  # a run that is to go on is taken up within seconds


@dataclass(frozen=True)
class OpenNow:
    """How much is open, by cluster and alarm id: episodes also by state; waits, and those that should have ended.

    Attributes:
        questions: what persons are asked; `expired`: of these, whose time is over though nothing was decided.
    """

    episodes: Mapping[tuple[str, ...], int]
    waits: Mapping[tuple[str, ...], int]
    overdue: Mapping[tuple[str, ...], int]
    questions: Mapping[tuple[str, ...], int]
    expired: Mapping[tuple[str, ...], int]


async def to_measure(session: AsyncSession, since: datetime | None) -> list[str]:
    """Episodes that were closed since then (None: ever) and are not measured yet."""
    closed = select(Episode.id).outerjoin(MeasuredRow, MeasuredRow.episode_id == Episode.id)
    closed = closed.where(Episode.state == "closed", MeasuredRow.id.is_(None)).order_by(Episode.closed, Episode.id)
    return list(await session.scalars(closed if since is None else closed.where(Episode.closed > since)))


async def measured(session: AsyncSession, after: int, most: int) -> Sequence[MeasuredRow]:
    """So many of those measured after the one with this id, in their order."""
    rows = select(MeasuredRow).where(MeasuredRow.id > after).order_by(MeasuredRow.id).limit(most)
    return (await session.scalars(rows)).all()


async def open_now(session: AsyncSession, now: datetime) -> OpenNow:
    """What is open at this moment."""
    place = (Episode.cluster, Episode.alarm_id)
    states = select(*place, Episode.state, func.count()).where(Episode.state.in_(OPEN)).group_by(*place, Episode.state)
    episodes: dict[tuple[str, ...], int] = {
        (cluster, alarm, state): count for cluster, alarm, state, count in await session.execute(states)
    }
    waiting = select(*place, Wait.deadline).join(Wait, Wait.episode_id == Episode.id)
    waits: Counter[tuple[str, ...]] = Counter()
    overdue: Counter[tuple[str, ...]] = Counter()
    for cluster, alarm, deadline in await session.execute(
        waiting.where(Episode.state == "waiting", Wait.ended.is_(None))
    ):
        waits[cluster, alarm] += 1
        overdue[cluster, alarm] += deadline < now - OVERDUE
    questions: Counter[tuple[str, ...]] = Counter()
    expired: Counter[tuple[str, ...]] = Counter()
    for cluster, alarm, expires in await session.execute(select(*place, Approval.expires).where(*ASKED)):
        questions[cluster, alarm] += 1
        expired[cluster, alarm] += expires < now - OVERDUE
    return OpenNow(episodes, waits, overdue, questions, expired)


async def made_by(session: AsyncSession, ids: Sequence[str]) -> dict[str, str]:
    """Episode -> who made its changes: a person by `hand`, the program when a person had `approved`, or by itself
    (`auto`); `nobody`: nothing was changed, as far as the ledger knows."""
    found: dict[str, set[str]] = {id_: {"nobody"} for id_ in ids}
    changed = select(Intent.episode_id).where(Intent.episode_id.in_(ids)).distinct()
    for id_ in await session.scalars(changed):
        found[id_].add("auto")
    said = select(Approval.episode_id, Approval.decision).where(Approval.episode_id.in_(ids))
    for id_, decision in await session.execute(said.where(Approval.decision.in_(("done", "approved"))).distinct()):
        if decision == "done":
            found[id_].add("hand")
        elif "auto" in found[id_]:  # what was approved and then not done, for the alarm was cleared, changed nothing
            found[id_].add("approved")
    return {id_: next(word for word in BY if word in words) for id_, words in found.items()}


async def measure(session: AsyncSession, ids: Sequence[str]) -> None:
    """Measure these episodes, unless somebody has meanwhile. Some hundreds at a time."""
    about = select(Episode, Cluster.speed, Poll.skew).where(Episode.id.in_(ids), MeasuredRow.id.is_(None))
    about = about.outerjoin(MeasuredRow, MeasuredRow.episode_id == Episode.id)
    about = about.outerjoin(Cluster, Cluster.name == Episode.cluster)
    about = about.outerjoin(Poll, Poll.cluster == Episode.cluster)
    alarms: dict[str, list[Occurrence]] = defaultdict(list)
    for each in await session.scalars(select(Occurrence).where(Occurrence.episode_id.in_(ids))):
        alarms[str(each.episode_id)].append(each)
    begun, ended = func.min(Intent.at), func.max(func.coalesce(Intent.ended, Intent.at))
    changes = select(Intent.episode_id, begun, ended).where(Intent.episode_id.in_(ids)).group_by(Intent.episode_id)
    changed = {episode: (first, last) for episode, first, last in await session.execute(changes)}
    waits = select(Wait.episode_id, func.max(Wait.ended)).where(Wait.episode_id.in_(ids), Wait.step.in_(AFTER_A_CHANGE))
    decided: dict[str, datetime | None] = {}
    for episode_id, last in await session.execute(waits.group_by(Wait.episode_id)):
        decided[episode_id] = last
    refused = await _refused(session, alarms)
    for episode, speed, skew in await session.execute(about.order_by(Episode.closed, Episode.id)):
        clock = _Clock(timedelta(seconds=skew or 0), real=speed in (1, None))
        first, last = changed.get(episode.id, (None, None))
        mine, timed = alarms[episode.id], not episode.backlog
        session.add(
            MeasuredRow(
                episode_id=episode.id,
                cluster=episode.cluster,
                alarm_id=episode.alarm_id,
                outcome=episode.outcome,
                detect=_detect(episode, mine, clock) if timed else None,
                act=_between(episode.opened, first) if timed else None,
                verify=_between(last, decided.get(episode.id)) if timed else None,
                recover=_recover(mine, clock) if timed else None,
                refused="\n".join(refused.get(episode.id, ())),
            )
        )


@dataclass(frozen=True)
class _Clock:
    """Manager's clock: by how much it is ahead of ours; not `real` is that of an emulator, which runs faster."""

    ahead: timedelta
    real: bool


def _detect(episode: Episode, alarms: Sequence[Occurrence], clock: _Clock) -> float | None:
    seen_before = any(each.first_seen < episode.opened for each in alarms)  # in an episode that a person has now anew
    occurred = min((each.occurred for each in alarms if each.occurred), default=None)
    if occurred is None or seen_before or not clock.real:
        return None
    return _between(occurred - clock.ahead, episode.opened, or_else=0.0)


def _recover(alarms: Sequence[Occurrence], clock: _Clock) -> float | None:
    occurred = min((each.occurred for each in alarms if each.occurred), default=None)
    seen = [each.cleared_seen + clock.ahead if each.cleared_seen and clock.real else None for each in alarms]
    cleared = [each.cleared or learned for each, learned in zip(alarms, seen, strict=True)]
    known = [moment for moment in cleared if moment is not None]
    return _between(occurred, max(known), or_else=0.0) if known and len(known) == len(alarms) else None


def _between(begin: datetime | None, end: datetime | None, *, or_else: float | None = None) -> float | None:
    """Seconds; `or_else` where the end is before the beginning."""
    if begin is None or end is None:
        return None
    return (end - begin).total_seconds() if end >= begin else or_else


async def _refused(session: AsyncSession, alarms: Mapping[str, Iterable[Occurrence]]) -> dict[str, list[str]]:
    """Episode -> for each host for which the page ended so, the word for the last refusal in its record."""
    hosts = {id_: [each.host for each in mine if each.ended == Outcome.REFUSED] for id_, mine in alarms.items()}
    asked = [id_ for id_, refused in hosts.items() if refused]
    lines = select(EvidenceRow).where(EvidenceRow.episode_id.in_(asked), EvidenceRow.kind != "asked")
    words: dict[tuple[str, str], str] = {}
    for line in await session.scalars(lines.order_by(EvidenceRow.written, EvidenceRow.attempt, EvidenceRow.n)):
        if (word := reason_of(line.text)) != OTHER:
            told = hosts[line.episode_id] if line.host == WHOLE_CLUSTER else [line.host]
            words |= {(line.episode_id, host): word for host in told}
    return {id_: [words.get((id_, host), OTHER) for host in refused] for id_, refused in hosts.items()}
