"""The ticket of a run: of one that came to its end, and of one that did not, by whoever finds it so."""

from dataclasses import replace

from tasks.evidence import Page, report
from tasks.ledger.outbox import Filing
from tasks.record import NEEDS_A_PERSON
from tasks.recorded import Recorded
from tasks.trail import Trail


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
    itself = f"episode/{known.episode}" if known.episode else f"run/{known.run}"
    subject = f"{known.case.cluster}/{page.alarm_id}/{itself}"
    told = replace(known, stopped=stopped)
    return filing_of(told, page, known.link or link, subject=subject, source=source, episode=known.episode)


def filing_of(
    told: Trail | Recorded, page: Page, link: str, *, subject: str, source: str, episode: str, part_of: str = ""
) -> Filing:
    """What a person is to be told of a run, and of which hosts' alarms.

    Args:
        link: the flow run in the Prefect UI, may be empty.
        subject, source, episode, part_of: as in `Filing`; the first is its correlation.
    """
    cluster = told.case.cluster
    needing = [host for host, end in told.ends.items() if end.outcome in NEEDS_A_PERSON and host in told.alarms]
    return Filing(
        subject,
        f"ALM-{page.alarm_id} {cluster or 'an unnamed cluster'}: {told.outcome}",
        report(told, page, link),
        source=source,
        cluster=cluster,
        alarm_id=page.alarm_id,
        episode=episode,
        hosts=[host for host in needing if told.alarms[host].host],
        part_of=part_of,
    )
