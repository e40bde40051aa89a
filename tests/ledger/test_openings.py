"""Which episodes are open and what each waits for, as `runbooks status` and the Prefect UI show it."""

import pytest

from tasks.artifacts import row_of
from tasks.ledger.approving import put
from tasks.ledger.episodes import Holding, let_go, wait_begun
from tasks.ledger.openings import Open, how_many_open, open_episodes
from tests.ledger.conftest import HOUR, MINUTE, Story, a_cluster, a_question, part, told

pytestmark = pytest.mark.anyio


async def found(story: Story) -> list[Open]:
    """What is open now."""
    async with story.ledger.reading() as session:
        return await open_episodes(session)


async def rows(story: Story) -> list[tuple[str, ...]]:
    """The same as rows, without the time they were opened."""
    return [tuple(row_of(each).values())[:3] + tuple(row_of(each).values())[4:] for each in await found(story)]


async def asks(story: Story, holding: Holding) -> None:
    """The run asks a person and becomes a row."""
    async with story.ledger.writing() as session:
        about = {"link": "https://prefect/run-1", "asked": story.now, "expires": story.now + HOUR}
        question = a_question(holding, **about)
        await put(session, holding, question)
        await let_go(session, holding)


async def test_what_an_episode_waits_for(story: Story) -> None:
    """For a run; for nothing while one is at work; for a step's end; for a relapse; and then it is open no more."""
    assert await found(story) == []
    await story.see(told("raised", "node-2", "2"), told("raised", "node-1", "1"))
    seen = [*await rows(story)]
    holding = await story.hold()
    seen += await rows(story)
    async with story.ledger.writing() as session:
        await wait_begun(session, holding, "3", story.now + 10 * MINUTE)
        await wait_begun(session, holding, "3 not before", story.now + 5 * MINUTE)
        await let_go(session, holding)
    seen += await rows(story)
    holding = await story.hold()
    await story.end(holding, part("node-1", "END", "1"), part("node-2", "END", "2"))
    seen += await rows(story)
    hosts, run = "node-1, node-2", "https://prefect/run-1"
    assert seen == [
        ("alpha", "waits for a run", "a run", "", hosts),
        ("alpha", "a run is at work", "", run, hosts),
        ("alpha", "its run waits", "step 3 not before, until 2026-11-25 12:05:00 UTC", run, hosts),
        ("alpha", "done, a relapse would continue it", "a relapse, until 2026-11-25 12:25:00 UTC", run, hosts),
    ]
    story.later(HOUR)
    await story.close_verified()
    assert await found(story) == []


async def test_where_a_person_is_asked_comes_first(story: Story) -> None:
    """The episode in which a person is asked comes before an older one, and says what is asked and until when."""
    await story.see(told("raised", "node-9"), of=a_cluster("beta"))
    story.later(MINUTE)
    await story.see(told("raised", "node-1", "1"))
    await asks(story, await story.hold())
    assert await rows(story) == [
        (
            "alpha",
            "a person is asked",
            "a person: restart, approve, until 2026-11-25 13:01:00 UTC",
            "https://prefect/run-1",
            "node-1",
        ),
        ("beta", "waits for a run", "a run", "", "node-9"),
    ]
    async with story.ledger.reading() as session:
        first = await open_episodes(session, 1)
        assert ([each.episode.cluster for each in first], await how_many_open(session)) == (["alpha"], 2)
