"""Runs that died or are gone, and what becomes of their episodes."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from deployments.intake.dispatch import RUNBOOKS, Dispatcher
from deployments.intake.metrics import Metrics
from deployments.intake.reconcile import BEGINNING, ENDS, SEGMENTS, STARTING, Reconciler, Verdict, verdict
from deployments.worker import SegmentWorker
from flows.pages import PAGES
from tasks import timing
from tasks.ledger.database import Ledger
from tasks.ledger.episodes import Asking, Holding, Part, begin_change, claim, let_go, settle
from tasks.ledger.keeping import Line, digest_of, keep
from tasks.ledger.starting import MOST_RUNS
from tasks.ledger.tables import Cluster, Episode
from tasks.models import Alarm, Outcome
from tasks.tickets import tickets
from tests.intake.standing import OCCURRED, a_cluster, rows, runs_of, seen, told

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


def a_run(state: State | None, *, deployed: bool = True, pool: str | None = None) -> FlowRun:
    """A flow run in this state."""
    return FlowRun(flow_id=uuid4(), state=state, deployment_id=uuid4() if deployed else None, work_pool_name=pool)


Verdicts = tuple[Verdict, Verdict, Verdict, Verdict, Verdict]
GONE: Verdicts = ("next run", "next run", "give up", "next run", "give up")
DEAD: Verdicts = ("same run",) * 5
ALIVE: Verdicts = ("leave",) * 5
CANCELLED: Verdicts = ("cancelled",) * 5
STATES: list[tuple[str, FlowRun | None, Verdicts]] = [
    # raised (it holds nothing yet), held and its lease ended, the same after it may have changed something; it waits,
    # the same after it may have changed something
    ("deleted", None, GONE),
    ("no state", a_run(None), DEAD),
    ("Scheduled", a_run(Scheduled()), ALIVE),
    ("AwaitingRetry", a_run(AwaitingRetry()), ALIVE),
    ("Pending", a_run(Pending()), ALIVE),
    ("Paused", a_run(State(type=StateType.PAUSED)), ALIVE),
    ("Cancelling", a_run(Cancelling()), ALIVE),
    ("Suspended", a_run(State(type=StateType.PAUSED, name="Suspended")), ALIVE),
    ("Running", a_run(Running()), ("leave", "same run", "same run", "leave", "leave")),
    ("Running, by hand", a_run(Running(), deployed=False), ("leave", "next run", "give up", "leave", "leave")),
    ("Cancelled", a_run(Cancelled()), CANCELLED),
    ("Crashed", a_run(Crashed()), DEAD),
    ("Crashed, by hand", a_run(Crashed(), deployed=False), GONE),
    ("Failed", a_run(Failed()), DEAD),
    ("Completed", a_run(Completed()), GONE),
    ("JOINED", a_run(Completed(name="JOINED")), GONE),
    ("DRY-RUN", a_run(Completed(name="DRY-RUN")), GONE),
    ("END", a_run(Completed(name="END")), ("next run", "done", "done", "done", "done")),
    ("ERROR", a_run(Failed(name="ERROR")), ("same run", "done", "done", "done", "done")),
]


def judged(run: FlowRun | None, *, segments: Collection[str] = ()) -> tuple[Verdict, ...]:
    """The verdict for each kind of episode, as in `STATES`."""
    kinds = [("raised", False), ("running", False), ("running", True), ("waiting", False), ("waiting", True)]
    return tuple(verdict(an_episode(state, acted=acted), run, NOW, segments=segments) for state, acted in kinds)


@pytest.mark.parametrize(("run", "verdicts"), [row[1:] for row in STATES], ids=[row[0] for row in STATES])
def test_what_is_to_be_done(run: FlowRun | None, verdicts: Verdicts) -> None:
    """Each state of a run has one verdict before it held anything, at work and waiting, before a change and after."""
    assert judged(run) == verdicts


def test_what_has_acted_is_begun_anew_only_by_itself() -> None:
    """A run that may have changed something is begun anew where it goes on as itself, and else is given up."""
    runs = (a_run(Crashed()), a_run(Crashed(), deployed=False), None, a_run(Completed()))
    acted = [verdict(an_episode("running", acted=True), run, NOW) for run in runs]
    assert acted == ["same run", "give up", "give up", "give up"]


@pytest.mark.parametrize(
    ("kind", "verdicts"),
    [
        (StateType.PENDING, DEAD),
        (StateType.RUNNING, DEAD),
        (StateType.CANCELLING, CANCELLED),
        (StateType.SCHEDULED, ALIVE),
        (StateType.PAUSED, ALIVE),
    ],
)
def test_a_run_that_starts_for_ever_has_no_worker(kind: StateType, verdicts: Verdicts) -> None:
    """What has been starting, or being cancelled, for ten minutes is dead; what is scheduled or paused may wait."""
    assert judged(a_run(State(type=kind, timestamp=NOW - STARTING))) == verdicts
    assert timedelta(minutes=10) == STARTING


@pytest.mark.parametrize("state", [Running(), Crashed(), Cancelling()])
def test_a_run_whose_cancel_was_noted_is_not_begun_anew(state: State) -> None:
    """A run whose worker has noted a person's cancel and died, is cancelled, whatever Prefect says of it."""
    episode = an_episode("running")
    episode.outcome = Outcome.CANCELLED
    assert verdict(episode, a_run(state), NOW) == "cancelled"


