"""What waiting costs, beside plain Prefect's process worker: `python -m tests.bench.waits`.

Everything is a process of its own, on PostgreSQL with its own defaults: Prefect, the intake, the worker, and the
emulated cloud, all on this machine. Alarms come by the webhook. Polling is off.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from deployments.ending import run_until_ended
from tests.bench import waiting
from tests.bench.figures import Figure, table_of
from tests.bench.plain import Plain, plain
from tests.bench.stands import NotMeasured
from tests.bench.wakes import after_an_outage, lateness

PARTS = ("peer", *waiting.PARTS, "late", "down")
STANDS = ("peer", "waiting", "late", "down")
SIZES: dict[str, tuple[type, float, float, str]] = {
    "waiting": (int, 1000, 30, "runs that wait, for memory and CPU"),
    "storm": (int, 300, 15, "clusters that alarm at once"),
    "busy": (int, 500, 15, "runs that wait while new ones come"),
    "samples": (int, 100, 5, "alarms, and clears, that come one by one"),
    "minutes": (float, 5, 0.5, "that runs wait while CPU is measured"),
    "late": (int, 300, 10, "waits of which is seen how late they end"),
    "over": (float, 600, 60, "seconds over which these are spread"),
    "down": (int, 500, 10, "waits that are overdue when the worker comes back"),
    "peer": (int, 20, 3, "runs of the peer, each of which is a process"),
    "nodes": (int, 1, 1, "of each cluster; each is one step more"),
}


def main() -> int:
    """Measure and show; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, (kind, usual, _, what) in SIZES.items():
        parser.add_argument(f"--{name}", type=kind, help=f"{what}; {usual:g} unless told")
    parser.add_argument("--limit", type=int, help="segments at the same time, the worker's own limit unless told")
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small numbers, unless told otherwise")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--keep", type=Path, help="keep the logs in this new folder")
    chosen = parser.parse_args()
    sizes = {name: (quick if chosen.quick else usual) for name, (_, usual, quick, _) in SIZES.items()}
    sizes |= {name: given for name in SIZES if (given := getattr(chosen, name)) is not None}
    parts = chosen.only.split(",") if chosen.only else PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="runbooks-bench-") as folder:
        home = (chosen.keep or Path(folder)).absolute()
        for stand in STANDS:
            Path(home, stand).mkdir(parents=True)
        figures = run_until_ended(measure(home, parts, sizes, chosen.limit, chosen.json))
    Console(width=160).print(table_of(figures))
    return 0 if all(each.met is not False for each in figures) else 1


async def measure(
    folder: Path, parts: Sequence[str], sizes: Mapping[str, float], limit: int | None, json_file: Path | None
) -> Sequence[Figure]:
    """The chosen parts, each group of them on a stand of its own; what is known is shown and written after each."""
    size = {name: int(value) for name, value in sizes.items()}
    found: list[Figure] = []
    peer: list[Plain] = []

    async def own_stand(name: str, work: Callable[[Path], Awaitable[Sequence[Figure]]]) -> None:
        try:
            found.extend(await work(folder / name))
        except NotMeasured as error:  # the other stands are measured all the same
            found.append(Figure(name, "not all was measured", 0, "", str(error), met=False))
        Console(width=160, stderr=True).print(table_of(found))
        if json_file:
            _write(json_file, sizes, found)

    async def the_peer(here: Path) -> Sequence[Figure]:
        peer.append(await plain(here, size["peer"], size["nodes"]))
        return peer[0].figures

    async def those_that_wait(here: Path) -> Sequence[Figure]:
        return await waiting.measure(here, parts, wanted, peer[0] if peer else None)

    async def those_that_end(here: Path) -> Sequence[Figure]:
        return [await lateness(here, size["late"], sizes["over"], size["nodes"], limit)]

    async def those_that_are_overdue(here: Path) -> Sequence[Figure]:
        return await after_an_outage(here, size["down"], size["nodes"], limit)

    wanted = waiting.Sizes(
        waiting=size["waiting"],
        storm=size["storm"],
        busy=size["busy"],
        samples=size["samples"],
        minutes=sizes["minutes"],
        nodes=size["nodes"],
        limit=limit,
    )
    if "peer" in parts:
        await own_stand("peer", the_peer)
    if set(parts) & set(waiting.PARTS):
        await own_stand("waiting", those_that_wait)
    if "late" in parts:
        await own_stand("late", those_that_end)
    if "down" in parts:
        await own_stand("down", those_that_are_overdue)
    return found


def _write(file: Path, sizes: Mapping[str, float], figures: Sequence[Figure]) -> None:
    found = {
        "load_average": os.getloadavg(),
        "cores": os.cpu_count(),
        "sizes": sizes,
        "figures": [asdict(each) for each in figures],
    }
    file.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
