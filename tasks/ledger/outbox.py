"""What ticket systems are to be told: written down first, then delivered in order, by one deliverer at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.tables import Cluster, Episode
from tasks.ledger.ticket_tables import ChangeRow, TicketRow
from tasks.ticket_files import id_of

REOPENED_WITHIN = timedelta(hours=24)  # an alarm that comes back later gets a ticket of its own
HELD_BACK = timedelta(hours=1)  # so long a new ticket waits for the one it names, which cannot be linked later


@dataclass(frozen=True)
class Filing:
    """What a person is to be told.

    Attributes:
        correlation: what it is about. The ticket may be an earlier one, of the same episode or the same alarms.
        source: the flow run's id; empty where nobody in particular says it.
        cluster: name of the cluster's block; `hosts` those whose alarms it is about.
        system: name of its ticket system's block; None: the one that the ledger knows of the cluster.
        part_of: correlation of the incident it belongs to.
        once: a ticket that is there is left as it is.
    """

    correlation: str
    title: str
    text: str
    source: str = ""
    cluster: str = ""
    alarm_id: str = ""
    episode: str = ""
    hosts: Sequence[str] = field(default=())
    system: str | None = None
    part_of: str = ""
    once: bool = False


async def file(session: AsyncSession, filing: Filing, now: datetime) -> TicketRow:
    """Write down what a person is to be told: a new ticket, or a comment on the one there is, which is open then."""
    episode = await _episode(session, filing)
    cluster_id = episode.cluster_id if episode else ""
    row = await _the_ticket(session, filing, episode, now)
    if row is None:
        older = await _older(session, filing, cluster_id)
        row = TicketRow(
            correlation=filing.correlation,
            system=await _system(session, filing),
            title=filing.title,
            cluster=filing.cluster,
            cluster_id=cluster_id,
            alarm_id=filing.alarm_id,
            episode=episode.id if episode else "",
            hosts="\n".join(sorted(filing.hosts)),
            created=now,
            updated=now,
            since=(episode.claimed if episode else None) or now,
            part_of=filing.part_of,
            follows=older.correlation if older else "",
        )
        session.add(row)
        await session.flush()
        await note(session, row, "file", filing.text, filing.source, now)
        return row
    if filing.once:
        return row
    if filing.hosts:
        row.hosts = "\n".join(sorted({*row.hosts.splitlines(), *filing.hosts}))
    row.since = max(row.since, (episode.claimed if episode else None) or row.since)
    told = (await session.scalars(select(ChangeRow.source).where(ChangeRow.correlation == row.correlation))).all()
    new = row.state == "resolved" or filing.source not in told
    if await note(session, row, "reopen" if new else "comment", filing.text, filing.source, now):
        row.state, row.resolved = "open", None
    return row


async def note(session: AsyncSession, row: TicketRow, kind: str, text: str, source: str, now: datetime) -> bool:
    """One more thing that the ticket's system is to be told; False: this source has said just that before.

    What the same source said last and was never sent is said in the new words.
    """
    mine = select(ChangeRow).where(ChangeRow.correlation == row.correlation).order_by(ChangeRow.n)
    changes = (await session.scalars(mine)).all()
    if any((each.source, each.text) == (source, text) for each in changes):
        return False
    row.updated = now
    last = changes[-1] if changes else None
    if last and last.source == source and not last.tries and kind == "comment":
        last.text, last.at = text, now
        return True
    n = last.n + 1 if last else 1
    session.add(
        ChangeRow(correlation=row.correlation, n=n, kind=kind, text=text, source=source, at=now, not_before=now)
    )
    await session.flush()
    return True


async def _episode(session: AsyncSession, filing: Filing) -> Episode | None:
    if filing.episode:
        return await session.get(Episode, filing.episode)
    if not filing.source:
        return None
    mine = or_(Episode.holder == filing.source, Episode.run == filing.source)
    return (await session.scalars(select(Episode).where(mine).order_by(Episode.opened.desc()))).first()


async def _the_ticket(
    session: AsyncSession, filing: Filing, episode: Episode | None, now: datetime
) -> TicketRow | None:
    """The ticket that this belongs to: of its correlation, its episode, or these alarms, if it is not long resolved."""
    if (same := await session.get(TicketRow, filing.correlation)) is not None:
        return same
    if episode is None:
        return None
    mine = select(TicketRow).where(TicketRow.episode == episode.id).order_by(TicketRow.created)
    if (same := (await session.scalars(mine)).first()) is not None:
        return same
    alive = or_(TicketRow.state == "open", TicketRow.resolved > now - REOPENED_WITHIN)
    return await _about(session, filing, episode.cluster_id, alive)


async def _older(session: AsyncSession, filing: Filing, cluster_id: str) -> TicketRow | None:
    return await _about(session, filing, cluster_id, TicketRow.state == "resolved") if cluster_id else None


async def _about(
    session: AsyncSession, filing: Filing, cluster_id: str, which: ColumnElement[bool]
) -> TicketRow | None:
    """The last ticket about these hosts' alarms."""
    same = select(TicketRow).where(TicketRow.cluster_id == cluster_id, TicketRow.alarm_id == filing.alarm_id, which)
    for row in await session.scalars(same.order_by(TicketRow.created.desc())):
        hosts = set(row.hosts.splitlines())
        if not hosts or not filing.hosts or hosts & set(filing.hosts):
            return row
    return None


