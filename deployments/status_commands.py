"""`runbooks status`, `why` and `evidence`: what is going on, why something was done or not, and the proof of it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from deployments.ending import run_until_ended
from deployments.terminal import console, say
from tasks import timing
from tasks.brakes import stop_file
from tasks.errors import ConfigurationError
from tasks.ledger.approval_tables import Approval
from tasks.ledger.braking import brakes, open_breaker
from tasks.ledger.database import open_ledger
from tasks.ledger.keeping import Line, digest_of, records_of, written_out
from tasks.ledger.modes import mode_changes
from tasks.ledger.openings import STATES, Open, open_episodes
from tasks.ledger.tables import Brake, Breaker, Episode, Intent, Occurrence

MOMENT = "%Y-%m-%d %H:%M:%S"
MODES = 5  # changes of a cluster's modes that are shown
SHORTEST = 8  # letters of a digest or an id that tell enough

evidence = App(name="evidence", help="The evidence of an episode: what was asked, seen, decided and done.")


@dataclass(frozen=True)
class Now:
    """What is going on."""

    open: Sequence[Open]
    brakes: Sequence[Brake]
    breaker: Breaker | None

    @property
    def asked(self) -> int:
        """Of how many of them a person is asked."""
        return sum(each.question is not None for each in self.open)


def status(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """Show the open episodes with their waits, what persons are asked, and what stops changes.

    Parameters
    ----------
    as_json
        One JSON object on standard output.
    """
    now = run_until_ended(_now())
    if as_json:
        sys.stdout.write(json.dumps(_plain(now)) + "\n")
        return 0
    out = console()
    if now.open:
        table = Table("cluster", "alarm", "episode", "since (UTC)", "state", "until (UTC)", "run")
        for each in now.open:
            it = each.episode
            since, until = f"{it.opened:{MOMENT}}", _moment(each.until)
            table.add_row(*map(Text, (it.cluster, it.alarm_id, it.id, since, each.state, until, it.link)))
        out.print(table)
    else:
        out.print("no open episode")
    if asked := now.asked:
        out.print(Text(f"{asked} question(s) wait for a person: `runbooks approvals`"))
    _stopped(out, now)
    return 0


def why(about: Annotated[str, Parameter(name="CLUSTER|EPISODE")], /) -> int:
    """Say on one screen why the last run of a cluster did what it did, or did nothing.

    Parameters
    ----------
    about
        The name of a cluster's block, or the id of an episode: `runbooks status` shows both.
    """
    return run_until_ended(_why(about))


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
def verify(episode: str, sha256: str, /) -> int:
    """Say whether the record in the ledger is the one with this SHA-256, as a ticket or an export names it.

    A ticket that was filed while its run went on names the record as it was then. Exit code 1: it is none of them.
    """
    wanted = sha256.strip().lower()
    if len(wanted) < SHORTEST:
        raise ConfigurationError(f"{sha256!r} is too short: write the digest, at least its first {SHORTEST} letters")
    out = console()
    for attempt, lines in run_until_ended(_records(episode)).items():
        for length in range(len(lines), 0, -1):
            if digest_of(lines[:length]).startswith(wanted):
                whole = "the whole record" if length == len(lines) else f"the first {length} of {len(lines)} lines"
                out.print(Text(f"verified: {whole} of run {_run(attempt)}"))
                return 0
    out.print(Text(f"NOT verified: no record of episode {episode} has the SHA-256 {sha256}"))
    return 1


async def _now() -> Now:
    async with open_ledger() as ledger, ledger.reading() as session:
        return Now(await open_episodes(session), await brakes(session), await open_breaker(session))


async def _episode(session: AsyncSession, about: str) -> Episode:
    mine = select(Episode).where(or_(Episode.id == about, Episode.cluster == about))
    found = (await session.scalars(mine.order_by(Episode.opened.desc()).limit(1))).first()
    if found is None:
        raise ConfigurationError(f"the ledger knows no cluster and no episode {about!r}: `runbooks status` shows them")
    return found


async def _records(episode: str) -> dict[str, list[Line]]:
    async with open_ledger() as ledger, ledger.reading() as session:
        found = await _episode(session, episode)
        return await records_of(session, found.id)


async def _why(about: str) -> int:
    out = console()
    async with open_ledger() as ledger, ledger.reading() as session:
        episode = await _episode(session, about)
        hosts = select(Occurrence).where(Occurrence.episode_id == episode.id).order_by(Occurrence.first_seen)
        occurrences = (await session.scalars(hosts)).all()
        changes = select(Intent).where(Intent.episode_id == episode.id).order_by(Intent.at)
        intents = (await session.scalars(changes)).all()
        asked = select(Approval).where(Approval.episode_id == episode.id).order_by(Approval.asked)
        questions = (await session.scalars(asked)).all()
        records = await records_of(session, episode.id)
        modes = await mode_changes(session, episode.cluster, MODES)
        now = Now([], await brakes(session), await open_breaker(session))
    say(out, "cluster", Text(f"{episode.cluster}, ALM-{episode.alarm_id}, episode {episode.id}"))
    opened = f"{STATES[episode.state]}; opened {episode.opened:{MOMENT}} UTC by {episode.opened_by}"
    say(out, "state  ", Text(opened + (f", backlog: {episode.backlog}" if episode.backlog else "")))
    if episode.outcome:
        say(out, "outcome", Text(f"{episode.outcome}{f', ticket {episode.ticket}' if episode.ticket else ''}"))
    if episode.link:
        say(out, "run    ", Text(episode.link))
    for each in occurrences:
        cleared = f"; cleared {each.cleared_seen:{MOMENT}} UTC" if each.cleared_seen else ""
        say(
            out, "alarm  ", Text(f"{each.host} serial {each.serial or '?'}: {each.trace or each.ended or '-'}{cleared}")
        )
    for intent in intents:
        ended = intent.did if intent.ended else "not seen to its end"
        say(out, "changed", Text(f"{intent.at:{MOMENT}} UTC step {intent.step}, {intent.target}: {ended}"))
    if not intents:
        say(out, "changed", Text("nothing was changed"))
    for question in questions:
        said = f"{question.decision} by {question.by} ({question.channel})" if question.decision else "not answered yet"
        say(out, "asked  ", Text(f"{question.asked:{MOMENT}} UTC {question.action}, {question.kind}: {said}"))
    last = list(records.values())[-1] if records else []
    reasons = [line for line in last if line.kind == "ended"] or last[-3:]
    for line in reasons:
        say(out, "because", Text(f"{line.host}: {line.text}"))
    if not records:
        say(out, "because", Text("no run of it has come to a wait or an end yet"))
    for change in modes:
        of = "" if change.what == "cluster" else f" of a {change.what}"
        words = f"{change.at:{MOMENT}} UTC the mode{of} became {change.new!r}, it was {change.old!r}"
        say(out, "mode   ", Text(words))
    _stopped(out, now)
    return 0


def _stopped(out: Console, now: Now) -> None:
    for each in now.brakes:
        where = f"changes of {each.cluster}" if each.cluster else "all changes"
        out.print(Text(f"stopped: {where}, by {each.by} since {each.since:{MOMENT}} UTC ({each.reason})"))
    if now.breaker:
        out.print(
            Text(f"stopped: all changes, by the breaker since {now.breaker.since:{MOMENT}} UTC ({now.breaker.why})")
        )
    if here := stop_file():
        out.print(Text(here))


def _plain(now: Now) -> dict[str, object]:
    return {
        "at": timing.wall().isoformat(),
        "episodes": [
            {
                "id": each.episode.id,
                "cluster": each.episode.cluster,
                "alarm_id": each.episode.alarm_id,
                "opened": each.episode.opened.isoformat(),
                "state": each.episode.state,
                "hosts": each.hosts,
                "waits_for": each.waits_for,
                "run": each.episode.holder or each.episode.run,
                "until": _iso(each.until),
            }
            for each in now.open
        ],
        "questions": now.asked,
        "brakes": [each.cluster for each in now.brakes],
        "breaker": now.breaker.id if now.breaker else None,
        "stop_file": stop_file(),
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _moment(moment: datetime | None) -> str:
    return f"{moment:{MOMENT}}" if moment else ""


def _run(attempt: str) -> str:
    return attempt.partition("@")[0]
