"""`runbooks clusters add`, `check`, `sync`, `schema`: the file that declares the clusters, and its blocks."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from prefect.client.orchestration import PrefectClient, get_client
from rich.text import Text

from deployments.ending import run_until_ended
from deployments.intake_commands import prefect_is_known
from deployments.inventory.appending import new_file, with_entry
from deployments.inventory.checking import Blocks, against_blocks, identified, notifications_missing, read_blocks
from deployments.inventory.entries import schema as schema_of_file
from deployments.inventory.inventory import (
    CHANGING,
    Inventory,
    WrongInventory,
    inventory_of,
    nearest,
    read_inventory,
    told,
)
from deployments.inventory.reading import Problem
from deployments.inventory.syncing import Draft, drafts, write
from deployments.terminal import console
from tasks.blocks import Mode
from tasks.cloud_lists import CloudList, cloud_named, exists, list_clouds, read_clouds
from tasks.errors import ConfigurationError
from tasks.models import ClusterRecord

FILE = Path("clusters.yaml")

File = Annotated[Path, Parameter(help="The file that declares the clusters.")]
Flag = Annotated[bool, Parameter(negative=())]


def add(
    cloud: str,
    name_or_id: str,
    /,
    *,
    manager: str,
    login: str,
    name: str = "",
    cluster_number: int = 1,
    ca_file: str = "",
    mode: Mode | None = None,
    label: tuple[str, ...] = (),
    file: File = FILE,
) -> int:
    """Add a cluster of a cloud to the file; everything else in it stays as it is. Blocks are made by `clusters sync`.

    Parameters
    ----------
    cloud
        One of the file's clouds. Where there is no file yet, a new one: the name of an MRS Cloud block.
    name_or_id
        The cluster's name in the cloud, or its id.
    manager
        The address of its Manager, https://<ip>:28443/web/api/v2.
    login
        One of the file's logins. Where there is no file yet, a new one: the name of an MRS Manager block.
    name
        What its blocks are to be called; left out: made of its name in the cloud.
    cluster_number
        Manager's own number of the cluster.
    ca_file
        The CA of Manager's certificate, a file on the workers.
    label
        KEY=VALUE, may be given several times.
    """
    prefect_is_known()
    address: dict[str, Any] = {"url": manager}
    address |= {"cluster_number": cluster_number} if cluster_number != 1 else {}
    address |= {"ca_file": ca_file} if ca_file else {}
    more: dict[str, Any] = {"manager": address}
    more |= {"mode": mode} if mode else {}
    more |= {"labels": dict(map(_label, label))} if label else {}
    text = file.read_text(encoding="utf-8") if file.exists() else new_file(cloud, login)
    inventory = inventory_of(file, text)
    for key, chosen, known in (("cloud", cloud, inventory.clouds), ("login", login, inventory.logins)):
        if chosen not in known:
            raise ConfigurationError(f"{file} has no {key} {chosen!r}, {nearest(chosen, list(known))}: write it there")
    record = run_until_ended(_found(name_or_id, cloud, inventory.clouds[cloud].read))
    key = name or re.sub("[^a-z0-9]+", "-", record.name.lower()).strip("-")
    entry: dict[str, Any] = {"cloud": cloud, "login": login, "cluster_id": record.id}
    entry |= {"source": record.name} if record.name and record.name != key else {}
    file.write_text(with_entry(file, text, key, {**entry, **more}), encoding="utf-8")
    console().print(Text(f"{file}: {key} added; `runbooks clusters sync {file}` makes its blocks"))
    return 0


def check(file: File = FILE, /, *, offline: Flag = False) -> int:
    """Tell everything that is wrong in the file, each with its line; nothing is changed. Exit code 1: something is.

    Parameters
    ----------
    offline
        Do not ask Prefect whether the blocks exist, nor the clouds whether the clusters do.
    """
    out = console()
    try:
        inventory = read_inventory(file)
        if not offline:
            prefect_is_known()
            run_until_ended(check_names(inventory))
    except WrongInventory as error:
        for line in error.lines:
            out.print(Text(line))
        return 1
    out.print(Text(f"{file}: {len(inventory.clusters)} cluster(s), nothing is wrong"))
    return 0


def sync(file: File = FILE, /, *, dry_run: Flag = False) -> int:
    """Make the blocks in Prefect what the file says, and show what that changes. Nothing is deleted.

    The clouds are only asked. Exit code 1 when a cluster was not brought to what the file says; the others are.

    Parameters
    ----------
    dry_run
        Only show it.
    """
    prefect_is_known()
    return run_until_ended(sync_blocks(read_inventory(file), dry_run=dry_run))


def schema() -> None:
    """Print the JSON schema of the file, for editors."""
    sys.stdout.write(json.dumps(schema_of_file(), indent=2) + "\n")


async def _found(name_or_id: str, cloud: str, block: str) -> ClusterRecord:
    """The one cluster that is meant, also where the cloud does not list it."""
    async with get_client() as client:
        clouds, broken = await read_clouds(client)
    listed = (await list_clouds({block: cloud_named(block, clouds, broken)}))[block]
    if listed.trouble:
        raise ConfigurationError(f"the clusters of cloud {cloud} cannot be listed: {listed.trouble}")
    found = [record for record in listed.records if name_or_id in (record.id, record.name)]
    if not found and (unlisted := await exists(listed.cloud, name_or_id)):
        found = [unlisted]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(record.id for record in found)
        raise ConfigurationError(f"{len(found)} clusters of cloud {cloud} are called {name_or_id!r}: give an id, {ids}")
    hint = nearest(name_or_id, [record.name for record in listed.records])
    raise ConfigurationError(f"cloud {cloud} has no cluster {name_or_id!r}, {hint}")


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigurationError(f"--label {text!r}: write KEY=VALUE")
    return key, value


@dataclass(frozen=True)
class _Plan:
    """What an inventory comes to; `problems` are of single clusters, which have no drafts then."""

    blocks: Blocks
    lists: Mapping[str, CloudList]
    drafts: Mapping[str, list[Draft]]
    problems: Sequence[Problem]


async def _plan(inventory: Inventory, client: PrefectClient) -> _Plan:
    """Everything that is asked before anything is written.

    Raises:
        WrongInventory: it names blocks that are not there, or that do not fit.
    """
    blocks = await read_blocks(client)
    wrong = [*against_blocks(inventory, blocks), *await notifications_missing(inventory, client)]
    if wrong:
        raise WrongInventory(inventory.path, wrong)
    used = {entry.cloud for entry in inventory.clusters.values()}
    reading = {name: blocks.clouds[each.read] for name, each in inventory.clouds.items() if name in used}
    lists = await list_clouds(reading)
    ids, problems = await identified(inventory, blocks, lists)
    planned, unfit = drafts(inventory, blocks, ids)
    return _Plan(blocks, lists, planned, [*problems, *unfit])


async def check_names(inventory: Inventory) -> None:
    """Ask Prefect and the clouds for everything that an inventory names.

    Raises:
        WrongInventory: something is not there, or does not fit.
    """
    async with get_client() as client:
        plan = await _plan(inventory, client)
    if plan.problems:
        raise WrongInventory(inventory.path, plan.problems)


async def sync_blocks(inventory: Inventory, *, dry_run: bool) -> int:
    """Make the blocks what an inventory says, telling what that changes; the exit code.

    Raises:
        WrongInventory: it names blocks that are not there, or that do not fit; nothing was written.
    """
    out = console()
    failed = 0
    async with get_client() as client:
        plan = await _plan(inventory, client)
        if dry_run:
            for draft in (each for mine in plan.drafts.values() for each in mine):
                _tell(draft)
        else:
            async for written in write(client, plan.drafts, plan.blocks):
                failed += bool(written.trouble)
                _tell(written.draft, written.trouble)
    for problem in told(inventory.path, plan.problems):
        out.print(Text(f"! {problem}"))
    changed = sum(bool(draft.changes) for mine in plan.drafts.values() for draft in mine)
    _left_alone(inventory, plan.blocks)
    if not changed:
        out.print("nothing to do" if not plan.problems else "nothing else to do")
    elif dry_run:
        out.print(f"dry run: {changed} block(s) would be written")
    else:
        out.print(f"{changed - failed} block(s) written" + (f", {failed} not" if failed else ""))
    return 1 if failed or plan.problems else 0


def _tell(draft: Draft, trouble: str = "") -> None:
    """What becomes of a block: one line for a new one, one for each field of one that changes."""
    out = console()
    if trouble:
        out.print(Text(f"! {draft.title}: {trouble}", style="red"))
    elif draft.document is None:
        out.print(Text(f"+ {draft.title}  {', '.join(map(str, draft.changes))}", style="green"))
    else:
        for change in draft.changes:
            out.print(Text(f"~ {draft.title}  {change}", style="yellow"))


def _left_alone(inventory: Inventory, blocks: Blocks) -> None:
    out = console()
    if others := sorted(set(blocks.clusters) - set(inventory.clusters)):
        out.print(Text(f"not in the file, left as they are: {', '.join(others)}"))
    for name, entry in inventory.clusters.items():
        if not inventory.logins[entry.login].change and f"{name}{CHANGING}" in blocks.managers:
            out.print(Text(f"no longer used, delete it in Prefect: MRS Manager/{name}{CHANGING}"))
