"""Which clusters there are: what Prefect's blocks say, and what was last read while Prefect is away."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import BlockDocumentCreate

from deployments.intake.directory import Directory
from tasks.blocks import Cluster as ClusterBlock
from tasks.ledger.database import Ledger
from tasks.ledger.tables import Cluster
from tests.intake.standing import a_cluster, block_of, connect, no_prefect, rows, wire

pytestmark = pytest.mark.anyio

PAGE = 200
ADVICE = "name it in the source field of exactly one MRS Cluster block"


def block_documents(ledger_file: Path, name: str) -> list[tuple[str, str, bool]]:
    """What the ledger holds of a cluster: id, source, whether it is gone."""
    found = rows(ledger_file, "SELECT cluster_id, source, gone IS NOT NULL FROM clusters WHERE name = ?", name)
    return [(row[0], row[1], bool(row[2])) for row in found]


@asynccontextmanager
async def many_blocks(client: PrefectClient, number: int) -> AsyncIterator[Sequence[str]]:
    """So many cluster blocks more while the block runs; yields their names."""
    await block_of(a_cluster("first-of-many")).save("first-of-many", overwrite=True)
    first = await client.read_block_document_by_name("first-of-many", ClusterBlock.get_block_type_slug())
    made = [first.id]

    async def make(name: str) -> None:
        data = {"cluster_id": f"id-of-{name}", "source": f"source of {name}"}
        document = BlockDocumentCreate(
            name=name, data=data, block_schema_id=first.block_schema_id, block_type_id=first.block_type_id
        )
        made.append((await client.create_block_document(document)).id)

    names = [f"many-{n:03}" for n in range(number)]
    try:
        for name in names:  # one by one: SQLite makes those that come together wait longer
            await make(name)
        yield names
    finally:
        for each in made:
            await client.delete_block_document(each)


async def test_without_a_server_s_address_none_is_started(ledger: Ledger) -> None:
    """Where no Prefect server is named the clusters are the ledger's, and no server is started to ask for more."""
    await connect(ledger, a_cluster("block", "prod", "id-of-prod"))
    directory = Directory(ledger)
    before = _processes()
    with no_prefect():
        await asyncio.wait_for(directory.refresh(), 2)
    assert not [each for each in _processes() - before if "uvicorn" in _command(each)]
    assert (len(directory), directory.trouble) == (1, "PREFECT_API_URL is not set")
    found = directory.by_report("prod")
    assert isinstance(found, Cluster)
    assert found.name == "block"


def _processes() -> set[Path]:
    return set(Path("/proc").glob("[0-9]*"))


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


async def test_names_that_tell_no_cluster(ledger: Ledger) -> None:
    """A name that no block or more than one block has is told with a reason, and neither is guessed."""
    twins = (a_cluster("one", "twins", "id-1"), a_cluster("two", "twins", "id-2"))
    await connect(ledger, *twins, a_cluster("block", "prod", "id-of-prod"))
    directory = Directory(ledger)
    with no_prefect():
        await directory.refresh()
    told = (directory.by_report("twins"), directory.by_report("nobody"), directory.by_block("prod"))
    assert [reason for reason, _ in told if isinstance(reason, str)] == [  # type: ignore[misc]
        "ambiguous-cluster",
        "unknown-cluster",
        "unknown-cluster",
    ]
    assert told[0] == ("ambiguous-cluster", f"2 cluster blocks have the name 'twins' as its source: {ADVICE}")
    named = [directory.by_report("id-2"), directory.by_block("two"), directory.by_report("prod")]
    assert [each.name for each in named if isinstance(each, Cluster)] == ["two", "two", "block"]
    assert [each.name for each in directory.all()] == ["block", "one", "two"]


@pytest.mark.server
async def test_more_blocks_than_prefect_s_pages_hold(client: PrefectClient, ledger: Ledger) -> None:
    """More blocks than a page of Prefect's API holds are all known, each under its three names."""
    async with many_blocks(client, PAGE + 1) as names:
        directory = Directory(ledger)
        await directory.refresh()
    for name in names:
        by = (directory.by_block(name), directory.by_report(f"source of {name}"), directory.by_report(f"id-of-{name}"))
        assert [each.name for each in by if isinstance(each, Cluster)] == [name] * 3
    assert directory.trouble == ""


@pytest.mark.server
async def test_a_block_that_changes_or_goes(client: PrefectClient, ledger: Ledger, ledger_file: Path) -> None:
    """A block's new source is known after the next refresh, its old one is not; a deleted block is marked as gone."""
    cluster = a_cluster()
    await block_of(cluster).save(cluster.name)
    directory = Directory(ledger)
    await directory.refresh()
    assert block_documents(ledger_file, cluster.name) == [(cluster.cluster_id, cluster.source, False)]
    renamed = a_cluster(cluster.name, f"{cluster.source} renamed", cluster.cluster_id)
    await block_of(renamed).save(cluster.name, overwrite=True)
    await directory.refresh()
    found = directory.by_report(renamed.source)
    assert isinstance(found, Cluster)
    assert (found.name, directory.by_report(cluster.source)) == (
        cluster.name,
        ("unknown-cluster", f"no cluster block has the name {cluster.source!r} as its source: {ADVICE}"),
    )
    document = await client.read_block_document_by_name(cluster.name, ClusterBlock.get_block_type_slug())
    await client.delete_block_document(document.id)
    await directory.refresh()
    assert isinstance(directory.by_block(cluster.name), tuple)
    assert isinstance(directory.by_report(cluster.cluster_id), tuple)
    assert block_documents(ledger_file, cluster.name) == [(cluster.cluster_id, renamed.source, True)]


