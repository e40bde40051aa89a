"""A ticket lives with its alarms: resolved when all of them are cleared, opened again when one comes back."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.outbox import REOPENED_WITHIN, note
from tasks.ledger.tables import Breaker, Occurrence
from tasks.ledger.ticket_tables import ChangeRow, TicketRow

INCIDENT = "incident/"
CLEARED_BY = {"auto": " by Meta", "person": " by a person, which says nothing of its cause"}


def incident_of(breaker: str) -> str:
    """The correlation of a tripped breaker's ticket."""
    return f"{INCIDENT}{breaker}"


async def follow_alarms(session: AsyncSession, now: datetime, *, dry: bool = False) -> int:
    """Resolve open tickets whose alarms are cleared, and open resolved ones whose alarm came back within a day.

    An incident is resolved when a person has reset its breaker.

    Args:
        dry: only count, as one may who only reads.

    Returns:
        How many tickets changed, or would.
    """
    alive = or_(TicketRow.state == "open", TicketRow.resolved > now - REOPENED_WITHIN)
    changed = 0
    for row in (await session.scalars(select(TicketRow).where(alive))).all():
        if row.correlation.startswith(INCIDENT):
            kind, text, source = await _of_incident(session, row)
        elif row.cluster_id:
            kind, text, source = await _of_alarms(session, row)
        else:
            continue
        if not kind:
            continue
        changed += 1
        if dry:
            continue
        row.state, row.resolved = ("resolved", now) if kind == "resolve" else ("open", None)
        await note(session, row, kind, text, source, now)
    return changed


async def stale_tickets(session: AsyncSession, cluster_ids: Collection[str], since: datetime) -> dict[str, list[str]]:
    """Tickets that should be over and are not: cluster's id -> a sentence each.

    Args:
        since: what was cleared or resolved after that may still be on its way.
    """
    found: dict[str, list[str]] = defaultdict(list)
    still_open = select(TicketRow).where(TicketRow.cluster_id.in_(cluster_ids), TicketRow.state == "open")
    for row in (await session.scalars(still_open)).all():
        kind, _, _ = await _of_alarms(session, row)
        last = select(func.max(Occurrence.cleared_seen)).where(
            Occurrence.cluster_id == row.cluster_id, Occurrence.alarm_id == row.alarm_id
        )
        cleared = await session.scalar(last)
        if kind == "resolve" and cleared is not None and cleared < since:
            found[row.cluster_id].append(f"ticket {row.key or row.correlation} is open, its alarms are cleared")
    untold = (
        select(TicketRow)
        .join(ChangeRow, ChangeRow.correlation == TicketRow.correlation)
        .where(
            TicketRow.cluster_id.in_(cluster_ids),
            ChangeRow.kind == "resolve",
            ChangeRow.done.is_(None),
            ChangeRow.at < since,
        )
        .distinct()
    )
    for row in (await session.scalars(untold)).all():
        words = f"ticket {row.key or row.correlation} is resolved, and its system has not taken that"
        found[row.cluster_id].append(words)
    return found


async def _of_incident(session: AsyncSession, row: TicketRow) -> tuple[str, str, str]:
    breaker = await session.get(Breaker, row.correlation.removeprefix(INCIDENT))
    if row.state != "open" or breaker is None or breaker.reset is None:
        return "", "", ""
    text = f"{breaker.reset_by} let changes go on at {breaker.reset:%Y-%m-%d %H:%M:%S} UTC: {breaker.reset_reason}"
    return "resolve", text, f"reset at {breaker.reset:%Y%m%dT%H%M%S}"


async def _of_alarms(session: AsyncSession, row: TicketRow) -> tuple[str, str, str]:
    """What to do with the ticket (resolve, reopen or nothing), in words, and the mark of what was seen."""
    hosts = row.hosts.splitlines()
    mine = select(Occurrence).where(
        Occurrence.cluster_id == row.cluster_id,
        Occurrence.alarm_id == row.alarm_id,
        or_(Occurrence.cleared_seen.is_(None), Occurrence.cleared_seen > row.since),
    )
    if hosts:
        mine = mine.where(Occurrence.host.in_(hosts))
    seen = (await session.scalars(mine.order_by(Occurrence.first_seen))).all()
    active = [each for each in seen if each.cleared_seen is None]
    if row.state == "resolved":
        back = [each for each in active if row.resolved and each.first_seen > row.resolved]
        return ("reopen", _came_back(row, back), _mark("back", back)) if back else ("", "", "")
    if active or not seen or not {each.host for each in seen} >= set(hosts):
        return "", "", ""
    return "resolve", _cleared(row, seen), _mark("clear", seen)


def _mark(what: str, seen: Sequence[Occurrence]) -> str:
    return f"{what} {' '.join(sorted(each.id for each in seen))}"


def _cleared(row: TicketRow, seen: Sequence[Occurrence]) -> str:
    last = {each.host: each for each in seen}  # the last one of each host
    lines = [f"ALM-{row.alarm_id} of {row.cluster} is active no longer.", ""]
    for host, each in sorted(last.items()):
        when = each.cleared or each.cleared_seen
        lines.append(
            f"- {host or '(no host)'}: cleared{CLEARED_BY.get(each.cleared_by, '')}, at {when:%Y-%m-%d %H:%M:%S} UTC"
        )
    return "\n".join(lines) + "\n"


def _came_back(row: TicketRow, back: Sequence[Occurrence]) -> str:
    lines = [f"ALM-{row.alarm_id} of {row.cluster} is active again.", ""]
    for each in back:
        when = each.occurred or each.first_seen
        lines.append(f"- {each.host or '(no host)'}: since {when:%Y-%m-%d %H:%M:%S} UTC")
    lines += ["", "Where this alarm may still be repaired by itself a run is at it, and says here what came of it."]
    return "\n".join(lines) + "\n"
