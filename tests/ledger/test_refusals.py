"""Refusals are counted by a fixed word: every sentence with which something is refused has one."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.brakes import stop_file
from tasks.health import health
from tasks.ledger.braking import stops
from tasks.ledger.refusals import OTHER, reason_of
from tasks.ledger.tables import Breaker
from tasks.models import Instance, ManagedHost
from tasks.windows import why_not_now

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)  # a Wednesday
TASKS = Path(__file__).parents[2] / "tasks"
TOLD = {
    "not restarted: the cluster's mode for a restart is 'approve': nothing is changed without a person": "mode",
    "not restarted: the alarm was 2.5 hours old when it was first seen: nothing is changed by itself then; do it": (
        "backlog"
    ),
    "not bound: anna has stopped all changes since 2026-11-25 12:00 UTC (the breaker has tripped)": "brake",
    "not bound: anna has stopped changes of alpha since 2026-11-25 12:00 UTC (why); `runbooks resume` ends it": "brake",
    "not restarted: this run has restarted 3 instances, which is its budget": "budget",
    "not restarted: the restart on node-1 did not go as it should": "earlier failure",
    "not bound: IAM has no agency 'A'": "agency",
    "not bound: agency 'A' trusts 'somebody', not ECS (op_svc_ecs)": "agency",
    "not bound: agency 'A' expired at 2026-11-25 12:00; nodes bound before that, and left so: none": "agency",
    "not bound: Ada changed it (trace at 12:00), so the agency may be gone on purpose; nobody can be asked": "person",
    "not bound: ECS GET x was asked at 2026-11-25 12:00 UTC and has never answered (404): do it": "no route",
    "nobody has answered in time whether to restart (the time is over)": "unanswered",
    "would restart the Meta instance of node-1": "mode",
    "not restarted: it is normal now (meta instance of node-1: Manager says 'Normal')": OTHER,
    "bound to A, read back": OTHER,
    "": OTHER,
}


@pytest.mark.parametrize("refusal", TOLD)
def test_a_refusal_has_its_word(refusal: str) -> None:
    """As a run's record has it, after what was not done; what is no refusal has none."""
    assert reason_of(refusal) == TOLD[refusal]


def refusals(tree: ast.AST) -> Iterator[str]:
    """Every sentence with which a module refuses, an `x` for each of its variables; not that an alarm is gone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refused" and len(node.args) == 1:
            yield from sentence(node.args[0])
        if isinstance(node, ast.AsyncFunctionDef) and node.name in ("_the_ledger_refuses", "_lost"):
            for each in ast.walk(node):
                yield from sentence(each.value) if isinstance(each, ast.Return) else ()


def sentence(node: ast.AST | None) -> Iterator[str]:
    """The text, where it is written there."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    if any(re.search("[a-z]", str(each.value)) for each in parts if isinstance(each, ast.Constant) and each.value):
        yield "".join(str(each.value) if isinstance(each, ast.Constant) else "x" for each in parts)


def test_every_refusal_of_ours_is_known() -> None:
    """No gate and no step refuses in words that would be counted as other."""
    found = [text for path in TASKS.rglob("*.py") for text in refusals(ast.parse(path.read_text()))]
    assert len(found) > 20
    assert [text for text in found if reason_of(text) == OTHER] == []


def test_what_others_say_is_known_too(runbooks_home: Path) -> None:
    """Windows, freezes, the stop file, the breaker, and how hosts and instances are, in their own words."""
    runbooks_home.mkdir()
    (runbooks_home / "STOP").write_text("the region moves")
    host, day = "node-1", timedelta(days=1)
    down = ManagedHost.model_validate({"hostName": host, "ip": "10.0.0.1", "runningStatus": "Faulty"})
    stopped = Instance.model_validate({"id": "1", "hostName": host, "runningStatus": "Not started"})
    said = {
        "window": why_not_now(["Sat 01:00-02:00"], [], "UTC", NOW),
        "freeze": why_not_now([], ["2026-11-24 to 2026-11-26"], "UTC", NOW),
        "brake": stop_file(),
        "breaker": stops(Breaker(id="b", since=NOW - day, why="5 of 9 clusters alarmed", clusters="a")),
        "host down": f"REFUSED: {health(host, 'meta', None, [down], None)[1]}",
        "stopped on purpose": f"REFUSED: {health(host, 'meta', None, None, [stopped])[1]}",
    }
    assert {text: reason_of(text) for text in said.values()} == {text: word for word, text in said.items()}
