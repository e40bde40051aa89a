"""Episodes against Prefect as it runs in production: its server and the ledger on PostgreSQL, two intakes."""

import asyncio
from collections.abc import Iterator

import pytest
from prefect.client.orchestration import get_client
from sqlalchemy import make_url, select

from deployments.intake.dispatch import Dispatcher
from deployments.intake.metrics import Metrics
from tasks.ledger.database import DRIVERS, open_ledger, unchecked_ledger, upgrade_schema
from tasks.ledger.tables import Episode
from tests.conftest import order, serving_prefect
from tests.intake.conftest import deploy
from tests.intake.standing import a_cluster, runs_of, seen, told

pytestmark = [pytest.mark.server, pytest.mark.anyio]

CLUSTERS = 12


@pytest.fixture
def prefect_on_postgresql(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server on a database of its own, with the deployments; yields its API URL."""
    order(postgresql, "CREATE DATABASE prefect")
    url = make_url(postgresql).set(drivername=DRIVERS["postgresql"], database="prefect")
    home, database = tmp_path_factory.mktemp("prefect"), url.render_as_string(hide_password=False)
    with serving_prefect(home, PREFECT_SERVER_DATABASE_CONNECTION_URL=database) as api:
        deploy(api)
        yield api


async def test_two_intakes_on_postgresql_make_one_run_of_each(
    prefect_on_postgresql: str, postgresql_database: str
) -> None:
    """Two dispatchers on one PostgreSQL ledger and a Prefect server on PostgreSQL: one run for each episode."""
    url = make_url(postgresql_database).set(drivername=DRIVERS["postgresql"])
    async with unchecked_ledger(url) as ledger:
        await upgrade_schema(ledger)
    clusters = [a_cluster() for _ in range(CLUSTERS)]
    async with open_ledger(url) as one, open_ledger(url) as other, get_client() as client, get_client() as others:
        for cluster in clusters:
            await seen(one, cluster, told(host="node-master1"), told(host="node-core1"))
        await asyncio.gather(Dispatcher(one, Metrics()).dispatch(client), Dispatcher(other, Metrics()).dispatch(others))
        runs = [await runs_of(client, f"cluster:{cluster.name}") for cluster in clusters]
        async with one.reading() as session:
            episodes = {each.cluster: each for each in await session.scalars(select(Episode))}
    assert [len(each) for each in runs] == [1] * CLUSTERS
    assert [run.idempotency_key for [run] in runs] == [f"{episodes[cluster.name].id}:1" for cluster in clusters]
    assert [str(run.id) for [run] in runs] == [episodes[cluster.name].run for cluster in clusters]
