"""What a person reads afterwards: one text per run, drawn in the Prefect UI, and plain as the ticket's body."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from textwrap import shorten

from tasks.graph import Graph, Way, flowchart
from tasks.ledger.keeping import digest_of, written_out
from tasks.models import Outcome
from tasks.record import NEEDS_A_PERSON, WHOLE_CLUSTER, Entry
from tasks.recorded import Recorded
from tasks.trail import Trail

AROUND, MINUTE = timedelta(hours=1), "%Y-%m-%d %H:%M"
SHORT, LEFT = 60, 20  # letters of evidence in a table's cell, and of them before the gap; in full it is below


@dataclass(frozen=True)
class Page:
    """What a runbook knows of its alarm page, in our words.

    Attributes:
        graph: its steps, and the ways between them.
        impact: what the alarm means for the cluster's users.
        by_hand: page step -> what a person does there, with the clicks; `7` is what to hand to O&M.
        log: path of the log on the alarmed host that says most; empty: none does.
        felt_within: how long after the alarm was raised its impact is felt at the latest; `felt_because` says why.
    """

    alarm_id: str
    title: str
    graph: Graph
    impact: str
    by_hand: Mapping[str, str]
    log: str = ""
    felt_within: timedelta | None = None
    felt_because: str = ""


MEANING = {
    Outcome.END: "The alarm is cleared after a repair of this run.",
    Outcome.ESCALATE: "The page is exhausted and the alarm is still active: a person is needed.",
    Outcome.CLEARED: "The alarm was cleared, and not by a repair of this run within the time the page gives it.",
    Outcome.CLEARED_BY_PERSON: "A person cleared the alarm; nothing says that its cause is gone.",
    Outcome.CANNOT_TELL: "A question of the page could not be answered, so nothing was changed on its account.",
    Outcome.REFUSED: "The next step was not allowed or not possible from here: a person is needed.",
    Outcome.DRY_RUN: "A dry run: nothing was changed; below is what would have been done.",
    Outcome.JOINED: "Another run is working on this cluster; this one did nothing.",
    Outcome.DECLINED: "A person said no to the next step.",
    Outcome.CANCELLED: "The run was cancelled before the page was through.",
    Outcome.ERROR: "A step failed: a person is needed.",
}
# What would be markup in a text of others, and nothing that would not: the plain text is to stay readable.
MARKUP = re.compile(r"[\\`*~<|]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|&(?=#?\w+;)")


def quoted(text: str) -> str:
    """A text of others as one line of markdown that shows it as it is, in a table too, and is nothing but text."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return MARKUP.sub(r"\\\g<0>", line)


def report(told: Trail | Recorded, page: Page, link: str) -> str:
    """The run as markdown that reads well as plain text too. Holds no secrets: only what the steps said.

    What may be long comes last: a ticket system that cuts it off leaves the digest and the link.

    Args:
        link: the flow run in the Prefect UI, may be empty.
    """
    return "\n".join([*_summary(told, page, link), *_happened(told)])


def drawn_report(trail: Trail, page: Page, link: str) -> str:
    """As `report`, with a table of the page's steps and the way through its graph, for who shows tables and mermaid."""
    drawn = []
    if trail.traces:
        drawn += ["## The page's steps", "", *_steps(trail, page), ""]
        drawn += ["## The way through the page", "", "```mermaid", way_through(trail, page), "```", ""]
    return "\n".join([*_summary(trail, page, link), *drawn, *_happened(trail)])


def _summary(told: Trail | Recorded, page: Page, link: str) -> list[str]:
    outcome, case = told.outcome, told.case
    hosts = [(quoted(host), f"`{trace}`", quoted(str(told.alarms[host]))) for host, trace in told.traces.items()]
    lines = [
        f"# ALM-{page.alarm_id} {page.title}: {quoted(case.cluster)}",
        "",
        f"**{outcome}**{' (dry run)' if case.dry_run else ''}. {MEANING[outcome]}",
        "",
        *([f"Impact while the alarm is active: {page.impact}.", ""] if told.needs_a_person else []),
        *_where(told, link),
        *([f"Comment of who started the run: {quoted(case.comment)}", ""] if case.comment else []),
        *(_table("host", "trace", "alarm", rows=hosts) if hosts else ["No alarm was followed."]),
        "",
    ]
    if told.needs_a_person:
        lines += ["## Why it stopped", "", *_why(told), ""]
        lines += ["## What to do next", "", *_next(told, page), *_log(told, page), ""]
    return lines


def _where(told: Trail | Recorded, link: str) -> list[str]:
    """Where all of it is to be seen, and the SHA-256 by which the record is known."""
    records = told.records if isinstance(told, Recorded) else filter(None, [told.lines])
    named = [f"SHA-256 of what happened, line by line: {digest_of(lines)}" for lines in records]
    return [word for line in (*([f"Flow run: {link}"] if link else []), *named) for word in (line, "")]


def _happened(told: Trail | Recorded) -> list[str]:
    """A list, not a table: Prefect's UI cuts a table's last column off, and here that is what happened."""
    happened = [
        f"- {e.at:%Y-%m-%d %H:%M:%S} UTC, {f'step {e.step}, ' if e.step else ''}{quoted(e.host)}: {quoted(e.text)}"
        for e in told.entries
    ]
    return ["## What happened", "", *happened, ""] if happened else []


