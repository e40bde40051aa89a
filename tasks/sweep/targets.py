"""Which clusters a sweep is about: those of the blocks, and those that a cloud has and no block names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from prefect.client.orchestration import PrefectClient

from tasks.blocks import Cloud, Cluster
from tasks.cloud_lists import one_per_project, read_clouds
from tasks.fleet import Fleet, pair_of, read_fleet, selected

Account = tuple[str, ...]  # what tells one cloud block from others that lead to the same project


@dataclass(frozen=True)
class Target:
    """A cluster to look at.

    Attributes:
        name: of its block; of a cluster that has none its id in the cloud.
        block: None where it has none; where it cannot be used, why.
        cloud: None: it cannot be looked at.
    """

    name: str
    cluster_id: str
    block: Cluster | str | None
    cloud: Cloud | None

    @property
    def manager_host(self) -> str:
        """The host of its Manager's address, empty where that is not known."""
        return urlsplit(self.block.manager.url).hostname or "" if isinstance(self.block, Cluster) else ""


@dataclass(frozen=True)
class Chosen:
    """What is chosen: clusters with a block, and clouds in which others are looked for.

    Attributes:
        known: ids of all clusters that have a block, chosen or not.
        clouds: by the names of their blocks, one for each project.
    """

    targets: Sequence[Target]
    known: frozenset[str]
    clouds: Mapping[str, Cloud]


async def chosen(client: PrefectClient, selection: Sequence[str]) -> Chosen:
    """What this selection is about. An empty one is about everything; one that matches nothing is about nothing.

    Raises:
        ConfigurationError: the selection is malformed, or names a label that no cluster has.
        Unreachable: the Prefect server cannot be asked.
    """
    fleet = await read_fleet(client)
    targets = [Target(name, block.cluster_id, block, block.cloud) for name, block in selected(fleet, selection).items()]
    targets += [Target(name, "", why, None) for name, why in fleet.broken.items() if _may_be_meant(name, selection)]
    known = frozenset(block.cluster_id for block in fleet.clusters.values())
    return Chosen(targets, known, await _clouds(client, fleet, selection))


def _may_be_meant(name: str, selection: Sequence[str]) -> bool:
    """Whether a block that cannot be read may be one of the selection: only its name can be held against that."""
    return all(key == "name" and fnmatchcase(name, value) for key, value in map(pair_of, selection))


async def _clouds(client: PrefectClient, fleet: Fleet, selection: Sequence[str]) -> dict[str, Cloud]:
    """The clouds that this selection names. One of labels, modes or names is about clusters that have a block only."""
    parts = [pair_of(each) for each in selection]
    if not {key for key, _ in parts} <= {"region", "cloud"}:
        return {}
    found, _ = await read_clouds(client)  # of those that are broken the clusters that use them say why
    meant = {
        name: cloud
        for name, cloud in found.items()
        if all({"region": cloud.region, "cloud": name}[key] == value for key, value in parts)
    }
    return one_per_project(meant, fleet)


def account_of(cloud: Cloud) -> Account:
    """What two cloud blocks have in common whose clients may be the same ones."""
    secrets = (cloud.access_key, cloud.secret_key, cloud.security_token, cloud.token)
    addresses = (cloud.mrs_url, cloud.ecs_url, cloud.iam_url, cloud.project_id, cloud.domain_id)
    return (*addresses, cloud.ca_pem, cloud.ca_file, *(secret.get_secret_value() for secret in secrets))