OURS, THEIRS = "our pool", "a pool of processes"
PATIENCE: list[tuple[StateType, str, str, timedelta, Verdict]] = [
    (StateType.RUNNING, "raised", THEIRS, BEGINNING, "same run"),
    (StateType.RUNNING, "waiting", THEIRS, BEGINNING, "same run"),
    (StateType.RUNNING, "raised", OURS, BEGINNING, "same run"),
    (StateType.PENDING, "raised", OURS, BEGINNING, "same run"),
    (StateType.PENDING, "running", OURS, BEGINNING, "same run"),
    (StateType.PENDING, "waiting", OURS, BEGINNING, "same run"),
    (StateType.PENDING, "raised", THEIRS, STARTING, "same run"),
    (StateType.PENDING, "running", THEIRS, STARTING, "same run"),
    (StateType.PENDING, "waiting", THEIRS, STARTING, "same run"),
    (StateType.CANCELLING, "raised", OURS, STARTING, "cancelled"),
    (StateType.CANCELLING, "running", THEIRS, STARTING, "cancelled"),
    (StateType.CANCELLING, "waiting", OURS, STARTING, "cancelled"),
]


@pytest.mark.parametrize(("kind", "state", "pool", "patience", "then"), PATIENCE)
def test_how_long_a_run_may_take_to_begin(
    kind: StateType, state: str, pool: str, patience: timedelta, then: Verdict
) -> None:
    """A flow takes its episode within 30 s of running, our worker begins at once, another kind gets ten minutes."""
    ages = (patience - timedelta(seconds=1), patience)
    runs = [a_run(State(type=kind, timestamp=NOW - age), pool=pool) for age in ages]
    assert [verdict(an_episode(state), run, NOW, segments=[OURS]) for run in runs] == ["leave", then]
    assert timedelta(seconds=30) == BEGINNING


def test_our_pools_are_those_of_our_worker() -> None:
    """The type of work pool in which runs begin at once is the one of our own worker."""
    assert SegmentWorker.type == SEGMENTS


@pytest.mark.parametrize("state", ["running", "waiting"])
@pytest.mark.parametrize("word", sorted(Outcome))
def test_a_run_that_ended_with_a_word_is_through(word: Outcome, state: str) -> None:
    """A completed run whose word ends a page settles its episode with it; one that joined or only looked does not."""
    ended = verdict(an_episode(state), a_run(Completed(name=word)), NOW)
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


class Later:
    """A clock that is so far ahead, on which nobody sleeps."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        """The time."""
        return timing.wall() + self._by

    async def sleep(self, seconds: float) -> None:
        """Nobody sleeps here."""
        raise AssertionError(f"somebody sleeps for {seconds} seconds")


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

    async def held(
        self, run: FlowRun, *, acted: bool = False, lease_ended: bool = True, waits_now: bool = False
    ) -> Holding:
        """The run takes the episode; it may change something, its lease may have ended an hour ago, or it waits."""
        async with self.ledger.writing() as session:
            asking = Asking(str(run.id), "a link", automated=True)
            holding = await claim(session, self.cluster.cluster_id, self.cluster.name, "12110", asking, timing.now())
            assert isinstance(holding, Holding)
            if acted:
                await begin_change(session, holding, timing.now())
            if waits_now:
                await let_go(session, holding)
        if lease_ended and not waits_now:
            self.past("lease")
        return holding

    def later(self) -> None:
        """An hour has passed since the episode needed its run."""
        self.past("raised")

    def past(self, column: str) -> None:
        """This time is an hour ago."""
        then = (timing.now() - timedelta(hours=1)).strftime("%Y-%m-%d %H:%M:%S.%f")
        rows(self.file, f"UPDATE episodes SET {column} = ?", then)  # noqa: S608 - a column's name of ours

    async def reconciled(self, *, ahead: timedelta = timedelta(0)) -> tuple[str, int, int, str]:
        """One look, by a clock that is ahead; then the episode's state, number, starts and outcome."""
        token = timing.clock.set(Later(ahead))
        try:
            await self.reconciler.reconcile(self.client)
        finally:
            timing.clock.reset(token)
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
async def test_a_run_that_is_running_and_takes_nothing_is_scheduled_again(story: Story) -> None:
    """A run that has been running for 30 s and has not taken its episode has lost its worker, and is begun anew."""
    run = await story.begin(Running())
    story.later()
    assert await story.reconciled() == ("raised", 1, 1, "")
    assert await story.reconciled(ahead=BEGINNING + timedelta(seconds=1)) == ("raised", 1, 2, "")
    assert await story.state_of(run) == "Scheduled"


