"""`runbooks approvals`, `approve` and `approvers`: what persons are asked, and their word from a terminal."""

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from cyclopts import App, Parameter
from prefect.client.orchestration import get_client
from rich.table import Table
from rich.text import Text

from deployments.brake_commands import By, one_line, person
from deployments.ending import run_until_ended
from deployments.terminal import console, show_markdown
from tasks import timing
from tasks.blocks import Approver
from tasks.errors import ConfigurationError
from tasks.forms import counts_from, words
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import Decision, decide, open_questions
from tasks.ledger.database import open_ledger
from tasks.loading import approver_block, approver_name

KEY = "RUNBOOKS_APPROVER_KEY"
WITH_KEY = "authenticated by a personal key"
WITHOUT = "claimed, unauthenticated: from a terminal, without a key"

approvers = App(name="approvers", help="Persons with a key of their own, for clusters that demand four eyes.")


def approvals(run: str = "", /, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """List what persons are asked now; with RUN (a flow run's id, or the beginning of it) show the whole question.

    Parameters
    ----------
    as_json
        One JSON array on standard output.
    """
    out, asked = console(), run_until_ended(_asked())
    if run:
        show_markdown(out, words(_the_one(asked, run)))
        return 0
    if as_json:
        sys.stdout.write(json.dumps([_plain(each) for each in asked]) + "\n")
        return 0
    if not asked:
        out.print("nobody is asked anything")
        return 0
    table = Table("run", "cluster", "question", "targets", "until (UTC)", "link")
    for each in asked:
        what = f"{each.action} by hand?" if each.kind == "by hand" else f"{each.action}?"
        what += " (four eyes)" if each.four_eyes and each.kind == "approve" else ""
        targets = ", ".join(each.targets.splitlines())
        cells = (each.run[:8], each.cluster, what, targets, f"{each.expires:%Y-%m-%d %H:%M:%S}", each.link)
        table.add_row(*map(Text, cells))
    out.print(table)
    out.print("answer in the Prefect UI, or with `runbooks approve RUN`")
    return 0


def approve(
    run: str,
    /,
    *,
    reject: Annotated[bool, Parameter(negative=())] = False,
    comment: str = "",
    not_before: datetime | None = None,
    by: By = "",
) -> int:
    """Agree to what a run asks, or reject it; what is to be done by hand is answered with done, or could not.

    Parameters
    ----------
    run
        The flow run's id, or the beginning of it: `runbooks approvals` lists them.
    reject
        Reject it: nothing is changed, and a ticket is filed.
    comment
        For the record and the ticket.
    not_before
        The change waits until then, at most seven days, for example 2026-12-01T02:00:00+01:00; without an offset it is
        UTC. A time that is over: it is made at once.
    by
        Your name; left out: your login name. With a personal key in $RUNBOOKS_APPROVER_KEY: the name it was made for.
    """
    try:
        then = counts_from(not_before, timing.wall())
    except ValueError as error:
        raise ConfigurationError(f"--not-before: {error}") from None
    if not_before and not then:
        console().print("--not-before is over already: it counts at once")
    note = one_line(comment, "--comment") if comment.strip() else ""
    return run_until_ended(_approve(run, person(by), reject=reject, comment=note, not_before=then))


@approvers.command
def add(name: str, /, *, replace: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Make a personal key for NAME and show it once; only its SHA-256 is kept, in the block "MRS Approver/NAME".

    Best take the person's login name: its capitals become small there, and other signs dashes.

    Parameters
    ----------
    replace
        NAME has a key, and it is to be worth nothing from now on.
    """
    key, name = secrets.token_urlsafe(32), _named(one_line(name, "NAME"))
    run_until_ended(_add(name, key, replace=replace))
    out = console()
    out.print(Text(f"the key of {name}, shown this once: give it to nobody but {name}"))
    out.print(Text(key))
    out.print(Text(f"to approve: {KEY}=... runbooks approve RUN --by {name}"))
    return 0


async def _add(name: str, key: str, *, replace: bool) -> None:
    async with get_client() as client:
        try:
            await approver_block(name, client)
        except ConfigurationError:
            pass
        else:
            if not replace:
                raise ConfigurationError(f"{name} has a key already: --replace makes a new one, and ends the old one")
        await Approver.register_type_and_schema(client=client)
        await Approver(key_sha256=_digest(key)).save(name, client=client, overwrite=replace)


async def _asked() -> Sequence[Approval]:
    async with open_ledger() as ledger, ledger.reading() as session:
        return await open_questions(session)


async def _approve(run: str, by: str, *, reject: bool, comment: str, not_before: datetime | None) -> int:
    who = await _who(by)
    async with open_ledger() as ledger, ledger.writing() as session:
        asked = _the_one(await open_questions(session), run)
        if asked.four_eyes and asked.kind == "approve" and not reject:
            _four_eyes(asked, who)
        decided: Literal["done", "could not", "approved", "rejected"]
        if asked.kind == "by hand":
            decided = "could not" if reject else "done"
        else:
            decided = "rejected" if reject else "approved"
        decision = Decision(decided, who.name, who.channel, comment, not_before)
        if not await decide(session, asked, decision, timing.wall()):
            raise ConfigurationError(f"{asked.cluster}: it is decided already, or its time is over: nothing is changed")
    when = f", not before {not_before:%Y-%m-%d %H:%M:%S} UTC" if not_before and decided == "approved" else ""
    console().print(Text(f"{asked.cluster}, {asked.action}: {decided} by {who.name} ({who.channel}){when}"))
    console().print("the run goes on within ten seconds, if an intake is at work; its gates are asked once more")
    return 0


@dataclass(frozen=True)
class _Who:
    name: str
    channel: str


async def _who(by: str) -> _Who:
    """Whose key it is; without one, who is claimed."""
    key = os.environ.get(KEY, "").strip()
    if not key:
        return _Who(by, WITHOUT)
    name = _named(by)
    async with get_client() as client:
        known = await approver_block(name, client)
    if not secrets.compare_digest(known.key_sha256, _digest(key)):
        raise ConfigurationError(f"the key in ${KEY} is not that of {name}: nothing is approved")
    return _Who(name, WITH_KEY)


def _named(by: str) -> str:
    if name := approver_name(by):
        return name
    raise ConfigurationError(f"{by!r} cannot be the name of a key: it needs letters a to z, or digits")


def _four_eyes(asked: Approval, who: _Who) -> None:
    if who.channel != WITH_KEY:
        raise ConfigurationError(
            f"{asked.cluster} demands four eyes: approve with your personal key in ${KEY} (`runbooks approvers add`)"
        )
    starter = approver_name(asked.starter)  # a login name may be spelt otherwise than that person's key
    if not starter:
        raise ConfigurationError(
            f"{asked.cluster} demands four eyes, and nobody knows who started this run (the Prefect UI has one shared "
            "login): reject it, and start it with `runbooks run`"
        )
    if starter == who.name:
        raise ConfigurationError(f"{asked.cluster} demands four eyes: {who.name} has started this run")


def _the_one(asked: Sequence[Approval], run: str) -> Approval:
    mine = [each for each in asked if run and each.run.startswith(run.lower())]
    if len(mine) != 1:
        names = ", ".join(f"{each.run[:8]} ({each.cluster})" for each in mine or asked) or "nobody is asked anything"
        raise ConfigurationError(f"{len(mine)} open questions are of run {run!r}, not one: {names}")
    return mine[0]


def _plain(asked: Approval) -> dict[str, object]:
    return {
        "run": asked.run,
        "cluster": asked.cluster,
        "step": asked.step,
        "kind": asked.kind,
        "action": asked.action,
        "targets": asked.targets.splitlines(),
        "four_eyes": asked.four_eyes,
        "asked": asked.asked.isoformat(),
        "expires": asked.expires.isoformat(),
        "link": asked.link,
    }


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
