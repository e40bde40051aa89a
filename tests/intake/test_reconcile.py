"""Runs that died or are gone, and what becomes of their episodes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from deployments.intake.dispatch import Dispatcher
from deployments.intake.metrics import Metrics
from deployments.intake.reconcile import ENDS, MOST_RUNS, STARTING, Reconciler, Verdict, verdict
from tasks import waits
from tasks.ledger.database import Ledger
from tasks.ledger.episodes import Asking, Holding, Part, begin_change, claim, settle
from tasks.ledger.tables import Cluster, Episode
from tasks.models import Alarm, Outcome
from tasks.tickets import tickets
from tests.intake.standing import a_cluster, rows, runs_of, seen, told

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)


def an_episode(state: str = "raised", *, acted: bool = False, runs: int = 1, raised: datetime = LONG_AGO) -> Episode:
    """An episode that has its run."""
    return Episode(
        id="e",
        cluster_id="c",
        cluster="block",
        alarm_id="12110",
        state=state,
        opened=raised,
        opened_by="syslog",
        raised=raised,
        n=1,
        run="r",
        runs=runs,
        acted=acted,
    )


def a_run(state: State | None, *, deployed: bool = True) -> FlowRun:
    """A flow run in this state."""
    return FlowRun(flow_id=uuid4(), state=state, deployment_id=uuid4() if deployed else None)


GONE: tuple[Verdict, Verdict, Verdict] = ("next run", "next run", "give up")
DEAD: tuple[Verdict, Verdict, Verdict] = ("same run", "same run", "give up")
ALIVE: tuple[Verdict, Verdict, Verdict] = ("leave", "leave", "leave")
STATES: list[tuple[str, FlowRun | None, tuple[Verdict, Verdict, Verdict]]] = [
    # raised (it holds nothing yet), held and its lease ended, the same after it may have changed something
    ("deleted", None, GONE),
    ("no state", a_run(None), DEAD),
    ("Scheduled", a_run(Scheduled()), ALIVE),
    ("AwaitingRetry", a_run(AwaitingRetry()), ALIVE),
    ("Pending", a_run(Pending()), ALIVE),
    ("Paused", a_run(State(type=StateType.PAUSED)), ALIVE),
    ("Cancelling", a_run(Cancelling()), ALIVE),
    ("Running", a_run(Running()), ("leave", "same run", "give up")),
    ("Cancelled", a_run(Cancelled()), ("cancelled", "cancelled", "cancelled")),
    ("Crashed", a_run(Crashed()), DEAD),
    ("Crashed, by hand", a_run(Crashed(), deployed=False), GONE),
    ("Failed", a_run(Failed()), DEAD),
    ("Completed", a_run(Completed()), GONE),
    ("JOINED", a_run(Completed(name="JOINED")), GONE),
    ("DRY-RUN", a_run(Completed(name="DRY-RUN")), GONE),
    ("END", a_run(Completed(name="END")), ("next run", "done", "done")),
    ("ERROR", a_run(Failed(name="ERROR")), ("same run", "done", "done")),
]


@pytest.mark.parametrize(("run", "verdicts"), [row[1:] for row in STATES], ids=[row[0] for row in STATES])
def test_what_is_to_be_done(run: FlowRun | None, verdicts: tuple[Verdict, Verdict, Verdict]) -> None:
    """Each state of a run has one verdict before it held anything, after, and after it may have changed something."""
    kinds = (an_episode(), an_episode("running"), an_episode("running", acted=True))
    assert tuple(verdict(episode, run, NOW) for episode in kinds) == verdicts


@pytest.mark.parametrize(
    ("kind", "verdicts"),
    [
        (StateType.PENDING, DEAD),
        (StateType.RUNNING, DEAD),
        (StateType.CANCELLING, ("cancelled", "cancelled", "cancelled")),
        (StateType.SCHEDULED, ALIVE),
        (StateType.PAUSED, ALIVE),
    ],
)
def test_a_run_that_starts_for_ever_has_no_worker(kind: StateType, verdicts: tuple[Verdict, Verdict, Verdict]) -> None:
    """What has been starting, or being cancelled, for ten minutes is dead; what is scheduled or paused may wait."""
    run = a_run(State(type=kind, timestamp=NOW - STARTING))
    kinds = (an_episode(), an_episode("running"), an_episode("running", acted=True))
    assert tuple(verdict(episode, run, NOW) for episode in kinds) == verdicts


@pytest.mark.parametrize("word", sorted(Outcome))
def test_a_run_that_ended_with_a_word_is_through(word: Outcome) -> None:
    """A completed run whose word ends a page settles its episode with it; one that joined or only looked does not."""
    ended = verdict(an_episode("running"), a_run(Completed(name=word)), NOW)
    assert ended == ("next run" if word in ("JOINED", "DRY-RUN") else "done")
    assert (word in ENDS) == (ended == "done")


@pytest.mark.parametrize(("runs", "pause"), [(0, 30), (1, 30), (2, 60), (3, 120), (4, 240)])
def test_a_dead_run_is_started_again_ever_more_slowly(runs: int, pause: float) -> None:
    """The pauses before a dead run is started again double, from thirty seconds on."""
    episode = an_episode(runs=runs, raised=NOW)
    crashed = a_run(Crashed())
    early, late = NOW + timedelta(seconds=pause - 1), NOW + timedelta(seconds=pause)
    assert (verdict(episode, crashed, early), verdict(episode, crashed, late)) == ("leave", "same run")


def test_after_five_starts_it_is_given_up() -> None:
    """A run that died after the fifth start is not started again, also if it is gone; one that is alive is left."""
    episode = an_episode(runs=MOST_RUNS, raised=NOW)
    runs = (a_run(Crashed()), None, a_run(Pending()), a_run(Running()))
    assert [verdict(episode, run, NOW) for run in runs] == ["give up", "give up", "leave", "leave"]
    assert MOST_RUNS == 5


class Story:
    """One episode, its run in Prefect, and time that passes for it in the ledger."""

    def __init__(self, client: PrefectClient, ledger: Ledger, file: Path) -> None:
        self.client, self.ledger, self.file = client, ledger, file
        self.cluster: Cluster = a_cluster()
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(ledger, self.metrics)
        self.reconciler = Reconciler(ledger, self.dispatcher, self.metrics, "this intake")
        self.episode = ""

    async def begin(self, state: State | None = None) -> FlowRun:
        """An alarm is taken in, and its episode gets a run, which is in this state now."""
        (found,) = await seen(self.ledger, self.cluster, told())
        self.episode = found.episode
        await self.dispatcher.dispatch(self.client)
        (run,) = await self.runs()
        if state:
            await self.client.set_flow_run_state(run.id, state, force=True)
        return run

    async def runs(self) -> list[FlowRun]:
        """All runs of the episode, in the order of their numbers."""
        found = await runs_of(self.client, f"episode:{self.episode}")
        return sorted(found, key=lambda run: str(run.idempotency_key))

    async def held(self, run: FlowRun, *, acted: bool = False, lease_ended: bool = True) -> Holding:
        """The run takes the episode; it may change something, and its lease may have ended an hour ago."""
        async with self.ledger.writing() as session:
            asking = Asking(str(run.id), "a link", automated=True)
            holding = await claim(session, self.cluster.cluster_id, self.cluster.name, "12110", asking, waits.now())
            assert isinstance(holding, Holding)
            if acted:
                await begin_change(session, holding, waits.now())
        if lease_ended:
            self.past("lease")
        return holding

    def later(self) -> None:
        """An hour has passed since the episode needed its run."""
        self.past("raised")

    def past(self, column: str) -> None:
        """This time is an hour ago."""
        then = (waits.now() - timedelta(hours=1)).strftime("%Y-%m-%d %H:%M:%S.%f")
        rows(self.file, f"UPDATE episodes SET {column} = ?", then)  # noqa: S608 - a column's name of ours

    async def reconciled(self) -> tuple[str, int, int, str]:
        """One look; then the episode's state, number, starts and outcome."""
        await self.reconciler.reconcile(self.client)
        return self.row()

    def row(self) -> tuple[str, int, int, str]:
        """The episode's state, number, starts and outcome, as another connection reads them."""
        [(state, n, runs, outcome)] = rows(self.file, "SELECT state, n, runs, outcome FROM episodes")
        return state, n, runs, outcome

    async def state_of(self, run: FlowRun) -> str:
        """The name of the run's state in Prefect."""
        found = (await self.client.read_flow_run(run.id)).state
        return (found and found.name) or ""

    def ended(self) -> list[tuple[str]]:
        """How the page ended for the alarm."""
        return [(row[0],) for row in rows(self.file, "SELECT ended FROM occurrences")]


