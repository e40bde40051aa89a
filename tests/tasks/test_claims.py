"""One acting run per cluster: the claim is an episode's lease in the ledger, and each intent asks for it again."""

import asyncio
import itertools
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio.to_thread
import pytest
from sqlalchemy import select, update

from tasks import timing
from tasks.claims import TRIES, broke_off, cancel_noted, goes_on_elsewhere, holds, noted, settled
from tasks.errors import LedgerUnavailable, Refused
from tasks.gates import intend
from tasks.intents import seen_to_its_end
from tasks.ledger.database import open_ledger, unchecked_ledger, upgrade_schema
from tasks.ledger.episodes import LEASE, Held, Holding, Part, claim, let_go
from tasks.ledger.observing import Sighting, observe
from tasks.ledger.outbox import Filing
from tasks.ledger.receiving import SILENT, intake_started
from tasks.ledger.starting import MOST_RUNS
from tasks.ledger.tables import Cluster, Episode, Intent
from tasks.models import Alarm, Case, Observation, Outcome
from tasks.recorded import Recorded
from tests.conftest import order
from tests.tasks.acting import PROD, a_block, a_case, asking, holding

pytestmark = pytest.mark.anyio
_targets = itertools.count(1)
PART = Part(Alarm(alarm_id="12110", location="HostName=node-1", serial="17"), Outcome.END, "1 2n 3y END")
HOLDER = """
import asyncio
from tasks.claims import claimed
from tasks.ledger.episodes import Asking
from tasks.models import Case

async def hold():
    case = Case(cluster="prod-1", alarm_id="12110", dry_run=False, run="run-17")
    async with claimed(case, Asking("run-17", "the run 17", automated=True), cluster_id="uuid-of-prod-1") as got:
        print(type(got).__name__, flush=True)
        await asyncio.sleep(60)

asyncio.run(hold())
"""


async def episodes() -> list[Episode]:
    """All episodes, as they were opened."""
    async with open_ledger() as ledger, ledger.reading() as session:
        return list((await session.scalars(select(Episode).order_by(Episode.opened))).all())


async def episode() -> Episode:
    """The only episode."""
    (found,) = await episodes()
    return found


async def change(**values: object) -> None:
    """Write this into the episode."""
    async with open_ledger() as ledger, ledger.writing() as session:
        await session.execute(update(Episode).values(**values))


def there(path: Path) -> bool:
    """Whether anything was written there."""
    return path.exists()


async def the_lease_ends() -> None:
    """As if half a minute had gone by."""
    await change(lease=timing.wall() - timedelta(seconds=1))


async def raised(**told: Any) -> str:
    """A source reports the alarm of a host; returns the episode."""
    month = timing.wall() - timedelta(days=30)
    prod = Cluster(name="prod-1", cluster_id=PROD, source="prod", speed=1, connected=month)
    seen = Observation(**{"alarm_id": "12110", "kind": "raised", "cluster": "prod", "host": "node-1", **told})
    async with open_ledger() as ledger, ledger.writing() as session:
        (found,) = await observe(session, [Sighting(seen, prod, "syslog", "127.0.0.1", "")], timing.wall())
    return found.episode


async def an_intake(*, silent: timedelta = timedelta(0)) -> None:
    """An intake is at work, or was so long ago."""
    async with open_ledger() as ledger, ledger.writing() as session:
        await intake_started(session, "an intake", timing.wall() - silent)


async def refusal(case: Case) -> str:
    """Why nothing may be changed; empty where it may, and then a node was bound and seen to be so."""
    node = f"node-{next(_targets)}"
    try:
        await intend(case, a_block(), "rebind", node, "node-1")
    except Refused as error:
        return str(error)
    await seen_to_its_end(case, "6", node, "bound")
    return ""


LOST = "this run has lost its claim on the cluster: another one may be at work"
NO_CLAIM = "this run holds no claim on its cluster"


