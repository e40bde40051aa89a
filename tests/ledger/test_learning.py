"""What attempts learn and set out to change: the first who writes it down counts, and what was begun is counted."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import URL, select

from tasks.ledger.database import Ledger, open_ledger
from tasks.ledger.episodes import Holding
from tasks.ledger.learning import (
    begun_elsewhere,
    command_known,
    count_intents,
    intent_ended,
    intent_of,
    learn,
    learned,
)
from tasks.ledger.receiving import KEPT, prune
from tasks.ledger.tables import Episode, Intent, Learned
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND, a_cluster

pytestmark = pytest.mark.anyio
MINE, OTHER = "run-1@now", "run-2@now"


async def knows(ledger: Ledger, attempt: str, key: str) -> str | None:
    """What the attempt has learned under this key."""
    async with ledger.reading() as session:
        return await learned(session, attempt, key)


async def told(ledger: Ledger, attempt: str, key: str, value: str) -> str:
    """The attempt learns this; what counts from now on."""
    async with ledger.writing() as session:
        return await learn(session, attempt, key, value, NOW)


async def test_the_first_writer_wins(ledger: Ledger) -> None:
    """What an attempt learned first stays, whatever is learned later, and the later one is told so."""
    assert await knows(ledger, MINE, "step 1") is None
    assert [await told(ledger, MINE, "step 1", value) for value in ("first", "second", "")] == ["first"] * 3
    assert await knows(ledger, MINE, "step 1") == "first"


async def test_what_one_attempt_learned_no_other_knows(ledger: Ledger) -> None:
    """Another attempt or another key is learned for itself, also where it is only written otherwise."""
    keys = [(MINE, "step 1"), (MINE, "step 2"), (MINE, "Step 1"), (OTHER, "step 1"), (MINE, "")]
    for number, (attempt, key) in enumerate(keys):
        assert await told(ledger, attempt, key, str(number)) == str(number)
    assert [await knows(ledger, *key) for key in keys] == ["0", "1", "2", "3", "4"]


async def test_twenty_learn_the_same_at_once(url: URL) -> None:
    """Of twenty processes of one attempt that learn one thing at once the first counts for all."""
    async with open_ledger(url) as one, open_ledger(url) as other:
        got = await asyncio.gather(*(told((one, other)[n % 2], MINE, "step 1", str(n)) for n in range(20)))
        assert set(got) == {await knows(one, MINE, "step 1")}


async def test_what_was_learned_is_kept_for_a_month(ledger: Ledger) -> None:
    """What was learned is forgotten when a run can no longer live, not before."""
    async with ledger.writing() as session:
        await learn(session, MINE, "old", "1", NOW - KEPT - SECOND)
        await learn(session, MINE, "new", "2", NOW - KEPT)
        await prune(session, NOW)
    async with ledger.reading() as session:
        assert (await session.scalars(select(Learned.key))).all() == ["new"]


def holding(attempt: str = MINE) -> Holding:
    """What a run holds."""
    return Holding("e", 1, attempt=attempt)


def an_intent(attempt: str = MINE, step: str = "3", target: str = "node-1", ago: timedelta = MINUTE) -> Intent:
    """What a run set out to change in the cluster."""
    return Intent(
        attempt=attempt, step=step, target=target, episode_id="e", cluster_id="c", at=NOW - ago, before='{"a": 1}'
    )


async def write(ledger: Ledger, *intents: Intent) -> None:
    """These are on disk."""
    async with ledger.writing() as session:
        if await session.get(Episode, "e") is None:
            cluster = a_cluster()
            session.add(
                Episode(
                    id="e",
                    cluster_id=cluster.cluster_id,
                    cluster=cluster.name,
                    alarm_id="12110",
                    state="running",
                    opened=NOW,
                    opened_by="syslog",
                    raised=NOW,
                )
            )
            await session.flush()
        session.add_all(intents)


async def found(ledger: Ledger, attempt: str = MINE, step: str = "3", target: str = "node-1") -> tuple[str, ...] | None:
    """What the attempt set out to do there: what it was before, the command, how it ended."""
    async with ledger.reading() as session:
        intent = await intent_of(session, holding(attempt), step, target)
    return (intent.before, intent.command, intent.did) if intent else None


async def test_an_intent_is_one_attempt_s_step_and_target(ledger: Ledger) -> None:
    """An intent is found by the attempt that wrote it, at its step and of its target, and by nobody else."""
    await write(ledger, an_intent())
    assert await found(ledger) == ('{"a": 1}', "", "")
    others = [
        await found(ledger, OTHER),
        await found(ledger, step="6"),
        await found(ledger, target="node-2"),
        await found(ledger, target="NODE-1"),
    ]
    assert others == [None] * 4


async def test_the_command_of_an_intent(ledger: Ledger) -> None:
    """Manager's id of the command is kept with the one intent that it belongs to."""
    await write(ledger, an_intent(), an_intent(target="node-2"), an_intent(OTHER), an_intent(step="6"))
    async with ledger.writing() as session:
        await command_known(session, holding(), "3", "node-1", "4711")
    async with ledger.reading() as session:
        commands = await session.scalars(select(Intent.command).order_by(Intent.attempt, Intent.step, Intent.target))
        assert commands.all() == ["4711", "", "", ""]


