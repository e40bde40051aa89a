"""How a sweep is shown in a terminal, and written to files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.errors import ConfigurationError
from tasks.sweep.checks import CHECKS
from tasks.sweep.forms import as_csv, as_json
from tasks.sweep.picture import as_html
from tasks.sweep.reports import Change, Found, Report

SHORTEST = 8  # letters of an id that tell enough
SHOWN = 50  # findings that a terminal gets


@dataclass(frozen=True)
class Files:
    """Where a report is written to."""

    html: Path | None
    json: Path | None
    csv: Path | None

    def write(self, out: Console, report: Report) -> None:
        """Write what was asked for."""
        for path, form in ((self.html, as_html), (self.json, as_json), (self.csv, as_csv)):
            if path is not None:
                path.write_text(form(report), encoding="utf-8")
                out.print(Text(f"written: {path}"))


def unended(report: Report) -> str:
    """One line where the sweep has not ended, so that this is a part of it; empty: it has."""
    sweep = report.sweep
    if sweep.ended:
        return ""
    how = "was broken off" if sweep.summary else "still goes on"
    return f"sweep {sweep.id[:SHORTEST]} {how}: {len(report.rows)} of {sweep.planned} clusters were looked at"


def show_report(out: Console, report: Report) -> None:
    """Print the findings, the worst first, and the summary."""
    findings = report.findings
    if findings:
        out.print(table_of("findings", findings[:SHOWN], report.change))
        if len(findings) > SHOWN:
            where = f"`runbooks sweep report {report.sweep.id[:SHORTEST]} --html FILE`"
            out.print(Text(f"and {len(findings) - SHOWN} more: {where}"))
    out.print(Text(report.sweep.summary or report.summary))


def table_of(title: str, found: Sequence[Found], change: Change | None = None) -> Table:
    """These findings, one a row, and whether each is new."""
    table = Table("cluster", "check", "severity", *(["change"] if change else []), "seen", title=Text(title))
    for each in found:
        word = [change.word(each.cluster, each.check.id)] if change else []
        table.add_row(*map(Text, (each.cluster, each.check.id, each.check.severity, *word, each.seen)))
    return table


def show_cluster(out: Console, report: Report, cluster: str) -> int:
    """Every answer of one cluster; returns the exit code.

    Raises:
        ConfigurationError: the sweep did not look at it.
    """
    row = next((each for each in report.rows if each.cluster == cluster), None)
    if row is None:
        raise ConfigurationError(f"sweep {report.sweep.id} did not look at {cluster!r}: check the spelling")
    table = Table("check", "answer", "seen", "where it is a no", title=Text(cluster))
    for check in CHECKS:
        value, seen = row.answers.get(check.id, ("n/a", "not asked"))
        table.add_row(*map(Text, (check.title, value, seen, check.remedy if value == "fail" else "")))
    out.print(table)
    return int(bool(row.failed))