@pytest.fixture
def story(client: PrefectClient, deployed: None, ledger: Ledger, ledger_file: Path) -> Story:
    """A story that has not begun."""
    return Story(client, ledger, ledger_file)


@pytest.mark.server
async def test_a_deleted_run_is_followed_by_the_next(story: Story) -> None:
    """Where the run was deleted its episode gets the next number and a run of that."""
    run = await story.begin()
    await story.client.delete_flow_run(run.id)
    story.later()
    assert await story.reconciled() == ("raised", 2, 1, "")
    await story.dispatcher.dispatch(story.client)
    (second,) = await story.runs()
    assert (second.idempotency_key, story.row()) == (f"{story.episode}:2", ("raised", 2, 2, ""))
    assert tickets() == []


@pytest.mark.server
async def test_a_run_that_crashed_early_is_scheduled_again(story: Story) -> None:
    """A run that crashed before it held anything is scheduled again, once in each pause, and stays the only one."""
    run = await story.begin(Crashed())
    assert await story.reconciled() == ("raised", 1, 1, "")  # too early
    assert await story.state_of(run) == "Crashed"
    story.later()
    assert await story.reconciled() == ("raised", 1, 2, "")
    assert await story.state_of(run) == "Scheduled"
    await story.client.set_flow_run_state(run.id, Crashed(), force=True)
    assert await story.reconciled() == ("raised", 1, 2, "")  # too early again
    await story.dispatcher.dispatch(story.client)
    assert [each.id for each in await story.runs()] == [run.id]
    count = story.metrics.registry.get_sample_value
    assert count("runbooks_intake_runs_started_total", {"how": "again"}) == 1


