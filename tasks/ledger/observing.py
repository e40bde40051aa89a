"""What is seen: an observation becomes an occurrence, and a raised one opens an episode or joins the open one."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from secrets import token_hex

from sqlalchemy import and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.lifecycle import OPEN, close, needs_a_run, open_episode
from tasks.ledger.matching import age, the_one
from tasks.ledger.tables import Cluster, Episode, IntakeRow, ObservationRow, Occurrence, Poll, place_of
from tasks.models import Observation, Outcome

BACKLOG_AGE = timedelta(hours=2)  # of the cluster's time
REMEMBERED = timedelta(hours=48)  # a cleared occurrence is compared with what comes in for so long
CONNECTING = timedelta(seconds=60)
STILL_LISTED = timedelta(minutes=5)  # longer than a reading of Manager's list may take until it is written down
REPAIRED = frozenset({Outcome.END, Outcome.CLEARED, Outcome.CLEARED_BY_PERSON})
READ_FROM_MANAGER = ("poll", "sweep")
MOST_AT_ONCE = 5_000  # a statement takes 32,766 values at most, of which each is three
LEARNED = ("serial", "occurred", "last_seen", "cleared", "cleared_seen", "cleared_by", "episode_id", "ended", "trace")
OCCURRENCES = Occurrence.metadata.tables[Occurrence.__tablename__]
OBSERVATIONS = ObservationRow.metadata.tables[ObservationRow.__tablename__]
UPDATE = (
    update(OCCURRENCES)
    .where(OCCURRENCES.c.id == bindparam("key"))
    .values({name: bindparam(f"new_{name}") for name in LEARNED})
)


@dataclass(frozen=True)
class Sighting:
    """An observation of a known cluster, and how it came."""

    observation: Observation
    cluster: Cluster
    source: str
    peer: str
    digest: str


@dataclass(frozen=True)
class Seen:
    """What an observation changed.

    Attributes:
        new: it told something new; else the ledger knew it already.
        episode: the id of the episode it belongs to; empty: none.
        opened: it opened that episode, or made it need a run once more.
    """

    new: bool
    why: str
    episode: str = ""
    opened: bool = False
    occurrence: str = ""


@dataclass
class _Memory:
    """What the ledger knows of the clusters in a batch; grows while the batch is worked through.

    Occurrences are no objects of the session: very many are written at once, at a fraction of what that costs.
    """

    now: datetime
    new: dict[str, Occurrence] = field(default_factory=dict)
    changed: dict[str, Occurrence] = field(default_factory=dict)
    occurrences: dict[tuple[str, str, str], list[Occurrence]] = field(default_factory=lambda: defaultdict(list))
    episodes: dict[tuple[str, str], Episode] = field(default_factory=dict)
    polls: dict[str, Poll] = field(default_factory=dict)
    gaps: list[tuple[datetime, datetime]] = field(default_factory=list)


async def observe(session: AsyncSession, sightings: Sequence[Sighting], now: datetime) -> list[Seen]:
    """Write down what was seen, in this order; one answer each.

    Only active alarms that were not known start anything: a raise after its clear, or the same occurrence from another
    source, changes nothing; a clear whose raise never came is kept, for the raise may still come. Manager's own list is
    believed more than a clear: what it goes on naming as active has occurred once more.
    """
    memory = await _recall(session, sightings, now)
    found = [_take(session, memory, sighting) for sighting in sightings]
    await session.flush()  # episodes, which occurrences name
    if memory.new:
        columns = [column.name for column in OCCURRENCES.columns]
        await session.execute(
            insert(OCCURRENCES), [{name: getattr(each, name) for name in columns} for each in memory.new.values()]
        )
    if memory.changed:
        values = [
            {"key": each.id, **{f"new_{name}": getattr(each, name) for name in LEARNED}}
            for each in memory.changed.values()
        ]
        await session.execute(UPDATE, values)
    rows = [_row(sighting, seen, now) for sighting, seen in zip(sightings, found, strict=True)]
    if rows:
        await session.execute(insert(OBSERVATIONS), rows)
    return found


def _row(sighting: Sighting, seen: Seen, now: datetime) -> dict[str, object]:
    return {
        "at": now,
        "source": sighting.source,
        "peer": sighting.peer,
        "kind": sighting.observation.kind,
        "cluster_id": sighting.cluster.cluster_id,
        "alarm_id": sighting.observation.alarm_id,
        "occurrence_id": seen.occurrence or None,
        "digest": sighting.digest,
        "duplicate": not seen.new,
    }


async def _recall(session: AsyncSession, sightings: Sequence[Sighting], now: datetime) -> _Memory:
    memory = _Memory(now)
    clusters = {sighting.cluster.cluster_id for sighting in sightings}
    going = select(Episode).where(Episode.cluster_id.in_(clusters), Episode.state.in_(OPEN))
    for episode in (await session.scalars(going)).all():
        memory.episodes[episode.cluster_id, episode.alarm_id] = episode
    for first in range(0, len(sightings), MOST_AT_ONCE):
        some = [
            (place_of(each.cluster.cluster_id, each.observation.host), each.observation.serial)
            for each in sightings[first : first + MOST_AT_ONCE]
        ]
        # Of the cleared ones of a host only those that may be meant, or that a run has followed in an open episode.
        meant = or_(
            Occurrence.serial.in_({"", *(serial for _, serial in some)}),
            Occurrence.place.in_({place for place, serial in some if not serial}),
            and_(Occurrence.ended != "", Occurrence.episode_id.in_({each.id for each in memory.episodes.values()})),
        )
        recent = select(Occurrence).where(
            Occurrence.place.in_({place for place, _ in some}),
            or_(Occurrence.cleared_seen.is_(None), and_(Occurrence.last_seen > now - REMEMBERED, meant)),
        )
        for occurrence in (await session.scalars(recent)).all():
            session.expunge(occurrence)
            known = memory.occurrences[occurrence.cluster_id, occurrence.alarm_id, occurrence.host]
            if all(each.id != occurrence.id for each in known):
                known.append(occurrence)
    names = {sighting.cluster.name for sighting in sightings}
    memory.polls = {poll.cluster: poll for poll in (await session.scalars(select(Poll).where(Poll.cluster.in_(names))))}
    gaps = select(IntakeRow).where(IntakeRow.gap_from.is_not(None), IntakeRow.started > now - REMEMBERED)
    memory.gaps = [(row.gap_from, row.started) for row in (await session.scalars(gaps)) if row.gap_from]
    return memory


def _take(session: AsyncSession, memory: _Memory, sighting: Sighting) -> Seen:
    told, cluster, now = sighting.observation, sighting.cluster, memory.now
    if told.kind == "trigger":
        return _ask_for_a_poll(session, memory, sighting)
    siblings = memory.occurrences[cluster.cluster_id, told.alarm_id, told.host]
    known = the_one(told, siblings)
    where = f"ALM-{told.alarm_id} on {told.host} of {cluster.name}"
    if told.kind == "cleared":
        return _clear(memory, sighting, known, where)
    if known is not None:
        _learn(memory, known, sighting)
        listed = sighting.source in READ_FROM_MANAGER
        if listed and known.cleared_seen is not None and now - known.cleared_seen > STILL_LISTED:
            known = None
        elif known.cleared_seen is not None or known.episode_id is not None:
            again = "was cleared already" if known.cleared_seen else "is known"
            return Seen(False, f"{where} {again}", known.episode_id or "", occurrence=known.id)
    occurrence = known or _new(memory, sighting)
    episode, opened = _join(session, memory, sighting, occurrence)
    occurrence.episode_id = episode.id
    how = "opened" if opened and episode.n == 1 else "continues" if opened else "joins"
    return Seen(True, f"{where} {how} episode {episode.id}", episode.id, opened, occurrence.id)


def _new(memory: _Memory, sighting: Sighting) -> Occurrence:
    told, cluster = sighting.observation, sighting.cluster
    occurrence = Occurrence(
        id=token_hex(8),
        cluster_id=cluster.cluster_id,
        alarm_id=told.alarm_id,
        host=told.host,
        serial=told.serial,
        occurred=told.occurred,
        first_seen=memory.now,
        last_seen=memory.now,
    )
    memory.new[occurrence.id] = occurrence
    memory.occurrences[cluster.cluster_id, told.alarm_id, told.host].append(occurrence)
    return occurrence


def _learn(memory: _Memory, known: Occurrence, sighting: Sighting) -> None:
    """What one source leaves out another may tell; with it the first one's next word is recognised."""
    told = sighting.observation
    known.last_seen = memory.now
    if known.id not in memory.new:
        memory.changed[known.id] = known
    known.serial, known.occurred = known.serial or told.serial, known.occurred or told.occurred


