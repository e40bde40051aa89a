"""The fleet: all its blocks whatever their number, those that cannot be used by name, and what is chosen of it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.blocks import Cloud, Cluster, Manager
from tasks.errors import ConfigurationError
from tasks.fleet import Fleet, documents_of, read_fleet, selected
from tests.conftest import serving_prefect
from tests.tasks.clients.conftest import error_of
from tests.tasks.test_blocks import KEYS, MANAGER, PLACE, SECRETS, content

pytestmark = pytest.mark.anyio


def cluster(region: str = "", **changes: Any) -> Cluster:
    """A cluster of a region."""
    return Cluster.model_validate(content(cloud={**PLACE, **KEYS, "region": region}, **changes))


FLEET = Fleet(
    {
        "prod-1": cluster("eu-de", labels={"stage": "prod", "team": "a"}, mode="auto"),
        "prod-2": cluster("eu-nl", labels={"stage": "prod"}),
        "lab": cluster("eu-de", labels={"stage": "lab"}, mode="observe"),
        "bare": cluster(),
    },
    {"broken": "mode: unknown"},
    {"prod-1": "cloud-a", "prod-2": "cloud-a", "lab": "cloud-b"},
)


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ([], ["prod-1", "prod-2", "lab", "bare"]),
        (["stage=prod"], ["prod-1", "prod-2"]),
        (["stage=prod", "team=a"], ["prod-1"]),
        (["stage=prod", "stage=lab"], []),
        (["stage=nowhere"], []),
        (["region=eu-de"], ["prod-1", "lab"]),
        (["region=eu-de", "mode=observe"], ["lab"]),
        (["cloud=cloud-a"], ["prod-1", "prod-2"]),
        (["cloud=cloud-c"], []),
        (["name=prod-*"], ["prod-1", "prod-2"]),
        (["name=bare"], ["bare"]),
        (["name=BARE"], []),
        ([" stage = prod "], ["prod-1", "prod-2"]),
    ],
)
def test_all_of_a_selection_must_match(selection: list[str], names: list[str]) -> None:
    """Labels, region, cloud, mode and name; what matches nothing chooses nothing."""
    assert list(selected(FLEET, selection)) == names


@pytest.mark.parametrize(
    ("selector", "sentence"),
    [
        ("prod", "the selection 'prod' is not written as KEY=VALUE, for example stage=production"),
        ("=prod", "the selection '=prod' is not written as KEY=VALUE, for example stage=production"),
        ("stage=", "the selection 'stage=' is not written as KEY=VALUE, for example stage=production"),
        ("", "the selection '' is not written as KEY=VALUE, for example stage=production"),
        ("stagee=prod", "the selection 'stagee=prod' names a label that no cluster has: did you mean stage?"),
        ("x=y", "the selection 'x=y' names a label that no cluster has: there is cloud, mode, name, region and 2 more"),
        ("mode=atuo", "the selection 'mode=atuo' names no mode: write observe, approve or auto"),
    ],
)
def test_a_selection_that_means_nothing_is_refused(selector: str, sentence: str) -> None:
    """It is named, and never taken for the whole fleet."""
    with pytest.raises(ConfigurationError) as caught:
        selected(FLEET, ["stage=prod", selector])
    assert str(caught.value) == sentence


@pytest.fixture(scope="module")
def small_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server that lists two blocks a page."""
    with serving_prefect(tmp_path_factory.mktemp("fleet"), PREFECT_SERVER_API_DEFAULT_LIMIT="2") as url:
        yield url


@pytest.fixture
async def client(small_pages: str, anyio_backend: str) -> AsyncIterator[PrefectClient]:
    """A client of it."""
    async with get_client() as client:
        yield client


@pytest.mark.server
async def test_a_type_that_was_never_made_has_no_blocks(client: PrefectClient) -> None:
    """A new Prefect server has an empty fleet, which is no error."""
    assert (await read_fleet(client), await documents_of(client, "mrs-nothing")) == (Fleet({}, {}), [])


@pytest.mark.server
async def test_the_whole_fleet_is_read(client: PrefectClient) -> None:
    """More clusters than a page holds, each once, with its secrets and the blocks it names in their places."""
    cloud, manager = Cloud.model_validate({**PLACE, **KEYS}), Manager.model_validate(MANAGER)
    await cloud.save("cloud-a", client=client)
    await manager.save("manager-a", client=client)
    names = [f"fleet-{n}" for n in range(5)]
    for name in names:
        whole = Cluster(cluster_id=name, source=name, manager=manager, cloud=cloud, labels={"n": name})
        await whole.save(name, client=client)
    fleet = await read_fleet(client)
    assert {name: each.source for name, each in fleet.clusters.items()} == {name: name for name in names}
    assert (fleet.broken, fleet.clouds) == ({}, dict.fromkeys(names, "cloud-a"))
    assert {each.cloud.secret_key.get_secret_value() for each in fleet.clusters.values()} == {"s3cret-sk"}
    assert {each.manager.password.get_secret_value() for each in fleet.clusters.values()} == {"s3cret-password"}


@pytest.mark.server
async def test_a_block_that_cannot_be_used_does_not_hide_the_others(client: PrefectClient) -> None:
    """It is named with the fields that are wrong, and without what was put in."""
    await Cluster.model_validate(content()).save("wrong", client=client)
    document = await client.read_block_document_by_name("wrong", Cluster.get_block_type_slug())
    data = content(mode="yolo", manager=MANAGER | {"cluster_number": 0})
    update = BlockDocumentUpdate(block_schema_id=document.block_schema_id, data=data, merge_existing_data=False)
    await client.update_block_document(document.id, update)
    fleet = await read_fleet(client)
    assert "wrong" not in fleet.clusters
    assert fleet.broken == {
        "wrong": "manager.cluster_number: Input should be greater than or equal to 1; "
        "mode: Input should be 'observe', 'approve' or 'auto'"
    }
    assert fleet.broken_ids == {"wrong": "c"}


async def test_a_server_that_does_not_answer_is_told() -> None:
    """One sentence of ours, with what to do."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        async with get_client() as client:
            error = await error_of(read_fleet(client), *SECRETS)
    assert error == (
        "Unreachable: blocks: Prefect cannot be reached (All connection attempts failed): start its server, "
        "or correct PREFECT_API_URL"
    )