@pytest.mark.server
async def test_prefect_away_leaves_what_was_known(
    prefect_server: str, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """While Prefect is away the last known clusters stay, also for an intake that starts then; this is said once."""
    cluster = a_cluster()
    await block_of(cluster).save(cluster.name)
    directory = Directory(ledger)
    async with wire(prefect_server) as laid:
        await directory.refresh()
        await laid.down()
        for each in (directory, directory, fresh := Directory(ledger)):
            await each.refresh()
        for each in (directory, fresh):
            found = each.by_report(cluster.source)
            assert isinstance(found, Cluster)
            assert found.name == cluster.name
        why = "Prefect does not list the cluster blocks (All connection attempts failed)"
        assert (directory.trouble, fresh.trouble) == (why, why)
        said = [each.message for each in caplog.records if each.name == "runbooks.intake"]
        assert said == [f"{why}: those last read are used"] * 2  # once for each directory
        await laid.up()
        await directory.refresh()
        assert directory.trouble == ""
        assert b'"include_secrets":false' in laid.asked
        assert b'"include_secrets":true' not in laid.asked
        assert b"include_secrets=true" not in laid.asked


@pytest.mark.server
async def test_a_proxy_s_404_unmakes_no_cluster(prefect_server: str, ledger: Ledger) -> None:
    """A 404 that is not Prefect's own leaves the clusters as they were last read."""
    cluster, directory = a_cluster(), Directory(ledger)
    await block_of(cluster).save(cluster.name)
    async with wire(prefect_server) as laid:
        await directory.refresh()
        laid.refuses[b"/block_documents"] = (404, 10)
        await directory.refresh()
    assert directory.trouble.startswith("Prefect does not list the cluster blocks (Client error '404")
    assert isinstance(directory.by_report(cluster.source), Cluster)


@pytest.mark.server
async def test_unknown_names_do_not_hammer_prefect(prefect_server: str, ledger: Ledger) -> None:
    """Twenty unknown names at once and then some more make Prefect list its blocks once at most."""
    directory = Directory(ledger)
    async with wire(prefect_server) as laid:
        await asyncio.gather(*(directory.refresh(for_unknown=True) for _ in range(20)))
        first = laid.asked.count(b"/block_documents")
        await asyncio.gather(*(directory.refresh(for_unknown=True) for _ in range(20)))
        assert (first > 0, laid.asked.count(b"/block_documents")) == (True, first)
        await directory.refresh()
        assert laid.asked.count(b"/block_documents") == 2 * first


@pytest.mark.server
async def test_a_new_block_is_known_to_the_first_alarm_of_it(prefect_server: str, ledger: Ledger) -> None:
    """A name that nobody knew is looked for in Prefect, so that the first alarm of a new cluster is not rejected."""
    cluster, directory = a_cluster(), Directory(ledger)
    await block_of(cluster).save(cluster.name)
    assert isinstance(directory.by_report(cluster.source), tuple)
    await directory.refresh(for_unknown=True)
    assert isinstance(directory.by_report(cluster.source), Cluster)


@pytest.mark.server
async def test_a_change_of_a_mode_is_kept(
    client: PrefectClient, ledger: Ledger, ledger_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Old and new mode are kept and said once, by whichever intake sees it first; the first sight is kept, not said."""
    cluster, query = a_cluster(), "SELECT what, old, new FROM mode_changes WHERE cluster = ? ORDER BY at, what"
    caplog.set_level(logging.INFO, "runbooks.intake")
    await block_of(cluster).save(cluster.name)
    first = [("cluster", "", "approve"), ("rebind", "", "as the cluster"), ("restart", "", "as the cluster")]
    directory = Directory(ledger)
    for each in (directory, Directory(ledger), directory):
        await each.refresh()
    assert rows(ledger_file, query, cluster.name) == first
    changed = block_of(cluster).model_copy(update={"mode": "auto", "rebind_mode": "observe"})
    await changed.save(cluster.name, overwrite=True)
    for each in (directory, Directory(ledger), directory):
        await each.refresh()
    second = [("cluster", "approve", "auto"), ("rebind", "as the cluster", "observe")]
    assert rows(ledger_file, query, cluster.name) == first + second
    assert [each.getMessage() for each in caplog.records if cluster.name in each.getMessage()] == [
        f"the mode of {cluster.name} is 'auto' now, it was 'approve'",
        f"the mode of binding of {cluster.name} is 'observe' now, it was 'as the cluster'",
    ]