def _clear(memory: _Memory, sighting: Sighting, known: Occurrence | None, where: str) -> Seen:
    told, now = sighting.observation, memory.now
    if known is None and not (told.serial or told.occurred):
        return Seen(False, f"{where} is cleared, and no active one is known")
    occurrence = known or _new(memory, sighting)
    _learn(memory, occurrence, sighting)
    occurrence.cleared = occurrence.cleared or told.cleared
    if occurrence.cleared_seen is not None:
        return Seen(False, f"{where} was cleared already", occurrence.episode_id or "", occurrence=occurrence.id)
    occurrence.cleared_seen, occurrence.cleared_by = now, told.cleared_by or ""
    episode = memory.episodes.get((occurrence.cluster_id, occurrence.alarm_id))
    if episode is not None and episode.id == occurrence.episode_id and episode.state in ("running", "waiting"):
        episode.wake = True
    return Seen(True, f"{where} is cleared", occurrence.episode_id or "", occurrence=occurrence.id)


def _join(session: AsyncSession, memory: _Memory, sighting: Sighting, occurrence: Occurrence) -> tuple[Episode, bool]:
    """The episode of an alarm that is new, and whether it needs a run because of it."""
    told, cluster, now = sighting.observation, sighting.cluster, memory.now
    key = (cluster.cluster_id, told.alarm_id)
    episode = memory.episodes.get(key)
    if episode and episode.state == "verifying" and episode.verify_until and episode.verify_until <= now:
        close(episode, now)
        episode = None
    backlog = _backlog(memory, sighting)
    if episode is None:
        episode = open_episode(session, cluster.cluster_id, cluster.name, told.alarm_id, sighting.source, now)
        episode.backlog = backlog
        needs_a_run(episode, now)
        memory.episodes[key] = episode
        return episode, True
    before = [
        each
        for each in memory.occurrences[cluster.cluster_id, told.alarm_id, told.host]
        if each.episode_id == episode.id and each.ended
    ]
    last = max(before, key=lambda each: each.first_seen, default=None)
    if last is not None and last.ended not in REPAIRED:  # a person has it: no run begins the page anew
        occurrence.ended, occurrence.trace = last.ended, last.trace
        return episode, False
    if episode.state != "verifying":
        episode.backlog = episode.backlog and backlog  # empty where this alarm is an emergency
        return episode, False
    episode.backlog = backlog  # the run is for this alarm only
    needs_a_run(episode, now)
    return episode, True


