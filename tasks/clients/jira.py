"""Jira Cloud, by its REST API v3.

An issue is found again by a label, a comment by the marker in its last line. Comments, links and the status are read
from the issue itself, which is consistent. The search for the label is not: an issue may be found only minutes after it
was made, so whoever does not know whether one was made must wait that long before he searches (`SEARCHABLE_AFTER`).
"""

import json
import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from pydantic import Field

from tasks.clients.answers import understood
from tasks.clients.http import Api
from tasks.clients.ticketing import Account, Change, Shown, api_of, cut, in_one_line, made
from tasks.errors import Rejected, ServerTrouble
from tasks.models import Frozen, Text

# Source: Jira Cloud platform, "Search after write with search and reconcile": seconds to minutes. Its `reconcileIssues`
# needs the ids of the issues, and it is just whether there is one that we do not know.
SEARCHABLE_AFTER = timedelta(minutes=10)
LONGEST_SUMMARY, LONGEST_TEXT = 250, 30_000  # Jira takes 255 and 32,767 characters
COMMENTS_PER_PAGE, MOST_PAGES = 100, 20
LINK = "Relates"  # of every Jira, unless somebody took it away
DONE = "done"  # status categories have fixed keys: new, indeterminate, done

logger = logging.getLogger("runbooks")


class _Issue(Frozen):
    id: Text = Field(min_length=1)
    key: Text = Field(min_length=1)


class _Hits(Frozen):
    issues: tuple[_Issue, ...] = ()


class _Comments(Frozen):
    comments: tuple[Any, ...]
    total: int


class _Transition(Frozen):
    id: Text
    to: dict[str, Any] = Field(default={})


class _Transitions(Frozen):
    transitions: tuple[_Transition, ...]


class _State(Frozen):
    fields: dict[str, Any]


async def jira(account: Account, change: Change) -> str:
    """Tell Jira of the change; returns the issue's key.

    Raises:
        RemoteError: it was not taken; OutcomeUnknown: it may have been.

    Source: Jira Cloud REST API v3: POST search/jql, POST issue, GET issue/{key}, GET and POST issue/{key}/comment,
    GET and POST issue/{key}/transitions, POST issueLink.
    """
    async with _api(account) as api:
        key = change.key or await _found(api, change)
        if not key:
            key = await _made(api, account, change)
        elif change.kind != "file":
            await _comment(api, key, change)
        if change.kind == "file":
            await _link(api, key, change)
        else:
            await _set_status(api, key, change)
        return key


async def is_usable(account: Account) -> str:
    """What the account sees of its project, in words.

    Source: Jira Cloud REST API v3: GET project/{key}.
    """
    async with _api(account) as api:
        await api.read(f"project/{account.project}")
    return f"project {account.project}"


def _api(account: Account) -> Api:
    auth = Shown("Bearer", account.secret, account.user)
    return api_of(account, "Jira", f"{account.url.rstrip('/')}/rest/api/3", auth)


async def _found(api: Api, change: Change) -> str:
    """The oldest issue with the mark; empty: the search finds none."""
    body = {"jql": f'labels = "{change.mark}" ORDER BY created ASC', "fields": ["created"], "maxResults": 50}
    hits = understood(f"{api.name} POST search/jql", _Hits, await api.ask("search/jql", body=body))
    found = sorted(hits.issues, key=lambda issue: int(issue.id))  # ids grow; `created` of two may be the same
    if len(found) > 1:
        keys = ", ".join(issue.key for issue in found)
        logger.warning("Jira has %d issues (%s) for one thing: %s is used", len(found), keys, found[0].key)
    return found[0].key if found else ""


async def _made(api: Api, account: Account, change: Change) -> str:
    fields = {
        "project": {"key": account.project},
        "issuetype": {"name": account.issue_type},
        "summary": in_one_line(change.title, LONGEST_SUMMARY),
        "description": document(cut(change.text, LONGEST_TEXT)),
        "labels": ["runbooks", change.mark],
    }
    answer = (await api.act("POST", "issue", body={"fields": fields}, would="file an issue")).content
    return made(f"{api.name} POST issue", _Issue, answer).key


