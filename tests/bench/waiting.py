"""What it costs that many runs wait, and what it does to those that come next: all on one stand."""

import asyncio
import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from deployments.worker import SegmentWorker
from tests.bench.figures import OURS, THEIRS, Figure, of, quantile, spread
from tests.bench.plain import Plain
from tests.bench.stands import FOR_EVER, Stand, say, stand
from tests.bench.usage import Usage

PARTS = ("first", "storm", "busy", "memory", "cpu", "clear")
SETTLES = 40.0  # seconds, after which nothing is left to be done for runs that wait; Prefect keeps its events for 30
PATIENCE = 3.0  # seconds a run, that many are waited for
BUSY_AS_IDLE = 1.25
MOST_KB, MOST_CPU, MOST_THEIR_CPU = 30.0, 0.02, 0.15
FIRST = (1.0, 3.0)  # seconds, p50 and p99
LEAST_PER_SECOND, TIMES_THE_PEER = 1.8, 5.0
CLEARED = 2.0


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    waiting: int
    storm: int
    busy: int  # so many wait while new ones come
    samples: int  # runs that are started one by one
    minutes: float
    nodes: int
    limit: int | None  # segments at the same time


@dataclass
class Measured:
    """Of the stand; `memory` is what was used when so many waited, `first` and `wait` are seconds since accepted."""

    first: list[float] = field(default_factory=list)
    wait: list[float] = field(default_factory=list)
    memory: dict[int, Mapping[str, Usage]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)


