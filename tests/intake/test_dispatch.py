"""Episodes against a real Prefect server: which flow runs there are afterwards, whatever happens in between."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Crashed, Pending, Running, Scheduled
from sqlalchemy import URL

from deployments.intake.dispatch import AT_ONCE, Dispatcher
from deployments.intake.metrics import Metrics
from deployments.intake.prefect_server import PrefectAway
from tasks import timing
from tasks.ledger.database import DRIVERS, Ledger, open_ledger
from tasks.ledger.episodes import Asking, Holding, claim, let_go
from tasks.ledger.tables import Cluster
from tasks.waits import cancelled_in_between
from tests.intake.standing import a_cluster, eventually, rows, runs_of, seen, told, wire

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.usefixtures("deployed")]

JINJA = '{"__prefect_kind": "jinja", "template": "{{ 7 * 7 }}"}'
CREATE = b"/create_flow_run"


async def raised(ledger: Ledger, cluster: Cluster, *hosts: str) -> str:
    """Alarms of these hosts of a cluster were taken in just now; returns their episode."""
    found = await seen(ledger, cluster, *(told(host=host, serial=host) for host in hosts or ("node-master1",)))
    return found[0].episode


async def cleared(ledger: Ledger, cluster: Cluster, host: str = "node-master1") -> None:
    """The alarm of the host was cleared just now."""
    await seen(ledger, cluster, told("cleared", host=host, serial=host))


async def held(ledger: Ledger, cluster: Cluster, run: FlowRun, *, waits_now: bool = False) -> None:
    """The run has taken the cluster's episode, and may be a row since."""
    async with ledger.writing() as session:
        asking = Asking(str(run.id), "a link", automated=True)
        holding = await claim(session, cluster.cluster_id, cluster.name, "12110", asking, timing.now())
        assert isinstance(holding, Holding)
        if waits_now:
            await let_go(session, holding)


def episodes(file: Path) -> list[tuple[str, int, str | None, int, int]]:
    """Id, number, run, how often it was started and whether a clear waits, of every episode."""
    found = rows(file, "SELECT id, n, run, runs, wake FROM episodes ORDER BY cluster")
    return [(row[0], row[1], row[2], row[3], row[4]) for row in found]


def wakes(file: Path) -> list[int]:
    """Whether a clear waits to be passed on, for every episode."""
    return [row[0] for row in rows(file, "SELECT wake FROM episodes")]


