"""What persons are to be told: written down first, one ticket for each episode, which lives with its alarms."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from tasks.ledger.braking import reset_breaker, trip_if_shared
from tasks.ledger.outbox import Backlog, Filing, Taken, backlog, delivered, due, failed, file, take
from tasks.ledger.receiving import sync_clusters
from tasks.ledger.ticket_life import follow_alarms, incident_of
from tasks.ticket_files import id_of
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND, Story, a_cluster, part, told

pytestmark = pytest.mark.anyio


def filing(correlation: str = "alpha/12110/node-1/1/", text: str = "report", **about: Any) -> Filing:
    """What a run says of node-1."""
    known = {"source": "run-1", "cluster": "alpha", "alarm_id": "12110", "hosts": ["node-1"], **about}
    return Filing(correlation, "title", text, **known)


async def filed(story: Story, *filings: Filing) -> list[str]:
    """File these; returns the correlations of the tickets they are in."""
    async with story.ledger.writing() as session:
        return [(await file(session, each, story.now)).correlation for each in filings]


async def taken(story: Story, correlation: str, *, pause: timedelta = 2 * MINUTE) -> Taken | None:
    """Somebody takes what is next of the ticket."""
    async with story.ledger.writing() as session:
        return await take(session, correlation, story.now, lease=MINUTE, pause=lambda kind: pause)


async def follow(story: Story) -> list[tuple[str, str]]:
    """The tickets follow their alarms; returns their states."""
    async with story.ledger.reading() as session:
        seen = await follow_alarms(session, story.now, dry=True)
    async with story.ledger.writing() as session:
        assert await follow_alarms(session, story.now) == seen
    return [(each.correlation, each.state) for each in await story.tickets()]


async def texts(story: Story) -> list[tuple[int, str, str]]:
    """Number, kind and text of what the only ticket's system is to be told."""
    return [change[1:] for change in await story.changes()]


async def filed_and_resolved(story: Story, correlation: str) -> None:
    """A run has filed this ticket about node-1, whose alarm was cleared a minute later: it is resolved."""
    await story.see(told("raised", "node-1", "1"))
    holding = await story.hold("run-1")
    await filed(story, filing(correlation, episode=holding.episode))
    await story.end(holding, part("node-1", "ESCALATE", "1"), outcome="ESCALATE")
    story.later(MINUTE)
    await story.see(told("cleared", "node-1", "1"))
    assert await follow(story) == [(correlation, "resolved")]


# One ticket


async def test_the_same_is_said_once(story: Story) -> None:
    """A run that says the same again says nothing; what it says anew before the first was sent takes its place."""
    await filed(story, filing(text="first words"), filing(), filing())
    assert await texts(story) == [(1, "file", "report")]
    assert await taken(story, "alpha/12110/node-1/1/")
    await filed(story, filing(), filing(text="more"), filing(text="still more"), filing())
    assert await texts(story) == [(1, "file", "report"), (2, "comment", "still more")]


async def test_a_later_run_of_the_episode_adds_to_its_ticket(story: Story) -> None:
    """Whatever a later run of an episode is about, it is said in the episode's ticket, which must be open for it."""
    await story.see(told("raised", "node-1", "1"))
    first = await story.hold("run-1")
    assert await filed(story, filing(episode=first.episode)) == ["alpha/12110/node-1/1/"]
    second = filing("alpha/12110/node-2/2/", "late", source="run-2", hosts=["node-2"], episode=first.episode)
    by_its_run_alone = Filing("alpha/flow/run/run-1", "broke off", "broken", source="run-1", cluster="alpha")
    assert await filed(story, second, by_its_run_alone) == ["alpha/12110/node-1/1/"] * 2
    assert await texts(story) == [(1, "file", "report"), (2, "reopen", "late"), (3, "comment", "broken")]
    (row,) = await story.tickets()
    assert (row.hosts, row.episode, row.cluster_id) == ("node-1\nnode-2", first.episode, "id-of-alpha")


@pytest.mark.parametrize(
    ("gone_for", "hosts", "again"),
    [(23 * HOUR, ["node-1"], True), (25 * HOUR, ["node-1"], False), (HOUR, ["node-2"], False), (HOUR, [], True)],
)
async def test_what_comes_back_within_a_day_is_the_same_ticket(
    story: Story, gone_for: timedelta, hosts: Sequence[str], again: bool
) -> None:
    """A host whose ticket was resolved less than a day ago gets no other; later it does, which names the old one."""
    await story.see(told("raised", "node-1", "1"))
    first = await story.hold("run-1")
    await filed(story, filing(episode=first.episode))
    await story.end(first, part("node-1", "ESCALATE", "1"), outcome="ESCALATE")
    story.later(MINUTE)
    await story.see(told("cleared", "node-1", "1"))
    assert await follow(story) == [("alpha/12110/node-1/1/", "resolved")]
    story.later(gone_for)
    await story.close_verified()
    await story.see(told("raised", hosts[0] if hosts else "node-1", "7"))
    second = await story.hold("run-7")
    where = await filed(story, filing("new", "again", source="run-7", hosts=hosts, episode=second.episode))
    assert where == ["alpha/12110/node-1/1/" if again else "new"]
    rows = {each.correlation: (each.state, each.follows) for each in await story.tickets()}
    older = "alpha/12110/node-1/1/" if hosts == ["node-1"] else ""
    assert rows == (
        {"alpha/12110/node-1/1/": ("open", "")}
        if again
        else {"alpha/12110/node-1/1/": ("resolved", ""), "new": ("open", older)}
    )


