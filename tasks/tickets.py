"""Tickets: what a person is to be told is written down first, then its system is told, now or later.

Whatever cannot be delivered at once the intake delivers. Only where the ledger does not answer the ticket is a file of
this machine alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import timing
from tasks.claims import TRIES
from tasks.deliveries import Now, deliver
from tasks.errors import ConfigurationError, LedgerUnavailable, RemoteError, RunbookError
from tasks.ledger.database import Ledger, shared_ledger
from tasks.ledger.outbox import Filing, file
from tasks.ledger.ticket_life import incident_of
from tasks.ledger.ticket_tables import TicketRow
from tasks.loading import cluster_block
from tasks.ticket_files import Ticket as Ticket
from tasks.ticket_files import id_of
from tasks.ticket_files import store as store
from tasks.ticket_files import ticket as ticket
from tasks.ticket_files import tickets as tickets
from tasks.ticket_systems import system_named

logger = logging.getLogger("runbooks")


@task(task_run_name="7 ticket: {filing.title}", retries=0, cache_policy=NO_CACHE)
async def file_ticket(filing: Filing, also: Sequence[Filing] = ()) -> Ticket:
    """File the ticket, or add to the one there is what is new: there is never a second one for an episode.

    Args:
        also: the incidents that it belongs to.

    Source: ALM-12110, step 7 (contact O&M personnel).
    """
    return await tell(filing, *also)


async def tell(filing: Filing, *also: Filing) -> Ticket:
    """As `file_ticket`, outside a flow.

    Args:
        also: more about the same, or what it belongs to: written down at the same moment, and delivered first.
    """
    filing = await _with_system(filing)
    why: RunbookError
    for pause in (*TRIES, 0.0):
        try:
            async with shared_ledger() as ledger:
                return await _told(ledger, filing, also)
        except ConfigurationError as error:
            why = error
            break
        except LedgerUnavailable as error:
            logger.warning("%s", error)
            why = error
            await timing.pause(pause)
    logger.error("the ticket %s is a file of this machine only: %s", id_of(filing.correlation), why)
    return store(filing.correlation, filing.title, filing.text, filing.source)


async def _told(ledger: Ledger, filing: Filing, also: Sequence[Filing]) -> Ticket:
    async with ledger.writing() as session:
        rows = [await file(session, each, timing.wall()) for each in (filing, *also)]
    for correlation, system in dict.fromkeys((each.correlation, each.system) for each in (*rows[1:], rows[0])):
        await deliver_now(ledger, correlation, system)
    async with ledger.reading() as session:
        row = await session.get(TicketRow, rows[0].correlation) or rows[0]
    return _ticket(row, filing)


def incident(breaker: str, words: str) -> Filing:
    """The one ticket of a breaker that has tripped; filed by whoever comes first."""
    text = (
        f"# Incident: many clusters alarm together\n\n{words}\n\n"
        "All runs go on diagnosing, and none changes anything in any cluster. Their reports are in the Prefect UI. "
        "Look for what the clusters share: ECS metadata or IAM of the region, an agency, an account, the network. "
        "When that is repaired, or is not the cause, let changes go on with `runbooks breaker reset --reason TEXT`, "
        "and start the runbook for clusters that still alarm.\n"
    )
    title = "Incident: many clusters alarm together; nothing is changed"
    return Filing(incident_of(breaker), title, text, once=True)


async def join_incident(breaker: str, words: str, cluster: str, text: str, run: str) -> Ticket:
    """A run that was kept from its change only by the breaker says so in the incident's ticket, and has no other."""
    whole = incident(breaker, words)
    return await tell(whole, replace(whole, text=text, source=run, once=False))


async def deliver_now(ledger: Ledger, correlation: str, system: str, *, now: Now = timing.wall) -> None:
    """Deliver what can be delivered of a ticket now; the intake goes on with the rest."""
    try:
        await deliver(ledger, correlation, await system_named(system), now=now)
    except (RemoteError, ConfigurationError, LedgerUnavailable) as error:
        logger.warning("ticket %s is delivered later: %s", correlation, error)


async def _with_system(filing: Filing) -> Filing:
    """With the ticket system that the cluster's block names; where it cannot be read the ledger knows the last one."""
    if filing.system is not None or not filing.cluster:
        return filing
    try:
        return replace(filing, system=(await cluster_block(filing.cluster)).tickets)
    except (RemoteError, ConfigurationError) as error:
        logger.warning("the ticket system of %s is the one last known: %s", filing.cluster, error)
        return filing


def _ticket(row: TicketRow, filing: Filing) -> Ticket:
    return Ticket(
        id=id_of(row.correlation),
        correlation=row.correlation,
        title=row.title,
        body=filing.text,
        created=row.created,
        updated=row.updated,
        run=filing.source,
        key=row.key,
    )