async def _system(session: AsyncSession, filing: Filing) -> str:
    """The ticket system: the one named, the cluster's, or of an incident the one that most clusters use."""
    if filing.system is not None:
        return filing.system
    if filing.cluster:
        row = await session.get(Cluster, filing.cluster)
        return row.tickets if row else ""
    times = func.count().label("times")
    used = select(Cluster.tickets, times).where(Cluster.gone.is_(None)).group_by(Cluster.tickets)
    return await session.scalar(used.order_by(times.desc(), Cluster.tickets.desc())) or ""


@dataclass(frozen=True)
class Taken:
    """A change that is being delivered: nobody else delivers one of this ticket meanwhile.

    Attributes:
        key: what the system calls the ticket; empty: it has not taken it yet.
        text: names the incident that it belongs to, and the older ticket, where it makes the ticket.
        part_of: what its system calls that incident, `follows` that older ticket; may be empty.
        tries: how often it was sent, this time included.
    """

    correlation: str
    n: int
    kind: str
    title: str
    text: str
    source: str
    key: str
    part_of: str
    follows: str
    tries: int
    fence: int


async def due(session: AsyncSession, now: datetime) -> list[tuple[str, str]]:
    """Correlation and system of each ticket of which something can be delivered now, the longest waiting first."""
    first = (
        select(ChangeRow.correlation, func.min(ChangeRow.n).label("n"))
        .where(ChangeRow.done.is_(None))
        .group_by(ChangeRow.correlation)
        .subquery()
    )
    waiting = (
        select(TicketRow.correlation, TicketRow.system)
        .join(first, first.c.correlation == TicketRow.correlation)
        .join(ChangeRow, (ChangeRow.correlation == first.c.correlation) & (ChangeRow.n == first.c.n))
        .where(ChangeRow.not_before <= now, or_(TicketRow.busy.is_(None), TicketRow.busy <= now))
        .order_by(ChangeRow.at)
    )
    return [(correlation, system) for correlation, system in await session.execute(waiting)]


async def take(
    session: AsyncSession, correlation: str, now: datetime, *, lease: timedelta, pause: Callable[[str], timedelta]
) -> Taken | None:
    """Take the ticket's next change to deliver it; None: there is none now, or somebody else is at it.

    A new ticket waits for the incident and the older ticket that it names, for an hour at most.

    Args:
        lease: for how long nobody else takes it; longer than delivering it can last.
        pause: for how long a change of this kind is not sent again unless it is known what came of it, whoever dies
            meanwhile.
    """
    row = await session.get(TicketRow, correlation)
    mine = select(ChangeRow).where(ChangeRow.correlation == correlation, ChangeRow.done.is_(None))
    change = (await session.scalars(mine.order_by(ChangeRow.n).limit(1))).first()
    if row is None or change is None or change.not_before > now or (row.busy and row.busy > now):
        return None
    part_of, follows = await _named(session, row.part_of), await _named(session, row.follows)
    makes, mine_too = change.kind == "file", [each for each in (part_of, follows) if each and each.system == row.system]
    if makes and change.at > now - HELD_BACK and not all(each.key for each in mine_too):
        return None
    row.busy, row.fence = now + lease, row.fence + 1
    change.tries, change.not_before = change.tries + 1, now + max(lease, pause(change.kind))
    names = [f"Part of incident {_called(part_of)}."] if part_of else []
    names += [f"Follows ticket {_called(follows)}, which is about the same."] if follows else []
    return Taken(
        correlation,
        change.n,
        change.kind,
        row.title,
        "\n\n".join([*names, change.text]) if makes else change.text,
        change.source,
        row.key,
        part_of.key if part_of in mine_too else "",
        follows.key if follows in mine_too else "",
        change.tries,
        row.fence,
    )


async def _named(session: AsyncSession, correlation: str) -> TicketRow | None:
    return await session.get(TicketRow, correlation) if correlation else None


def _called(row: TicketRow) -> str:
    return row.key or id_of(row.correlation)


async def delivered(session: AsyncSession, taken: Taken, key: str, now: datetime) -> None:
    """The system has taken the change, and calls the ticket so. Of no account where somebody else has it by now."""
    if found := await _still(session, taken):
        row, change = found
        row.key, row.busy, change.done, change.error = key, None, now, ""


async def failed(session: AsyncSession, taken: Taken, why: str, not_before: datetime) -> None:
    """It was not taken, as far as is known; it is not sent again before that moment."""
    if found := await _still(session, taken):
        row, change = found
        row.busy, change.error, change.not_before = None, why, not_before


async def _still(session: AsyncSession, taken: Taken) -> tuple[TicketRow, ChangeRow] | None:
    row = await session.get(TicketRow, taken.correlation)
    change = await session.get(ChangeRow, (taken.correlation, taken.n))
    return (row, change) if row and change and row.fence == taken.fence and change.done is None else None


@dataclass(frozen=True)
class Backlog:
    """Open tickets, and changes that no system has taken yet; the oldest of these was noted at `oldest`."""

    open: int
    undelivered: int
    oldest: datetime | None


async def backlog(session: AsyncSession) -> Backlog:
    """How much is open, and how much waits to be delivered."""
    still_open = await session.scalar(select(func.count()).select_from(TicketRow).where(TicketRow.state == "open"))
    waiting = select(func.count(), func.min(ChangeRow.at)).where(ChangeRow.done.is_(None))
    count, oldest = (await session.execute(waiting)).one()
    return Backlog(int(still_open or 0), int(count), oldest)