@pytest.mark.parametrize("automated", [True, False])
async def test_the_second_sees_who_was_first(automated: bool) -> None:
    """While a run holds a cluster, any other, a person's too, learns who it is; a third as well."""
    async with holding("17") as first, holding("18", automated=automated) as second, holding("19") as third:
        held = Held(first.episode, "the run 17")
        assert (first, second, third) == (Holding(first.episode, 1, [], {}, []), held, held)
        assert [await refusal(a_case(run)) for run in ("run-17", "run-18")] == ["", NO_CLAIM]


async def test_a_killed_holder_holds_nothing_any_more() -> None:
    """A run killed with SIGKILL holds its cluster until its lease ends, and then the next one gets the same episode."""
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, stdout=asyncio.subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert await holder.stdout.readline() == b"Holding\n"
        async with holding("18") as while_it_lives:
            assert while_it_lives == Held((await episode()).id, "the run 17")
    finally:
        holder.send_signal(signal.SIGKILL)
        await holder.communicate()
    async with holding("18") as just_after:
        assert just_after == while_it_lives
    left = (await episode()).lease
    assert left is not None
    assert left - timing.wall() <= LEASE
    await the_lease_ends()
    async with holding("18") as after:
        assert (after.episode, after.token) == (while_it_lives.episode, 2)


async def test_a_claim_is_renewed_while_it_is_held() -> None:
    """The lease moves on as long as the block runs, and no more after it."""
    async with holding("17", renew_every=0.05):
        await the_lease_ends()
        for _ in range(100):
            await asyncio.sleep(0.05)
            if (renewed := await _lease()) > timing.wall() + LEASE / 2:
                break
        assert renewed > timing.wall() + LEASE / 2
    await the_lease_ends()
    await asyncio.sleep(0.3)
    assert await _lease() < timing.wall()


async def _lease() -> datetime:
    return (await episode()).lease or datetime.min.replace(tzinfo=UTC)


async def test_an_error_passes_through_the_claim() -> None:
    """A run that fails inside its claim passes its error on, may not act any more, and gets its episode back."""
    with pytest.raises(ZeroDivisionError):
        async with holding("17") as first:
            raise ZeroDivisionError
    assert await refusal(a_case("run-17")) == NO_CLAIM
    await the_lease_ends()
    async with holding("17") as again:
        assert (again, again.attempt) == (Holding(first.episode, 2, [], {}, []), first.attempt)


async def test_a_run_is_at_work_once() -> None:
    """A second process that begins the run while it is at work is told so and takes nothing from it."""
    async with holding("17") as first:
        async with open_ledger() as ledger, ledger.writing() as session:
            got = await claim(session, PROD, "prod-1", "12110", asking("17"), timing.wall())
        assert got == Held(first.episode, "the run 17", own=True)
        assert await refusal(a_case("run-17")) == ""


async def test_a_run_that_waits_holds_nothing_here() -> None:
    """A run that has become a row keeps its episode for itself, without a process, and changes nothing until back."""
    case = a_case("run-17")
    async with holding("17") as first:
        assert holds(case)
        assert await noted(case, let_go) is False
    assert not holds(case)
    assert await refusal(case) == NO_CLAIM
    async with holding("18", automated=False) as second:
        assert second == Held(first.episode, "the run 17")
    async with holding("17") as again:
        assert (again, again.attempt) == (Holding(first.episode, 2, [], {}, []), first.attempt)
        assert await refusal(case) == ""


@pytest.mark.parametrize(
    ("cluster_id", "case"), [("uuid-of-prod-2", {"cluster": "prod-2"}), (PROD, {"alarm_id": "12111"})]
)
async def test_another_cluster_or_alarm_is_free(cluster_id: str, case: dict[str, Any]) -> None:
    """A claim is of one alarm of one cluster."""
    async with holding("17") as first, holding("18", cluster_id, **case) as second:
        assert isinstance(second, Holding)
        assert second.episode != first.episode
        assert [await refusal(a_case(run)) for run in ("run-17", "run-18")] == ["", ""]


@pytest.mark.parametrize("case", [{"host": "node-1"}, {"comment": "again"}, {"cluster": "another block of it"}])
async def test_the_whole_cluster_is_claimed(case: dict[str, Any]) -> None:
    """A run for one host, one somebody else started, or one by another block of it is on the same cluster."""
    async with holding("17") as first, holding("18", **case) as second:
        assert second == Held(first.episode, "the run 17")


