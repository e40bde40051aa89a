"""Strike at every message of every scenario: `python -m tests.crash.matrix --points 200`, or `make crash`.

The worker is killed, unless another blow is told: it stands still for longer than its lease, a message or its answer is
lost, or the intake, the Prefect server or PostgreSQL is killed, and started again.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from deployments.ending import run_until_ended
from deployments.scenarios import SCENARIOS
from tests.crash.processes import answering, healthy, stand
from tests.crash.stand import LEASE, Blow, Cell, Ended, Stand
from tests.crash.wires import Point
from tests.flows.test_conformance import is_legal

CELLS = 4
# All share what is killed; and of a blow that is over at once more would come to the fleet's budget of restarts.
MOST_CELLS: dict[Blow, int] = {"intake": 1, "prefect": 1, "postgresql": 1, "answers": 2}
RESUMED_WITHIN = 60.0
MOST_UNSEEN = 0.1  # of those killed; a few messages of each scenario lie between intending and seeing
LEAST_KILLED = 0.9  # of the points; how many messages a run has differs a little from time to time
# Words of a run that could not see what became of its change, after being killed between intending and doing it.
CANNOT_SEE = frozenset({"CANNOT-TELL", "ERROR"})
LOSE_THE_LEDGER: tuple[Blow, ...] = ("postgresql", "answers")


@dataclass(frozen=True)
class Judged:
    """A point that was tried, and everything that was wrong with what followed; empty: nothing."""

    scenario: str
    point: str
    ended: Ended
    wrong: Sequence[str]


def judge(scenario: str, point: Point | None, ended: Ended, blow: Blow = "worker") -> Judged:
    """What is wrong with how the run ended.

    A run that was struck ends as if it had not been, or, where that was between intending a change and seeing it, in a
    legal prefix and a ticket; so it does, with nothing changed, where the ledger was lost at the commit of an intent.
    Nothing is changed twice, and there is never a second ticket.
    """
    wrong = []
    expected = SCENARIOS[scenario].assumed
    exact = ended.trace == expected
    committing = blow in LOSE_THE_LEDGER and ended.where == "COMMIT"
    intent_lost = committing and ended.outcome == "REFUSED" and not ended.changes
    prefix = (ended.outcome in CANNOT_SEE or intent_lost) and is_legal(ended.trace)
    if not exact and (point is None or not prefix):
        wrong.append(f"the trace is {ended.trace!r} ({ended.outcome}), not {expected!r}")
    twice = [change for change, times in Counter(ended.changes).items() if times > 1]
    if twice:
        wrong.append(f"changed twice: {twice}")
    tickets = 0 if expected.endswith("END") and exact else 1
    if ended.tickets != tickets:
        wrong.append(f"{ended.tickets} tickets, not {tickets}")
    if ended.resumed > RESUMED_WITHIN:
        wrong.append(f"resumed only {ended.resumed} s after a worker was up")
    return Judged(scenario, str(point or "not killed"), ended, wrong)


def points(counts: Mapping[str, int]) -> Iterator[Point]:
    """Before and after each message that a run of the scenario had."""
    for channel, count in sorted(counts.items()):
        for n in range(1, count + 1):
            for when in ("before", "after"):
                yield Point(channel, n, when)  # type: ignore[arg-type]


def spread(whole: Sequence[tuple[str, Point]], many: int) -> list[tuple[str, Point]]:
    """As many of them, evenly from the first to the last, mixed: the fleet has a budget of restarts."""
    many = min(many, len(whole))
    chosen = [whole[round(each * (len(whole) - 1) / max(many - 1, 1))] for each in range(many)]
    random.Random(12110).shuffle(chosen)
    return chosen


async def try_all(
    cells: Sequence[Cell], work: Sequence[tuple[str, Point | None]], seeds: Iterator[int]
) -> list[Judged]:
    """Try the points, one at a time on each cell; says each as it is done."""
    left, found = iter(work), []

    async def at_work(cell: Cell) -> None:
        for scenario, point in left:
            began = time.monotonic()
            await healthy(cell.stand.api)
            await answering(cell.stand.ledger_url)
            try:
                ended = await cell.run(scenario, point, seed=next(seeds))
                judged = judge(scenario, point, ended, cell.blow)
            except TimeoutError:
                ended = Ended("", "", [], 0, where=cell.trap.at, counts=dict(cell.trap.counts))
                judged = Judged(scenario, str(point), ended, ["the run did not end in time"])
            found.append(judged)
            words = "; ".join(judged.wrong) or f"{judged.ended.trace or judged.ended.outcome}"
            took = f"{time.monotonic() - began:.0f} s, resumed after {judged.ended.resumed} s"
            say(f"{len(found)}/{len(work)} {scenario}, {judged.point} ({judged.ended.where}): {words} ({took})")

    async with asyncio.TaskGroup() as group:
        for cell in cells:
            group.create_task(at_work(cell))
    return found


async def matrix(
    folder: Path, many: int, cells: int, only: Sequence[str] = (), lease: float = LEASE, blow: Blow = "worker"
) -> list[Judged]:
    """Count the messages of each scenario, then strike at as many of them."""
    seeds = itertools.count(1)
    async with stand(folder, lease) as made, _cells(made, cells) as there:
        say("counting the messages of each scenario ...")
        counted = await try_all(there, [(name, None) for name in only or SCENARIOS], seeds)
        whole = [(each.scenario, point) for each in counted for point in points(each.ended.counts)]
        say(f"{len(whole)} points; trying {min(many, len(whole))} of them, what is struck: {blow}")
        for cell in there:
            cell.blow = blow
        return [*counted, *await try_all(there, spread(whole, many), seeds)]


@asynccontextmanager
async def _cells(made: Stand, many: int) -> AsyncIterator[list[Cell]]:
    if not many:
        yield []
        return
    async with made.cell(f"cell-{many}") as cell, _cells(made, many - 1) as others:
        yield [*others, cell]


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Try, and tell; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=10_000, help="how many, spread evenly; all unless told")
    parser.add_argument(
        "--cells",
        type=int,
        default=CELLS,
        help="workers at the same time; one where all share what is killed, two for answers",
    )
    parser.add_argument("--kill", default="worker", choices=get_args(Blow), help="what is struck")
    parser.add_argument("--scenario", action="append", default=[], choices=list(SCENARIOS), help="only this")
    parser.add_argument(
        "--lease", type=float, default=LEASE, help=f"of runs, in seconds; {LEASE:g} unless told, 30 is usual"
    )
    parser.add_argument("--keep", type=Path, help="a folder for logs and tickets, which stays")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runbooks-crash-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        cells = min(chosen.cells, MOST_CELLS.get(chosen.kill, chosen.cells))
        found = run_until_ended(matrix(folder, chosen.points, cells, chosen.scenario, chosen.lease, chosen.kill))
    wrong = [each for each in found if each.wrong]
    killed = [each for each in found if each.ended.where]
    resumed = sorted(each.ended.resumed for each in killed) or [0.0]
    exact = sum(each.ended.trace == SCENARIOS[each.scenario].assumed for each in killed)
    say(
        f"{len(found)} runs, {len(killed)} of them struck ({chosen.kill}): {exact} ended as if they had not been, "
        f"{len(killed) - exact} in a prefix and a ticket; {len(wrong)} wrong; "
        f"resumed after {resumed[len(resumed) // 2]} s in the middle, {resumed[-1]} s at most"
    )
    meant = sum(each.point != "not killed" for each in found)
    if few := len(killed) < LEAST_KILLED * meant:
        say(f"WRONG only {len(killed)} of {meant} points were ever come to")
    if lost := len(killed) - exact > MOST_UNSEEN * len(killed):
        say("WRONG too many of them ended in a prefix: only a kill between intending and seeing a change may")
    for each in wrong:
        say(f"WRONG {each.scenario}, {each.point} ({each.ended.where}): {'; '.join(each.wrong)}")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")
    return 1 if wrong or few or lost else 0


if __name__ == "__main__":
    sys.exit(main())