async def measure(folder: Path, parts: Collection[str], sizes: Sizes, peer: Plain | None) -> list[Figure]:
    """The chosen parts, one after the other; those that wait are never ended before the last part."""
    filled = {"busy": sizes.busy, "memory": sizes.waiting, "cpu": sizes.waiting}
    most = max((filled[part] for part in parts if part in filled), default=0) + sizes.storm + 3 * sizes.samples
    found = Measured()
    async with (
        stand(folder, SegmentWorker.type, waits=[FOR_EVER] * most, nodes=sizes.nodes) as it,
        it.worker(sizes.limit),
    ):
        if {"first", "busy"} & set(parts):
            found.first, found.wait = await one_by_one(it, sizes.samples)
            found.figures += _firsts(found) if "first" in parts else []
        await _remember(it, found)
        if "storm" in parts:
            found.figures.append(await storm(it, sizes.storm, peer.per_second if peer else 0.0))
        if "busy" in parts:
            await fill(it, sizes.busy)
            found.figures += await busy(it, sizes.samples, found)
        if {"memory", "cpu"} & set(parts):
            await fill(it, sizes.waiting // 3)
            await _remember(it, found)
            await fill(it, sizes.waiting)
            await _remember(it, found)
        if "cpu" in parts:
            found.figures += await idling(it, sizes.minutes)
        if "memory" in parts:
            await _remember(it, found)
            found.figures += _memory(found, peer.pss if peer else 0.0)
        if "clear" in parts:
            await fill(it, sizes.samples)
            found.figures.append(await clears(it, sizes.samples))
    return found.figures


async def one_by_one(it: Stand, count: int) -> tuple[list[float], list[float]]:
    """Start so many runs, each when the one before waits; seconds from accepted to the first check, and to the wait."""
    say(f"{count} alarms one by one, while {len(await it.waiting())} runs wait")
    first, wait, chance = [], [], random.Random(count)
    for name in it.take(count):
        accepted = (await it.tell("raised", [name]))[name]
        await it.until_waiting([name], within=120)
        (run,) = (await it.runs([name])).values()
        assert run.state
        first.append((await it.cloud.asked())[name][0] - accepted)
        wait.append(run.state.timestamp.timestamp() - accepted)
        await asyncio.sleep(0.5 + chance.random())  # in no step with those that look every second
    return first, wait


async def fill(it: Stand, count: int) -> None:
    """Let as many more alarm as are missing until so many wait."""
    missing = count - len(await it.waiting())
    if missing > 0:
        say(f"{missing} more clusters alarm, so that {count} runs wait")
        await it.tell("raised", names := it.take(missing))
        await it.until_waiting(names, within=60 + PATIENCE * missing)


async def storm(it: Stand, count: int, peer: float) -> Figure:
    """Many clusters alarm at once: how many a second come to their first wait."""
    say(f"a storm of {count} clusters")
    names, before, began = it.take(count), it.usage(), time.time()
    accepted = await it.tell("raised", names)
    took = await it.until_waiting(names, within=60 + PATIENCE * count) - began
    after, asked = it.usage(), await it.cloud.asked()
    used = {f"CPU s a run, {name}": (after[name] - before[name]).cpu / count for name in after}
    firsts = [asked[name][0] - accepted[name] for name in names]
    rate = count / took
    return Figure(
        "storm",
        f"remediations to their first wait, storm of {count}",
        rate,
        "/s",
        f">= {TIMES_THE_PEER:g}x the peer, > {LEAST_PER_SECOND:g}/s",
        rate > LEAST_PER_SECOND and rate >= TIMES_THE_PEER * peer,
        f"{peer:.3g}/s, ratio {rate / peer:.1f}" if peer else "",
        {"all after s": took, "first check p50 s": median(firsts), "max s": max(firsts), **used},
    )


async def busy(it: Stand, count: int, idle: Measured) -> list[Figure]:
    """New alarms while many wait, beside those that came while none did."""
    many = len(await it.waiting())
    first, wait = await one_by_one(it, count)
    found = []
    for what, new, old in (("first check", first, idle.first), ("its wait", wait, idle.wait)):
        most = BUSY_AS_IDLE * median(old)
        name = f"alarm accepted -> {what} while {many} wait, p50"
        target = f"<= {BUSY_AS_IDLE:g}x idle ({median(old):.2f} s)"
        found.append(Figure("busy", name, median(new), "s", target, median(new) <= most, more=spread(new)))
    return found


async def idling(it: Stand, minutes: float) -> list[Figure]:
    """What is used of a core while nothing happens but waiting."""
    many = len(await it.waiting())
    await asyncio.sleep(SETTLES)
    say(f"{many} runs wait {minutes:g} minutes")
    before, began = it.usage(), time.time()
    await asyncio.sleep(60 * minutes)
    after, took = it.usage(), time.time() - began
    share = {name: (after[name] - before[name]).cpu / took for name in after}
    found = []
    for names, most in ((OURS, MOST_CPU), (THEIRS, MOST_THEIR_CPU)):
        value = sum(share[name] for name in names)
        what = f"CPU while {many} wait {minutes:g} minutes, {' + '.join(names)}"
        apart = {f"{name} %": 100 * share[name] for name in names}
        found.append(Figure("cpu", what, 100 * value, "% of a core", f"< {100 * most:g} %", value < most, more=apart))
    return found


async def clears(it: Stand, count: int) -> Figure:
    """Alarms that are cleared one by one: from being accepted to the run's last state."""
    say(f"{count} clears, while {len(await it.waiting())} runs wait")
    took, chance = [], random.Random(count)
    for name in sorted(await it.waiting())[:count]:
        await it.cloud.clear(name)
        accepted = (await it.tell("cleared", [name]))[name]
        (run,) = (await it.until_ended([name], within=120)).values()
        assert run.state
        took.append(run.state.timestamp.timestamp() - accepted)
        await asyncio.sleep(0.5 + chance.random())
    value = median(took)
    return Figure(
        "clear", "clear accepted -> run finished, p50", value, "s", f"{CLEARED:g} s", value <= CLEARED, "", spread(took)
    )


async def _remember(it: Stand, found: Measured) -> None:
    """What is used now, as soon as nothing is at work."""
    await asyncio.sleep(SETTLES)
    found.memory[len(await it.waiting())] = it.usage()


def _firsts(found: Measured) -> list[Figure]:
    firsts = [
        Figure("first", f"alarm accepted -> first check, idle, {name}", value, "s", f"{most:g} s", value <= most)
        for name, value, most in zip(
            ("p50", "p99"), (median(found.first), quantile(found.first, 0.99)), FIRST, strict=True
        )
    ]
    wait = Figure("first", "alarm accepted -> its wait, idle, p50", median(found.wait), "s", more=spread(found.wait))
    return [*firsts, wait]


def _memory(found: Measured, peer: float) -> list[Figure]:
    """The slope from where a third waits, when everything has been done before; and what it is from the first on."""
    counts: Sequence[int] = sorted(found.memory)
    few, many = counts[-2], counts[-1]
    figures = []
    for names, most in ((OURS, MOST_KB), (THEIRS[:1], 0.0), (THEIRS[1:], 0.0)):
        grown = of(found.memory[many], names) - of(found.memory[few], names)
        since = of(found.memory[many], names) - of(found.memory[counts[0]], names)
        value = grown.pss / (many - few)
        more: dict[str, float | str] = {
            "RSS KB": grown.rss / (many - few),
            f"PSS KB each since {counts[0]}": since.pss / (many - counts[0]),
            **{f"PSS MB at {count}": of(usage, names).pss / 1024 for count, usage in sorted(found.memory.items())},
        }
        figures.append(
            Figure(
                "memory",
                f"memory a waiting run, {few} -> {many}, {' + '.join(names)}",
                value,
                "KB",
                f"< {most:g} KB" if most else "",
                value < most if most else None,
                f"{peer / 1024:.1f} MB, ratio {peer / value:.0f}" if most and peer and value > 0 else "",
                more,
            )
        )
    return figures
