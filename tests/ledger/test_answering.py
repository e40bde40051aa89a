"""Which routes answer: what was asked is kept, what has answered once has answered, another call is another route."""

from datetime import datetime

import pytest

from tasks.ledger.answering import (
    MOST_SAID,
    Asked,
    answers_of,
    forget_answers,
    keep_answers,
    never_answered,
    was_restarted,
)
from tasks.ledger.database import Ledger
from tasks.ledger.tables import Intent
from tests.ledger.conftest import HOUR, MINUTE, NOW, Story, told

pytestmark = pytest.mark.anyio
ALARMS, HOSTS = "Manager GET alarms", "Manager GET clusters/{cluster}/hosts"


async def asked(
    ledger: Ledger, answered: bool, call: str = ALARMS, at: datetime = NOW, *, of: str = "alpha", name: str = "alarms"
) -> None:
    """A route was asked then."""
    async with ledger.writing() as session:
        said = "1 listed" if answered else "HTTP 404: no"
        await keep_answers(session, of, [Asked(name, call, "ASSUMED", answered, said)], at)


async def kept(ledger: Ledger, of: str = "alpha") -> list[tuple[str, str, datetime, datetime | None, str]]:
    """Name, call, when it was asked and when it answered last, what it said; of each route of the cluster."""
    async with ledger.reading() as session:
        rows = await answers_of(session, of)
    return [(row.name, row.call, row.asked, row.answered, row.said) for row in rows.values()]


async def silent(ledger: Ledger, **calls: str) -> list[str]:
    """Those of these calls that never answered for alpha."""
    async with ledger.reading() as session:
        return [row.name for row in await never_answered(session, "alpha", calls)]


async def test_what_has_answered_once_has_answered(ledger: Ledger) -> None:
    """A route that answered and is silent now has answered then; its last words are kept."""
    await asked(ledger, False)
    assert await kept(ledger) == [("alarms", ALARMS, NOW, None, "HTTP 404: no")]
    assert await silent(ledger, alarms=ALARMS) == ["alarms"]
    await asked(ledger, True, at=NOW + MINUTE)
    await asked(ledger, False, at=NOW + HOUR)
    assert await kept(ledger) == [("alarms", ALARMS, NOW + HOUR, NOW + MINUTE, "HTTP 404: no")]
    assert await silent(ledger, alarms=ALARMS) == []


async def test_another_call_is_another_route(ledger: Ledger) -> None:
    """A route that is called otherwise has not answered yet, which counts from when it was asked so."""
    await asked(ledger, True)
    other = "Manager GET monitor/alarms"
    assert await silent(ledger, alarms=other) == []
    await asked(ledger, False, other)
    assert await silent(ledger, alarms=other) == ["alarms"]
    assert await silent(ledger, alarms=ALARMS) == []


async def test_each_cluster_and_route_is_asked_for_itself(ledger: Ledger) -> None:
    """What was asked of another cluster, or of another route, says nothing; the order is that of the question."""
    await asked(ledger, False, of="beta")
    await asked(ledger, False, HOSTS, name="hosts")
    assert await silent(ledger, alarms=ALARMS) == []
    await asked(ledger, False)
    assert await silent(ledger, hosts=HOSTS, alarms=ALARMS) == ["hosts", "alarms"]
    assert await silent(ledger, alarms=ALARMS) == ["alarms"]


async def test_what_was_answered_can_be_forgotten(ledger: Ledger) -> None:
    """After that the cluster's routes have never been asked; those of another are as before."""
    for cluster in ("alpha", "beta"):
        await asked(ledger, False, of=cluster)
    async with ledger.writing() as session:
        await forget_answers(session, "alpha")
    assert (await kept(ledger), len(await kept(ledger, "beta"))) == ([], 1)


async def test_a_long_answer_is_cut(ledger: Ledger) -> None:
    """What a service says may be long; so much of it is kept, the first time and later."""
    for _ in range(2):
        async with ledger.writing() as session:
            await keep_answers(session, "alpha", [Asked("alarms", ALARMS, "ASSUMED", False, "x" * 5000)], NOW)
        assert [len(row[4]) for row in await kept(ledger)] == [MOST_SAID]


def an_intent(attempt: str, episode: str, step: str, target: str, command: str) -> Intent:
    """A change that was begun."""
    return Intent(
        attempt=attempt,
        step=step,
        target=target,
        episode_id=episode,
        cluster_id="id-of-alpha",
        at=NOW,
        command=command,
    )


async def test_a_restart_that_manager_took(story: Story) -> None:
    """Manager has taken a restart when it has named a command of one in this cluster; a bind's request is none."""
    await story.see(told("raised"))
    mine = await story.hold()
    for step, command, taken in (("3", "", False), ("6", "request-1", False), ("3", "101", True)):
        async with story.ledger.writing() as session:
            session.add(an_intent(mine.attempt, mine.episode, step, f"{step}-{command}", command))
        async with story.ledger.reading() as session:
            found = [await was_restarted(session, of) for of in ("id-of-alpha", "id-of-beta")]
        assert found == [taken, False]
