"""What the clouds list, held against the fleet: which cluster is managed, which has no block, which is gone."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import BlockDocument
from pydantic import ValidationError

from tasks.blocks import Cloud, Cluster
from tasks.errors import ConfigurationError, NotAuthorized, Rejected, RunbookError
from tasks.fleet import Fleet, documents_of
from tasks.loading import faults_of
from tasks.models import ClusterRecord, few

AT_ONCE = 10  # requests to a cloud

# unknown: its cloud could not be asked.
Standing = Literal["managed", "unmanaged", "gone", "unknown"]


@dataclass(frozen=True)
class CloudList:
    """The existing clusters of one project; `trouble` says why they could not be listed."""

    cloud: Cloud
    records: tuple[ClusterRecord, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class Sight:
    """A cluster of the fleet or of a cloud.

    Attributes:
        name: of its block; of a cluster that has none its name in the cloud.
        cloud: name of the cloud's block; empty where it is nowhere a block of its own.
        cluster: its block; None: unmanaged.
        record: what the cloud lists of it; None: nothing.
    """

    name: str
    cluster_id: str
    standing: Standing
    cloud: str
    cluster: Cluster | None = None
    record: ClusterRecord | None = None


async def read_clouds(client: PrefectClient) -> tuple[dict[str, Cloud], dict[str, str]]:
    """Every `Cloud` block with its secrets, and why others cannot be used, by block name.

    Raises:
        Unreachable: the Prefect server cannot be asked.
    """
    return clouds_of(await documents_of(client, Cloud.get_block_type_slug()))


def clouds_of(documents: Iterable[BlockDocument]) -> tuple[dict[str, Cloud], dict[str, str]]:
    """The same, of what was read already."""
    clouds, broken = {}, {}
    for document in documents:
        name = document.name or str(document.id)
        try:
            clouds[name] = Cloud.model_validate(document.data)
        except ValidationError as error:
            broken[name] = faults_of(error)
    return clouds, broken


def cloud_named(name: str, clouds: Mapping[str, Cloud], broken: Mapping[str, str]) -> Cloud:
    """One of what `read_clouds` has read.

    Raises:
        ConfigurationError: there is none of that name, or it cannot be used.
    """
    if name in clouds:
        return clouds[name]
    if name in broken:
        raise ConfigurationError(f"the block 'MRS Cloud/{name}' cannot be used: {broken[name]}")
    raise ConfigurationError(f"there is no block 'MRS Cloud/{name}', there is {few(sorted(clouds)) or 'none'}")


def project_of(cloud: Cloud) -> tuple[str, str]:
    """What two blocks of the same project have in common, whatever their keys: the endpoint and the project."""
    return cloud.mrs_url.rstrip("/"), cloud.project_id


def one_per_project(clouds: Mapping[str, Cloud], fleet: Fleet) -> dict[str, Cloud]:
    """One of these blocks for each project: the one that clusters are read with, else the first by name."""
    read_with = set(fleet.clouds.values())
    found: dict[tuple[str, str], str] = {}
    for name in sorted(clouds, key=lambda name: (name not in read_with, name)):
        found.setdefault(project_of(clouds[name]), name)
    return {name: clouds[name] for name in sorted(found.values())}


async def list_clouds(clouds: Mapping[str, Cloud]) -> dict[str, CloudList]:
    """The existing clusters of each, asked at the same time; one that cannot be listed says why."""
    lists = await asyncio.gather(*map(_list, clouds.values()))
    return dict(zip(clouds, lists, strict=True))


async def _list(cloud: Cloud) -> CloudList:
    try:
        mrs, ecs, iam = cloud.get_clients(dry_run=True)
        async with mrs, ecs, iam:
            return CloudList(cloud, await mrs.clusters())
    except RunbookError as error:
        return CloudList(cloud, trouble=str(error))


async def exists(cloud: Cloud, cluster_id: str) -> ClusterRecord | None:
    """The record of a cluster that is not listed: it may be in another enterprise project. None: there is none.

    Raises:
        RemoteError: the cloud cannot tell.
    """
    mrs, ecs, iam = cloud.get_clients(dry_run=True)
    async with mrs, ecs, iam:
        try:
            record = await mrs.cluster(cluster_id)
        except NotAuthorized:
            raise
        except Rejected:
            return None
    return None if record.state == "terminated" else record


async def compare(fleet: Fleet, lists: Mapping[str, CloudList]) -> list[Sight]:
    """Every usable cluster of the fleet by name, then every cluster that the clouds list and nobody has a block for.

    One whose block cannot be used is neither.
    """
    names = {project_of(each.cloud): name for name, each in lists.items()}
    listed = {(name, record.id): record for name, each in lists.items() for record in each.records}
    asking = asyncio.Semaphore(AT_ONCE)
    known: set[tuple[str, str]] = set()
    broken = set(fleet.broken_ids.values())

    async def sight(name: str, cluster: Cluster) -> Sight:
        cloud = names.get(project_of(cluster.cloud), "")
        known.add((cloud, cluster.cluster_id))
        record = listed.get((cloud, cluster.cluster_id))
        standing: Standing = "managed"
        if record is None:
            async with asking:
                record, standing = await _unlisted(lists.get(cloud), cluster)
        return Sight(name, cluster.cluster_id, standing, cloud or fleet.clouds.get(name, ""), cluster, record)

    found = await asyncio.gather(*(sight(name, cluster) for name, cluster in sorted(fleet.clusters.items())))
    others = sorted((record.name, record.id, cloud) for (cloud, _), record in listed.items())
    return [
        *found,
        *(
            Sight(name, cluster_id, "unmanaged", cloud, record=listed[cloud, cluster_id])
            for name, cluster_id, cloud in others
            if (cloud, cluster_id) not in known and cluster_id not in broken
        ),
    ]


async def _unlisted(listed: CloudList | None, cluster: Cluster) -> tuple[ClusterRecord | None, Standing]:
    if listed is None or listed.trouble:
        return None, "unknown"
    try:
        record = await exists(listed.cloud, cluster.cluster_id)
    except RunbookError:
        return None, "unknown"
    return record, "managed" if record else "gone"