async def test_a_dry_run_claims_nothing(runbooks_home: Path) -> None:
    """A dry run neither waits for a claim nor holds or writes one, and its client is what keeps it from acting."""
    async with holding("16", dry_run=True) as nobody:
        assert (nobody, there(runbooks_home)) == (None, False)
        assert await refusal(a_case("run-16", dry_run=True)) == ""
        async with holding("17") as first, holding("18", dry_run=True) as second:
            assert (type(first), second) == (Holding, None)


async def test_a_change_is_noted_before_it_is_made() -> None:
    """What the gates let pass is an intent on disk before the change is made, and the episode is one that has acted."""
    async with holding("17") as mine:
        before = (await episode()).acted
        await intend(a_case("run-17"), a_block(), "restart", "node-1", "node-1", before="Faulty")
        assert (before, (await episode()).acted) == (False, True)
        async with open_ledger() as ledger, ledger.reading() as session:
            (row,) = (await session.scalars(select(Intent))).all()
    assert (row.attempt, row.step, row.target, row.episode_id, row.cluster_id) == (
        mine.attempt,
        "3",
        "node-1",
        mine.episode,
        PROD,
    )
    assert (row.before, row.command, row.ended, row.did) == ("Faulty", "", None, "")
    assert timedelta(0) <= timing.wall() - row.at < timedelta(minutes=1)


async def test_a_claim_that_was_taken_over_lets_nothing_pass() -> None:
    """Once another run has the episode, the first one may not act, not even when that one is gone, and ends nothing."""
    async with holding("17") as first:
        await the_lease_ends()
        async with holding("18") as second:
            assert (second.episode, second.token) == (first.episode, 2)
            assert [await refusal(a_case(run)) for run in ("run-17", "run-18")] == [LOST, ""]
            await settled(a_case("run-17"), [PART], Outcome.END, "T-1")
            assert ((await episode()).state, (await episode()).holder) == ("running", "run-18")
        await the_lease_ends()
        assert await refusal(a_case("run-17")) == LOST


async def test_an_old_alarm_is_not_acted_on_unless_a_person_decides() -> None:
    """In an episode of an old alarm the last gate refuses with the age, and lets a person's run pass."""
    now = timing.wall()
    await raised(occurred=now - timedelta(hours=3), sent=now)
    async with holding("17"):
        assert await refusal(a_case("run-17")) == (
            "the alarm was 3.0 hours old when it was first seen: nothing is changed by itself then; "
            "do it as described below, or start a run by hand"
        )
        assert not (await episode()).acted
    await the_lease_ends()
    async with holding("18", automated=False):
        assert await refusal(a_case("run-18")) == ""


async def test_a_run_that_ended_lets_go() -> None:
    """The end of a run is written down with its ticket, and an alarm does not begin the page anew; a person may."""
    await raised(serial="17")
    async with holding("17") as first:
        assert list(first.hosts) == ["node-1"]
        await settled(a_case("run-17"), [PART], Outcome.END, "T-1")
        row = await episode()
        assert (row.state, row.outcome, row.ticket, row.holder, row.lease) == ("verifying", "END", "T-1", None, None)
        assert await refusal(a_case("run-17")) == LOST
    async with holding("18") as automated:
        assert automated == Held(first.episode, "the run 17")
    async with holding("19", automated=False) as by_a_person:
        assert by_a_person == Holding(first.episode, 2, [], {"node-1": "1 2n 3y END"}, ())


async def test_a_run_without_a_claim_settles_nothing() -> None:
    """A run that joined, or a dry run, writes no end."""
    async with holding("17"), holding("18"):
        await settled(a_case("run-18"), [PART], Outcome.JOINED, "")
        assert ((await episode()).state, (await episode()).outcome) == ("running", "")


