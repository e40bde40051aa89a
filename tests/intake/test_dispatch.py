"""Episodes against a real Prefect server: which flow runs there are afterwards, whatever happens in between."""

import asyncio
import logging
from pathlib import Path

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import AwaitingRetry, Running
from sqlalchemy import URL

from deployments.intake.dispatch import AT_ONCE, Dispatcher
from deployments.intake.metrics import Metrics
from deployments.intake.prefect_server import PrefectAway
from tasks import waits
from tasks.ledger.database import DRIVERS, Ledger, open_ledger
from tasks.ledger.episodes import Asking, Holding, claim
from tasks.ledger.tables import Cluster
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


async def held(ledger: Ledger, cluster: Cluster, run: FlowRun) -> None:
    """The run has taken the cluster's episode."""
    async with ledger.writing() as session:
        asking = Asking(str(run.id), "a link", automated=True)
        holding = await claim(session, cluster.cluster_id, cluster.name, "12110", asking, waits.now())
    assert isinstance(holding, Holding)


def episodes(file: Path) -> list[tuple[str, int, str | None, int, int]]:
    """Id, number, run, how often it was started and whether a clear waits, of every episode."""
    found = rows(file, "SELECT id, n, run, runs, wake FROM episodes ORDER BY cluster")
    return [(row[0], row[1], row[2], row[3], row[4]) for row in found]


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


async def test_a_clear_wakes_the_run_that_waits(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """A run that waits for a clear is due at once when it comes, and it is woken once."""
    cluster, dispatcher = a_cluster(), Dispatcher(ledger, Metrics())
    episode = await raised(ledger, cluster)
    await dispatcher.dispatch(client)
    (run,) = await runs_of(client, f"cluster:{cluster.name}")
    await held(ledger, cluster, run)
    later = waits.now().replace(year=2099)
    await client.set_flow_run_state(run.id, AwaitingRetry(scheduled_time=later), force=True)
    await cleared(ledger, cluster)
    assert episodes(ledger_file) == [(episode, 1, str(run.id), 1, 1)]
    await dispatcher.dispatch(client)
    state = (await client.read_flow_run(run.id)).state
    assert state is not None
    assert state.name == "AwaitingRetry"
    assert state.state_details.scheduled_time is not None
    assert abs(state.state_details.scheduled_time.timestamp() - waits.now().timestamp()) < 30
    assert episodes(ledger_file) == [(episode, 1, str(run.id), 1, 0)]
    await dispatcher.dispatch(client)
    again = (await client.read_flow_run(run.id)).state
    assert again is not None
    assert again.id == state.id


async def test_a_clear_leaves_a_run_at_work_alone(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """A run at work is not touched by a clear: it reads the ledger itself before it waits."""
    cluster, dispatcher = a_cluster(), Dispatcher(ledger, Metrics())
    episode = await raised(ledger, cluster)
    await dispatcher.dispatch(client)
    (run,) = await runs_of(client, f"cluster:{cluster.name}")
    await client.set_flow_run_state(run.id, Running(), force=True)
    await held(ledger, cluster, run)
    before = (await client.read_flow_run(run.id)).state
    await cleared(ledger, cluster)
    await dispatcher.dispatch(client)
    after = (await client.read_flow_run(run.id)).state
    assert before is not None
    assert after is not None
    assert (after.id, after.name) == (before.id, "Running")
    assert episodes(ledger_file) == [(episode, 1, str(run.id), 1, 0)]


async def test_a_clear_for_a_run_that_was_deleted(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """Where the run that holds the episode was deleted, its clear is passed on to nobody, and the dispatcher lives."""
    cluster, dispatcher = a_cluster(), Dispatcher(ledger, Metrics())
    episode = await raised(ledger, cluster)
    await dispatcher.dispatch(client)
    (run,) = await runs_of(client, f"cluster:{cluster.name}")
    await held(ledger, cluster, run)
    await client.delete_flow_run(run.id)
    await cleared(ledger, cluster)
    assert not await dispatcher.dispatch(client)
    assert episodes(ledger_file) == [(episode, 1, str(run.id), 1, 0)]


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
