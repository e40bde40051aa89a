"""What our own records say of a cluster: is something stuck or overdue, is its source silent."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from tasks.blocks import Cluster
from tasks.ledger.knowledge import Told
from tasks.sweep.seen import Seen
from tasks.sweep.verdicts import Verdict, gives_no_answer, no_faults, unread

SILENT = timedelta(hours=24)  # longer than any report or heartbeat that Manager can be set to
NEW = timedelta(hours=1)


def none_told(of: Callable[[Told], Sequence[str]], fine: str) -> Callable[[Seen], Verdict]:
    """The check that the ledger tells of nothing of the kind; `fine` is what is said then."""

    def check(seen: Seen) -> Verdict:
        return no_faults([*of(seen.told)], fine) if isinstance(seen.told, Told) else _untold(seen)

    return check


def source_speaks(seen: Seen) -> Verdict:
    """Whether anything was heard of it lately: an alarm, a clear, or its list of alarms that was read.

    What a sweep found tells nothing of a source; nor does the silence of a Manager that cannot be reached.
    """
    told = seen.told
    if not isinstance(told, Told):
        return _untold(seen)
    if not isinstance(seen.block, Cluster):
        return "n/a", "it has no block, so nobody listens for its alarms"
    trouble = f"; reading its alarms: {told.trouble}" if told.trouble else ""
    if told.heard and seen.now - told.heard < SILENT:
        return "pass", f"heard at {told.heard:%Y-%m-%d %H:%M} UTC{trouble}"
    if told.connected and seen.now - told.connected < NEW:
        return "n/a", f"it was connected at {told.connected:%Y-%m-%d %H:%M} UTC"
    what = (
        f"nothing was heard of it since {told.heard:%Y-%m-%d %H:%M} UTC"
        if told.heard
        else "nothing was heard of it within the last month"
    )
    if gives_no_answer(seen.alarms):
        return "cannot tell", f"{what}{trouble}; its Manager cannot be reached now, see `manager`"
    return "fail", f"{what}{trouble}{'' if told.intake else '; no intake is at work'}"


def _untold(seen: Seen) -> Verdict:
    if seen.told is None or isinstance(seen.told, Told):
        return "n/a", "it has no block, so no run is ever about it"
    return unread("the ledger", seen.told)