def record(trail: Trail) -> str:
    """What happened, word for word, as JSON with one entry a line: what `digest` is of."""
    return written_out(trail.lines)


def digest(trail: Trail) -> str:
    """The SHA-256 of the run's record."""
    return digest_of(trail.lines)


def way_through(trail: Trail, page: Page) -> str:
    """The ways of all hosts over the page's graph, in mermaid's language: names and texts of others are not in it."""
    steps = trail.steps
    ended = [(host, end) for host, end in trail.ends.items() if host in steps]
    return flowchart(page.graph, [Way(steps[host], end.outcome, end.step) for host, end in ended])


def _steps(trail: Trail, page: Page) -> list[str]:
    """What the page asks, host by host, with what was answered; a word ends a host's part."""
    rows = []
    for host in [*trail.alarms, ""]:  # last what is about no alarmed host: a node, the cluster
        for e in trail.entries:
            if e.answer and e.step in page.graph.steps and host == (e.host if e.host in trail.alarms else ""):
                rows.append((e.step, e.host, e.answer, _short(e), f"{e.at:%m-%d %H:%M:%S}"))
        if host and trail.steps[host][-1] == "7":  # there nothing is asked
            rows.append(("7", host, trail.ends[host].outcome, "", ""))
    cells = [(step, quoted(host), page.graph.steps[step], *map(quoted, rest)) for step, host, *rest in rows]
    return _table("step", "host", "question", "answer", "evidence", "time (UTC)", rows=cells)


def _short(entry: Entry) -> str:
    """The evidence in a few words: without the host's name and the answer, which stand beside it, and the middle."""
    text = entry.text.removeprefix(f"{entry.answer}: ")
    for word in ("of", "on"):
        text = text.replace(f" {word} {entry.host}", "")
    if len(text) <= SHORT:
        return text
    begins, ends = shorten(text, LEFT, placeholder=""), shorten(text[::-1], SHORT - LEFT, placeholder="")[::-1]
    return f"{begins} ... {ends}"


def _why(told: Trail | Recorded) -> list[str]:
    """Why it was broken off, if it was; and for each part that needs a person, the last that was learned of it."""
    lines = [f"- {quoted(text)}" for text in (told.stopped, *told.unseen)] if isinstance(told, Recorded) else []
    for host, end in told.ends.items():
        if end.outcome in NEEDS_A_PERSON:
            said = [e.text for e in told.entries if e.host in (host, WHOLE_CLUSTER)] or [MEANING[end.outcome]]
            at = f" at step {end.step}" if end.step else ""
            lines.append(f"- {quoted(host)} ({end.outcome}{at}): {quoted(said[-1])}")
    return lines


def _log(told: Trail | Recorded, page: Page) -> list[str]:
    """Where to look on each host, and until when the impact is not felt, by the time of its alarm."""
    lines, timed = [], bool(told.ends)
    for host, end in told.ends.items():
        if end.outcome not in NEEDS_A_PERSON:
            continue
        raised = told.alarms[host].occurred if host in told.alarms else None
        if raised is None:
            timed = False
            continue
        if page.log:
            window = f"from {raised - AROUND:{MINUTE}} to {raised + AROUND:{MINUTE}} UTC, an hour around the alarm"
            lines.append(f"- {quoted(host)}: read {page.log} {window}")
        if page.felt_within:
            felt = f"at the latest at {raised + page.felt_within:{MINUTE}} UTC"
            lines.append(f"- {quoted(host)}: the impact is felt {felt}: {page.felt_because}")
    if not timed:
        which = "where the alarm's time is not known here, look it up on Manager"
        if page.log:
            lines.append(f"- {which}: read {page.log} of its host from one hour before to one hour after it")
        if page.felt_within:
            felt = f"at the latest {page.felt_within.total_seconds() / 60:.0f} minutes after it"
            lines.append(f"- {which}: the impact is felt {felt}: {page.felt_because}")
    return lines


def brief(trail: Trail, page: Page, link: str) -> str:
    """The run in a few lines, for a ticket that many runs share."""
    lines = [f"## {quoted(trail.case.cluster)}: {trail.outcome}", "", *_where(trail, link)]
    lines += [f"Impact while ALM-{page.alarm_id} is active: {page.impact}.", ""]
    lines += [f"- {quoted(host)}: `{trace}`" for host, trace in trail.traces.items()]
    return "\n".join([*lines, *_log(trail, page), ""])


def _table(*names: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A table whose columns line up in plain text as well, but for the last one."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)][:-1]
    lines = [names, tuple("-" * width for width in (*widths, 3)), *rows]
    return [f"| {' | '.join(map(str.ljust, line, (*widths, 0)))} |" for line in lines]


def _next(told: Trail | Recorded, page: Page) -> list[str]:
    """What to do by hand, per step at which hosts stopped."""
    hosts: dict[str, list[str]] = {}
    for host, end in told.ends.items():
        if end.outcome in NEEDS_A_PERSON:
            step = end.step or ("7" if told.traces else "1")
            hosts.setdefault(step if step in page.by_hand else "7", []).append(host)
    return [f"- {quoted(', '.join(names))}: {page.by_hand[step]}" for step, names in sorted(hosts.items())]
