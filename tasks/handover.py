"""What a person is told of a run that came to no end of its own, by whoever finds it so."""

from dataclasses import replace

from tasks.evidence import Page, report
from tasks.ledger.outbox import Filing
from tasks.record import NEEDS_A_PERSON
from tasks.recorded import Recorded


def broken_off(known: Recorded, page: Page, what: str, *, link: str, source: str) -> Filing:
    """The ticket of such a run, from what the ledger holds of it.

    Args:
        what: what became of the run.
        link: to the flow run, where the ledger knows none; may be empty.
        source: who says it.
    """
    careful = "It may have changed something before: look" if known.acted else "Look"
    stopped = (
        f"{what.rstrip('.')}. {careful} at the run's log, and at Manager's and the console's operation logs, before "
        "you repeat anything. Then see whether the alarm is active, and start the runbook by hand."
    )
    cluster = known.case.cluster
    itself = f"episode/{known.episode}" if known.episode else f"run/{known.run}"
    needing = [host for host, end in known.ends.items() if end.outcome in NEEDS_A_PERSON and host in known.alarms]
    return Filing(
        f"{cluster}/{page.alarm_id}/{itself}",
        f"ALM-{page.alarm_id} {cluster or 'an unnamed cluster'}: {known.outcome}",
        report(replace(known, stopped=stopped), page, known.link or link),
        source=source,
        cluster=cluster,
        alarm_id=page.alarm_id,
        episode=known.episode,
        hosts=[host for host in needing if known.alarms[host].host],
    )
