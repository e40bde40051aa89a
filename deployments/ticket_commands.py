"""`runbooks tickets`: what persons were told, where, and what their ticket systems have not taken yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text
from sqlalchemy import select

from deployments.ending import run_until_ended
from deployments.terminal import console, show_markdown
from tasks.errors import ConfigurationError, LedgerUnavailable
from tasks.ledger.database import open_ledger
from tasks.ledger.ticket_tables import ChangeRow, TicketRow
from tasks.ticket_files import id_of
from tasks.ticket_files import ticket as file_of
from tasks.ticket_files import tickets as files


@dataclass(frozen=True)
class Listed:
    """One line of the list; `names` is everything that the ticket is called."""

    names: tuple[str, ...]
    state: str
    updated: datetime
    title: str
    waits: str = ""
    text: str | None = None


def tickets(id_: Annotated[str, Parameter(name="ID")] = "", /) -> None:
    """List the tickets, or show what was said in one. Those of the ledger, and what only this machine holds."""
    out = console()
    found = run_until_ended(_in_the_ledger())
    if id_:
        mine = next((each for each in found if id_ in each.names), None)
        show_markdown(out, mine.text if mine and mine.text is not None else file_of(id_).body)
        return
    known = {name for each in found for name in each.names}
    found += [
        Listed((each.id,), each.state, each.updated, each.title, "" if each.change else "this machine only")
        for each in files()
        if each.id not in known
    ]
    if not found:
        out.print("no tickets")
        return
    table = Table("ticket", "state", "updated (UTC)", "title", "not delivered yet")
    for each in sorted(found, key=lambda each: each.updated, reverse=True):
        cells = (each.names[0], each.state, f"{each.updated:%Y-%m-%d %H:%M:%S}", each.title, each.waits)
        table.add_row(*map(Text, cells))
    out.print(table)


async def _in_the_ledger() -> list[Listed]:
    try:
        async with open_ledger() as ledger, ledger.reading() as session:
            rows = (await session.scalars(select(TicketRow))).all()
            changes = (await session.scalars(select(ChangeRow).order_by(ChangeRow.correlation, ChangeRow.n))).all()
    except (LedgerUnavailable, ConfigurationError) as error:
        console(stderr=True).print(Text(f"only what this machine holds is listed: {error}"))
        return []
    return [_listed(row, [each for each in changes if each.correlation == row.correlation]) for row in rows]


def _listed(row: TicketRow, changes: Sequence[ChangeRow]) -> Listed:
    waiting = [each for each in changes if each.done is None]
    why = f": {waiting[0].error}" if waiting and waiting[0].error else ""
    id_ = id_of(row.correlation)
    return Listed(
        (row.key, id_) if row.key not in ("", id_) else (id_,),
        row.state,
        row.updated,
        row.title,
        f"{len(waiting)}{why}" if waiting else "",
        "\n".join(f"*{each.kind}, {each.at:%Y-%m-%d %H:%M:%S} UTC*\n\n{each.text}" for each in changes),
    )
