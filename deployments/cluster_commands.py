"""`runbooks clusters`: the clusters that have a block, and those the clouds list."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

from cyclopts import App, Parameter
from prefect.client.orchestration import get_client
from rich.table import Table
from rich.text import Text

from deployments.ending import run_until_ended
from deployments.intake_commands import prefect_is_known
from deployments.inventory_commands import add, check, schema, sync
from deployments.terminal import console
from tasks.blocks import Cloud, Cluster
from tasks.cloud_lists import Sight, cloud_named, compare, exists, list_clouds, one_per_project, project_of, read_clouds
from tasks.errors import RunbookError
from tasks.fleet import Fleet, read_fleet, selected
from tasks.loading import cluster_block
from tasks.models import ClusterRecord

clusters = App(name="clusters", help="The clusters: in the clouds, in the file, and as blocks in Prefect.")

for each in (add, check, sync, schema):
    clusters.command(each)


@clusters.command(name="list")
def list_(
    *,
    cloud: str = "",
    select: tuple[str, ...] = (),
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """List the clusters that have a block and those the clouds list: managed, unmanaged (no block), gone, unknown.

    Exit code 1 when a cloud could not be asked, or a block cannot be used.

    Parameters
    ----------
    cloud
        Only those of the project of this MRS Cloud block; left out: of all MRS Cloud blocks.
    select
        KEY=VALUE, may be given several times and all must match: a label, name (with * and ?), cloud, region, mode.
        Clusters without a block are left out then.
    as_json
        One JSON array on standard output.
    """
    prefect_is_known()
    return run_until_ended(_list(cloud, select, as_json=as_json))


@clusters.command
def show(name: str, /) -> int:
    """Show a cluster: what its block says, secrets left out, and what its cloud says now."""
    prefect_is_known()
    return run_until_ended(_show(name))


async def _list(cloud: str, select: Sequence[str], *, as_json: bool) -> int:
    async with get_client() as client:
        fleet = await read_fleet(client)
        clouds, broken_clouds = await read_clouds(client)
    fleet = replace(fleet, clusters=selected(fleet, select))
    if cloud:
        fleet = replace(fleet, clusters=_of_project(fleet, cloud_named(cloud, clouds, broken_clouds)))
        clouds = {cloud: clouds[cloud]}
    lists = await list_clouds(one_per_project(clouds, fleet))
    seen = [each for each in await compare(fleet, lists) if each.cluster or not select]
    if as_json:
        sys.stdout.write(json.dumps([_plain(each) for each in seen]) + "\n")
    else:
        _table(seen)
    trouble = [
        *(f"cloud {name} could not be asked: {each.trouble}" for name, each in lists.items() if each.trouble),
        *(f"the block 'MRS Cloud/{name}' cannot be used: {why}" for name, why in broken_clouds.items() if not cloud),
        *(f"the block 'MRS Cluster/{name}' cannot be used: {why}" for name, why in fleet.broken.items()),
    ]
    out = console(stderr=True)
    for line in trouble:
        out.print(Text(line))
    return 1 if trouble else 0


def _of_project(fleet: Fleet, cloud: Cloud) -> dict[str, Cluster]:
    project = project_of(cloud)
    return {name: each for name, each in fleet.clusters.items() if project_of(each.cloud) == project}


def _table(seen: Sequence[Sight]) -> None:
    out = console()
    if not seen:
        out.print("no cluster")
        return
    table = Table("name", "id", "cloud", "state", "version", "nodes", "mode", "", "labels")
    for each in seen:
        it = _plain(each)
        labels = " ".join(f"{key}={value}" for key, value in it["labels"].items())
        nodes = "" if it["nodes"] is None else str(it["nodes"])
        cells = (each.name, each.cluster_id, each.cloud, it["state"], it["version"], nodes, it["mode"])
        table.add_row(*map(Text, (*cells, each.standing, labels)))
    out.print(table)


def _plain(each: Sight) -> dict[str, Any]:
    record = each.record or ClusterRecord()
    return {
        "name": each.name,
        "id": each.cluster_id,
        "cloud": each.cloud,
        "state": record.state,
        "version": record.version,
        "nodes": record.nodes,
        "mode": each.cluster.mode if each.cluster else "",
        "standing": each.standing,
        "labels": each.cluster.labels if each.cluster else {},
    }


async def _show(name: str) -> int:
    cluster = await cluster_block(name)
    try:
        record = await exists(cluster.cloud, cluster.cluster_id)
        said = f"{record.state}, {record.version}, {record.nodes} nodes, named {record.name}" if record else "gone"
    except RunbookError as error:
        said = f"unknown: {error}"
    grid = Table.grid(padding=(0, 2))
    for field, value in (*_fields(cluster), ("in its cloud", said)):
        grid.add_row(Text(field), Text(value))
    console().print(grid)
    return 0


def _fields(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Field by field, of the blocks it names where they are and as whom they are used; of these no secret."""
    for name in Cluster.model_fields:
        value = getattr(cluster, name)
        if name in ("manager", "changing_manager"):
            value = f"{value.url} (cluster {value.cluster_number}, user {value.user})" if value else "-"
        elif name in ("cloud", "changing_cloud"):
            value = f"{value.mrs_url} (project {value.project_id})" if value else "-"
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