@pytest.mark.server
async def test_a_holder_that_died_idle_is_scheduled_again(story: Story) -> None:
    """A run whose lease ended before it changed anything is scheduled again, though Prefect says it is running."""
    run = await story.begin(Running())
    await story.held(run)
    story.later()
    assert await story.reconciled() == ("raised", 1, 2, "")
    assert await story.state_of(run) == "Scheduled"
    assert [each.id for each in await story.runs()] == [run.id]


@pytest.mark.server
async def test_a_holder_that_died_at_work_ends_in_one_ticket(story: Story) -> None:
    """A run whose lease ended after it may have changed something is never started again: ERROR and one ticket."""
    run = await story.begin(Crashed())
    await story.held(run, acted=True)
    story.later()
    for _ in range(2):
        assert await story.reconciled() == ("closed", 1, 1, "ERROR")
    (ticket,) = tickets()
    assert ticket.title == f"ALM-12110 {story.cluster.name}: ERROR"
    assert ticket.correlation == f"{story.cluster.name}/12110/episode/{story.episode}"
    assert f"The flow run {run.id} of episode {story.episode} is Crashed" in ticket.body
    assert "It may have changed something before" in ticket.body
    assert (await story.state_of(run), story.ended()) == ("Crashed", [("ERROR",)])