async def test_an_episode_is_one_run_of_the_runbook(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """An episode is one run of `alm-12110/from-alarms`: for its cluster, no dry run, tagged, named, keyed."""
    cluster, metrics = a_cluster(), Metrics()
    episode = await raised(ledger, cluster, "node-master1", "node-core1")
    assert not await Dispatcher(ledger, metrics).dispatch(client)
    (run,) = await runs_of(client, f"episode:{episode}")
    deployment = await client.read_deployment_by_name("alm-12110/from-alarms")
    assert (run.deployment_id, run.parameters, set(run.tags), run.name, run.idempotency_key) == (
        deployment.id,
        {"cluster": cluster.name, "dry_run": False},
        {
            "mrs",
            "started-by:alarm",
            "alarm:12110",
            f"cluster:{cluster.name}",
            f"episode:{episode}",
            "host:node-core1",
            "host:node-master1",
        },
        f"ALM-12110 {cluster.name}",
        f"{episode}:1",
    )
    assert episodes(ledger_file) == [(episode, 1, str(run.id), 1, 0)]
    count = metrics.registry.get_sample_value
    assert count("runbooks_intake_runs_started_total", {"how": "created"}) == 1
    assert count("runbooks_intake_dispatch_lag_seconds_count") == 1


async def test_a_second_look_starts_nothing(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """An episode that has its run gets no second one, nor does another host's alarm that joins it."""
    cluster, dispatcher = a_cluster(), Dispatcher(ledger, Metrics())
    episode = await raised(ledger, cluster)
    await dispatcher.dispatch(client)
    await raised(ledger, cluster, "node-core1")
    await dispatcher.dispatch(client)
    (run,) = await runs_of(client, f"cluster:{cluster.name}")
    assert episodes(ledger_file) == [(episode, 1, str(run.id), 1, 0)]


async def test_two_dispatchers_make_one_run(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """Two dispatchers that see the same episodes at the same time make one run of each, which both find."""
    clusters = [a_cluster() for _ in range(5)]
    started = [await raised(ledger, cluster) for cluster in clusters]
    url = URL.create(DRIVERS["sqlite"], database=str(ledger_file))
    async with open_ledger(url) as other, get_client() as others:
        await asyncio.gather(
            Dispatcher(ledger, Metrics()).dispatch(client), Dispatcher(other, Metrics()).dispatch(others)
        )
    runs = [await runs_of(client, f"cluster:{cluster.name}") for cluster in clusters]
    assert [len(each) for each in runs] == [1] * 5
    assert sorted(episodes(ledger_file)) == sorted(
        (episode, 1, str(run.id), 1, 0) for episode, (run,) in zip(started, runs, strict=True)
    )


async def test_the_next_number_is_the_next_run(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """An episode that needs a run once more gets another one, under the key of its next number."""
    cluster, dispatcher = a_cluster(), Dispatcher(ledger, Metrics())
    episode = await raised(ledger, cluster)
    await dispatcher.dispatch(client)
    rows(ledger_file, "UPDATE episodes SET n = 2, run = NULL, runs = 0")
    await dispatcher.dispatch(client)
    runs = await runs_of(client, f"episode:{episode}")
    assert {run.idempotency_key for run in runs} == {f"{episode}:1", f"{episode}:2"}


@pytest.mark.parametrize("text", [JINJA, "{{ 7 * 7 }}", "$(id)", "'; drop table flow_run; --"])
async def test_an_alarm_s_text_stays_text(client: PrefectClient, ledger: Ledger, text: str) -> None:
    """Text that looks like a template or a command is carried as it is and starts nothing but the one run."""
    cluster = a_cluster()
    await raised(ledger, cluster, text)
    await Dispatcher(ledger, Metrics()).dispatch(client)
    (run,) = await runs_of(client, f"cluster:{cluster.name}")
    assert run.parameters == {"cluster": cluster.name, "dry_run": False}
    assert f"host:{text}" in run.tags


async def test_a_cluster_s_name_that_is_a_template_stays_text(client: PrefectClient, ledger: Ledger) -> None:
    """A block's name that looks like a template reaches the run as it is."""
    cluster = a_cluster("{{ 7 * 7 }}")
    episode = await raised(ledger, cluster)
    await Dispatcher(ledger, Metrics()).dispatch(client)
    (run,) = await runs_of(client, f"episode:{episode}")
    assert (run.parameters["cluster"], run.name) == ("{{ 7 * 7 }}", "ALM-12110 {{ 7 * 7 }}")


async def test_two_hundred_hosts_are_ten_tags(client: PrefectClient, ledger: Ledger) -> None:
    """The run of an episode of two hundred hosts names ten of them in its tags."""
    cluster = a_cluster()
    await raised(ledger, cluster, *(f"node-{n:03}" for n in range(200)))
    await Dispatcher(ledger, Metrics()).dispatch(client)
    (run,) = await runs_of(client, f"cluster:{cluster.name}")
    assert sorted(tag for tag in run.tags if tag.startswith("host:")) == [f"host:node-{n:03}" for n in range(10)]


async def test_a_prefect_that_is_down_is_waited_for(
    client: PrefectClient, prefect_server: str, ledger: Ledger, ledger_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is taken in while no server answers starts its runs once one does, nothing twice; it is said once."""
    clusters, dispatcher = [a_cluster() for _ in range(3)], Dispatcher(ledger, Metrics())
    for cluster in clusters:
        await raised(ledger, cluster)
    async with wire(prefect_server, cut=True) as laid:
        running = asyncio.create_task(dispatcher.run())

        async def troubled() -> bool:
            return bool(dispatcher.trouble)

        await eventually(troubled)
        assert dispatcher.trouble == "Prefect cannot be reached (All connection attempts failed)"
        assert [await runs_of(client, f"cluster:{cluster.name}") for cluster in clusters] == [[], [], []]
        await laid.up()

        async def drained() -> bool:
            return all(run for _, _, run, _, _ in episodes(ledger_file))

        await eventually(drained)
        await asyncio.sleep(1.2)  # another look
        running.cancel()
        await asyncio.wait([running])
    runs = [await runs_of(client, f"cluster:{cluster.name}") for cluster in clusters]
    assert [len(each) for each in runs] == [1, 1, 1]
    assert dispatcher.trouble == ""
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING and "runbooks" in each.name]
    assert warnings == [
        "no run can be started now, all that was accepted waits: "
        "Prefect cannot be reached (All connection attempts failed)"
    ]


async def test_a_lost_answer_makes_no_second_run(
    client: PrefectClient, prefect_server: str, ledger: Ledger, ledger_file: Path
) -> None:
    """Where Prefect made the run and its answer was lost, the next look finds this run and makes no other."""
    cluster, dispatcher = a_cluster(), Dispatcher(ledger, Metrics())
    episode = await raised(ledger, cluster)
    async with wire(prefect_server) as laid:
        laid.deaf_to[CREATE] = 1
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            async with get_client() as wired:
                with pytest.raises(PrefectAway, match="cannot be reached"):
                    await dispatcher.dispatch(wired)
                (run,) = await runs_of(client, f"cluster:{cluster.name}")
                assert episodes(ledger_file) == [(episode, 1, None, 0, 0)]
                await dispatcher.dispatch(wired)
    assert [each.id for each in await runs_of(client, f"cluster:{cluster.name}")] == [run.id]
    assert episodes(ledger_file) == [(episode, 1, str(run.id), 1, 0)]


@pytest.mark.parametrize("status", [503, 500, 429, 401])
async def test_a_refusal_that_passes_is_retried(
    prefect_server: str, client: PrefectClient, ledger: Ledger, status: int
) -> None:
    """A 5xx, a 429 and a login that is refused leave the episode for the next look, which starts its run."""
    cluster, dispatcher = a_cluster(), Dispatcher(ledger, Metrics())
    await raised(ledger, cluster)
    async with wire(prefect_server) as laid:
        laid.refuses[CREATE] = (status, 1)
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            async with get_client() as wired:
                with pytest.raises(PrefectAway, match=f"Prefect answers {status}"):
                    await dispatcher.dispatch(wired)
                assert await runs_of(client, f"cluster:{cluster.name}") == []
                await dispatcher.dispatch(wired)
    assert len(await runs_of(client, f"cluster:{cluster.name}")) == 1


async def test_a_prefect_that_is_away_is_not_asked_for_each(prefect_server: str, ledger: Ledger) -> None:
    """Where Prefect is away, a round of many episodes asks it no more often than it asks at the same time."""
    for _ in range(3 * AT_ONCE):
        await raised(ledger, a_cluster())
    async with wire(prefect_server) as laid:
        laid.refuses[CREATE] = (503, 3 * AT_ONCE)
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            async with get_client() as wired:
                with pytest.raises(PrefectAway, match="Prefect answers 503"):
                    await Dispatcher(ledger, Metrics()).dispatch(wired)
        assert 1 <= 3 * AT_ONCE - laid.refuses[CREATE][1] <= AT_ONCE


async def in_state(client: PrefectClient, run: FlowRun, state: State[Any]) -> None:
    """The run is in this state now."""
    await client.set_flow_run_state(run.id, state, force=True)


async def state_of(client: PrefectClient, run: FlowRun) -> State[Any]:
    """The run's state."""
    found = (await client.read_flow_run(run.id)).state
    assert found is not None
    return found


async def a_held_run(
    client: PrefectClient, ledger: Ledger, dispatcher: Dispatcher, state: State[Any], *, waits_now: bool
) -> tuple[Cluster, FlowRun]:
    """A cluster whose run is in this state, and holds the episode: at work, or as a row that waits."""
    cluster = a_cluster()
    await raised(ledger, cluster)
    await dispatcher.dispatch(client)
    (run,) = await runs_of(client, f"cluster:{cluster.name}")
    await held(ledger, cluster, run, waits_now=waits_now)
    await in_state(client, run, state)
    return cluster, run


def in_years() -> State[Any]:
    """It waits for long."""
    return AwaitingRetry(scheduled_time=timing.now().replace(year=2099))


def is_due(state: State[Any]) -> bool:
    """Whether the run waits and is to go on now."""
    due = state.state_details.scheduled_time
    return state.name == "AwaitingRetry" and due is not None and abs(due.timestamp() - timing.now().timestamp()) < 30


async def test_a_clear_wakes_the_run_that_waits(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """A run that waits for a clear is due at once when it comes, and it is woken once."""
    dispatcher = Dispatcher(ledger, Metrics())
    cluster, run = await a_held_run(client, ledger, dispatcher, in_years(), waits_now=True)
    await dispatcher.dispatch(client)
    assert not is_due(await state_of(client, run))
    await cleared(ledger, cluster)
    assert wakes(ledger_file) == [1]
    await dispatcher.dispatch(client)
    state = await state_of(client, run)
    assert (is_due(state), wakes(ledger_file)) == (True, [0])
    await dispatcher.dispatch(client)
    assert (await state_of(client, run)).id == state.id


async def test_a_cancel_in_the_moment_of_a_wait_counts(client: PrefectClient) -> None:
    """A run that a person cancels just before it is set to wait, or woken, is Cancelled; one that works on waits."""
    deployment, found = await client.read_deployment_by_name("alm-12110/from-alarms"), []
    befores: list[list[State]] = [[], [Cancelling()], [Cancelled()], [AwaitingRetry()]]
    for before in befores:
        run = await client.create_flow_run_from_deployment(deployment.id, parameters={"cluster": "prod-1"})
        for state in (Running(), *before, AwaitingRetry()):
            await client.set_flow_run_state(run.id, state, force=True)
        await cancelled_in_between(client, run.id)
        state_now = await state_of(client, run)
        found.append(state_now.name)
    assert found == ["AwaitingRetry", "Cancelled", "Cancelled", "AwaitingRetry"]


async def test_a_run_that_died_before_its_wait_was_written_is_woken(
    client: PrefectClient, ledger: Ledger, ledger_file: Path
) -> None:
    """A run that waits in Prefect while the ledger has it at work is woken once its lease has ended."""
    dispatcher = Dispatcher(ledger, Metrics())
    cluster, run = await a_held_run(client, ledger, dispatcher, in_years(), waits_now=False)
    await cleared(ledger, cluster)
    await dispatcher.dispatch(client)
    assert (is_due(await state_of(client, run)), wakes(ledger_file)) == (False, [1])
    rows(ledger_file, "UPDATE episodes SET lease = '2026-01-01 00:00:00.000000'")
    await dispatcher.dispatch(client)
    assert (is_due(await state_of(client, run)), wakes(ledger_file)) == (True, [0])


@pytest.mark.parametrize("waits_now", [False, True])
@pytest.mark.parametrize(
    "state",
    [Running(), Pending(), Scheduled(), State(type=StateType.PAUSED, name="Suspended"), Crashed(), Cancelled()],
    ids=lambda state: state.name,
)
async def test_a_clear_leaves_a_run_that_does_not_wait_alone(
    client: PrefectClient, ledger: Ledger, ledger_file: Path, state: State[Any], waits_now: bool
) -> None:
    """A run that is not AwaitingRetry is not touched by a clear, and the flag stays for the run that looks itself."""
    dispatcher = Dispatcher(ledger, Metrics())
    cluster, run = await a_held_run(client, ledger, dispatcher, state, waits_now=waits_now)
    before = await state_of(client, run)
    await cleared(ledger, cluster)
    for _ in range(2):
        await dispatcher.dispatch(client)
    after = await state_of(client, run)
    assert (after.id, after.name, wakes(ledger_file)) == (before.id, state.name, [1])


async def test_a_clear_that_came_while_a_worker_began_the_run(
    client: PrefectClient, ledger: Ledger, ledger_file: Path
) -> None:
    """A clear for which no run waits yet is passed on as soon as it waits, and is no news to a run that came back."""
    dispatcher = Dispatcher(ledger, Metrics())
    cluster, run = await a_held_run(client, ledger, dispatcher, Pending(), waits_now=True)
    await cleared(ledger, cluster)
    await dispatcher.dispatch(client)
    assert wakes(ledger_file) == [1]
    await in_state(client, run, in_years())
    await dispatcher.dispatch(client)
    assert (is_due(await state_of(client, run)), wakes(ledger_file)) == (True, [0])
    await held(ledger, cluster, run)
    await cleared(ledger, cluster)
    assert wakes(ledger_file) == [0]


async def test_a_clear_for_a_run_that_was_deleted(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """Where the run that waits was deleted, its clear is passed on to nobody, and the dispatcher lives."""
    dispatcher = Dispatcher(ledger, Metrics())
    cluster, run = await a_held_run(client, ledger, dispatcher, in_years(), waits_now=True)
    await client.delete_flow_run(run.id)
    await cleared(ledger, cluster)
    assert not await dispatcher.dispatch(client)
    assert wakes(ledger_file) == [1]


async def test_a_missing_deployment_is_said_and_tried_again(
    client: PrefectClient, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing is deployed the log says what to do; once it is deployed the run starts, and not much is asked."""
    cluster, metrics = a_cluster(), Metrics()
    episode = await raised(ledger, cluster)
    old = await client.read_deployment_by_name("alm-12110/from-alarms")
    await client.delete_deployment(old.id)
    try:
        dispatcher = Dispatcher(ledger, metrics)
        for _ in range(2):  # the second time it is put off
            assert not await dispatcher.dispatch(client)
        words = "there is no deployment 'alm-12110/from-alarms': deploy deployments/prefect.yaml"
        said = [each.message for each in caplog.records if each.levelno == logging.ERROR and "runbooks" in each.name]
        assert said == [f"episode {episode} of {cluster.name} has no run, it is tried again: {words}"]
        count = metrics.registry.get_sample_value
        assert count("runbooks_intake_dispatch_errors_total", {"kind": "refused"}) == 1
        assert count("runbooks_intake_unstarted_episodes") == 1
    finally:
        await client.create_deployment(
            flow_id=old.flow_id,
            name="from-alarms",
            entrypoint=old.entrypoint,
            parameters=old.parameters,
            tags=old.tags,
            work_pool_name=old.work_pool_name,
        )
    await Dispatcher(ledger, metrics).dispatch(client)
    assert len(await runs_of(client, f"cluster:{cluster.name}")) == 1
