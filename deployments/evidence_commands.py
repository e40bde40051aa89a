"""`runbooks evidence`: the record of an episode, and whether it still is what was written down of it elsewhere."""

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.text import Text
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from deployments.ending import run_until_ended
from deployments.terminal import console, say
from tasks.errors import ConfigurationError
from tasks.ledger.database import open_ledger
from tasks.ledger.keeping import Line, digest_of, records_of, written_out
from tasks.ledger.tables import Episode
from tasks.ledger.ticket_tables import ChangeRow, TicketRow
from tasks.ticket_files import id_of

MOMENT = "%Y-%m-%d %H:%M:%S"
SHORTEST = 8  # letters of a digest that tell enough
NAMED = re.compile(r"SHA-256 of what happened, line by line: ([0-9a-f]{64})")  # as reports and tickets say it
HEAD = re.compile(r"# run (\S+) sha256 ([0-9a-f]{64})\n")  # as `export` writes it

evidence = App(name="evidence", help="The evidence of an episode: what was asked, seen, decided and done.")


@dataclass(frozen=True)
class Claim:
    """Somewhere the SHA-256 of a record was written down: `where`, in words."""

    where: str
    sha256: str


@evidence.command(name="show")
def show(episode: str, /) -> int:
    """Show the record of an episode, run by run, with the SHA-256 of each."""
    out = console()
    for attempt, lines in run_until_ended(_records(episode)).items():
        out.print(Text(f"run {_run(attempt)}, SHA-256 {digest_of(lines)}"))
        for each in lines:
            step = f"step {each.step}, " if each.step else ""
            say(out, f"{each.at:{MOMENT}}", Text(f"{step}{each.host}: {each.text}"))
    return 0


@evidence.command
def export(episode: str, /, *, out: Annotated[Path | None, Parameter(name="--out")] = None) -> int:
    """Write the record of an episode as text, one JSON array a line, each run headed by its SHA-256.

    Parameters
    ----------
    out
        The file to write; left out: standard output. It must not exist.
    """
    parts = [
        f"# run {_run(attempt)} sha256 {digest_of(lines)}\n{written_out(lines)}"
        for attempt, lines in run_until_ended(_records(episode)).items()
    ]
    if out is None:
        sys.stdout.write("".join(parts))
        return 0
    with out.open("x", encoding="utf-8") as file:
        file.write("".join(parts))
    console().print(Text(f"{out}: {len(parts)} run(s)"))
    return 0


@evidence.command
def verify(episode: str, against: Annotated[str, Parameter(name="SHA256|FILE")] = "", /) -> int:
    """Say whether the record in the ledger is still the one that was written down elsewhere.

    A ticket that was filed while its run went on names the record as it was then. Exit code 1: one of them is not, or
    there is nothing to compare.

    Parameters
    ----------
    against
        A SHA-256 as a ticket names it, or a file that `runbooks evidence export` wrote; left out: every SHA-256 in what
        the ledger has the episode's tickets say.
    """
    records, claims = run_until_ended(_read(episode))
    if against:
        file = Path(against)
        claims = _of_file(file) if file.is_file() else [Claim("the SHA-256 that you gave", _digest(against))]
    out = console()
    if not records or not claims:
        what = "the ledger has no record of it" if not records else "none of its tickets names a SHA-256"
        out.print(Text(f"NOT verified: nothing to compare of episode {episode}: {what}"))
        return 1
    found = [_same(records, claim.sha256) for claim in claims]
    for claim, same in zip(claims, found, strict=True):
        verdict = f"verified: {same}" if same else f"NOT verified: no record of episode {episode} has it"
        out.print(Text(f"{verdict}; compared with {claim.where}, {claim.sha256}"))
    return 0 if all(found) else 1


def _same(records: Mapping[str, Sequence[Line]], wanted: str) -> str:
    """Which record has this SHA-256, or had it when it was shorter; empty: none."""
    for attempt, lines in records.items():
        for length in range(len(lines), 0, -1):
            if digest_of(lines[:length]).startswith(wanted):
                whole = "the whole record" if length == len(lines) else f"the first {length} of {len(lines)} lines"
                return f"{whole} of run {_run(attempt)}"
    return ""


def _digest(text: str) -> str:
    wanted = text.strip().lower()
    if len(wanted) < SHORTEST:
        raise ConfigurationError(
            f"{text!r} is no file, and too short: write the digest, at least its first {SHORTEST} letters"
        )
    return wanted


def _of_file(file: Path) -> list[Claim]:
    """The records in an export: by the SHA-256 of what is there, and by the one at its head."""
    claims = []
    _, *parts = HEAD.split(file.read_bytes().decode(errors="replace"))
    for run, head, body in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
        claims.append(Claim(f"the lines of run {run} in {file}", hashlib.sha256(body.encode()).hexdigest()))
        claims.append(Claim(f"the head of run {run} in {file}", head))
    if not claims:
        raise ConfigurationError(f"{file} holds no record: `runbooks evidence export` writes such files")
    return claims


async def _read(episode: str) -> tuple[dict[str, list[Line]], list[Claim]]:
    async with open_ledger() as ledger, ledger.reading() as session:
        found = await episode_of(session, episode)
        records = await records_of(session, found.id)
        return records, await _of_tickets(session, found, map(_run, records))


async def _of_tickets(session: AsyncSession, episode: Episode, runs: Iterable[str]) -> list[Claim]:
    """What the episode's runs, and who found one broken off, say in tickets, in the order in which it was said."""
    said = select(ChangeRow, TicketRow).join(TicketRow, TicketRow.correlation == ChangeRow.correlation)
    mine = said.where(ChangeRow.source.in_([*runs, f"episode/{episode.id}"])).order_by(ChangeRow.at, ChangeRow.n)
    return [
        Claim(f"ticket {ticket.key or id_of(ticket.correlation)}, {change.kind} of {change.at:{MOMENT}} UTC", sha256)
        for change, ticket in await session.execute(mine)
        for sha256 in NAMED.findall(change.text)
    ]


async def episode_of(session: AsyncSession, about: str) -> Episode:
    """The episode with this id, or the last one of the cluster with this name.

    Raises:
        ConfigurationError: there is none.
    """
    found = await last_episode(session, about)
    if found is None:
        raise nothing_known(about)
    return found


def nothing_known(about: str) -> ConfigurationError:
    """There is no such episode, and no such cluster."""
    return ConfigurationError(f"the ledger knows no cluster and no episode {about!r}: `runbooks status` shows them")


async def last_episode(session: AsyncSession, about: str) -> Episode | None:
    """As `episode_of`; None: there is none."""
    mine = select(Episode).where(or_(Episode.id == about, Episode.cluster == about))
    return (await session.scalars(mine.order_by(Episode.opened.desc()).limit(1))).first()


async def _records(episode: str) -> dict[str, list[Line]]:
    async with open_ledger() as ledger, ledger.reading() as session:
        return await records_of(session, (await episode_of(session, episode)).id)


def _run(attempt: str) -> str:
    return attempt.partition("@")[0]
