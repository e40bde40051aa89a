"""How fast the intake is, and what becomes of alarms beside plain Prefect: `python -m tests.bench.intake`.

The intake is the command, in a process of its own; it is measured from outside, over its sockets and in its ledger.
Times are told from when a line or a request was due, so lateness of the sender counts against the intake.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deployments.ending import run_until_ended
from tests.bench.ledgers import Measured, measure
from tests.bench.peer import Compared, burst, compare
from tests.bench.servers import Database, postgresql, upgrade

MOST_P99 = {"syslog": 0.2, "webhook": 0.1}


def main() -> int:
    """Measure and show; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, help="how long each load lasts, 60 unless told; 0: none")
    parser.add_argument(
        "--database", choices=("sqlite", "postgresql", "both"), default="both", help="of ledger or Prefect"
    )
    parser.add_argument("--alarms", type=int, help="for the comparison with plain Prefect, 300 unless told; 0: none")
    parser.add_argument("--burst", type=int, help="clusters that alarm at once, 1000 unless told; 0: none")
    parser.add_argument("--patience", type=float, default=900, help="seconds that runs are waited for")
    parser.add_argument(
        "--quick", action="store_true", help="unless told otherwise 5 s of each load, 30 alarms, 100 clusters"
    )
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    chosen = parser.parse_args()
    usual = {"seconds": 5.0, "alarms": 30, "burst": 100} if chosen.quick else {}
    parser.set_defaults(**({"seconds": 60.0, "alarms": 300, "burst": 1000} | usual))
    chosen = parser.parse_args()
    databases: Sequence[Database] = ("sqlite", "postgresql") if chosen.database == "both" else (chosen.database,)
    with tempfile.TemporaryDirectory(prefix="runbooks-bench-") as folder:
        for name in (*databases, "ours", "peer"):
            Path(folder, name).mkdir()
        measured = run_until_ended(loads(Path(folder), databases, chosen.seconds)) if chosen.seconds else []
        compared = run_until_ended(episodes(Path(folder), databases, chosen.alarms, chosen.burst, chosen.patience))
    if chosen.json:
        found = {
            "load_average": os.getloadavg(),
            "loads": [asdict(each) for each in measured],
            "runs": [asdict(each) for each in compared],
        }
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if all(each.p99 < MOST_P99[each.source] for each in measured) else 1


async def loads(folder: Path, databases: Sequence[Database], seconds: float) -> list[Measured]:
    """All loads on all databases, shown as they come."""
    found = []
    for database in databases:
        say(f"three loads on {database}, {seconds:g} s each")
        async with AsyncExitStack() as stack:
            here = folder / database
            url = f"sqlite:///{here}/ledger.db"
            if database == "postgresql":
                url = await stack.enter_async_context(postgresql())
            await upgrade(here, url)
            found += await measure(here, database, url, seconds)
    columns = ("ledger", "source", "alarms/s", "p50 ms", "p99 ms", "max ms", "target", "what is timed")
    table = Table(*columns, "intake CPU", "RSS MB", "CPU ms/alarm", title="Loads")
    for each in found:
        times = (f"{1000 * value:.0f}" for value in (each.p50, each.p99, each.max))
        cells = (f"{each.cpu:.0%}", f"{each.rss:.0f}", f"{1000 * each.cpu / each.per_second:.2f}")
        target = f"p99 < {1000 * MOST_P99[each.source]:.0f}"
        table.add_row(each.ledger, each.load, f"{each.per_second:.0f}", *times, target, each.timed, *cells)
    Console(width=160).print(table)
    return found


async def episodes(
    folder: Path, databases: Sequence[Database], alarms: int, clusters: int, patience: float
) -> list[Compared]:
    """The same alarms to the intake and to plain Prefect; then many clusters at once, with each database of Prefect."""
    found: list[Compared] = []
    if alarms:
        say(f"{alarms} alarms, each twice, to the intake and then to plain Prefect")
        found += await compare(folder, alarms, patience)
        show_runs(found)
    for database in databases if clusters else ():
        say(f"{clusters} clusters that alarm at once, Prefect on {database}; their blocks take longest")
        found.append(await burst(folder, database, clusters, patience))
        show_runs(found[-1:])
    return found


def show_runs(compared: Sequence[Compared]) -> None:
    """Print what became of alarms."""
    table = Table(
        "who", "alarms", "deliveries", "one run", "none", "several", "runs", "first s", "last s", title="Runs"
    )
    for each in compared:
        counts = (each.alarms, each.deliveries, each.one, each.none, each.several, each.runs)
        table.add_row(each.who, *map(str, counts), f"{each.first:.1f}", f"{each.last:.1f}")
    Console(width=160).print(table)


def say(what: str) -> None:
    """Tell what goes on now."""
    print(f"{time.strftime('%H:%M:%S')} {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