GOES_ON, ENDS = (False, "running", ""), (True, "closed", "ERROR")
CANCELLED, NOT_ITS_OWN = (True, "closed", "CANCELLED"), (True, "running", "")
# Whether it changed something, whether it is of a deployment, its word; whether it is over, and what the episode is
# then: with an intake at work, and without.
BROKEN: list[tuple[bool, bool, Outcome, tuple[bool, str, str], tuple[bool, str, str]]] = [
    (False, True, Outcome.ERROR, GOES_ON, ENDS),
    (True, True, Outcome.ERROR, GOES_ON, ENDS),
    (False, False, Outcome.ERROR, GOES_ON, ENDS),
    (True, False, Outcome.ERROR, ENDS, ENDS),
    (False, True, Outcome.CANCELLED, CANCELLED, CANCELLED),
    (True, True, Outcome.CANCELLED, CANCELLED, CANCELLED),
    (False, False, Outcome.CANCELLED, CANCELLED, CANCELLED),
    (True, False, Outcome.CANCELLED, CANCELLED, CANCELLED),
]


async def broke_off_with(run: str, word: Outcome, *, deployed: bool, token: int | None = None) -> bool:
    """Whether a person is told that the run is over."""
    told = await broke_off(run, word, a_filing, deployed=deployed, token=token)
    assert told in (None, a_filing(word))
    return told is not None


def a_filing(word: Outcome, known: Recorded | None = None) -> Filing:
    """What is told when it is over by this word; what the ledger holds belongs to the episode that ends so."""
    assert known is None or (known.case.cluster, known.outcome) == ("prod-1", word)
    return Filing("prod-1/run-17", f"it is over: {word}", "", source="run-17", cluster="prod-1")


async def leaves(
    run: str, word: Outcome = Outcome.ERROR, *, deployed: bool = True, acted: bool = False
) -> tuple[bool, str, str]:
    """Run 17 takes its episode, may change something, and dies; then this run breaks off, and what is left of that."""
    async with holding("17"):
        if acted:
            await intend(a_case("run-17"), a_block(), "restart", "node-1", "node-1")
    over = await broke_off_with(run, word, deployed=deployed)
    row = await episode()
    return over, row.state, row.outcome


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize(("acted", "deployed", "word", "with_intake", "without"), BROKEN)
async def test_a_run_that_broke_off(
    acted: bool,
    deployed: bool,
    word: Outcome,
    with_intake: tuple[bool, str, str],
    without: tuple[bool, str, str],
    alive: bool,
) -> None:
    """It leaves its episode to an intake that can begin it anew; cancelled, or without an intake, it ends it."""
    if alive:
        await an_intake()
    assert await leaves("run-17", word, deployed=deployed, acted=acted) == (with_intake if alive else without)


@pytest.mark.parametrize("alive", [True, False])
async def test_a_run_without_an_episode_broke_off(alive: bool) -> None:
    """A run that holds no episode is over, with an intake as without, and leaves that of another run alone."""
    if alive:
        await an_intake()
    assert await leaves("run-99", acted=True) == NOT_ITS_OWN


@pytest.mark.parametrize(
    ("silent", "expected"), [(SILENT - timedelta(seconds=10), GOES_ON), (SILENT, ENDS)], ids=["alive", "silent"]
)
async def test_an_intake_that_is_silent_begins_nothing_anew(silent: timedelta, expected: tuple[bool, str, str]) -> None:
    """An intake that has not said for a minute that it lives is none."""
    await an_intake(silent=silent)
    assert await leaves("run-17") == expected


@pytest.mark.parametrize(("runs", "expected"), [(MOST_RUNS - 1, GOES_ON), (MOST_RUNS, ENDS)])
async def test_a_run_that_breaks_off_each_time_is_over(runs: int, expected: tuple[bool, str, str]) -> None:
    """A run that was begun five times is not begun once more, also with an intake at work: a person is told."""
    await an_intake()
    await raised()
    await change(run="run-17", runs=runs)
    assert await leaves("run-17") == expected