@pytest.mark.server
@pytest.mark.parametrize("took", [False, True])
async def test_a_cancelled_run_ends_its_episode(story: Story, took: bool) -> None:
    """A run that a person cancelled ends its episode with a ticket, and nothing is started again."""
    run = await story.begin(Cancelled())
    if took:
        await story.held(run)
    story.later()
    for _ in range(2):
        assert await story.reconciled() == ("closed", 1, 1, "CANCELLED")
    await story.dispatcher.dispatch(story.client)
    assert [each.title for each in tickets()] == [f"ALM-12110 {story.cluster.name}: CANCELLED"]
    assert ([each.id for each in await story.runs()], story.ended()) == ([run.id], [("CANCELLED",)])


@pytest.mark.server
async def test_a_run_that_ended_unsettled_keeps_its_word(story: Story) -> None:
    """A run that came to its end and could not write so closes its episode with its word, without a ticket more."""
    run = await story.begin(Completed(name="ESCALATE"))
    await story.held(run, acted=True)
    story.later()
    assert await story.reconciled() == ("closed", 1, 1, "ESCALATE")
    assert (story.ended(), tickets()) == ([("ESCALATE",)], [])


@pytest.mark.server
@pytest.mark.parametrize("state", [Scheduled(), State(type=StateType.PAUSED), AwaitingRetry()])
@pytest.mark.parametrize("took", [False, True])
async def test_a_run_that_waits_is_left_alone(story: Story, state: State, took: bool) -> None:
    """A run that is scheduled or paused is not touched, however old it is."""
    run = await story.begin(state)
    if took:
        await story.held(run)
    story.later()
    before = (await story.client.read_flow_run(run.id)).state
    assert await story.reconciled() == ("running" if took else "raised", 1, 1, "")
    after = (await story.client.read_flow_run(run.id)).state
    assert before is not None
    assert after is not None
    assert (after.id, tickets()) == (before.id, [])


@pytest.mark.server
async def test_a_lease_that_holds_is_not_looked_at(story: Story) -> None:
    """A run whose lease holds is not touched, whatever Prefect says of it."""
    run = await story.begin(Crashed())
    await story.held(run, acted=True, lease_ended=False)
    story.later()
    assert await story.reconciled() == ("running", 1, 1, "")


@pytest.mark.server
async def test_it_gives_up_after_five_starts(story: Story) -> None:
    """A run that dies each time is started five times in all; then a ticket says so, once."""
    run = await story.begin()
    for starts in range(1, MOST_RUNS + 1):
        assert story.row() == ("raised", 1, starts, "")
        await story.client.set_flow_run_state(run.id, Crashed(), force=True)
        story.later()
        await story.reconciled()
    assert story.row() == ("closed", 1, MOST_RUNS, "ERROR")
    (ticket,) = tickets()
    assert "runs of it were started 5 time(s). Look at the run's log" in ticket.body


@pytest.mark.server
async def test_a_verified_episode_is_closed(story: Story) -> None:
    """An episode without a relapse is closed when its time is over, with the word it ended with, and not before."""
    run = await story.begin(Completed(name="END"))
    holding = await story.held(run, lease_ended=False)
    async with story.ledger.writing() as session:
        alarm = Alarm(alarm_id="12110", serial="4711", location="HostName=node-master1")
        await settle(session, holding, [Part(alarm, "END", "1 2n 3y END")], "END", "", waits.now())
    assert await story.reconciled() == ("verifying", 1, 1, "END")
    story.past("verify_until")
    assert await story.reconciled() == ("closed", 1, 1, "END")


@pytest.mark.server
async def test_the_intake_is_alive(story: Story) -> None:
    """Each look says that this intake is alive, so that its outages are known afterwards."""
    rows(
        story.file,
        "INSERT INTO intakes (id, started, alive) VALUES ('this intake', '2026-01-01 00:00:00', '2026-01-01 00:00:00')",
    )
    await story.reconciler.reconcile(story.client)
    [(alive,)] = rows(story.file, "SELECT alive FROM intakes")
    assert alive > "2026-01-02"
