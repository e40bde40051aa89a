"""What processes use: CPU and memory of a process and of all that it started, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Usage:
    """Seconds of CPU since the start, those of ended children too; KB of memory, shared pages by share and in full."""

    cpu: float = 0.0
    pss: float = 0.0
    rss: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu + other.cpu, self.pss + other.pss, self.rss + other.rss)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.cpu - other.cpu, self.pss - other.pss, self.rss - other.rss)


def used_by(process: int) -> Usage:
    """What the process and all that it started use."""
    return sum((_used(each) for each in _tree(process)), Usage())


def lives(process: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{process}").exists()


def _tree(process: int) -> Iterable[int]:
    yield process
    with suppress(*GONE):
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _tree(int(child))


def _used(process: int) -> Usage:
    with suppress(*GONE):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        memory = {"Pss:": 0.0, "Rss:": 0.0}
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
            name, size, *_ = line.split()
            if name in memory:
                memory[name] = float(size)
        return Usage(sum(map(int, fields[11:15])) / TICKS, memory["Pss:"], memory["Rss:"])
    return Usage()
