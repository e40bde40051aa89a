"""A real Request Tracker 5 takes what it is told, once, and shows it to a person as it was written."""

import base64
import logging
from typing import Any

import httpx
import pytest

from tasks.clients.request_tracker import is_usable, request_tracker
from tasks.clients.ticketing import Account, Change
from tasks.errors import NotAuthorized, Rejected

pytestmark = pytest.mark.anyio

TEXT = "# ALM-12110 prod-1\n\n| host | trace |\n| --- | --- |\n| Knoten-ä | `1 2n` |\n\nImpact: jobs fail.\n"


class Rt:
    """The account that runs use, and what a person sees."""

    def __init__(self, url: str) -> None:
        self.account = Account(url, user="root", secret="password", project="General")
        self._person = httpx.Client(base_url=f"{url}/REST/2.0/", auth=("root", "password"), trust_env=False)

    def get(self, path: str, **query: str) -> Any:
        """What RT says of it."""
        answer = self._person.get(path, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    def put(self, path: str, **values: str) -> None:
        """A person changes something."""
        assert self._person.put(path, json=values).is_success

    def make(self, **values: Any) -> str:
        """A person makes a ticket."""
        made = self._person.post("ticket", json={"Queue": "General", "ContentType": "text/plain", **values})
        return str(made.json()["id"])

    def texts(self, key: str) -> list[tuple[str, str]]:
        """Subject and text of all that was written in a ticket, in order."""
        found = self.get(f"ticket/{key}/attachments", fields="Subject,Content", per_page="100")["items"]
        contents = [self._person.get(f"attachment/{each['id']}").json()["Content"] for each in found]
        return [(each["Subject"], _decoded(content)) for each, content in zip(found, contents, strict=True)]

    def status(self, key: str) -> str:
        """Whether it is open."""
        return str(self.get(f"ticket/{key}")["Status"])

    def links(self, key: str) -> set[tuple[str, str]]:
        """What it is linked to."""
        known = [each for each in self.get(f"ticket/{key}")["_hyperlinks"] if each["ref"] in ("refers-to", "parent")]
        return {(each["ref"], str(each.get("id") or each["_url"])) for each in known}


def _decoded(content: str) -> str:
    return base64.b64decode(content).decode()


@pytest.fixture
def rt(request_tracker: str) -> Rt:
    """The Request Tracker."""
    return Rt(request_tracker)


def change(correlation: str, n: int, kind: Any, text: str = TEXT, **more: str) -> Change:
    """Something to tell."""
    return Change(correlation, n, kind, f"ALM-12110 prod-1: ESCALATE\n{correlation}", text, **more)


async def test_a_ticket_and_all_that_follows(rt: Rt) -> None:
    """A ticket is filed, commented, resolved and opened again, each once however often it is told, word for word."""
    told = [
        change("a", 1, "file"),
        change("a", 2, "comment", "and now ü"),
        change("a", 3, "resolve", "cleared"),
        change("a", 4, "reopen", "back again"),
    ]
    key, states = "", []
    for each in told:
        for _ in range(2):
            again = await request_tracker(rt.account, Change(**{**vars(each), "key": key}))
            assert key in ("", again)
            key = again
        states.append(rt.status(key))
    assert states == ["new", "new", "resolved", "open"]
    mark = told[0].mark
    assert rt.texts(key) == [
        ("ALM-12110 prod-1: ESCALATE a", TEXT),
        (f"{mark}/2", "and now ü"),
        (f"{mark}/3", "cleared"),
        (f"{mark}/4", "back again"),
    ]
    assert rt.get(f"ticket/{key}")["Subject"] == "ALM-12110 prod-1: ESCALATE a"
    assert rt.links(key) == {("refers-to", f"urn:{mark}")}


async def test_the_oldest_of_several_is_used(rt: Rt, caplog: pytest.LogCaptureFixture) -> None:
    """Where a ticket is there more than once the oldest is used, the others are named, and none is made."""
    mine = change("b", 1, "file")
    first, second = (rt.make(Subject="copy", Content="x", RefersTo=f"urn:{mine.mark}") for _ in range(2))
    caplog.set_level(logging.WARNING, "runbooks")
    assert await request_tracker(rt.account, mine) == first
    said = f"Request Tracker has 2 tickets ({first}, {second}) for one thing: {first} is used"
    assert [record.getMessage() for record in caplog.records] == [said]


async def test_a_child_is_a_member_and_a_successor_refers(rt: Rt) -> None:
    """A ticket of an incident is its member in RT, and one that follows another refers to that."""
    incident = await request_tracker(rt.account, change("incident/1", 1, "file"))
    older = await request_tracker(rt.account, change("c", 1, "file"))
    child = await request_tracker(rt.account, change("d", 1, "file", part_of=incident, follows=older))
    mark = change("d", 1, "file").mark
    assert rt.links(child) == {("parent", incident), ("refers-to", older), ("refers-to", f"urn:{mark}")}


async def test_what_a_person_ended_stays_ended(rt: Rt) -> None:
    """A ticket that a person has rejected is commented when the alarm clears, and keeps its status."""
    key = await request_tracker(rt.account, change("e", 1, "file"))
    rt.put(f"ticket/{key}", Status="rejected")
    await request_tracker(rt.account, change("e", 2, "resolve", "cleared", key=key))
    assert (rt.status(key), rt.texts(key)[1:]) == ("rejected", [(f"{change('e', 2, 'resolve').marker}", "cleared")])


async def test_what_it_refuses_is_named(rt: Rt) -> None:
    """A wrong password, a queue or ticket that is not there: each is refused in one sentence without the password."""
    wrong = Account(rt.account.url, user="root", secret="n0t-it", project="General")
    with pytest.raises(NotAuthorized) as refused:
        await request_tracker(wrong, change("f", 1, "file"))
    assert "n0t-it" not in str(refused.value)
    nowhere = Account(rt.account.url, user="root", secret="password", project="Nowhere")
    with pytest.raises(Rejected, match="No permission to create tickets in the queue 'Nowhere'"):
        await request_tracker(nowhere, change("f", 1, "file"))
    with pytest.raises(Rejected, match="Message could not be recorded"):
        await request_tracker(rt.account, change("f", 2, "comment", key="99999"))
    assert await is_usable(rt.account) == "queue General"
    with pytest.raises(Rejected):
        await is_usable(nowhere)