async def _comment(api: Api, key: str, change: Change) -> None:
    path = f"issue/{key}/comment"
    for page in range(MOST_PAGES):
        query = {"startAt": str(page * COMMENTS_PER_PAGE), "maxResults": str(COMMENTS_PER_PAGE), "orderBy": "-created"}
        told = understood(f"{api.name} GET {path}", _Comments, await api.read(path, params=query))
        if any(json.dumps(change.marker) in json.dumps(each) for each in told.comments):
            return
        if (page + 1) * COMMENTS_PER_PAGE >= told.total:
            break
    else:
        raise ServerTrouble(f"{api.name} GET {path}", "there are too many comments to see whether ours is among them")
    body = document(cut(change.text, LONGEST_TEXT), change.marker)
    await api.act("POST", path, body={"body": body}, would="comment on an issue")


async def _link(api: Api, key: str, change: Change) -> None:
    """Link it to the incident and the older issue, as far as it is not. A Jira without such links is left so."""
    wanted = [other for other in (change.part_of, change.follows) if other]
    if not wanted:
        return
    there = json.dumps((await _fields(api, key, "issuelinks")).get("issuelinks"))
    for other in wanted:
        if f'"key": {json.dumps(other)}' in there:
            continue
        body = {"type": {"name": LINK}, "inwardIssue": {"key": key}, "outwardIssue": {"key": other}}
        try:
            await api.act("POST", "issueLink", body=body, would="link two issues")
        except Rejected as error:
            logger.warning("%s is not linked to %s, its text names it: %s", key, other, error)


async def _set_status(api: Api, key: str, change: Change) -> None:
    """Let the issue be done, or not, by whichever transition its workflow offers; without one the comment says it."""
    if change.kind not in ("resolve", "reopen"):
        return
    ends = change.kind == "resolve"
    status = (await _fields(api, key, "status")).get("status")
    if (_category(status) == DONE) == ends:
        return
    path = f"issue/{key}/transitions"
    offered = understood(f"{api.name} GET {path}", _Transitions, await api.read(path)).transitions
    fitting = [each for each in offered if _category(each.to) and (_category(each.to) == DONE) == ends]
    if not fitting:
        logger.warning("Jira offers no transition by which %s would be %s: the comment says it", key, change.kind)
        return
    body = {"transition": {"id": fitting[0].id}}
    await api.act("POST", path, body=body, would="change an issue's status")


async def _fields(api: Api, key: str, names: str) -> dict[str, Any]:
    read = await api.read(f"issue/{key}", params={"fields": names})
    return understood(f"{api.name} GET issue/{key}", _State, read).fields


def _category(status: Any) -> str:
    category = status.get("statusCategory") if isinstance(status, dict) else None
    return str(category.get("key") or "") if isinstance(category, dict) else ""


def document(text: str, marker: str = "") -> dict[str, Any]:
    """A report as Jira's document: headings, lines as they are, tables in letters of one width.

    Source: Atlassian Document Format, version 1.
    """
    blocks = [block.strip("\n") for block in text.split("\n\n")]
    content = [_block(block) for block in [*blocks, marker] if block.strip()]
    return {"type": "doc", "version": 1, "content": content}


def _block(block: str) -> dict[str, Any]:
    if block.startswith("#"):
        level = len(block) - len(block.lstrip("#"))
        return {"type": "heading", "attrs": {"level": min(level, 6)}, "content": list(_lines(block.lstrip("# ")))}
    if block.startswith("|"):
        return {"type": "codeBlock", "content": [{"type": "text", "text": block}]}
    return {"type": "paragraph", "content": list(_lines(block))}


def _lines(block: str) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(block.split("\n")):
        if number:
            yield {"type": "hardBreak"}
        if line:
            yield {"type": "text", "text": line}