@asynccontextmanager
async def in_our_pool(client: PrefectClient) -> AsyncIterator[str]:
    """New runs of the deployment go to a pool of our own worker while the block runs."""
    deployment = await client.read_deployment_by_name("alm-12110/from-alarms")
    pool = await client.create_work_pool(WorkPoolCreate(name=f"segments-{uuid4().hex[:8]}", type=SEGMENTS))
    await client.update_deployment(deployment.id, DeploymentUpdate(work_pool_name=pool.name))
    try:
        yield pool.name
    finally:
        await client.update_deployment(deployment.id, DeploymentUpdate(work_pool_name=deployment.work_pool_name))


@pytest.mark.server
async def test_a_run_that_is_pending_in_our_pool_is_scheduled_again(story: Story) -> None:
    """Our worker begins a run at once, so one that is pending in its pool for 30 s is begun anew, in another not."""
    theirs = await story.begin(Pending())
    story.later()
    ahead = BEGINNING + timedelta(seconds=1)
    assert await story.reconciled(ahead=ahead) == ("raised", 1, 1, "")
    assert await story.state_of(theirs) == "Pending"
    rows(story.file, "UPDATE episodes SET n = 2, run = NULL, runs = 0")
    async with in_our_pool(story.client) as pool:
        await story.dispatcher.dispatch(story.client)
    _, ours = await story.runs()
    await story.client.set_flow_run_state(ours.id, Pending(), force=True)
    story.later()
    assert (await story.reconciled(), ours.work_pool_name) == (("raised", 2, 1, ""), pool)
    assert await story.reconciled(ahead=ahead) == ("raised", 2, 2, "")
    assert await story.state_of(ours) == "Scheduled"


@pytest.mark.server
@pytest.mark.parametrize("acted", [False, True])
async def test_a_holder_that_died_is_scheduled_again(story: Story, acted: bool) -> None:
    """A run whose lease ended is begun anew, after a change too, though Prefect says it is running: it goes on."""
    run = await story.begin(Running())
    first = await story.held(run, acted=acted)
    story.later()
    assert await story.reconciled() == ("waiting", 1, 2, "")
    assert await story.state_of(run) == "Scheduled"
    assert ([each.id for each in await story.runs()], tickets()) == ([run.id], [])
    again = await story.held(run, lease_ended=False)
    assert (again.episode, again.token, again.attempt) == (first.episode, 3, first.attempt)
    assert await story.reconciled() == ("running", 1, 2, "")


@pytest.mark.server
async def test_a_holder_that_is_gone_after_a_change_ends_in_one_ticket(story: Story) -> None:
    """A run that was deleted after it may have changed something is never followed by another: ERROR and one ticket."""
    run = await story.begin()
    await story.held(run, acted=True)
    await story.client.delete_flow_run(run.id)
    story.later()
    for _ in range(2):
        assert await story.reconciled() == ("closed", 1, 1, "ERROR")
    (ticket,) = tickets()
    assert ticket.title == f"ALM-12110 {story.cluster.name}: ERROR"
    assert ticket.correlation == f"{story.cluster.name}/12110/episode/{story.episode}"
    assert f"The flow run {run.id} of episode {story.episode} is deleted" in ticket.body
    assert "It may have changed something before" in ticket.body
    assert (await story.runs(), story.ended()) == ([], [("ERROR",)])


@pytest.mark.server
async def test_a_run_that_died_waiting_is_scheduled_again(story: Story) -> None:
    """A run that waits has no lease, so one that died when it was to go on is found by its state and begun anew."""
    run = await story.begin(AwaitingRetry())
    first = await story.held(run, acted=True, waits_now=True)
    story.later()
    assert await story.reconciled() == ("waiting", 1, 1, "")
    await story.client.set_flow_run_state(run.id, Running(), force=True)
    assert await story.reconciled() == ("waiting", 1, 1, "")  # its worker is just beginning
    assert await story.reconciled(ahead=BEGINNING + timedelta(seconds=1)) == ("waiting", 1, 2, "")
    assert await story.state_of(run) == "Scheduled"
    again = await story.held(run, lease_ended=False)
    assert (again.token, again.attempt, tickets()) == (3, first.attempt, [])


