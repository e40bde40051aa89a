"""Jira takes what it is told, once, and every request is one that its published schema allows."""

import logging
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prefect.logging import disable_run_logger
from starlette.applications import Starlette

from flows.pages import PAGES
from tasks.clients.jira import LONGEST_TEXT, document, jira
from tasks.clients.ticketing import Account, Change
from tasks.errors import OutcomeUnknown, Rejected
from tasks.evidence import digest, report
from tasks.models import Alarm, Answer, Case, Outcome
from tasks.trail import Trail
from tests.tickets.jira_server import PROJECT, jira_app, words
from tests.tickets.servers import HandClock, Store

pytestmark = pytest.mark.anyio

TEXT = "# ALM-12110 prod-1\n\nImpact: jobs fail.\nAll of them.\n\n| host | trace |\n| --- | --- |\n| a | `1` |\n"


def at(app: Starlette) -> Account:
    """The account that runs use."""
    transport = httpx.ASGITransport(app)
    return Account("http://127.0.0.1", user="bot@x", secret="s3cret", project=PROJECT, transport=transport)


def change(n: int, kind: Any, text: str = TEXT, **more: str) -> Change:
    """Something to tell of one ticket."""
    return Change("a", n, kind, f"ALM-12110: {'long ' * 100}", text, **more)


@pytest.fixture
def store(clock: HandClock) -> Store:
    """What Jira holds."""
    return Store(clock)


async def test_an_issue_and_all_that_follows(store: Store) -> None:
    """An issue is filed, commented, resolved and opened again, each once however often it is told."""
    account, key, states = at(jira_app(store)), "", []
    told = [
        change(1, "file"),
        change(2, "comment", "and now ü"),
        change(3, "resolve", "gone"),
        change(4, "reopen", "!"),
    ]
    for each in told:
        for _ in range(2):
            key = await jira(account, Change(**{**vars(each), "key": key}))
        states.append(store.get(key).status)
    (kept,) = store.tickets
    assert (key, states) == (f"{PROJECT}-1", ["new", "new", "resolved", "open"])
    assert kept.comments == [(f"{told[0].mark}/{n}", text) for n, text in ((2, "and now ü"), (3, "gone"), (4, "!"))]
    assert (len(kept.title), kept.title[-3:]) == (250, "...")


def test_a_report_is_a_document() -> None:
    """Headings, lines and tables of a report become those of a document, and no word of it is lost."""
    assert document(TEXT, "mark/1") == {
        "type": "doc",
        "version": 1,
        "content": [
            {"type": "heading", "attrs": {"level": 1}, "content": [{"type": "text", "text": "ALM-12110 prod-1"}]},
            {
                "type": "paragraph",
                "content": [
                    {"type": "text", "text": "Impact: jobs fail."},
                    {"type": "hardBreak"},
                    {"type": "text", "text": "All of them."},
                ],
            },
            {
                "type": "codeBlock",
                "content": [{"type": "text", "text": "| host | trace |\n| --- | --- |\n| a | `1` |"}],
            },
            {"type": "paragraph", "content": [{"type": "text", "text": "mark/1"}]},
        ],
    }
    assert words(document("\n\n\n")) == ""


async def test_a_text_that_is_too_long_is_cut_and_says_so(store: Store) -> None:
    """A report longer than Jira takes ends with a sentence that says so, and holds where the rest is and its digest."""
    at_eight = datetime(2026, 7, 1, 8, tzinfo=UTC)
    with disable_run_logger():
        trail = Trail(Case(cluster="prod-1", alarm_id="12110", dry_run=False, comment="on call"))
    alarms = [Alarm(alarm_id="12110", location=f"HostName=node-{n}", occurred=at_eight) for n in range(200)]
    said = [Answer(host=alarm.host, value="y", seen="word " * 50, at=at_eight) for alarm in trail.found(alarms)]
    trail.answered("2", said, alarms)
    trail.end(alarms, Outcome.ESCALATE, step="7")
    link = "http://prefect.example/runs/1"
    await jira(at(jira_app(store)), change(1, "file", report(trail, PAGES["12110"], link)))
    text, end = store.tickets[0].text, "(cut here: the rest is in the run's report)"
    assert (len(text) <= LONGEST_TEXT, text.endswith(end)) == (True, True)
    top = [f"Flow run: {link}", f"SHA-256 of what happened, line by line: {digest(trail)}"]
    assert [line for line in text.splitlines() if line][3:6] == [*top, "Comment of who started the run: on call"]


