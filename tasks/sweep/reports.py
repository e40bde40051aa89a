"""What came of a sweep, and what changed since another one: as text and as rows."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from sqlalchemy.ext.asyncio import AsyncSession

from tasks.evidence import quoted
from tasks.ledger.fleet_tables import Sweep, Swept
from tasks.ledger.sweeping import read, sweep_before, swept
from tasks.sweep.checks import BY_ID, CHECKS, Check, Severity

WEIGHTS: Mapping[Severity, int] = {"Critical": 1000, "Major": 100, "Minor": 10, "Suggestion": 1}
KINDS = ("new", "fixed", "standing", "lapsed", "unknown", "gone")
BECAME = {"pass": "fixed", "cannot tell": "unknown"}  # what failed, by its answer now
NAMED, LISTED = 20, 1000  # clusters named for each check; rows of the table
MOMENT = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class Row:
    """What was seen of one cluster: check -> value, what was seen."""

    cluster: str
    cluster_id: str
    managed: bool
    at: datetime
    answers: Mapping[str, tuple[str, str]]

    @cached_property
    def failed(self) -> Sequence[str]:
        """The checks that failed, in the table's order."""
        return [check.id for check in CHECKS if self.answers.get(check.id, ("", ""))[0] == "fail"]

    @cached_property
    def untold(self) -> Sequence[str]:
        """The checks that cannot be told and should be."""
        return [c.id for c in CHECKS if c.observable and self.answers.get(c.id, ("", ""))[0] == "cannot tell"]

    @property
    def badness(self) -> tuple[int, int]:
        """By which the worst comes first."""
        return sum(WEIGHTS[BY_ID[each].severity] for each in self.failed), len(self.untold)


@dataclass(frozen=True)
class Found:
    """One no: of which cluster, to which check, and what was seen."""

    cluster: str
    check: Check
    seen: str


@dataclass(frozen=True)
class Change:
    """What is different from an earlier sweep.

    Attributes:
        id, started: of the earlier one.
        lapsed: failed then, and the question does not apply now.
        unknown: failed then, and cannot be told now.
        gone: failed then, of clusters that are not looked at any more.
    """

    id: str
    started: datetime
    new: Sequence[Found] = ()
    fixed: Sequence[Found] = ()
    standing: Sequence[Found] = ()
    lapsed: Sequence[Found] = ()
    unknown: Sequence[Found] = ()
    gone: Sequence[Found] = ()

    @property
    def kinds(self) -> Sequence[tuple[str, Sequence[Found]]]:
        """What became of findings, in words, and of which."""
        return (
            ("new", self.new),
            ("fixed", self.fixed),
            ("standing", self.standing),
            ("no longer applicable", self.lapsed),
            ("cannot be told any more", self.unknown),
            ("of clusters that are gone", self.gone),
        )

    def word(self, cluster: str, check: str) -> str:
        """`new` or `standing` for a finding of the later sweep."""
        return "new" if (cluster, check) in self._new else "standing"

    @cached_property
    def _new(self) -> set[tuple[str, str]]:
        return {(each.cluster, each.check.id) for each in self.new}

    def __str__(self) -> str:
        parts = {"new": self.new, "fixed": self.fixed, "standing": self.standing}
        parts |= {"no longer applicable": self.lapsed} if self.lapsed else {}
        parts |= {"no longer to be told": self.unknown} if self.unknown else {}
        parts |= {"of clusters that are gone": self.gone} if self.gone else {}
        counts = ", ".join(f"{len(found)} {name}" for name, found in parts.items())
        return f"{counts} since the sweep of {self.started:{MOMENT}} UTC"


@dataclass(frozen=True)
class Report:
    """One sweep."""

    sweep: Sweep
    rows: Sequence[Row]
    change: Change | None = None
    notes: Sequence[str] = field(default=())

    @cached_property
    def findings(self) -> Sequence[Found]:
        """Every no, the worst clusters first."""
        worst = sorted(self.rows, key=lambda row: row.badness, reverse=True)
        return [Found(row.cluster, BY_ID[each], row.answers[each][1]) for row in worst for each in row.failed]

    @cached_property
    def counts(self) -> Mapping[str, Counter[str]]:
        """Check -> how many clusters have which answer."""
        return {c.id: Counter(row.answers[c.id][0] for row in self.rows if c.id in row.answers) for c in CHECKS}

    @property
    def summary(self) -> str:
        """It all, in a sentence or two."""
        findings, untold = self.findings, [row for row in self.rows if row.untold]
        clusters = len({each.cluster for each in findings})
        of = f"{clusters} of {_counted(len(self.rows), 'cluster')}"
        words = f"{_counted(len(findings), 'finding')} on {of}" if findings else f"No findings on {of}"
        words += f" ({self.change})" if self.change else ""
        if untold:
            answers = sum(len(row.untold) for row in untold)
            words += f"; {_counted(answers, 'answer')} on {_counted(len(untold), 'cluster')} cannot be told"
        if unmanaged := sum(not row.managed for row in self.rows):
            words += f"; {_counted(unmanaged, 'cluster')} {'is' if unmanaged == 1 else 'are'} unmanaged"
        return ". ".join([words, *self.notes]) + "."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


