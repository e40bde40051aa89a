"""Which clusters a sweep is about: those of the blocks, and those that a cloud has and no block names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from prefect.client.orchestration import PrefectClient

from tasks.blocks import Cloud, Cluster
from tasks.cloud_lists import one_per_project, read_clouds
from tasks.fleet import Fleet, pair_of, read_fleet, selected
from tasks.models import few

Account = tuple[str, ...]  # what tells one cloud block from others that lead to the same project
Part = tuple[str, str]  # of a selection: key and value


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
        known: ids of all clusters that have a block, chosen or not, and be it one that cannot be used.
        clouds: by the names of their blocks, one for each project.
        notes: what else is to be said: who may be left out.
    """

    targets: Sequence[Target]
    known: frozenset[str]
    clouds: Mapping[str, Cloud]
    notes: Sequence[str] = ()


async def chosen(client: PrefectClient, selection: Sequence[str]) -> Chosen:
    """What this selection is about. An empty one is about everything; one that matches nothing is about nothing.

    Raises:
        ConfigurationError: the selection is malformed, or names a label that no cluster has.
        Unreachable: the Prefect server cannot be asked.
    """
    fleet = await read_fleet(client)
    targets = [Target(name, block.cluster_id, block, block.cloud) for name, block in selected(fleet, selection).items()]
    parts = [pair_of(each) for each in selection]
    broken = {name: _is_meant(fleet, name, parts) for name in fleet.broken}
    targets += [
        Target(name, fleet.broken_ids.get(name, ""), why, None) for name, why in fleet.broken.items() if broken[name]
    ]
    known = {block.cluster_id for block in fleet.clusters.values()} | {*fleet.broken_ids.values()}
    clouds, notes = await _clouds(client, fleet, parts)
    if untold := sorted(name for name, meant in broken.items() if meant is None):
        notes.append(f"Blocks that cannot be used, so that nobody can tell whether they are selected: {few(untold)}")
    if nowhere := _without_a_region(fleet, selection):
        notes.append(f"Cloud blocks without a region, whose clusters are in no selection by region: {few(nowhere)}")
    return Chosen(targets, frozenset(known), clouds, notes)


def _is_meant(fleet: Fleet, name: str, parts: Sequence[Part]) -> bool | None:
    """Whether a block that cannot be used is one of the selection; None: only its name and its cloud can be told."""
    told: dict[str, Callable[[str], bool]] = {"name": lambda value: fnmatchcase(name, value)}
    if name in fleet.clouds:
        told["cloud"] = lambda value: fleet.clouds[name] == value
    if not all(told[key](value) for key, value in parts if key in told):
        return False
    return True if all(key in told for key, _ in parts) else None


def _without_a_region(fleet: Fleet, selection: Sequence[str]) -> list[str]:
    """Cloud blocks of clusters that a selection by region leaves out, for nothing says where they are."""
    others = [each for each in selection if pair_of(each)[0] != "region"]
    if len(others) == len(selection):
        return []
    left = {name for name, block in selected(fleet, others).items() if not block.cloud.region}
    return sorted({fleet.clouds.get(name, name) for name in left})


async def _clouds(client: PrefectClient, fleet: Fleet, parts: Sequence[Part]) -> tuple[dict[str, Cloud], list[str]]:
    """The clouds that this selection names. One of labels, modes or names is about clusters that have a block only.

    Also what is to be said of those that cannot be used.
    """
    if not {key for key, _ in parts} <= {"region", "cloud"}:
        return {}, []
    found, broken = await read_clouds(client)
    meant = {
        name: cloud
        for name, cloud in found.items()
        if all({"region": cloud.region, "cloud": name}[key] == value for key, value in parts)
    }
    unread = sorted(name for name in broken if all(name == value for key, value in parts if key == "cloud"))
    what = "Cloud blocks that cannot be used, so that nobody looked for clusters without a block there"
    return one_per_project(meant, fleet), [f"{what}: {few(unread)}"] if unread else []


def account_of(cloud: Cloud) -> Account:
    """What two cloud blocks have in common whose clients may be the same ones."""
    secrets = (cloud.access_key, cloud.secret_key, cloud.security_token, cloud.token)
    addresses = (cloud.mrs_url, cloud.ecs_url, cloud.iam_url, cloud.project_id, cloud.domain_id)
    return (*addresses, cloud.ca_pem, cloud.ca_file, *(secret.get_secret_value() for secret in secrets))
