"""Why a change was refused, in one fixed word or two, for counting. Pure.

Refusals are sentences for people, and this is the one place that tells them apart; one that it does not know is
`other`. A test holds it against every sentence that gates and steps refuse with.
"""

import re

OTHER = "other"
_SAID_BEFORE = re.compile(r"(REFUSED|not restarted|not bound): ")
# The first that fits counts, so those that begin with a name come last.
_REASONS = {
    word: re.compile(pattern, re.DOTALL)
    for word, pattern in {
        "backlog": r".*: nothing is changed by itself then;",
        "ledger": r"without the ledger |this run holds no claim",
        "unreadable": r"a gate cannot be read|IAM does not say |whether a person must agree cannot be read",
        "mode": r"the cluster's mode for a |would ",
        "freeze": r"nothing is changed during a change freeze",
        "window": r"nothing is changed outside the maintenance windows",
        "policy": r"the cluster's block does not tell to rebind",
        "breaker": r"the breaker has tripped",
        "no route": r"this Manager offers no route|.* has never answered \(",
        "not active": r"the alarm is no longer active",
        "changed": r"no longer clearly abnormal|the cluster is no longer clearly unbound",
        "busy": r"the cluster's state is |Manager is running another command|MRS is updating the cluster's agency",
        "unfinished": r"another run began to change ",
        "lost claim": r"this run has lost its claim",
        "unanswered": r"nobody has answered in time",
        "earlier failure": r"the restart on .* did not go as it should",
        "flapping": r"the alarm of .* was raised .* times within",
        "agency": r"IAM has no agency |agency .* (trusts .*, not ECS|expired at )",
        "identity": r"Manager does not know host |.* has IP .* nodes of cluster ",
        "stopped on purpose": r"\S+ instance of .*: .* says ",
        "host down": r"host .* itself is ",
        "brake": r"the stop file |.* has stopped (all changes|changes of )",
        "maintenance": r".* is in Manager's maintenance mode",
        "budget": r".* instances( of .* were restarted|, which is its budget)|.* was changed .* within the last six",
        "person": r".*(a person must agree|the agency may be gone on purpose)",
    }.items()
}


def reason_of(refusal: str) -> str:
    """The word for a refusal, as the record of a run has it."""
    said = _SAID_BEFORE.sub("", refusal, count=1)
    return next((word for word, pattern in _REASONS.items() if pattern.match(said)), OTHER)
