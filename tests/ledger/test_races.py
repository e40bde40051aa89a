"""Several at once: whoever writes does so alone, so that nothing happens twice."""

import asyncio
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import pytest
from sqlalchemy import URL, select

from tasks.ledger.database import Ledger, open_ledger
from tasks.ledger.episodes import Asking, Held, Holding, claim, let_go
from tasks.ledger.observing import Seen, Sighting, observe
from tasks.ledger.receiving import Rejected, first_time, heard, reject, rejections
from tasks.ledger.starting import started
from tasks.ledger.tables import Cluster, Episode, ObservationRow, Occurrence
from tests.ledger.conftest import ECS_KEYS, NOW, SECOND, Story, a_cluster, told

pytestmark = pytest.mark.anyio
PROCESS = """
import asyncio, sys
from datetime import datetime, timezone
from tasks.ledger.database import open_ledger
from tasks.ledger.episodes import Asking, Holding, claim
from tasks.ledger.observing import Sighting, observe
from tasks.ledger.tables import Cluster
from tasks.models import Observation

NOW = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
ALARMS = [
    Sighting(Observation(alarm_id="12110", kind="raised", cluster=c, host=f"node-{n}", serial=f"s-{n}", occurred=NOW),
             Cluster(name=c, cluster_id=c, source=c, speed=1, connected=NOW), "syslog", "", "")
    for c in ("c-0", "c-1", "c-2", "c-3", "c-4")
    for n in range(100)
]

async def main():
    opened, held = 0, 0
    async with open_ledger() as ledger:
        for at in range(0, 500, 50):
            async with ledger.writing() as session:
                opened += sum(each.opened for each in await observe(session, ALARMS[at : at + 50], NOW))
        for n in range(10):
            async with ledger.writing() as session:
                asking = Asking(f"{sys.argv[1]}-{n}", "", True)
                held += isinstance(await claim(session, "c-0", "c-0", "12110", asking, NOW), Holding)
    print(opened, held)

print("ready", flush=True)
input()
asyncio.run(main())
"""


async def test_two_intakes_see_the_same(url: URL) -> None:
    """Two intakes that observe the same 500 alarms of five clusters at once open one episode for each cluster."""
    clusters = [a_cluster(f"c-{n}") for n in range(5)]
    alarms = [
        Sighting(told("raised", f"node-{n}", f"s-{n}", NOW), cluster, "syslog", "", "")
        for cluster in clusters
        for n in range(100)
    ]

    async def watch(ledger: Ledger, batch: list[Sighting]) -> list[Seen]:
        async with ledger.writing() as session:
            return await observe(session, batch, NOW)

    async with open_ledger(url) as one, open_ledger(url) as other:
        found = await asyncio.gather(
            *(watch(ledger, alarms[at : at + 50]) for at in range(0, 500, 50) for ledger in (one, other))
        )
        async with one.reading() as session:
            episodes = (await session.scalars(select(Episode))).all()
            hosts = Counter((each.cluster_id, each.host) for each in await session.scalars(select(Occurrence)))
            duplicates = Counter(await session.scalars(select(ObservationRow.duplicate)))
    assert sorted((each.cluster, each.state, each.n) for each in episodes) == [
        (f"c-{n}", "raised", 1) for n in range(5)
    ]
    assert (len(hosts), set(hosts.values()), duplicates) == (500, {1}, {False: 500, True: 500})
    assert sum(each.opened for batch in found for each in batch) == 5


async def test_twenty_runs_want_one_episode(url: URL) -> None:
    """Of twenty runs that ask for one episode at once one holds it, and all others are told which."""

    async def ask(ledger: Ledger, run: str) -> Holding | Held:
        async with ledger.writing() as session:
            return await claim(session, "id-of-alpha", "alpha", ECS_KEYS, Asking(run, f"link-{run}", True), NOW)

    async with open_ledger(url) as one, open_ledger(url) as other:
        got = await asyncio.gather(*(ask((one, other)[n % 2], f"run-{n}") for n in range(20)))
        episode = await Story(one).episode()
    assert episode.token == 1
    assert [each for each in got if isinstance(each, Holding)] == [Holding(episode.id, 1, [], {}, [])]
    assert [each for each in got if isinstance(each, Held)] == [Held(episode.id, episode.link)] * 19


async def test_one_run_is_begun_anew_twenty_times(url: URL) -> None:
    """Of twenty processes in which one run comes back from its wait at once one goes on, the others are told so."""

    async def come_back(ledger: Ledger) -> Holding | Held:
        async with ledger.writing() as session:
            return await claim(session, "id-of-alpha", "alpha", ECS_KEYS, Asking("run-1", "link-1", True), NOW)

    async with open_ledger(url) as one, open_ledger(url) as other:
        holding = await Story(one).hold()
        async with one.writing() as session:
            await let_go(session, holding)
        got = await asyncio.gather(*(come_back((one, other)[n % 2]) for n in range(20)))
    back = [each for each in got if isinstance(each, Holding)]
    assert [(each, each.attempt) for each in back] == [(Holding(holding.episode, 2, [], {}, []), holding.attempt)]
    assert [each for each in got if isinstance(each, Held)] == [Held(holding.episode, "link-1", own=True)] * 19