async def test_issues_are_linked_once(store: Store) -> None:
    """An issue is linked to its incident and to the older one about the same, once however often it is told."""
    store.make("other", "incident", "")
    store.make("other", "older", "")
    for _ in range(2):
        await jira(at(jira_app(store)), change(1, "file", part_of=f"{PROJECT}-1", follows=f"{PROJECT}-2"))
    assert [each.links for each in store.tickets] == [[], [], [f"{PROJECT}-1", f"{PROJECT}-2"]]


async def test_a_jira_without_links_or_ways_takes_the_text(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Where Jira knows no such link and its workflow no such way, that is logged, and the words are there."""
    account = at(jira_app(store, links=False, transitions=False))
    caplog.set_level(logging.WARNING, "runbooks")
    store.make("other", "incident", "")
    key = await jira(account, change(1, "file", part_of=f"{PROJECT}-1"))
    assert await jira(account, change(2, "resolve", "gone", key=key)) == key
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "OPS-2 is not linked to OPS-1, its text names it",
        "Jira offers no transition by which OPS-2 would be resolve",
    ]
    assert (store.get(key).status, [text for _, text in store.get(key).comments]) == ("new", ["gone"])


async def test_comments_are_looked_through_to_the_last_page(store: Store) -> None:
    """A comment that was made long ago, before hundreds of others, is found and not made again."""
    kept = store.make(change(1, "file").mark, "t", "x")
    kept.comments = [(change(2, "comment").marker, "mine"), *((f"other/{n}", "x") for n in range(350))]
    await jira(at(jira_app(store)), change(2, "comment", "mine", key=f"{PROJECT}-1"))
    assert len(kept.comments) == 351


async def test_the_oldest_of_several_is_used(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Where an issue is there more than once the oldest is used, the others are named, and none is made."""
    for _ in range(11):
        store.make(change(1, "file").mark, "copy", "x")
    caplog.set_level(logging.WARNING, "runbooks")
    assert await jira(at(jira_app(store)), change(1, "file")) == f"{PROJECT}-1"
    keys = ", ".join(f"{PROJECT}-{n}" for n in range(1, 12))
    said = f"Jira has 11 issues ({keys}) for one thing: {PROJECT}-1 is used"
    assert ([record.getMessage() for record in caplog.records], len(store.tickets)) == ([said], 11)


async def test_an_answer_that_cannot_be_read_leaves_it_open(store: Store) -> None:
    """When the answer to the making of an issue names no key, it may have been made: that is not a refusal."""

    class Mute(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await request.aread()
            return httpx.Response(200, json={"issues": []} if request.url.path.endswith("jql") else {"id": "1"})

    with pytest.raises(OutcomeUnknown, match="sent, and the answer cannot be read"):
        await jira(Account("http://127.0.0.1", secret="x", project=PROJECT, transport=Mute()), change(1, "file"))


async def test_what_the_schema_forbids_is_refused(store: Store) -> None:
    """The server of these tests refuses what the published schema does not allow: a wrong type, field or parameter."""
    wrong: list[tuple[str, str, Any]] = [
        ("POST", "search/jql", {"jql": "x", "max": 1}),
        ("POST", "search/jql", {"jql": "x", "fields": "created"}),
        ("POST", "issue/OPS-1/comment", {"id": "7", "body": {}}),
        ("POST", "issueLink", {"type": {"name": "Relates"}, "inwardIssue": {"key": "OPS-1"}}),
        ("GET", "issue/OPS-1/comment?orderBy=oldest", None),
        ("GET", "issue/OPS-1/comment?page=1", None),
        ("POST", "issue/OPS-1", {}),
    ]
    transport = httpx.ASGITransport(jira_app(store))
    async with httpx.AsyncClient(transport=transport, base_url="http://jira/rest/api/3/") as client:
        answers = [await client.request(method, path, json=body) for method, path, body in wrong]
    assert [answer.status_code for answer in answers] == [400] * len(wrong)


async def test_a_refusal_holds_no_secret(store: Store) -> None:
    """What Jira refuses is named in its own words, and what we showed it to be let in is not in them."""

    class Echo(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(403, text=f"not with {request.headers['Authorization']}")

    account = Account("http://127.0.0.1", user="bot@x", secret="s3cret", project=PROJECT, transport=Echo())
    with pytest.raises(Rejected) as refused:
        await jira(account, change(1, "file"))
    assert str(refused.value) == "Jira POST search/jql: HTTP 403: not with ***"
    assert "s3cret" not in repr(account)