@pytest.mark.server
async def test_a_run_that_was_deleted_while_it_waited_is_followed_by_the_next(story: Story) -> None:
    """Where the run that waits was deleted its episode gets the next number."""
    run = await story.begin(AwaitingRetry())
    await story.held(run, waits_now=True)
    await story.client.delete_flow_run(run.id)
    story.later()
    assert await story.reconciled() == ("raised", 2, 1, "")


@pytest.mark.server
@pytest.mark.parametrize("took", ["nothing", "at work", "waiting"])
async def test_a_cancelled_run_ends_its_episode(story: Story, took: str) -> None:
    """A run that a person cancelled, at work or waiting, ends its episode with a ticket, and nothing starts again."""
    run = await story.begin(Cancelled())
    if took != "nothing":
        await story.held(run, waits_now=took == "waiting")
    story.later()
    for _ in range(2):
        assert await story.reconciled() == ("closed", 1, 1, "CANCELLED")
    await story.dispatcher.dispatch(story.client)
    assert [each.title for each in tickets()] == [f"ALM-12110 {story.cluster.name}: CANCELLED"]
    assert ([each.id for each in await story.runs()], story.ended()) == ([run.id], [("CANCELLED",)])


# What a ticket holds


def around(moment: datetime) -> str:
    """The hour before and the hour after, as tickets say it."""
    return f"from {moment - timedelta(hours=1):%Y-%m-%d %H:%M} to {moment + timedelta(hours=1):%Y-%m-%d %H:%M} UTC"


async def has_learned(story: Story, holding: Holding) -> list[Line]:
    """The run has kept its record: it found the alarm, and restarted the instance."""
    lines = [
        Line(NOW, "1", "node-master1", "asked", "ALM-12110 on node-master1 is active on Manager"),
        Line(NOW, "2", "node-master1", "asked", "meta instance of node-master1: Manager says 'Faulty'"),
        Line(NOW, "3", "node-master1", "did", "restarted (command 101)"),
    ]
    async with story.ledger.writing() as session:
        await keep(session, holding, lines, NOW)
    return lines


@pytest.mark.server
@pytest.mark.parametrize(
    ("word", "how"),
    [
        (
            Outcome.CANCELLED,
            "Its run was cancelled. The flow run {} of episode {} is Cancelled; runs of it were started 1",
        ),
        (
            Outcome.ERROR,
            "Its run broke off, and nobody goes on with it. The flow run {} of episode {} is deleted; runs of",
        ),
    ],
)
async def test_a_ticket_of_a_run_that_came_to_no_end_is_whole(story: Story, word: Outcome, how: str) -> None:
    """A waiting run that was cancelled, and one that nobody goes on with, tell all that the ledger holds of them."""
    run = await story.begin(Cancelled())
    holding = await story.held(run, acted=True, waits_now=True)
    lines = await has_learned(story, holding)
    if word is Outcome.ERROR:
        await story.client.delete_flow_run(run.id)
        rows(story.file, "UPDATE episodes SET state = 'running'")
        story.past("lease")
    story.later()
    assert await story.reconciled() == ("closed", 1, 1, word)
    (ticket,) = tickets()
    parts = dict(part.split("\n\n", 1) for part in ticket.body.split("\n## ")[1:])
    top = ticket.body.partition("\n## ")[0]
    about = f"ALM-12110 on node-master1 serial 4711 since {OCCURRED:%Y-%m-%d %H:%M:%S}"
    assert top.splitlines()[0] == f"# ALM-12110 Failed to get ECS temporary AK/SK: {story.cluster.name}"
    assert f"Impact while the alarm is active: {PAGES['12110'].impact}." in top
    assert f"Flow run: a link\n\nSHA-256 of what happened, line by line: {digest_of(lines)}\n" in top
    assert f"| node-master1 | `stopped at step 3` | {about} |" in top
    why, last = parts["Why it stopped"].splitlines()[:2]
    assert why.startswith(f"- {how.format(run.id, story.episode)}")
    assert "It may have changed something before: look at the run's log" in why
    assert last == f"- node-master1 ({word} at step 3): restarted (command 101)"
    by_hand, log, felt = parts["What to do next"].splitlines()[:3]
    assert by_hand.startswith("- node-master1: ")
    assert log == (
        f"- node-master1: read /var/log/Bigdata/meta/mrs-meta.log {around(OCCURRED)}, an hour around the alarm"
    )
    assert f"the impact is felt at the latest at {OCCURRED + timedelta(minutes=50):%Y-%m-%d %H:%M} UTC" in felt
    happened = [f"- {NOW:%Y-%m-%d %H:%M:%S} UTC, step {each.step}, {each.host}: {each.text}" for each in lines]
    assert parts["What happened"].splitlines() == happened