async def test_two_dispatchers_start_one_number(url: URL) -> None:
    """Two dispatchers that write down the run of one number write the same, for Prefect's key gave both the same."""

    async def dispatch(ledger: Ledger, episode: str) -> bool:
        async with ledger.writing() as session:
            return await started(session, episode, 1, "run-1")

    async with open_ledger(url) as one, open_ledger(url) as other:
        story = Story(one)
        (seen,) = await story.see(told("raised"))
        written = await asyncio.gather(dispatch(one, seen.episode), dispatch(other, seen.episode))
        assert list(written) == [True, True]
        row = await story.episode()
        assert (row.run, row.runs, row.state, row.n) == ("run-1", 1, "raised", 1)


async def test_an_id_is_new_once(url: URL) -> None:
    """Of twenty deliveries of one message id at once one is the first."""

    async def deliver(ledger: Ledger) -> bool:
        async with ledger.writing() as session:
            return await first_time(session, "smn", "m-1", NOW)

    async with open_ledger(url) as one, open_ledger(url) as other:
        assert sum(await asyncio.gather(*(deliver((one, other)[n % 2]) for n in range(20)))) == 1


async def test_the_same_rubbish_from_two_intakes(url: URL) -> None:
    """What two intakes reject, and whom they hear, at the same time is one row that counts all."""
    rubbish = Rejected("webhook", "192.0.2.1", "malformed", "no JSON", "x")

    async def receive(ledger: Ledger) -> None:
        async with ledger.writing() as session:
            await reject(session, [rubbish], NOW)
            await heard(session, {("webhook", "192.0.2.1")}, NOW)

    async with open_ledger(url) as one, open_ledger(url) as other:
        await asyncio.gather(*(receive((one, other)[n % 2]) for n in range(20)))
        async with one.reading() as session:
            assert [row.times for row in await rejections(session, 10)] == [20]


async def test_a_reader_sees_one_state(url: URL) -> None:
    """Who reads sees one state of the ledger, whatever is written meanwhile, and does not keep the writer waiting."""
    async with open_ledger(url) as one, open_ledger(url) as other:
        async with one.reading() as session:
            before = (await session.scalars(select(Cluster.name))).all()
            async with other.writing() as writer:
                writer.add(a_cluster())
            during = (await session.scalars(select(Cluster.name))).all()
        async with one.reading() as session:
            after = (await session.scalars(select(Cluster.name))).all()
    assert (before, during, after) == ([], [], ["alpha"])


async def test_what_fails_is_not_written(url: URL) -> None:
    """An error within the block takes back all that was written in it, and the next writer gets its turn."""
    async with open_ledger(url) as ledger:

        async def fail() -> None:
            async with ledger.writing() as session:
                session.add(a_cluster())
                await session.flush()
                raise ZeroDivisionError("a mistake of ours")

        with pytest.raises(ZeroDivisionError):
            await fail()
        story = Story(ledger, NOW + SECOND)
        await story.see(told("raised"))
        assert await story.states() == [("raised", 1)]
        async with ledger.reading() as session:
            assert (await session.scalars(select(Cluster.name))).all() == []


async def test_a_writer_that_is_cancelled_lets_go(url: URL) -> None:
    """A writer that is cancelled in the midst of it has written nothing and keeps nobody waiting."""
    inside = asyncio.Event()

    async def write(ledger: Ledger) -> None:
        async with ledger.writing() as session:
            session.add(a_cluster())
            await session.flush()
            inside.set()
            await asyncio.sleep(60)

    async with open_ledger(url) as one, open_ledger(url) as other:
        writing = asyncio.create_task(write(one))
        await inside.wait()
        writing.cancel()
        assert [type(each) for each in await asyncio.gather(writing, return_exceptions=True)] == [
            asyncio.CancelledError
        ]
        async with asyncio.timeout(10), other.writing() as session:
            assert (await session.scalars(select(Cluster.name))).all() == []


def _let_two_processes_race() -> list[str]:
    """Start both, let them go at the same moment, and return what each of them said."""
    command = [sys.executable, "-W", "error", "-c", PROCESS]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([*command, name], text=True, stdin=PIPE, stdout=PIPE, stderr=PIPE))
            for name in ("one", "other")
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        ended = [process.communicate(timeout=60) for process in processes]
    assert [(process.returncode, errors) for process, (_, errors) in zip(processes, ended, strict=True)] == [
        (0, "")
    ] * 2
    return [said for said, _ in ended]


async def test_two_processes_and_a_fresh_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes open a file that is not there yet, observe the same 500 alarms and ask for one episode, at once."""
    monkeypatch.setenv("RUNBOOKS_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    counts = [tuple(map(int, said.split())) for said in await asyncio.to_thread(_let_two_processes_race)]
    assert tuple(map(sum, zip(*counts, strict=True))) == (5, 1)
    async with open_ledger() as ledger, ledger.reading() as session:
        states = Counter(await session.scalars(select(Episode.state)))
        hosts = Counter((each.cluster_id, each.host) for each in await session.scalars(select(Occurrence)))
        duplicates = Counter(await session.scalars(select(ObservationRow.duplicate)))
    assert (states, len(hosts), set(hosts.values())) == ({"raised": 4, "running": 1}, 500, {1})
    assert duplicates == {False: 500, True: 500}