async def report_of(session: AsyncSession, sweep: Sweep, before: Sweep | None = None, *, bare: bool = False) -> Report:
    """A sweep as the ledger has it, held against an earlier one: the last one of the same selection unless told.

    Args:
        bare: held against none.
    """
    rows = [_row(each) for each in await swept(session, sweep.id)]
    before = None if bare else before or await sweep_before(session, sweep)
    if before is None:
        return Report(sweep, rows)
    return Report(sweep, rows, changed(before, [_row(each) for each in await swept(session, before.id)], rows))


def _row(row: Swept) -> Row:
    return Row(row.cluster, row.cluster_id, row.managed, row.at, read(row.answers))


def changed(before: Sweep, old: Sequence[Row], rows: Sequence[Row]) -> Change:
    """What is different in the later sweep. A cluster that was renamed, or got a block, is the same one."""
    earlier, later = _finder(old), _finder(rows)
    found: dict[str, list[Found]] = {name: [] for name in KINDS}
    for row in rows:
        then = earlier(row)
        for check in row.failed:
            kind = "standing" if then and check in then.failed else "new"
            found[kind].append(Found(row.cluster, BY_ID[check], row.answers[check][1]))
    for row in old:
        now = later(row)
        for check in row.failed:
            value, seen = now.answers.get(check, ("", "")) if now else ("", row.answers[check][1])
            if value != "fail":
                kind = "gone" if now is None else BECAME.get(value, "lapsed")
                found[kind].append(Found(now.cluster if now else row.cluster, BY_ID[check], seen))
    return Change(before.id, before.started, **found)


def _finder(rows: Sequence[Row]) -> Callable[[Row], Row | None]:
    """Finds the same cluster in another sweep: by its id in the cloud where both have one, else by its name."""
    named, known = {row.cluster: row for row in rows}, {row.cluster_id: row for row in rows if row.cluster_id}

    def find(row: Row) -> Row | None:
        same = named.get(row.cluster)
        if same and (same.cluster_id == row.cluster_id or not (same.cluster_id and row.cluster_id)):
            return same
        return known.get(row.cluster_id)

    return find


def as_markdown(report: Report) -> str:
    """The sweep as markdown, for people."""
    lines = [f"# Sweep of {len(report.rows)} clusters", "", quoted(report.summary), ""]
    if report.sweep.selection:
        lines += [f"Selected: {quoted(', '.join(report.sweep.selection.splitlines()))}.", ""]
    lines += ["| check | fail | cannot tell | pass | n/a |", "| --- | --- | --- | --- | --- |"]
    for check in CHECKS:
        count = report.counts[check.id]
        untold = count["cannot tell"] if check.observable else f"{count['cannot tell']} (as ever)"
        lines.append(f"| {check.title} | {count['fail']} | {untold} | {count['pass']} | {count['n/a']} |")
    lines += ["", *_what_to_do(report), *_what_changed(report)]
    return "\n".join(lines)


def _what_to_do(report: Report) -> list[str]:
    findings = report.findings
    by_check = {check.id: [each for each in findings if each.check is check] for check in CHECKS}
    worst = sorted((c for c in CHECKS if by_check[c.id]), key=lambda check: -WEIGHTS[check.severity])
    lines = ["## What to do", ""] if worst else []
    for check in worst:
        lines += [f"**{check.title}: no** ({check.severity}; {check.reference}). {check.remedy}.", ""]
        lines += _listed(by_check[check.id], NAMED)
    return lines


def _what_changed(report: Report) -> list[str]:
    if report.change is None:
        return []
    lines = []
    for title, found in (("New", report.change.new), ("Fixed", report.change.fixed)):
        if found:
            lines += [f"## {title} since {report.change.started:{MOMENT}} UTC", "", *_listed(found, NAMED, checks=True)]
    return lines


def _listed(found: Sequence[Found], most: int, *, checks: bool = False) -> list[str]:
    lines = []
    for each in found[:most]:
        about = f"{each.check.id}: " if checks else ""
        lines.append(f"- {quoted(each.cluster)}: {about}{quoted(each.seen)}")
    return [*lines, *([f"- and {len(found) - most} more"] if len(found) > most else []), ""]


def as_rows(report: Report) -> list[dict[str, str]]:
    """The findings as rows of a table, the worst first; the last one says how many are left out."""
    rows = [
        {
            "cluster": each.cluster,
            "check": each.check.id,
            "severity": each.check.severity,
            "change": report.change.word(each.cluster, each.check.id) if report.change else "",
            "seen": each.seen,
            "remedy": each.check.remedy,
        }
        for each in report.findings[:LISTED]
    ]
    if left := len(report.findings) - len(rows):
        rows.append({"cluster": f"and {left} more findings: `runbooks sweep report {report.sweep.id[:8]}`"})
    return rows
