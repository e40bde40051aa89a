"""An inventory against Prefect and the clouds: whether what it names is there, and which clusters it means."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound

from deployments.inventory.entries import Entry
from deployments.inventory.inventory import CHANGING, Inventory, nearest, source_of
from deployments.inventory.reading import Problem
from tasks.blocks import Cloud, Cluster, Manager
from tasks.cloud_lists import CloudList, clouds_of, exists, project_of
from tasks.errors import RemoteError
from tasks.fleet import documents_of
from tasks.ticket_systems import TicketSystem

Documents = Mapping[str, BlockDocument]


@dataclass(frozen=True)
class Blocks:
    """What Prefect holds of what an inventory may name, by the names of the blocks. The documents hold secrets."""

    cloud_documents: Documents
    managers: Documents
    clusters: Documents
    tickets: Documents
    clouds: Mapping[str, Cloud]
    broken_clouds: Mapping[str, str]


async def read_blocks(client: PrefectClient) -> Blocks:
    """All of it, in a request for each type of block.

    Raises:
        Unreachable: the Prefect server cannot be asked.
    """
    found: list[Documents] = []
    for kind in (Cloud, Manager, Cluster, TicketSystem):
        documents = await documents_of(client, kind.get_block_type_slug())
        found.append({document.name or str(document.id): document for document in documents})
    cloud_documents, managers, clusters, tickets = found
    return Blocks(cloud_documents, managers, clusters, tickets, *clouds_of(cloud_documents.values()))


def against_blocks(inventory: Inventory, blocks: Blocks) -> Iterator[Problem]:
    """Blocks that do not exist, credentials that do not belong together, clusters that have another block."""
    for section, kind, known in (
        ("clouds", "MRS Cloud", blocks.cloud_documents),
        ("logins", "MRS Manager", blocks.managers),
    ):
        for name, credentials in getattr(inventory, section).items():
            for key in ("read", "change"):
                block, keys = getattr(credentials, key), (section, name, key)
                if block and block not in known:
                    what = f"Prefect has no block '{kind}/{block}', {nearest(block, list(known))}"
                    yield inventory.document.problem(keys, what)
                elif block in blocks.broken_clouds and section == "clouds":
                    what = f"the block 'MRS Cloud/{block}' cannot be used: {blocks.broken_clouds[block]}"
                    yield inventory.document.problem(keys, what)
    for name, cloud in inventory.clouds.items():
        ends = [blocks.clouds[block] for block in (cloud.read, cloud.change) if block and block in blocks.clouds]
        if len({project_of(each) for each in ends}) == 2:
            what = f"{cloud.read} and {cloud.change} are of two projects: name a key of the same one"
            yield inventory.document.problem(("clouds", name, "change"), what)
    yield from _borrowed(inventory)
    for name, entry in inventory.clusters.items():
        tickets = entry.settings()["tickets"]
        if tickets and tickets not in blocks.tickets:
            what = f"Prefect has no block 'MRS Ticket System/{tickets}', {nearest(tickets, list(blocks.tickets))}"
            yield inventory.problem(name, "tickets", what)
    yield from _elsewhere(inventory, blocks)


def _borrowed(inventory: Inventory) -> Iterator[Problem]:
    """A login must not be a block that takes its own user from another login: it would be one sync behind."""
    written: dict[str, str] = {}
    for name, entry in inventory.clusters.items():
        login = inventory.logins[entry.login]
        written[name] = login.read
        if login.change:
            written[f"{name}{CHANGING}"] = login.change
    for name, login in inventory.logins.items():
        for key in ("read", "change"):
            block = getattr(login, key)
            if block and written.get(block, block) != block:
                what = f"{block} takes its user from {written[block]} itself: name that one"
                yield inventory.document.problem(("logins", name, key), what)


def _elsewhere(inventory: Inventory, blocks: Blocks) -> Iterator[Problem]:
    """Blocks that are not in the file and are the same cluster, or are called the same by alarms."""
    others = {name: document.data for name, document in blocks.clusters.items() if name not in inventory.clusters}
    by_id = {str(data.get("cluster_id")).lower(): name for name, data in others.items()}
    by_source = {str(data.get("source")): name for name, data in others.items()}
    for name, entry in inventory.clusters.items():
        if other := by_id.get(entry.cluster_id.lower()):
            what = f"is the same as of the block 'MRS Cluster/{other}': call the entry so, or delete that block"
            yield inventory.problem(name, "cluster_id", what)
        elif other := by_source.get(source_of(name, entry)):
            what = f"is the same as of the block 'MRS Cluster/{other}', so that alarms would mean two clusters"
            yield inventory.problem(name, "source", what)


async def notifications_missing(inventory: Inventory, client: PrefectClient) -> list[Problem]:
    """Notification blocks that do not exist; each name is asked for once."""
    missing: dict[str, bool] = {}
    found = []
    for name, entry in inventory.clusters.items():
        for number, each in enumerate(entry.settings()["notifications"]):
            if each not in missing:
                missing[each] = not await _there(client, each)
            if missing[each]:
                what = f"Prefect has no block {each!r}: write SLUG/NAME, for example slack-webhook/on-call"
                found.append(inventory.problem(name, f"notifications.{number}", what))
    return found


async def _there(client: PrefectClient, name: str) -> bool:
    slug, _, block = name.partition("/")
    try:
        await client.read_block_document_by_name(block, slug, include_secrets=False)
    except ObjectNotFound:
        return False
    return True


async def identified(
    inventory: Inventory, blocks: Blocks, lists: Mapping[str, CloudList]
) -> tuple[dict[str, str], list[Problem]]:
    """The id in the cloud of every cluster of which it can be told, and why it cannot be of the others.

    Args:
        lists: by the names of the inventory's clouds.
    """
    ids: dict[str, str] = {}
    problems = [
        inventory.document.problem(("clouds", name, "read"), f"its clusters cannot be listed: {listed.trouble}")
        for name, listed in lists.items()
        if listed.trouble
    ]
    owners: dict[str, str] = {}
    for name, entry in inventory.clusters.items():
        if entry.cloud not in lists:  # its block cannot be used: that is told already
            continue
        key, found = await _identity(name, entry, lists[entry.cloud])
        held = blocks.clusters[name].data.get("cluster_id") if name in blocks.clusters else None
        if isinstance(found, Wrong):
            problems.append(inventory.problem(name, key, found))
        elif not entry.cluster_id and held and held != found:
            what = f"the cloud has another cluster of that name now: write cluster_id: {found} to connect that one"
            problems.append(inventory.problem(name, key, what))
        elif (first := owners.setdefault(found, name)) != name:
            problems.append(inventory.problem(name, key, f"is the same cluster as {first}"))
        else:
            ids[name] = found
    return ids, problems


class Wrong(str):
    """Why a cluster's id cannot be told, in place of it."""