async def test_the_system_is_the_cluster_s(story: Story) -> None:
    """A ticket goes where its cluster's block says; an incident where most clusters' tickets go."""
    fleet = [a_cluster(name) for name in ("alpha", "beta", "gamma")]
    for each, system in zip(fleet, ("ops", "jira", "jira"), strict=True):
        each.tickets = system
    async with story.ledger.writing() as session:
        await sync_clusters(session, fleet, story.now)
    await filed(story, filing("a"), filing("b", cluster="unknown"), filing("c", system="named"), Filing("d", "", ""))
    assert {each.correlation: each.system for each in await story.tickets()} == {
        "a": "ops",
        "b": "",
        "c": "named",
        "d": "jira",
    }


# With its alarms


async def test_a_ticket_is_resolved_when_all_its_alarms_are_cleared(story: Story) -> None:
    """It stays open while one of its hosts has the alarm, and what was cleared before it was filed does not count."""
    await story.see(told("raised", "node-1", "0"), told("cleared", "node-1", "0"))
    story.later(MINUTE)
    await story.see(told("raised", "node-1", "1"), told("raised", "node-2", "2"), told("raised", "node-3", "3"))
    holding = await story.hold("run-1")
    await filed(story, filing("t", hosts=["node-1", "node-2"], episode=holding.episode))
    assert await follow(story) == [("t", "open")]
    story.later(MINUTE)
    await story.see(told("cleared", "node-1", "1", cleared=story.now))
    assert await follow(story) == [("t", "open")]
    await story.see(told("cleared", "node-2", "2"))
    assert await follow(story) == [("t", "resolved")]
    assert await follow(story) == [("t", "resolved")]
    said = (
        "ALM-12110 of alpha is active no longer.\n\n"
        "- node-1: cleared, at 2026-11-25 12:02:00 UTC\n- node-2: cleared, at 2026-11-25 12:02:00 UTC\n"
    )
    assert (await texts(story))[1:] == [(2, "resolve", said)]


async def test_a_later_run_s_repair_resolves_it(story: Story) -> None:
    """A run that ends in END for the ticket's host resolves the ticket, though no source told of a clear."""
    await story.see(told("raised", "node-1", "1"))
    first = await story.hold("run-1")
    await filed(story, filing("t", episode=first.episode))
    await story.end(first, part("node-1", "REFUSED", "1"), outcome="REFUSED")
    story.later(HOUR)
    second = await story.hold("run-2", automated=False)
    assert await follow(story) == [("t", "open")]
    story.later(MINUTE)
    await story.end(second, part("node-1", "END", "1"))
    assert await follow(story) == [("t", "resolved")]
    assert (await texts(story))[1][2].splitlines()[2] == "- node-1: cleared by Meta, at 2026-11-25 13:01:00 UTC"


async def test_a_ticket_is_opened_again_when_its_alarm_comes_back(story: Story) -> None:
    """An alarm of its hosts within a day opens it again, though a person has it and no run begins; later none does."""
    await filed_and_resolved(story, "t")
    story.later(MINUTE)
    await story.see(told("raised", "node-2", "2"))
    assert await follow(story) == [("t", "resolved")]
    await story.see(told("raised", "node-1", "3", occurred=story.now))
    assert await follow(story) == [("t", "open")]
    assert await follow(story) == [("t", "open")]
    n, kind, text = (await texts(story))[-1]
    assert (n, kind, text.splitlines()[2]) == (3, "reopen", "- node-1: since 2026-11-25 12:02:00 UTC")
    story.later(MINUTE)
    await story.see(told("cleared", "node-1", "3"))
    assert await follow(story) == [("t", "resolved")]
    story.later(25 * HOUR)
    await story.see(told("raised", "node-1", "4"))
    assert await follow(story) == [("t", "resolved")]


async def test_an_incident_is_resolved_when_its_breaker_is_reset(story: Story) -> None:
    """The ticket of a tripped breaker stays open until a person resets that one, and then says who did, and why."""
    clusters = [a_cluster(name) for name in ("alpha", "beta")]
    async with story.ledger.writing() as session:
        await sync_clusters(session, clusters, story.now)
    for each in clusters:
        await story.see(told("raised"), of=each)
    async with story.ledger.writing() as session:
        assert await trip_if_shared(session, "id-of-alpha", story.now, 1)
    async with story.ledger.writing() as session:
        tripped = await reset_breaker(session, "mended", "anna", story.now + HOUR)
        assert tripped
        tripped.reset = None
    incident = incident_of(tripped.id)
    await filed(story, Filing(incident, "", "many", once=True), Filing(incident, "", "others", once=True))
    assert await follow(story) == [(incident, "open")]
    async with story.ledger.writing() as session:
        await reset_breaker(session, "mended", "anna", story.now + HOUR)
    assert await follow(story) == [(incident, "resolved")]
    said = "anna let changes go on at 2026-11-25 13:00:00 UTC: mended"
    assert await texts(story) == [(1, "file", "many"), (2, "resolve", said)]


