"""What the ledger holds of an episode whose run came to no end of its own: what is left where nobody has its trail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.keeping import Line, records_of
from tasks.ledger.tables import Episode, Intent, Occurrence
from tasks.models import Alarm, Case, Outcome
from tasks.record import NO_HOST, WHOLE_CLUSTER, End, Entry, Kind


@dataclass(frozen=True)
class Recorded:
    """As much of a trail as a report is made of.

    Attributes:
        outcome: the word with which the run is over.
        episode: its id; empty: the run had none.
        link: the flow run in the Prefect UI, may be empty; `run` is its id.
        acted: it may have changed something.
        unseen: changes that were begun and not seen to their end, a sentence each.
        alarms: host name -> its last alarm; `ends` how its part ended, and the last step that was come to.
        traces: host name -> the trace that the page has left, else how far it came: no answer is invented.
        records: of each attempt, in their order.
        stopped: why the run is over, in words.
    """

    case: Case
    outcome: Outcome
    episode: str = ""
    link: str = ""
    run: str = ""
    acted: bool = True
    unseen: Sequence[str] = ()
    alarms: Mapping[str, Alarm] = field(default_factory=dict)
    ends: Mapping[str, End] = field(default_factory=dict)
    traces: Mapping[str, str] = field(default_factory=dict)
    records: Sequence[Sequence[Line]] = ()
    stopped: str = ""

    needs_a_person = True

    @property
    def entries(self) -> list[Entry]:
        """All lines of all attempts."""
        return [Entry(e.at, e.step, e.host, cast("Kind", e.kind), e.text) for lines in self.records for e in lines]


def nothing_recorded(case: Case, outcome: Outcome) -> Recorded:
    """A run of which the ledger holds nothing, or does not answer."""
    return Recorded(case, outcome, run=case.run, ends={WHOLE_CLUSTER: End(outcome, "")})


async def recorded(session: AsyncSession, episode: Episode, outcome: Outcome, *, acted: bool) -> Recorded:
    """What there is of the episode, which is over with this word.

    Args:
        acted: it may have changed something, as it was known before it was over.
    """
    mine = select(Occurrence).where(Occurrence.episode_id == episode.id)
    last = {each.host: each for each in await session.scalars(mine.order_by(Occurrence.first_seen, Occurrence.host))}
    records = list((await records_of(session, episode.id)).values())
    lines = [line for record in records for line in record]
    found = {line.host for line in lines if line.step == "1"} - {WHOLE_CLUSTER, NO_HOST}
    alarms, ends, traces = {}, {}, {}
    for host in sorted({*last, *found}):
        each = last.get(host)
        name = host or NO_HOST
        serial, occurred = (each.serial, each.occurred) if each else ("", None)
        location = f"HostName={host}" if host else ""
        alarms[name] = Alarm(alarm_id=episode.alarm_id, serial=serial, occurred=occurred, location=location)
        steps = [line.step for line in lines if line.step and line.host in (name, WHOLE_CLUSTER)]
        step = steps[-1] if steps else ""
        if each and each.trace and each.ended:
            ends[name], traces[name] = End(Outcome(each.ended), step), each.trace
        elif each and each.cleared_seen:
            ends[name], traces[name] = End(Outcome.CLEARED, step), "the alarm is cleared"
        else:
            ends[name] = End(outcome, step)
            traces[name] = f"stopped at step {step}" if step else "not begun"
    if not any(end.outcome is outcome for end in ends.values()):
        steps = [line.step for line in lines if line.step]
        ends[WHOLE_CLUSTER] = End(outcome, steps[-1] if steps else "")
    begun = select(Intent).where(Intent.episode_id == episode.id, Intent.ended.is_(None)).order_by(Intent.at)
    return Recorded(
        Case(cluster=episode.cluster, alarm_id=episode.alarm_id, dry_run=False),
        outcome,
        episode=episode.id,
        link=episode.link,
        acted=acted,
        unseen=[
            f"step {intent.step}, {intent.target}: begun at {intent.at:%Y-%m-%d %H:%M:%S} UTC, not seen to its end"
            for intent in await session.scalars(begun)
        ],
        alarms=alarms,
        ends=ends,
        traces=traces,
        records=records,
    )