async def _identity(name: str, entry: Entry, listed: CloudList) -> tuple[str, str]:
    """The key of the entry that tells the id, and the id."""
    wanted = entry.name_in_cloud or name
    if entry.cluster_id:
        known = {record.id.lower(): record.id for record in listed.records}
        if listed.trouble or entry.cluster_id.lower() in known:
            return "cluster_id", known.get(entry.cluster_id.lower(), entry.cluster_id)
        try:
            if await exists(listed.cloud, entry.cluster_id):
                return "cluster_id", entry.cluster_id
        except RemoteError as error:
            return "cluster_id", Wrong(f"cloud {entry.cloud} does not list it, and cannot be asked for it: {error}")
        return "cluster_id", Wrong(f"cloud {entry.cloud} has no cluster of this id")
    if listed.trouble:
        return "name_in_cloud", Wrong("its id cannot be looked up: give its cluster_id, or try again")
    named = [record.id for record in listed.records if record.name == wanted]
    if len(named) == 1:
        return "name_in_cloud", named[0]
    if named:
        return "name_in_cloud", Wrong(
            f"{len(named)} clusters are called {wanted}: give one's cluster_id ({', '.join(named)})"
        )
    hint = nearest(wanted, [record.name for record in listed.records])
    return "name_in_cloud", Wrong(f"cloud {entry.cloud} has no cluster called {wanted}, {hint}")
