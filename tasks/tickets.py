"""Tickets, in a local store: one file each below `$RUNBOOKS_HOME/tickets`, listed by `runbooks tickets`."""

import hashlib
import os
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import ValidationError

from tasks import timing
from tasks.errors import ConfigurationError
from tasks.home import home
from tasks.models import Frozen


class Ticket(Frozen):
    """A ticket. `correlation` names what it is about: there is never a second ticket for it."""

    id: str
    correlation: str
    title: str
    body: str
    created: datetime
    updated: datetime
    run: str = ""
    earlier: str = ""


@task(task_run_name="7 ticket: {title}", retries=0, cache_policy=NO_CACHE)
async def file_ticket(correlation: str, title: str, body: str, run: str) -> Ticket:
    """File the ticket, or bring the one there is up to date: there is never a second one for a correlation.

    Args:
        run: the flow run's id: what an earlier run wrote stays, below what this one writes.

    Source: ALM-12110, step 7 (contact O&M personnel).
    """
    return store(correlation, title, body, run)


def file_incident(breaker: str, words: str) -> Ticket:
    """The one ticket of a breaker that has tripped; filed by whoever comes first, then left as it is."""
    correlation = f"incident/{breaker}"
    there = [each for each in tickets() if each.correlation == correlation]
    if there:
        return there[0]
    body = (
        f"# Incident: many clusters alarm together\n\n{words}\n\n"
        "All runs go on diagnosing, and none changes anything in any cluster. Their reports are in the Prefect UI. "
        "Look for what the clusters share: ECS metadata or IAM of the region, an agency, an account, the network. "
        "When that is repaired, or is not the cause, let changes go on with `runbooks breaker reset --reason TEXT`, "
        "and start the runbook for clusters that still alarm.\n"
    )
    return store(correlation, "Incident: many clusters alarm together; nothing is changed", body)


def store(correlation: str, title: str, body: str, run: str = "") -> Ticket:
    """As `file_ticket`, outside a flow."""
    id_ = f"T-{hashlib.sha256(correlation.encode()).hexdigest()[:12]}"
    path = _folder() / f"{id_}.json"
    at = timing.now()
    ticket = Ticket(id=id_, correlation=correlation, title=title, body=body, created=at, updated=at, run=run)
    written = _written(ticket)
    try:
        os.link(written, path)  # fails where the ticket exists, also between two processes
    except FileExistsError:
        there = _read(path)
        earlier = there.earlier if there.run == run else there.body
        both = f"{body}\n\n---\n\nEarlier:\n\n{earlier}" if earlier else body
        ticket = ticket.model_copy(update={"created": there.created, "body": both, "earlier": earlier})
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