@pytest.mark.parametrize(
    ("alive", "expected"), [(True, (False, "waiting", "")), (False, (True, "closed", "ERROR"))], ids=["intake", "none"]
)
async def test_a_run_that_broke_off_while_it_waited(alive: bool, expected: tuple[bool, str, str]) -> None:
    """A run whose worker cannot begin it anew after a wait is left to the intake, and is over where there is none."""
    if alive:
        await an_intake()
    async with holding("17"):
        await noted(a_case("run-17"), let_go)
    over = await broke_off_with("run-17", Outcome.ERROR, deployed=True)
    assert (over, (await episode()).state, (await episode()).outcome) == expected


@pytest.mark.parametrize("alive", [True, False])
async def test_a_run_that_took_over_an_episode_and_broke_off(alive: bool) -> None:
    """A person's run that took the episode of another run and broke off leaves it to the intake, else it ends it."""
    if alive:
        await an_intake()
    await raised()
    await change(run="run-16", runs=1)
    async with holding("17", automated=False):
        pass
    over = await broke_off_with("run-17", Outcome.ERROR, deployed=False)
    row = await episode()
    assert (over, row.state, row.outcome) == (GOES_ON if alive else ENDS)


async def test_a_run_that_never_began_and_broke_off() -> None:
    """A run that was started for an episode and fails before it holds it leaves it to the intake, as it is."""
    await an_intake()
    await raised()
    await change(run="run-17", runs=1)
    assert not await broke_off_with("run-17", Outcome.ERROR, deployed=True)
    assert ((await episode()).state, (await episode()).outcome) == ("raised", "")


async def test_a_run_that_breaks_off_leaves_another_one_s_episode_alone() -> None:
    """The run an alarm started fails while a person's run is at work on its episode: that one goes on, and may act."""
    await raised()
    await an_intake()
    await change(run="run-16", runs=1)
    async with holding("17", automated=False):
        assert await refusal(a_case("run-17")) == ""
        assert await broke_off_with("run-16", Outcome.ERROR, deployed=True)
        assert await broke_off_with("run-16", Outcome.CANCELLED, deployed=True)
        assert await refusal(a_case("run-17")) == ""
        await settled(a_case("run-17"), [PART], Outcome.END, "")
    assert await broke_off_with("run-17", Outcome.CANCELLED, deployed=False)
    assert ((await episode()).state, (await episode()).outcome) == ("verifying", "END")


async def test_a_segment_that_broke_off_after_another_one_went_on_is_nobody_s_concern() -> None:
    """A segment that was taken over by another one of the same run is not over: nobody is told, nothing is ended."""
    async with holding("17") as first:
        await the_lease_ends()
        async with holding("17") as second:
            tokens = (first.token, second.token)
            told = [await broke_off_with("run-17", Outcome.CANCELLED, deployed=True, token=token) for token in tokens]
            assert (tokens, told, (await episode()).state) == ((1, 2), [False, True], "closed")


async def test_a_cancel_that_was_noted_is_the_word_whatever_the_engine_says() -> None:
    """A run whose cancel its worker has noted ends as cancelled, though Prefect's engine calls it crashed."""
    await an_intake()
    async with holding("17"):
        await cancel_noted("run-99")
        assert (await episode()).outcome == ""
        await cancel_noted("run-17")
    told = await broke_off("run-17", Outcome.ERROR, a_filing, deployed=True)
    row = await episode()
    assert (told, row.state, row.outcome) == (a_filing(Outcome.CANCELLED), "closed", "CANCELLED")


async def test_an_episode_does_not_end_before_a_person_is_told() -> None:
    """Where what is to be told cannot be made up, the episode stays as it is, for the intake to end."""

    def disk_is_full(word: Outcome, _: Recorded | None) -> Filing:
        raise OSError(f"no space left for {word}")

    async with holding("17"):
        pass
    with pytest.raises(OSError, match="no space left for ERROR"):
        await broke_off("run-17", Outcome.ERROR, disk_is_full, deployed=True)
    row = await episode()
    assert (row.state, row.outcome, row.holder) == ("running", "", "run-17")


