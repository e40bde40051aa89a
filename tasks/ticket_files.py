"""Tickets as files of this machine, one each below `$RUNBOOKS_HOME/tickets`, listed by `runbooks tickets`.

They are the ticket system of clusters that name none, and all that is left where the ledger does not answer.
"""

import hashlib
import os
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

from pydantic import ValidationError

from tasks import timing
from tasks.clients.ticketing import Change
from tasks.errors import ConfigurationError
from tasks.home import home
from tasks.models import Frozen

State = Literal["open", "resolved"]


class Ticket(Frozen):
    """A ticket. `correlation` names what it is about: there is never a second ticket for it.

    Attributes:
        run: who wrote the body; what others wrote before is below it.
        key: what its ticket system calls it; empty where that has not taken it yet.
        change: number of the last change that is in it.
    """

    id: str
    correlation: str
    title: str
    body: str
    created: datetime
    updated: datetime
    run: str = ""
    earlier: str = ""
    state: State = "open"
    key: str = ""
    change: int = 0

    @property
    def name(self) -> str:
        """What to call it: as its system does, if that has it."""
        return self.key or self.id


def id_of(correlation: str) -> str:
    """The id of a ticket about this, whatever its system calls it."""
    return f"T-{hashlib.sha256(correlation.encode()).hexdigest()[:12]}"


async def local(change: Change) -> str:
    """Tell the files of the change; returns the ticket's id. See `tasks.clients.ticketing`.

    Raises:
        OSError, ConfigurationError: the file cannot be written, or the one there is cannot be read.
    """
    path = _folder() / f"{id_of(change.correlation)}.json"
    if not path.exists() or _read(path).change < change.n:
        state: State = "resolved" if change.kind == "resolve" else "open"
        store(change.correlation, change.title, change.text, change.source, change=change.n, state=state)
    return path.stem


def store(correlation: str, title: str, body: str, run: str = "", *, change: int = 0, state: State = "open") -> Ticket:
    """File the ticket, or bring the one there is up to date: there is never a second one for a correlation.

    Args:
        run: the flow run's id: what an earlier run wrote stays, below what this one writes.
    """
    id_ = id_of(correlation)
    path = _folder() / f"{id_}.json"
    at = timing.now()
    ticket = Ticket(
        id=id_,
        correlation=correlation,
        title=title,
        body=body,
        created=at,
        updated=at,
        run=run,
        change=change,
        state=state,
    )
    written = _written(ticket)
    try:
        os.link(written, path)  # fails where the ticket exists, also between two processes
    except FileExistsError:
        there = _read(path)
        earlier = there.earlier if there.run == run else there.body
        both = f"{body}\n\n---\n\nEarlier:\n\n{earlier}" if earlier else body
        known = {"created": there.created, "body": both, "earlier": earlier, "change": max(change, there.change)}
        ticket = ticket.model_copy(update=known)
        _written(ticket).replace(path)
    finally:
        written.unlink()
    return ticket


def tickets() -> list[Ticket]:
    """All tickets, the one that was written last first.

    Raises:
        ConfigurationError: one cannot be read; names its file.
    """
    return sorted((_read(path) for path in _folder().glob("T-*.json")), key=lambda t: t.updated, reverse=True)


def ticket(id_: str) -> Ticket:
    """One ticket.

    Raises:
        ConfigurationError: there is none of that id, or it cannot be read.
    """
    there = {path.stem: path for path in _folder().glob("T-*.json")}
    if id_ not in there:
        raise ConfigurationError(f"there is no ticket {id_!r} in {_folder()}: `runbooks tickets` lists them")
    return _read(there[id_])


def _folder() -> Path:
    folder = home() / "tickets"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _written(ticket: Ticket) -> Path:
    """The whole ticket on disk, for its owner only, under a name of its own that no ticket has."""
    with NamedTemporaryFile(dir=_folder(), prefix=".", suffix=".new", delete=False) as file:
        file.write(ticket.model_dump_json(indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    return Path(file.name)


def _read(path: Path) -> Ticket:
    try:
        return Ticket.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        what = error.strerror if isinstance(error, OSError) else "it does not hold a ticket"
        raise ConfigurationError(
            f"the ticket file {path} cannot be read ({what}): repair it or move it away"
        ) from error
