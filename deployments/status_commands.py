"""`runbooks status`: what is going on, and what stops changes."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployments.ending import run_until_ended
from deployments.terminal import console
from tasks import timing
from tasks.brakes import stop_file
from tasks.ledger.braking import brakes, open_breaker
from tasks.ledger.database import open_ledger
from tasks.ledger.openings import Open, open_episodes
from tasks.ledger.tables import Brake, Breaker

MOMENT = "%Y-%m-%d %H:%M:%S"


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
    stopped(out, now)
    return 0


async def _now() -> Now:
    async with open_ledger() as ledger, ledger.reading() as session:
        return Now(await open_episodes(session), await brakes(session), await open_breaker(session))


def stopped(out: Console, now: Now) -> None:
    """Say what stops changes, if anything does."""
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
