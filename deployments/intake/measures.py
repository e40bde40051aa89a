"""How well alarms are handled, for Prometheus: derived from the ledger, so every intake shows the same."""

import asyncio
import logging
from collections import Counter as Counts
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tasks import timing
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import Ledger
from tasks.ledger.fleet_tables import MeasuredRow
from tasks.ledger.measuring import made_by, measure, measured, open_now, to_measure

EVERY = 15.0
OVERLAP = timedelta(minutes=10)  # longer than it takes from the time that a closing has to its commit
AT_ONCE, PAGE = 200, 5_000  # episodes that are measured, and read, at once
PLACE = ("cluster", "alarm")
DETECT_BUCKETS = (5, 15, 30, 60, 120, 300, 900, 3600)
ACT_BUCKETS = (5, 15, 60, 300, 900, 1800, 3600, 14400)
VERIFY_BUCKETS = (60, 300, 600, 900, 1200, 1800, 3600, 7200)
RECOVER_BUCKETS = (300, 600, 900, 1200, 1800, 3600, 7200, 14400)
OPEN = {
    "runbooks_episodes_open": ("Episodes that are open", (*PLACE, "state")),
    "runbooks_waits_open": ("Runs that wait for a clear", PLACE),
    "runbooks_waits_overdue": ("Runs whose wait should have ended over a minute ago", PLACE),
    "runbooks_questions_open": ("What persons are asked", PLACE),
    "runbooks_questions_overdue": (
        "What persons were asked, undecided though its time is over by more than a minute",
        PLACE,
    ),
}
CLOSED = "counted once the episode is closed, 25 minutes after its run ended"

logger = logging.getLogger("runbooks.intake")


class _Now(Collector):
    """What is open now, by metric and labels: plain numbers, for a gauge takes 2 KB for each cluster that it shows."""

    def __init__(self) -> None:
        self.counts: Mapping[str, Mapping[tuple[str, ...], int]] = {}

    def collect(self) -> Iterator[Metric]:
        """As it was last read."""
        counts = self.counts  # all of one moment, for another thread may be setting them
        for name, (what, labels) in OPEN.items():
            family = GaugeMetricFamily(name, what, labels=labels)
            for values, count in counts[name].items():
                family.add_metric(values, count)
            yield family


class Measures:
    """The numbers that are the ledger's: the same in every intake, and after its start. Take the maximum of several.

    They are shown once they were read for the first time, else a start would look like a reset.

    Args:
        per_cluster: a cluster that had an episode has about 50 series for each of its alarms. False leaves the names
            out, and all clusters are one.
    """

    def __init__(self, registry: CollectorRegistry, *, per_cluster: bool = True) -> None:
        self._registry, self._per_cluster = registry, per_cluster
        self._since: datetime | None = None
        self._last = 0  # id of the last that was counted

        def times(name: str, what: str, buckets: tuple[int, ...]) -> Histogram:
            name = f"runbooks_time_to_{name}_seconds"
            return Histogram(name, f"{what}; {CLOSED}", PLACE, buckets=buckets, registry=None)

        self.detect = times(
            "detect",
            "From when an alarm occurred, by Manager's clock less its skew, to the first source that told of it",
            DETECT_BUCKETS,
        )
        self.act = times("act", "From when an episode was opened to the first change that was begun", ACT_BUCKETS)
        self.verify = times(
            "verify",
            "From the last change, once it was seen to be done, to when it was known whether it cleared the alarm",
            VERIFY_BUCKETS,
        )
        self.recover = times(
            "recover",
            "From when an alarm occurred to when the last alarm of its episode was cleared",
            RECOVER_BUCKETS,
        )
        self.closed = Counter(
            "runbooks_episodes_closed",
            "Episodes by how they ended, END is repaired, and who made their changes (auto, approved, hand, nobody); "
            f"{CLOSED}",
            [*PLACE, "outcome", "by"],
            registry=None,
        )
        self.refused = Counter(
            "runbooks_refusals",
            f"Hosts for which a change was refused, by why; {CLOSED}",
            [*PLACE, "reason"],
            registry=None,
        )
        self.now = _Now()

    async def keep(self, ledger: Ledger) -> None:
        """Read them anew every few seconds, until cancelled."""
        while True:
            try:
                await self.refresh(ledger)
            except LedgerUnavailable as error:
                logger.warning("the metrics of the ledger stay as they were last read: %s", error)
            await asyncio.sleep(EVERY)

    async def refresh(self, ledger: Ledger) -> None:
        """Measure what was closed, read what was measured since the last time, and what is open now.

        Raises:
            LedgerUnavailable: the rest is left for later.
        """
        now = timing.now()
        async with ledger.reading() as session:
            todo = await to_measure(session, self._since)
        for first in range(0, len(todo), AT_ONCE):
            async with ledger.writing() as session:
                await measure(session, todo[first : first + AT_ONCE])
        rows: list[MeasuredRow] = []
        by: dict[str, str] = {}
        async with ledger.reading() as session:
            while page := await measured(session, rows[-1].id if rows else self._last, PAGE):
                rows += page
                by |= await made_by(session, [row.episode_id for row in page])
            going = await open_now(session, now)
        for row in rows:
            self._count(row, by[row.episode_id])
            self._last = row.id
        first_time, self._since = self._since is None, now - OVERLAP
        self.now.counts = {
            "runbooks_episodes_open": self._summed(going.episodes),
            "runbooks_waits_open": self._summed(going.waits),
            "runbooks_waits_overdue": self._summed(going.overdue),
            "runbooks_questions_open": self._summed(going.questions),
            "runbooks_questions_overdue": self._summed(going.expired),
        }
        if first_time:
            for each in (self.detect, self.act, self.verify, self.recover, self.closed, self.refused, self.now):
                self._registry.register(each)

    def _count(self, episode: MeasuredRow, by: str) -> None:
        place = (self._called(episode.cluster), episode.alarm_id)
        self.closed.labels(*place, episode.outcome, by).inc()
        for reason in episode.refused.splitlines():
            self.refused.labels(*place, reason).inc()
        for histogram, seconds in (
            (self.detect, episode.detect),
            (self.act, episode.act),
            (self.verify, episode.verify),
            (self.recover, episode.recover),
        ):
            if seconds is not None:
                histogram.labels(*place).observe(seconds)

    def _summed(self, counts: Mapping[tuple[str, ...], int]) -> Counts[tuple[str, ...]]:
        summed: Counts[tuple[str, ...]] = Counts()
        for (cluster, *more), count in counts.items():
            summed[self._called(cluster), *more] += count
        return summed

    def _called(self, cluster: str) -> str:
        return cluster if self._per_cluster else ""
