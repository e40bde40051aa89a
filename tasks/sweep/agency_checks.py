"""The agency: is one bound, the same everywhere, the expected one, and of use."""

from collections.abc import Mapping
from datetime import timedelta

from tasks.bindings import bound, flaw_of
from tasks.blocks import Cluster
from tasks.errors import RunbookError
from tasks.models import ClusterRecord
from tasks.sweep.rights import obs_right
from tasks.sweep.seen import Read, Seen
from tasks.sweep.verdicts import Verdict, unread

SOON = timedelta(days=30)
LISTED = 5  # hosts that are named


def in_question(block: Cluster | None, record: Read[ClusterRecord], agencies: Read[Mapping[str, str]]) -> str:
    """The agency to look at in IAM: the one that all bound nodes name, else the expected one, else that of the record.

    Empty: nothing says which.
    """
    names = {name for name in agencies.values() if name} if isinstance(agencies, Mapping) else set()
    if len(names) == 1:
        return names.pop()
    if block is not None and block.agency:
        return block.agency
    return (record.agency or "") if isinstance(record, ClusterRecord) else ""


def on_record(seen: Seen) -> Verdict:
    """What MRS has on record. A field that is absent is no evidence."""
    record = seen.record
    if not isinstance(record, ClusterRecord):
        return unread("the cluster's record", record)
    if record.agency is None:
        found = "the record has no agency field"
        return ("n/a", _unasked(found)) if _none_expected(seen) else ("cannot tell", found)
    found = f"the record names {record.agency or 'none'}"
    if _none_expected(seen):
        return "n/a", _unasked(found)
    return ("pass" if record.agency else "fail"), found


def on_nodes(seen: Seen) -> Verdict:
    """What the nodes' ECS metadata names, by the judgement of the runbook's step 5.

    A partly bound cluster, which a run must leave alone, is a plain no here: nothing is changed on its account.
    """
    record, agencies = seen.record, seen.agencies
    if not isinstance(agencies, Mapping):
        return unread("the nodes' ECS metadata", agencies)
    if not isinstance(record, ClusterRecord):
        return unread("the cluster's record", record)
    verdict, words = bound(record, dict(agencies))
    if _none_expected(seen):
        return "n/a", _unasked(words)
    if verdict in ("y", "n"):
        return ("pass" if verdict == "y" else "fail"), words
    if not agencies or record.nodes != len(agencies):
        return "cannot tell", words
    names = set(agencies.values())
    same = len(names) == 1 and names != {""}
    if same and not record.agency:  # that the record names none is another check's
        return "pass", words
    return "fail", words


def as_expected(seen: Seen) -> Verdict:
    """Whether the bound one is that of the cluster's block."""
    block, agencies, record = seen.block, seen.agencies, seen.record
    if not isinstance(block, Cluster) or not block.agency:
        return "n/a", "no agency is expected: its block names none" if block else "it has no block that names one"
    if not isinstance(agencies, Mapping):
        return unread("the nodes' ECS metadata", agencies)
    others = sorted(host for host, name in agencies.items() if name != block.agency)
    if others:
        few = ", ".join(f"{host}: {agencies[host] or 'none'}" for host in others[:LISTED])
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        return "fail", f"{len(others)} of {len(agencies)} nodes do not name {block.agency}: {few}{more}"
    if not agencies or (isinstance(record, ClusterRecord) and record.nodes != len(agencies)):
        return "cannot tell", f"{len(agencies)} nodes were read, which are not all"
    return "pass", f"all {len(agencies)} nodes name {block.agency}"


def usable(seen: Seen) -> Verdict:
    """Whether IAM has the agency, and it can serve ECS."""
    if not seen.in_question:
        return _nothing_in_question(seen)
    if isinstance(seen.agency, RunbookError) or seen.agency is None:
        return unread(f"agency {seen.in_question!r} in IAM", seen.agency)
    if flaw := flaw_of(next(iter(seen.agency), None), seen.in_question, seen.at):
        return "fail", flaw
    return "pass", f"{seen.in_question} exists in IAM and trusts ECS"


def lasting(seen: Seen) -> Verdict:
    """Whether it will be of use for a while yet."""
    if not seen.in_question:
        return _nothing_in_question(seen)
    if isinstance(seen.agency, RunbookError) or seen.agency is None:
        return unread(f"agency {seen.in_question!r} in IAM", seen.agency)
    expires = seen.agency[0].expires if seen.agency else None
    if not seen.agency or (expires and expires <= seen.at):
        return "n/a", f"{seen.in_question} is there no longer, or has expired"
    if expires is None:
        return "pass", f"{seen.in_question} does not expire"
    return ("pass" if expires > seen.at + SOON else "fail"), f"{seen.in_question} expires at {expires:%Y-%m-%d %H:%M}"


def obs(seen: Seen) -> Verdict:
    """Whether it may read and write OBS, as far as IAM tells."""
    if not seen.in_question:
        return _nothing_in_question(seen)
    if isinstance(seen.agency, tuple) and not seen.agency:
        return "n/a", f"IAM has no agency {seen.in_question!r}"
    if isinstance(seen.permissions, RunbookError) or seen.permissions is None:
        error = seen.permissions or (seen.agency if isinstance(seen.agency, RunbookError) else None)
        return unread(f"what {seen.in_question} may do", error)
    return obs_right(seen.in_question, seen.permissions)


def _none_expected(seen: Seen) -> bool:
    """Whether its block neither names an agency nor tells to bind one: then none may be bound on purpose."""
    block = seen.block
    return isinstance(block, Cluster) and not block.agency and block.on_unbound == "escalate"


def _unasked(found: str) -> str:
    return f"its block names no agency and does not tell to bind one; {found}"


def _nothing_in_question(seen: Seen) -> Verdict:
    for what, read in (("the nodes' ECS metadata", seen.agencies), ("the cluster's record", seen.record)):
        if isinstance(read, RunbookError):
            return "cannot tell", f"which agency is bound cannot be told: {unread(what, read)[1]}"
    return "n/a", "no agency is bound or expected"