def test_every_alarm_with_a_runbook_has_its_page() -> None:
    """Whatever the intake starts a run for, a ticket can say what it means and what a person does."""
    assert set(RUNBOOKS) == set(PAGES)


@pytest.mark.server
async def test_a_cancel_that_was_noted_becomes_the_run_s_state(story: Story) -> None:
    """A run that crashed because its worker stopped it for a person becomes Cancelled, though that worker died."""
    run = await story.begin(Crashed())
    await story.held(run)
    rows(story.file, "UPDATE episodes SET outcome = 'CANCELLED'")
    story.later()
    assert await story.reconciled() == ("closed", 1, 1, "CANCELLED")
    assert await story.state_of(run) == "Cancelled"
    assert [each.title for each in tickets()] == [f"ALM-12110 {story.cluster.name}: CANCELLED"]


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
@pytest.mark.parametrize("kind", ["raised", "running", "waiting"])
async def test_a_run_that_waits_is_left_alone(story: Story, state: State, kind: str) -> None:
    """A run that is scheduled or paused is not touched, however old it is, whether it holds its episode or not."""
    run = await story.begin(state)
    if kind != "raised":
        await story.held(run, waits_now=kind == "waiting")
    story.later()
    before = (await story.client.read_flow_run(run.id)).state
    assert await story.reconciled() == (kind, 1, 1, "")
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
async def test_it_gives_up_after_five_starts_at_work(story: Story) -> None:
    """A run that changed something and dies each time it is begun is given up at last, with a ticket that says so."""
    run = await story.begin()
    for starts in range(1, MOST_RUNS + 1):
        assert story.row()[2] == starts
        await story.client.set_flow_run_state(run.id, Crashed(), force=True)
        await story.held(run, acted=True)
        story.later()
        await story.reconciled()
    assert story.row() == ("closed", 1, MOST_RUNS, "ERROR")
    (ticket,) = tickets()
    assert "runs of it were started 5 time(s). It may have changed something before" in ticket.body
    assert f"The flow run {run.id} of episode {story.episode} is Crashed" in ticket.body
    assert (await story.state_of(run), story.ended()) == ("Crashed", [("ERROR",)])


@pytest.mark.server
async def test_a_verified_episode_is_closed(story: Story) -> None:
    """An episode without a relapse is closed when its time is over, with the word it ended with, and not before."""
    run = await story.begin(Completed(name="END"))
    holding = await story.held(run, lease_ended=False)
    async with story.ledger.writing() as session:
        alarm = Alarm(alarm_id="12110", serial="4711", location="HostName=node-master1")
        await settle(session, holding, [Part(alarm, "END", "1 2n 3y END")], "END", "", timing.now())
    assert await story.reconciled() == ("verifying", 1, 1, "END")
    story.past("verify_until")
    assert await story.reconciled() == ("closed", 1, 1, "END")


@pytest.mark.server
@pytest.mark.parametrize(("word", "kind"), [(Outcome.END, "COMPLETED"), (Outcome.ERROR, "FAILED")])
async def test_a_run_that_died_after_its_last_word_gets_its_state(story: Story, word: Outcome, kind: str) -> None:
    """A run that settled its episode and then lost its worker gets its state from the ledger, once it is silent."""
    run = await story.begin(Running())
    holding = await story.held(run, lease_ended=False)
    async with story.ledger.writing() as session:
        alarm = Alarm(alarm_id="12110", serial="4711", location="HostName=node-master1")
        await settle(session, holding, [Part(alarm, word, f"1 {word}")], word, "T-1", timing.now())
    assert await story.reconciled() == ("verifying", 1, 1, word)
    assert await story.state_of(run) == "Running"
    assert await story.reconciled(ahead=BEGINNING + timedelta(seconds=1)) == ("verifying", 1, 1, word)
    state = (await story.client.read_flow_run(run.id)).state
    assert state is not None
    assert (state.name, state.type, state.message) == (word, kind, f"{word}. node-master1: 1 {word}. Ticket T-1")
    assert tickets() == []


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