async def raises_of(session: AsyncSession, cluster_id: str, host: str, since: datetime) -> int:
    """How often the host's alarm was raised since then, by our clock."""
    mine = select(func.count()).select_from(Occurrence)
    mine = mine.where(Occurrence.place == place_of(cluster_id, host), Occurrence.first_seen > since)
    return int(await session.scalar(mine) or 0)


def _backlog(memory: _Memory, sighting: Sighting) -> str:
    """Why an alarm is no emergency; empty where it is one."""
    told, cluster, poll = sighting.observation, sighting.cluster, memory.polls.get(sighting.cluster.name)
    skew = poll.skew if poll and cluster.speed == 1 else None  # an emulator's time runs away from ours
    old = age(memory.now, told.occurred, told.sent, skew)
    raised = memory.now - old / cluster.speed
    if old >= BACKLOG_AGE:
        return f"the alarm was {old.total_seconds() / 3600:.1f} hours old when it was first seen"
    if raised < cluster.connected - CONNECTING:
        return "the alarm was raised before the cluster was connected"
    if any(start <= raised <= end for start, end in memory.gaps):
        return "the alarm was raised while no intake was running"
    return ""


def _ask_for_a_poll(session: AsyncSession, memory: _Memory, sighting: Sighting) -> Seen:
    name, now = sighting.cluster.name, memory.now
    poll = memory.polls.get(name)
    if poll is None:
        poll = memory.polls[name] = Poll(cluster=name, due=now)
        session.add(poll)
    new = poll.triggered is None
    poll.triggered = poll.triggered or now
    poll.trigger_alarm, poll.due = sighting.observation.alarm_id, min(poll.due, now)
    return Seen(new, f"the alarms of {name} are read from its Manager now")
