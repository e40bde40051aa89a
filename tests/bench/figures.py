"""What came out of a benchmark: figures beside what is to be reached and what the peer has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median

from rich.table import Table

from tests.bench.usage import Usage

OURS = ("worker", "intake")
THEIRS = ("server", "PostgreSQL")


@dataclass(frozen=True)
class Figure:
    """One thing that was measured.

    Attributes:
        part: of the benchmark.
        target: what is to be reached, in words; `met` is whether it was, None where nothing is.
        peer: the same of plain Prefect's process worker, in words.
        more: what else belongs to it, by name.
    """

    part: str
    what: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    peer: str = ""
    more: Mapping[str, float | str] = field(default_factory=dict)


def table_of(figures: Sequence[Figure], title: str = "Waits") -> Table:
    """The figures, one a row."""
    table = Table("what", "measured", "target", "met", "peer", "more", title=title, show_lines=True)
    for each in figures:
        met = "" if each.met is None else "yes" if each.met else "no"
        more = ", ".join(f"{name} {_short(value)}" for name, value in each.more.items())
        table.add_row(each.what, f"{_short(each.value)} {each.unit}", each.target, met, each.peer, more)
    return table


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below this share of all of them."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float | str]:
    """What else is to be said of values: how many they are, and where they lie."""
    return {"n": len(values), "p50": median(values), "p99": quantile(values, 0.99), "max": max(values)}


def of(usage: Mapping[str, Usage], names: Sequence[str]) -> Usage:
    """What these processes use together."""
    return sum((usage[name] for name in names), Usage())


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
