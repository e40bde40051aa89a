"""The sweep as one HTML file that needs nothing else: the fleet as a picture, the checks, every cluster with each."""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tasks.sweep.checks import CHECKS, Check
from tasks.sweep.reports import MOMENT, Report, Row

MOST, OPEN = 200, 20  # changes of a kind that are listed, and, of those that are news, that are so without a click
NEWS = ("new", "fixed")
LETTERS = {"fail": "F", "cannot tell": "?", "n/a": "–", "pass": ""}
FAILED = {"Critical": "fC", "Major": "f", "Minor": "fm", "Suggestion": "fm"}
SEVERITIES = ("fC", "f", "fm")

_environment = Environment(
    loader=PackageLoader("tasks.sweep", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def _coded(text: str) -> Markup:
    """What is between backquotes as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup(f"<code>{part}</code>") if n % 2 else part for n, part in enumerate(parts))  # noqa: S704


_environment.filters["coded"] = _coded


@dataclass(frozen=True)
class Cell:
    """One answer: how it is coloured, its letter, and what was seen where that is news."""

    kind: str
    letter: str
    seen: str


@dataclass(frozen=True)
class Line:
    """One cluster: `worst` colours its square, by `marks` it is filtered."""

    anchor: str
    cluster: str
    note: str
    worst: str
    marks: str
    cells: Sequence[Cell]


def as_html(report: Report) -> str:
    """The whole page. Texts of others are shown as text; nothing is loaded from anywhere."""
    sweep, change = report.sweep, report.change
    worst = sorted(report.rows, key=lambda row: row.badness, reverse=True)
    return _environment.get_template("report.html").render(
        report=report,
        rows=[_line(n, row) for n, row in enumerate(worst)],
        checks=[(check, _count(report, check)) for check in CHECKS],
        started=f"{sweep.started:{MOMENT}} UTC",
        ended=f"{sweep.ended:{MOMENT}} UTC" if sweep.ended else "(not ended)",
        selection=", ".join(sweep.selection.splitlines()),
        since=f"{change.started:{MOMENT}} UTC" if change else "",
        changes=[
            (title, found, title in NEWS and len(found) <= OPEN) for title, found in (change.kinds if change else ())
        ],
        most=MOST,
        square=8 if len(worst) > 1000 else 12 if len(worst) > 100 else 20,
    )


def _count(report: Report, check: Check) -> dict[str, float]:
    """How many clusters answer it how, and which share of all these are, in percent."""
    found = report.counts[check.id]
    counts = {"fail": found["fail"], "untold": found["cannot tell"], "pass": found["pass"], "none": found["n/a"]}
    shown = counts if check.observable else counts | {"untold": 0}
    share = 100 / max(1, sum(counts.values()))
    return {**counts, **{f"{name}_share": round(number * share, 2) for name, number in shown.items()}}


def _line(n: int, row: Row) -> Line:
    cells = [_cell(check, *row.answers.get(check.id, ("n/a", "not asked"))) for check in CHECKS]
    kinds = {cell.kind for cell in cells}
    worst = next((kind for kind in (*SEVERITIES, "u") if kind in kinds), "")
    marks = [name for name, has in (("f_", row.failed), ("u_", row.untold), ("x_", not row.managed)) if has]
    note = "" if row.managed else f" (unmanaged, {row.cluster_id})"
    return Line(f"c{n}", row.cluster, note, worst, " ".join(marks), cells)


def _cell(check: Check, value: str, seen: str) -> Cell:
    if value == "fail":
        return Cell(FAILED[check.severity], "F", seen)
    if value == "cannot tell":
        return Cell("u", "?", seen) if check.observable else Cell("o", "?", "")
    return Cell("n" if value == "n/a" else "", LETTERS[value], seen if value == "n/a" else "")
