"""What the intake keeps beside the alarms: it is counted, and it is bounded."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import insert, select

from tasks.ledger.database import Ledger
from tasks.ledger.receiving import (
    KEPT,
    MOST_REJECTIONS,
    OUTAGE,
    Rejected,
    clusters,
    first_time,
    heard,
    intake_alive,
    intake_started,
    prune,
    reject,
    rejections,
    sync_clusters,
)
from tasks.ledger.tables import Cluster, IntakeRow, Message, Poll, Rejection, SourceRow
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND, Story, a_cluster, told

pytestmark = pytest.mark.anyio
RUBBISH = Rejected("webhook", "192.0.2.1", "malformed", "the body is no JSON", "GET / HTTP/1.1")
OTHERS = [
    replace(RUBBISH, source="smn"),
    replace(RUBBISH, peer="192.0.2.2"),
    replace(RUBBISH, reason="event"),
    replace(RUBBISH, why="the body is too long"),
    replace(RUBBISH, excerpt="POST / HTTP/1.1"),
]


async def _reject(ledger: Ledger, *rejected: Rejected, now: datetime = NOW) -> None:
    async with ledger.writing() as session:
        await reject(session, rejected, now)


async def test_the_same_rubbish_is_counted(ledger: Ledger) -> None:
    """The same thing from the same peer is one row that says how often, when first, and when last."""
    await _reject(ledger, RUBBISH, RUBBISH)
    await _reject(ledger, RUBBISH, now=NOW + HOUR)
    async with ledger.reading() as session:
        (row,) = await rejections(session, 10)
    assert (row.source, row.peer, row.reason, row.why, row.excerpt, row.first, row.last, row.times) == (
        "webhook",
        "192.0.2.1",
        "malformed",
        "the body is no JSON",
        "GET / HTTP/1.1",
        NOW,
        NOW + HOUR,
        3,
    )


async def test_other_rubbish_is_another_row(ledger: Ledger) -> None:
    """What differs in source, peer, reason, words or beginning is kept by itself, and shown the last first."""
    for n, each in enumerate([RUBBISH, *OTHERS]):
        await _reject(ledger, each, now=NOW + n * SECOND)
    async with ledger.reading() as session:
        shown = await rejections(session, 3)
    found = [Rejected(row.source, row.peer, row.reason, row.why, row.excerpt) for row in shown]
    assert found == OTHERS[:1:-1]
    assert [row.times for row in shown] == [1, 1, 1]


async def test_text_that_is_no_text(ledger: Ledger) -> None:
    """What was received is kept as text, whatever it is made of."""
    strange = replace(RUBBISH, excerpt="\u202e'; DROP TABLE rejections; -- \N{PILE OF POO}")
    await _reject(ledger, strange, strange)
    async with ledger.reading() as session:
        assert [(row.excerpt, row.times) for row in await rejections(session, 10)] == [(strange.excerpt, 2)]


@pytest.mark.parametrize("apart", [timedelta(0), SECOND], ids=["all at once", "one by one"])
async def test_rejections_are_bounded(ledger: Ledger, apart: timedelta) -> None:
    """However much rubbish comes, the last ten thousand are kept."""
    rows = [
        {"id": f"{n:032}", "source": "s", "peer": "", "reason": "", "why": "", "excerpt": "", "times": 1}
        | {"first": NOW, "last": NOW + n * apart}
        for n in range(MOST_REJECTIONS + 50)
    ]
    async with ledger.writing() as session:
        await session.execute(insert(Rejection), rows)
    async with ledger.writing() as session:
        await prune(session, NOW)
    async with ledger.reading() as session:
        kept = (await session.scalars(select(Rejection.id))).all()
    assert len(kept) == MOST_REJECTIONS
    if apart:
        assert min(kept) == f"{50:032}"


async def test_what_is_old_is_forgotten(story: Story) -> None:
    """Observations, rejections, message ids, senders and ended intakes are forgotten after a month, alarms never."""

    async def receive(name: str) -> None:
        await story.see(told("raised", name, name, story.now))
        async with story.ledger.writing() as session:
            await reject(session, [replace(RUBBISH, excerpt=name)], story.now)
            await first_time(session, "smn", name, story.now)
            await heard(session, {("syslog", name)}, story.now)
            await intake_started(session, name, story.now)

    async def kept() -> list[list[str]]:
        columns = (Rejection.excerpt, Message.id, SourceRow.peer, IntakeRow.id)
        async with story.ledger.reading() as session:
            return [sorted(await session.scalars(select(column))) for column in columns]

    await receive("old")
    story.later(SECOND)
    await receive("new")
    async with story.ledger.writing() as session:
        await prune(session, NOW + KEPT)
    assert await kept() == [["new", "old"]] * 4
    async with story.ledger.writing() as session:
        await prune(session, NOW + KEPT + SECOND)
    assert await kept() == [["new"]] * 4
    assert [row.at for row in await story.observations()] == [NOW + SECOND]
    assert [each.host for each in await story.occurrences()] == ["old", "new"]


async def test_an_id_is_new_once(ledger: Ledger) -> None:
    """A message id is new the first time only, for each source, and stays new where it was not committed."""

    async def ask(source: str, name: str) -> bool:
        async with ledger.writing() as session:
            return await first_time(session, source, name, NOW)

    async with ledger.writing() as session:
        assert await first_time(session, "smn", "m-1", NOW)
        assert not await first_time(session, "smn", "m-1", NOW)
        await session.rollback()
    assert [await ask(*each) for each in [("smn", "m-1"), ("smn", "m-1"), ("webhook", "m-1"), ("smn", "m-2")]] == [
        True,
        False,
        True,
        True,
    ]


async def test_who_was_heard(ledger: Ledger) -> None:
    """Of every source and peer the time when it was last heard is kept."""
    for now, voices in ((NOW, {("smn", "a"), ("smn", "b")}), (NOW + HOUR, {("smn", "b"), ("webhook", "b")})):
        async with ledger.writing() as session:
            await heard(session, voices, now)
    async with ledger.reading() as session:
        rows = (await session.scalars(select(SourceRow).order_by(SourceRow.source, SourceRow.peer))).all()
    assert [(row.source, row.peer, row.heard) for row in rows] == [
        ("smn", "a", NOW),
        ("smn", "b", NOW + HOUR),
        ("webhook", "b", NOW + HOUR),
    ]


async def test_clusters_come_and_go(ledger: Ledger) -> None:
    """The table follows the blocks: what is new is read now, what changed is changed, what is gone may come back."""

    async def sync(now: datetime, *found: Cluster) -> list[tuple[str, str, str, float, datetime]]:
        async with ledger.writing() as session:
            await sync_clusters(session, found, now)
        async with ledger.reading() as session:
            return [(row.name, row.cluster_id, row.source, row.speed, row.connected) for row in await clusters(session)]

    async def gone() -> dict[str, datetime | None]:
        async with ledger.reading() as session:
            return {row.name: row.gone for row in await session.scalars(select(Cluster))}

    alpha, beta = ("alpha", "id-of-alpha", "alpha", 1.0, NOW - HOUR), ("beta", "id-of-beta", "beta", 1.0, NOW - HOUR)

    def block(name: str) -> Cluster:
        return a_cluster(name, connected=NOW - HOUR)

    assert await sync(NOW, block("beta"), block("alpha")) == [alpha, beta]
    changed = Cluster(name="alpha", cluster_id="id-2", source="Alpha", speed=60, connected=NOW)
    assert await sync(NOW + HOUR, changed) == [("alpha", "id-2", "Alpha", 60.0, NOW)]
    assert await gone() == {"alpha": None, "beta": NOW + HOUR}
    await sync(NOW + 2 * HOUR, block("alpha"))
    assert await gone() == {"alpha": None, "beta": NOW + HOUR}
    assert await sync(NOW + 3 * HOUR, block("beta"), block("alpha")) == [alpha, beta]
    assert await gone() == {"alpha": None, "beta": None}
    assert await sync(NOW + 4 * HOUR) == []
    async with ledger.reading() as session:
        polls = {poll.cluster: poll.due for poll in await session.scalars(select(Poll))}
    assert polls == {"alpha": NOW, "beta": NOW}


@pytest.mark.parametrize(
    ("away", "gap"), [(OUTAGE, None), (OUTAGE + SECOND, NOW + MINUTE)], ids=["a restart", "an outage"]
)
async def test_our_own_outages(ledger: Ledger, away: timedelta, gap: datetime | None) -> None:
    """An intake that starts long after the last one was alive knows since when there was none."""
    async with ledger.writing() as session:
        assert await intake_started(session, "first", NOW) is None
    async with ledger.writing() as session:
        await intake_alive(session, "first", NOW + MINUTE)
    async with ledger.writing() as session:
        assert await intake_started(session, "second", NOW + MINUTE + away) == gap
    async with ledger.reading() as session:
        rows = (await session.scalars(select(IntakeRow).order_by(IntakeRow.started))).all()
    assert [(row.id, row.started, row.alive, row.gap_from) for row in rows] == [
        ("first", NOW, NOW + MINUTE, None),
        ("second", NOW + MINUTE + away, NOW + MINUTE + away, gap),
    ]


async def test_two_intakes_have_no_outage(ledger: Ledger) -> None:
    """While another intake is alive the start of one more is no outage, however old the first one is."""
    async with ledger.writing() as session:
        await intake_started(session, "first", NOW)
        await intake_alive(session, "first", NOW + 24 * HOUR)
        await session.flush()
        assert await intake_started(session, "second", NOW + 24 * HOUR + MINUTE) is None
