"""What will be done by itself on a cluster, approved, or handed off: what its block allows and its routes can."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from deployments.doctor.findings import Finding
from tasks.answering import NEEDED
from tasks.blocks import Cluster
from tasks.gates import Action
from tasks.ledger.hearing import Heard

Will = Literal["automatic", "approved by a person", "handed off", "not done"]
DIAGNOSIS = ("alarms", "nodes")  # one of them is enough to find out something


@dataclass(frozen=True)
class Verdict:
    """What becomes of an action on this cluster, and why."""

    will: Will
    because: str


@dataclass(frozen=True)
class Memory:
    """What the ledger knows beside what was asked now.

    Attributes:
        ever: routes that have answered, now or before, by their present call.
        refused: what Manager answered a restart that it does not offer; empty: it has not.
        stopped: why nothing is changed at all now: brake, breaker, stop file, no ledger; empty: nothing stops it.
        heard: None: not known.
    """

    ever: frozenset[str] = frozenset()
    refused: str = ""
    stopped: str = ""
    heard: Heard | None = None


def can_run(findings: Iterable[Finding]) -> bool:
    """Whether the runbook can find out anything on this cluster."""
    return any(finding.answered and finding.name in DIAGNOSIS for finding in findings)


def verdicts(cluster: Cluster, findings: Iterable[Finding], memory: Memory) -> dict[str, Verdict]:
    """Action -> what becomes of it, as its gates will decide."""
    found = {finding.name: finding for finding in findings}
    return {
        "restart": _action("restart", cluster, found, memory),
        "bind": _bind(cluster, found, memory),
        "alarm clear": _clears(found, memory.heard),
    }


def _action(action: Action, cluster: Cluster, found: Mapping[str, Finding], memory: Memory) -> Verdict:
    if memory.stopped:
        return Verdict("not done", memory.stopped)
    mode = cluster.mode_of(action)
    if mode == "observe":
        return Verdict("not done", "the mode is observe: a ticket says what to do by hand")
    asked = {name: found[name] for name in NEEDED[action] if name in found and found[name].answered is not None}
    never = [each.call for name, each in asked.items() if name not in memory.ever]
    if never:
        return Verdict("handed off", f"never answered: {', '.join(never)}")
    if action == "restart" and not cluster.manager.routes.get("restart", "offered"):
        return Verdict("handed off", "the MRS Manager block says that restart is not offered")
    if action == "restart" and memory.refused:
        return Verdict("handed off", f"Manager does not offer the restart: {memory.refused}")
    if silent := [each.call for each in asked.values() if not each.answered]:
        return Verdict("not done", f"not answered now: {', '.join(silent)}")
    if unasked := [f"{each.call} ({each.said})" for each in _not_asked(action, found)]:
        return Verdict("not done", f"cannot be told, not asked: {', '.join(unasked)}")
    login = found.get("login for restarts" if action == "restart" else "key for binding")
    if login is not None and login.fine is False:
        return Verdict("not done", f"the {login.name} does not work: {login.said}")
    when = ", within its windows only" if cluster.windows else ", but for its freezes" if cluster.freezes else ""
    if mode == "approve":
        return Verdict("approved by a person", f"the mode for it is approve{when}")
    return Verdict("automatic", f"the mode for it is auto, and all it needs answers{when}")


def _not_asked(action: Action, found: Mapping[str, Finding]) -> list[Finding]:
    """What it reads beforehand and nobody could ask now; what it sends is never asked."""
    return [found[name] for name in NEEDED[action] if name != action and found[name].answered is None]


def _bind(cluster: Cluster, found: Mapping[str, Finding], memory: Memory) -> Verdict:
    if cluster.on_unbound != "rebind" or not cluster.agency:
        why = "on_unbound is escalate" if cluster.on_unbound != "rebind" else "the block names no agency"
        return Verdict("not done", f"{why}: a ticket says what to do by hand")
    verdict = _action("rebind", cluster, found, memory)
    if verdict.will not in ("automatic", "approved by a person"):
        return verdict
    for name in ("record", "agency"):
        if found[name].fine is False:
            return Verdict("not done", found[name].said)
    if verdict.will == "automatic" and not found["changes"].fine:
        return Verdict("approved by a person", f"who removed the agency cannot be seen: {found['changes'].said}")
    return verdict


def _clears(found: Mapping[str, Finding], heard: Heard | None) -> Verdict:
    if found["alarms"].answered:
        return Verdict("automatic", "it is read from Manager's alarm list")
    if heard and heard.told:
        return Verdict("automatic", f"not read, but told: {', '.join(sorted(heard.told))} told of its alarms before")
    return Verdict("handed off", "Manager's alarm list does not answer, and no source has told of its alarms yet")
