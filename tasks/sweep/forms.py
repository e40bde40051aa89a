"""What came of a sweep for other programs: JSON and CSV."""

import csv
import io
import json
from collections.abc import Sequence

from tasks.sweep.checks import BY_ID, CHECKS
from tasks.sweep.reports import KINDS, Change, Found, Report

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so a spreadsheet would carry out


def as_json(report: Report) -> str:
    """All of it, for machines."""
    sweep, change = report.sweep, report.change
    plain = {
        "sweep": {
            "id": sweep.id,
            "selection": sweep.selection.splitlines(),
            "remediate": sweep.remediate,
            "planned": sweep.planned,
            "started": sweep.started.isoformat(),
            "ended": sweep.ended.isoformat() if sweep.ended else None,
            "summary": sweep.summary or report.summary,
        },
        "checks": [
            {
                "id": each.id,
                "title": each.title,
                "reference": each.reference,
                "severity": each.severity,
                "remedy": each.remedy,
                "observable": each.observable,
                "answers": dict(report.counts[each.id]),
            }
            for each in CHECKS
        ],
        "clusters": [
            {
                "cluster": row.cluster,
                "cluster_id": row.cluster_id,
                "managed": row.managed,
                "at": row.at.isoformat(),
                "answers": {check: {"value": value, "seen": seen} for check, (value, seen) in row.answers.items()},
            }
            for row in report.rows
        ],
        "change": change and change_as_plain(change),
    }
    return json.dumps(plain, ensure_ascii=False, indent=1) + "\n"


def change_as_plain(change: Change) -> dict[str, object]:
    """What changed, for machines."""
    found: dict[str, Sequence[Found]] = {kind: getattr(change, kind) for kind in KINDS}
    return {
        "since": {"id": change.id, "started": change.started.isoformat()},
        **{
            kind: [{"cluster": each.cluster, "check": each.check.id, "seen": each.seen} for each in listed]
            for kind, listed in found.items()
        },
    }


def as_csv(report: Report) -> str:
    """One line for each answer."""
    text = io.StringIO()
    sheet = csv.writer(text, lineterminator="\n")
    sheet.writerow(("cluster", "cluster_id", "managed", "at", "check", "severity", "value", "change", "seen"))
    for row in report.rows:
        for check, (value, seen) in row.answers.items():
            word = report.change.word(row.cluster, check) if report.change else ""
            known = BY_ID.get(check)
            cells = (row.cluster, row.cluster_id, "yes" if row.managed else "no", row.at.isoformat(), check)
            more = (known.severity if known else "", value, word if value == "fail" else "", seen)
            sheet.writerow(tuple(f"'{cell}" if cell.startswith(FORMULA) else cell for cell in (*cells, *more)))
    return text.getvalue()
