"""Waits that end: each at its time, and all at once after nobody was there to end them."""

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path

from prefect.states import AwaitingRetry
from sqlalchemy import select, update

from deployments.worker import SegmentWorker
from tasks import timing
from tasks.ledger.tables import Episode, Wait
from tests.bench.figures import Figure, quantile, spread
from tests.bench.stands import FOR_EVER, Stand, say, stand

LATE = 5.0
OVERDUE = timedelta(hours=1)
DONE_WITHIN, MOST_PER_SECOND = 600.0, 1.0
WINDOW = 10.0  # seconds over which a Manager's questions are counted: one look is several of them
PATIENCE = 3.0  # seconds a run
BEFORE = 60.0  # seconds between the last alarm and the first deadline
EARLY = 0.05


async def lateness(folder: Path, count: int, over: float, nodes: int, limit: int | None) -> Figure:
    """Waits whose deadlines are spread evenly: how late each run first asks its Manager after its own.

    The alarms come evenly as well, in half of that time, so that all wait before the first deadline.
    """
    pace = over / count / 2
    lead = count * pace + BEFORE
    waits = [lead + n * pace for n in range(count)]
    async with stand(folder, SegmentWorker.type, waits=waits, nodes=nodes) as it, it.worker(limit):
        names = it.take(count)
        say(f"{count} alarms in {count * pace:.0f} s, whose waits end {lead:.0f} s later and on, over {over:.0f} s")
        began = time.time()
        for n, name in enumerate(names):
            await asyncio.sleep(max(0.0, began + n * pace - time.time()))
            await it.tell("raised", [name])
        await _until_through(it, names, within=lead + over + 60 + PATIENCE * count)
        due, asked = await _deadlines(it), await it.cloud.asked()
    late = [
        max(0.0, min(moment for moment in asked[name] if moment >= due[name] - EARLY) - due[name]) for name in names
    ]
    value = quantile(late, 0.99)
    spread_ = {**spread(late), "deadlines over s": max(due.values()) - min(due.values())}
    what = f"wake lateness of {count} waits, p99"
    return Figure("late", what, value, "s", f"<= {LATE:g} s", value <= LATE, more=spread_)


async def after_an_outage(folder: Path, count: int, nodes: int, limit: int | None) -> list[Figure]:
    """No worker while many waits became overdue, then one.

    The hour is not sat out: while the worker is stopped, the waits are moved into the past, in the ledger and in
    Prefect. The intake, the server and the clusters are up all the time.
    """
    async with stand(folder, SegmentWorker.type, waits=[FOR_EVER] * count, nodes=nodes) as it:
        names = it.take(count)
        async with it.worker(limit):
            await it.tell("raised", names)
            await it.until_waiting(names, within=60 + PATIENCE * count)
        say(f"the worker is down, and {count} waits are an hour overdue")
        await _move_back(it, names)
        began = time.time()
        async with it.worker(limit):
            took = await _until_through(it, names, within=DONE_WITHIN + PATIENCE * count) - began
        asked = await it.cloud.asked()
    rates = [_most_within(moments, began) / WINDOW for moments in asked.values()]
    looked = [min(each for each in asked[name] if each > began) - began for name in names]
    done = Figure(
        "down",
        f"{count} waits an hour overdue, from the worker's start to all done",
        took,
        "s",
        f"<= {DONE_WITHIN:g} s",
        took <= DONE_WITHIN,
        more={"first look, p50 s": quantile(looked, 0.5), "max s": max(looked)},
    )
    polled = Figure(
        "down",
        f"requests to one Manager meanwhile, most within {WINDOW:g} s",
        max(rates),
        "/s",
        f"<= {MOST_PER_SECOND:g}/s",
        max(rates) <= MOST_PER_SECOND,
    )
    return [done, polled]


async def _until_through(it: Stand, names: Collection[str], *, within: float) -> float:
    """Wait until all runs have ended in a ticket, as they must; returns when."""
    states = [run.state for run in (await it.until_ended(names, within=within)).values()]
    words = {state.name if state else "" for state in states}
    assert words == {"ESCALATE"}, f"the runs ended {words}"
    return max(state.timestamp.timestamp() for state in states if state)


async def _deadlines(it: Stand) -> Mapping[str, float]:
    waits = select(Episode.cluster, Wait.deadline).join(Wait, Wait.episode_id == Episode.id).where(Wait.step == "6")
    async with it.ledger.reading() as session:
        return {name: deadline.timestamp() for name, deadline in (await session.execute(waits)).all()}


async def _move_back(it: Stand, names: Collection[str]) -> None:
    past = timing.wall() - OVERDUE
    async with it.ledger.writing() as session:
        await session.execute(update(Wait).where(Wait.ended.is_(None)).values(deadline=past))
    for run in (await it.runs(names)).values():
        await it.client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=past), force=True)


def _most_within(moments: list[float], since: float) -> int:
    """The most of them that lie in one window."""
    after = [moment for moment in moments if moment >= since]
    return max((sum(start <= each < start + WINDOW for each in after) for start in after), default=0)
