"""What `runbooks doctor` says of a cluster, and of a fleet."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployments.doctor.examination import Examined
from deployments.doctor.verdicts import DIAGNOSIS, Verdict
from deployments.terminal import say
from tasks.models import few

SHOWN = {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}
WARNS = "[yellow]warning[/]"
COLOURS = {"automatic": "green", "approved by a person": "green", "handed off": "yellow", "not done": "yellow"}
ACTIONS = {
    "restart": "restart a Meta instance that is not normal",
    "bind": "bind a cluster that is not bound",
    "alarm clear": "see that the alarm is cleared",
}


def show_one(out: Console, examined: Examined) -> None:
    """Every route, what to settle, and what will be done."""
    name, block = examined.cluster, examined.block
    table = Table(title=Text(f"{name}: what answers, and what it means for ALM-12110"))
    for heading in ("asked", "rating", "fine", "it said", "so"):
        table.add_column(heading, overflow="fold")
    for each in examined.findings:
        fine = WARNS if each.warns and each.fine is False else SHOWN[each.fine]
        table.add_row(Text(each.call), each.rating, fine, Text(each.said), Text(each.means))
    out.print(table)
    settling: dict[str, dict[str, None]] = {}
    for each in examined.to_settle():
        settling.setdefault(each.settle, {})[each.cause] = None
    out.print("\nTo settle:" if settling else "\nNothing is to be settled.")
    for number, (settle, causes) in enumerate(settling.items(), 1):
        say(out, f"{number:3}", Text(f"{_together(list(causes))}. {_sentence(settle)}"))
    if block:
        out.print(
            f"\nmode {block.mode}, on_unbound {block.on_unbound}, agency {block.agency or '(none)'}", markup=False
        )
    table = Table("action", "it will be", "because", title=Text(f"{name}: what a run does that is no dry run"))
    for action, verdict in examined.actions.items():
        table.add_row(ACTIONS[action], _coloured(verdict), Text(verdict.because))
    out.print(table)
    sees = [each.name for each in examined.findings if each.answered and each.name in DIAGNOSIS]
    blind = "The runbook cannot run: neither alarms nor nodes can be read."
    out.print(f"The runbook can run: it sees {' and '.join(sees)}." if sees else blind)
    if examined.not_kept:
        out.print(Text(f"This could not be kept for the runs' gates: {examined.not_kept}"))


def show_fleet(out: Console, fleet: Sequence[Examined]) -> None:
    """A line for each cluster, and what is to be settled, by its cause."""
    headings = ("cluster", "can run", "restart", "bind", "alarm clear", "routes answer", "first to settle")
    table = Table(*headings, title=Text(f"{len(fleet)} clusters: what answers, and what a run does"))
    for each in fleet:
        routes = [finding for finding in each.findings if finding.answered is not None]
        answered = f"{sum(bool(finding.answered) for finding in routes)} of {len(routes)}"
        settling = each.to_settle()
        first = each.trouble or (settling[0].cause if settling else "")
        actions = [_coloured(each.actions[name]) if name in each.actions else "" for name in ACTIONS]
        table.add_row(Text(each.cluster), SHOWN[each.can_run], *actions, answered if routes else "", Text(first))
    out.print(table)
    causes = _causes(fleet)
    out.print("\nTo settle, by cause:" if causes else "\nNothing is to be settled.")
    for cause, names, settle in causes:
        whom = f"all {len(fleet)} clusters" if len(names) == len(fleet) > 1 else _counted(names)
        say(out, "  ", Text(f"{cause}: {whom}\n{settle}"))
    can = sum(each.can_run for each in fleet)
    out.print(f"\nThe runbook can run on {can} of {len(fleet)} clusters; `runbooks doctor CLUSTER` shows one in full.")
    if not_kept := [each for each in fleet if each.not_kept]:
        whom = few([each.cluster for each in not_kept])
        out.print(Text(f"Not kept for the runs' gates ({whom}): {not_kept[0].not_kept}"))


def _causes(fleet: Sequence[Examined]) -> list[tuple[str, list[str], str]]:
    """What is wrong, where, and what to do: what keeps runs from their work first, then what is wrong most often."""
    settles: dict[str, dict[str, str]] = {}  # cause -> cluster -> what to do
    lesser: dict[str, bool] = {}
    for each in fleet:
        for finding in each.to_settle():
            settles.setdefault(finding.cause, {}).setdefault(each.cluster, finding.settle)
            lesser.setdefault(finding.cause, finding.warns or finding.fine is None)
        if each.trouble:
            settles.setdefault("block cannot be used", {})[each.cluster] = each.trouble
    together: dict[tuple[tuple[str, ...], str], list[str]] = {}  # what is the same where and in what to do
    for cause in sorted(settles, key=lambda cause: (lesser.get(cause, False), -len(settles[cause]))):
        first, settle = next(iter(settles[cause].items()))
        same = len(set(settles[cause].values())) == 1
        said = _sentence(settle) if same else f"For example {first}: {settle}."
        together.setdefault((tuple(settles[cause]), said), []).append(cause)
    return [(_together(causes), list(names), said) for (names, said), causes in together.items()]


def _together(causes: Sequence[str]) -> str:
    """Causes that are settled alike in few words: what they begin with is said once."""
    found: dict[str, list[str]] = {}
    for cause in causes:
        kind, _, what = cause.partition(": ")
        found.setdefault(kind, []).extend([what] if what else [])
    return "; ".join(f"{kind} ({', '.join(what)})" if what else kind for kind, what in found.items())


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} cluster{'s' if len(names) > 1 else ''}: {few(names)}"


def _coloured(verdict: Verdict) -> str:
    return f"[{COLOURS[verdict.will]}]{verdict.will}[/]"