async def test_a_segment_knows_that_its_run_goes_on_elsewhere() -> None:
    """It does once another segment has the episode, or ended it; not where another run has it, and not in a dry run."""
    case = a_case("run-17")
    said = []
    async with holding("17"):
        said.append(await goes_on_elsewhere(case))
        await change(token=2)
        said.append(await goes_on_elsewhere(case))
        await change(holder="run-18")
        said.append(await goes_on_elsewhere(case))
        await change(holder=None, run="run-17", state="verifying")
        said.append(await goes_on_elsewhere(case))
    said.append(await goes_on_elsewhere(case))
    assert said == [False, True, False, True, False]


class Pauses:
    """A clock on which nothing takes time; remembers the pauses, and does something in each."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.taken: list[float] = []
        self._act = act

    def now(self) -> datetime:
        """The time."""
        return timing.wall()

    async def sleep(self, seconds: float) -> None:
        """A pause."""
        self.taken.append(seconds)
        self._act()


async def test_a_ledger_that_is_away_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim is tried again while the ledger does not answer, and given when it does."""
    monkeypatch.setenv("RUNBOOKS_LEDGER_URL", f"sqlite:///{tmp_path}/away/ledger.db")

    def comes_back() -> None:
        if len(pauses.taken) == 2:
            (tmp_path / "away").mkdir()

    pauses = Pauses(comes_back)
    token = timing.clock.set(pauses)
    async with holding("17") as first:
        assert (type(first), pauses.taken) == (Holding, list(TRIES[:2]))
    timing.clock.reset(token)


async def test_without_a_ledger_there_is_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a ledger that stays away the run learns so after a quarter of a minute, and that it broke off is no secret."""
    monkeypatch.setenv("RUNBOOKS_LEDGER_URL", "postgresql://nobody@127.0.0.1:9/none")
    token = timing.clock.set(pauses := Pauses())
    with pytest.raises(LedgerUnavailable, match=r"the ledger .* does not answer"):
        async with holding("17"):
            pytest.fail("it was claimed")
    timing.clock.reset(token)
    assert pauses.taken == list(TRIES)
    assert await broke_off_with("run-17", Outcome.ERROR, deployed=True)


async def test_a_ledger_that_goes_away_lets_nothing_pass(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the ledger the last gate is shut, and a run that cannot write its end does not fail for that."""
    name = f"claims_{uuid4().hex}"
    await anyio.to_thread.run_sync(order, postgresql, f"CREATE DATABASE {name}")
    monkeypatch.setenv("RUNBOOKS_LEDGER_URL", postgresql.removesuffix("postgres") + name)
    async with unchecked_ledger() as ledger:
        await upgrade_schema(ledger)
    async with holding("17"):
        assert await refusal(a_case("run-17")) == ""
        await anyio.to_thread.run_sync(order, postgresql, f"DROP DATABASE {name} WITH (FORCE)")
        assert (await refusal(a_case("run-17"))).startswith("without the ledger nothing is changed: the ledger ")
        token = timing.clock.set(pauses := Pauses())
        await settled(a_case("run-17"), [PART], Outcome.END, "")
        timing.clock.reset(token)
        assert pauses.taken == list(TRIES)


async def test_one_of_many_gets_the_claim() -> None:
    """Of twenty runs that ask at the same time exactly one holds the cluster, and all others name it."""
    got: list[Holding | Held] = []
    everybody = asyncio.Barrier(20)

    async def ask(run: str) -> None:
        async with holding(run) as mine:
            got.append(mine)
            await everybody.wait()

    await asyncio.gather(*(ask(str(number)) for number in range(20)))
    (holder,) = [each for each in got if isinstance(each, Holding)]
    row = await episode()
    assert {each for each in got if isinstance(each, Held)} == {Held(holder.episode, row.link)}
    assert (len(got), row.token) == (20, 1)


async def test_a_run_whose_episode_is_over_holds_nothing() -> None:
    """A run that was started for an episode that has ended meanwhile does not open another one."""
    id_ = await raised()
    async with open_ledger() as ledger, ledger.writing() as session:
        await session.execute(update(Episode).values(state="closed", outcome="CLEARED"))
        got = await claim(session, PROD, "prod-1", "12110", asking("17", episode=id_), timing.wall())
    assert got == Held(id_, f"nobody any more: episode {id_} has ended (CLEARED)")