async def test_how_an_intent_ended_is_kept(ledger: Ledger) -> None:
    """How a change ended is written down once, for this one only, and stays known to a run that is begun anew then."""
    await write(ledger, an_intent(), an_intent(target="node-2"), an_intent(OTHER), an_intent(step="6"))
    for did, now in (("restarted", NOW), ("not restarted", NOW + HOUR)):
        async with ledger.writing() as session:
            await intent_ended(session, holding(), "3", "node-1", did, now)
    async with ledger.reading() as session:
        rows = await session.scalars(select(Intent).order_by(Intent.attempt, Intent.step, Intent.target))
        assert [(each.ended, each.did) for each in rows] == [(NOW, "restarted"), (None, ""), (None, ""), (None, "")]
    assert await found(ledger) == ('{"a": 1}', "", "restarted")


async def test_what_was_not_begun_cannot_end(ledger: Ledger) -> None:
    """An end or a command of a change that was not begun leaves nothing behind."""
    await write(ledger)
    async with ledger.writing() as session:
        await command_known(session, holding(), "3", "node-1", "4711")
        await intent_ended(session, holding(), "3", "node-1", "not restarted", NOW)
    async with ledger.reading() as session:
        assert (await session.scalars(select(Intent))).all() == []


def _ended(intent: Intent) -> Intent:
    intent.ended = NOW
    return intent


def _elsewhere(intent: Intent) -> Intent:
    intent.cluster_id = "c-2"
    return intent


@pytest.mark.parametrize(
    ("intents", "target"),
    [
        (lambda: [], None),
        (lambda: [an_intent(OTHER)], "node-1"),
        (lambda: [an_intent()], None),
        (lambda: [_ended(an_intent(OTHER))], None),
        (lambda: [_elsewhere(an_intent(OTHER))], None),
        (lambda: [an_intent(OTHER, ago=HOUR - SECOND)], "node-1"),
        (lambda: [an_intent(OTHER, ago=HOUR)], None),
        (lambda: [an_intent(OTHER, "6", "node-2", ago=SECOND), an_intent(OTHER, ago=MINUTE)], "node-1"),
        (lambda: [_ended(an_intent(OTHER)), an_intent(OTHER, "6", "node-2")], "node-2"),
        (lambda: [an_intent(), an_intent("run-3@now", target="node-3")], "node-3"),
    ],
    ids=[
        "nothing",
        "another attempt's",
        "its own",
        "one that ended",
        "one of another cluster",
        "not yet an hour ago",
        "an hour ago",
        "the oldest of two",
        "the open one of two",
        "beside its own",
    ],
)
async def test_what_another_has_begun(ledger: Ledger, intents: Callable[[], list[Intent]], target: str | None) -> None:
    """The oldest change of the cluster that another attempt began within the hour, and that has not ended, is told."""
    await write(ledger, *intents())
    async with ledger.reading() as session:
        intent = await begun_elsewhere(session, "c", MINE, NOW - HOUR)
    assert (intent and intent.target) == target


@pytest.mark.parametrize(
    ("steps", "cluster_id", "target", "count"),
    [
        (["3"], "", "", 5),
        (["6"], "", "", 1),
        (["3", "6"], "", "", 6),
        ([], "", "", 0),
        (["3"], "c", "", 4),
        (["3"], "c-2", "", 1),
        (["3"], "c-3", "", 0),
        (["3", "6"], "c", "node-1", 3),
        (["3"], "c", "node-1", 2),
        (["3", "6"], "", "node-1", 4),
        (["3", "6"], "c", "node", 0),
    ],
)
async def test_changes_are_counted(
    ledger: Ledger, steps: Sequence[str], cluster_id: str, target: str, count: int
) -> None:
    """Changes are counted by step, cluster and target, whoever began them and however they ended, since then only."""
    await write(
        ledger,
        an_intent(),
        _ended(an_intent(OTHER)),
        an_intent(step="6"),
        an_intent(target="node-2"),
        an_intent(target="node-3", ago=HOUR - SECOND),
        _elsewhere(an_intent("run-3@now")),
        an_intent(target="node-4", ago=HOUR),
        an_intent("run-4@now", ago=2 * HOUR),
    )
    async with ledger.reading() as session:
        since = NOW - HOUR
        assert await count_intents(session, since, steps=steps, cluster_id=cluster_id, target=target) == count