# Delivering


async def test_changes_are_taken_in_order_by_one_at_a_time(story: Story) -> None:
    """While a change is with somebody nobody takes another of its ticket; the next comes when it is done."""
    await filed(story, filing("t"), filing("t", "more", source="run-2"), filing("u"))
    first = await taken(story, "t")
    assert first
    assert (first.n, first.kind, first.text, first.key, first.tries) == (1, "file", "report", "", 1)
    assert await taken(story, "t") is None
    async with story.ledger.reading() as session:
        assert await due(session, story.now) == [("u", "")]
        assert await backlog(session) == Backlog(2, 3, NOW)
    async with story.ledger.writing() as session:
        await delivered(session, first, "OPS-1", story.now)
    second = await taken(story, "t")
    assert second
    assert (second.n, second.kind, second.key) == (2, "reopen", "OPS-1")
    assert await taken(story, "nothing") is None


async def test_a_deliverer_that_dies_is_followed_by_another_and_counts_no_more(story: Story) -> None:
    """What somebody took and never spoke of again is taken anew after its pause, and his late word is of no account."""
    await filed(story, filing("t"))
    first = await taken(story, "t", pause=10 * MINUTE)
    assert first
    story.later(10 * MINUTE - SECOND)
    assert await taken(story, "t") is None
    story.later(SECOND)
    second = await taken(story, "t")
    assert second
    assert second.tries == 2
    async with story.ledger.writing() as session:
        await delivered(session, first, "OPS-1", story.now)
        await failed(session, first, "late", story.now)
    async with story.ledger.reading() as session:
        assert (await backlog(session)).undelivered == 1
    async with story.ledger.writing() as session:
        await failed(session, second, "HTTP 500", story.now + MINUTE)
    assert await taken(story, "t") is None
    story.later(MINUTE)
    third = await taken(story, "t")
    assert third
    assert third.key == ""


async def arrives(story: Story, taken: Taken | None, key: str) -> None:
    """Its system has taken it, and calls the ticket so."""
    assert taken
    async with story.ledger.writing() as session:
        await delivered(session, taken, key, story.now)


async def test_a_child_knows_what_its_incident_is_called(story: Story) -> None:
    """What is taken names the incident as its system calls it, if it is the same system, and its text does always."""
    await filed(story, Filing("incident/1", "", "x", system="ops"), filing("t", part_of="incident/1", system="ops"))
    await filed(story, filing("u", part_of="incident/1", system="other"))
    await arrives(story, await taken(story, "incident/1"), "OPS-1")
    found = [await taken(story, correlation) for correlation in ("t", "u")]
    said = "Part of incident OPS-1.\n\nreport"
    assert [(each.part_of, each.text) for each in found if each] == [("OPS-1", said), ("", said)]


async def test_a_child_that_comes_first_waits_for_its_incident(story: Story) -> None:
    """A ticket is held back until its incident has its name; what is said of it later waits for nobody."""
    await filed(story, filing("t", part_of="incident/1", system="ops"), Filing("incident/1", "", "x", system="ops"))
    assert await taken(story, "t") is None
    await arrives(story, await taken(story, "incident/1"), "OPS-1")
    first = await taken(story, "t")
    assert first
    assert (first.kind, first.part_of, first.tries) == ("file", "OPS-1", 1)
    await arrives(story, first, "OPS-2")
    await filed(story, filing("t", "more", source="run-2"))
    second = await taken(story, "t")
    assert second
    assert (second.kind, second.text) == ("reopen", "more")


async def test_a_child_does_not_wait_for_ever(story: Story) -> None:
    """After an hour a ticket goes without its incident's name, which its text then says as `runbooks tickets` does."""
    await filed(story, filing("t", part_of="incident/1", system="ops"), Filing("incident/1", "", "x", system="ops"))
    story.later(HOUR - SECOND)
    assert await taken(story, "t") is None
    story.later(SECOND)
    late = await taken(story, "t")
    assert late
    assert (late.part_of, late.text) == ("", f"Part of incident {id_of('incident/1')}.\n\nreport")


async def test_a_ticket_waits_for_the_older_one_that_it_follows(story: Story) -> None:
    """A ticket about what an older one was about is held back until that has its name, and then names it."""
    await filed_and_resolved(story, "old")
    story.later(25 * HOUR)
    await story.close_verified()
    await story.see(told("raised", "node-1", "7"))
    second = await story.hold("run-7")
    assert await filed(story, filing("new", source="run-7", episode=second.episode)) == ["new"]
    assert await taken(story, "new") is None
    await arrives(story, await taken(story, "old"), "OPS-1")
    found = await taken(story, "new")
    assert found
    said = "Follows ticket OPS-1, which is about the same.\n\nreport"
    assert (found.follows, found.text) == ("OPS-1", said)
