"""What the sources told of each cluster, by what the intake has written down."""

import pytest

from tasks.ledger.database import Ledger
from tasks.ledger.hearing import Heard, heard_of
from tasks.ledger.receiving import heard as is_alive
from tasks.ledger.tables import Cluster, Poll
from tests.ledger.conftest import HOUR, MINUTE, NOW, Story, a_cluster, told

pytestmark = pytest.mark.anyio
ALPHA, BETA = "id-of-alpha", "id-of-beta"


async def heard(ledger: Ledger, *clusters: str) -> list[Heard]:
    """What was heard of these clusters."""
    async with ledger.reading() as session:
        found = await heard_of(session, clusters)
    return [found[each] for each in clusters]


async def test_nothing_was_heard(ledger: Ledger) -> None:
    """Of a cluster that nobody told of nothing is known."""
    assert await heard(ledger, ALPHA) == [Heard()]
    assert await heard(ledger) == []


async def test_who_told_of_a_cluster_and_when(story: Story) -> None:
    """The last word of each source counts for its own cluster; what we asked ourselves and people tell is none."""
    await story.see(told("raised", serial="1"), source="smn")
    story.later(MINUTE)
    await story.see(told("raised", "node-2", serial="2"), source="smn")
    for source in ("poll", "sweep", "command"):
        await story.see(told("raised", "node-3", serial="3"), source=source)
    assert await heard(story.ledger, ALPHA) == [Heard(told={"smn": NOW + MINUTE})]
    assert await heard(story.ledger, BETA, ALPHA) == [Heard(), Heard(told={"smn": NOW + MINUTE})]


async def test_a_heartbeat_is_that_of_who_told_by_syslog(story: Story) -> None:
    """A sender that told of this cluster and is heard later lives; another sender says nothing about it."""
    await story.see(told("raised", serial="1"))
    async with story.ledger.writing() as session:
        await is_alive(session, {("syslog", "192.0.2.1")}, NOW + HOUR)
        await is_alive(session, {("syslog", "192.0.2.9"), ("smn", "192.0.2.1")}, NOW + 2 * HOUR)
    assert await heard(story.ledger, ALPHA) == [Heard(told={"syslog": NOW}, syslog=NOW + HOUR)]


async def test_an_active_alarm_that_is_told_again(story: Story) -> None:
    """A raise that was known is a re-report; a clear that was known is none, nor a second source's raise."""
    await story.see(told("raised", serial="1"))
    await story.see(told("raised", serial="1"), source="smn")
    assert (await heard(story.ledger, ALPHA))[0].repeated is None
    story.later(MINUTE)
    await story.see(told("raised", serial="1"))
    story.later(MINUTE)
    await story.see(told("cleared", serial="1"), told("cleared", serial="1"))
    assert (await heard(story.ledger, ALPHA))[0].repeated == NOW + MINUTE


async def test_the_last_reading_of_the_alarm_list(ledger: Ledger) -> None:
    """Of a cluster that is polled it is known when it was read, and whether there is a list; of others nothing."""
    async with ledger.writing() as session:
        session.add_all([a_cluster("alpha"), a_cluster("beta"), Poll(cluster="beta", due=NOW)])
        session.add(Poll(cluster="alpha", due=NOW, answered=NOW - MINUTE, offered=False))
    assert await heard(ledger, ALPHA, BETA) == [Heard(polled=NOW - MINUTE, offered=False), Heard()]


async def test_two_blocks_of_one_cluster(ledger: Ledger) -> None:
    """The later reading of the two is the cluster's."""
    async with ledger.writing() as session:
        for name, ago in (("one", MINUTE), ("two", HOUR)):
            session.add(Cluster(name=name, cluster_id=ALPHA, source=name, speed=1, connected=NOW))
            session.add(Poll(cluster=name, due=NOW, answered=NOW - ago, offered=name == "one"))
    assert await heard(ledger, ALPHA) == [Heard(polled=NOW - MINUTE, offered=True)]
