"""Making the blocks in Prefect what an inventory says: first the differences, then one block after the other."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import BlockDocumentCreate, BlockDocumentUpdate
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from deployments.inventory.checking import Blocks
from deployments.inventory.inventory import CHANGING, Inventory, source_of
from deployments.inventory.reading import Problem
from tasks.blocks import Cloud, Cluster, Manager
from tasks.loading import faults_of

LONGEST = 80  # letters of a value that is shown
SECRET = ("password",)


@dataclass(frozen=True)
class Change:
    """A field of a block, before and after, fit to be shown; `old` is None where the block is new."""

    field: str
    old: str | None
    new: str

    def __str__(self) -> str:
        if self.new == CHANGED:
            return f"{self.field} changed"
        return f"{self.field}: {self.new}" if self.old is None else f"{self.field}: {self.old} -> {self.new}"


CHANGED = "(changed)"


@dataclass(frozen=True)
class Draft:
    """A block as it is to be.

    Attributes:
        data: its own fields, secrets too.
        references: the blocks it names, by field; None: none.
        document: what Prefect holds of it; None: it is new.
        needs: blocks that must be written before it.
    """

    kind: type[Block]
    name: str
    data: Mapping[str, Any] = field(repr=False)
    document: BlockDocument | None = field(repr=False)
    references: Mapping[str, tuple[type[Block], str] | None] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is called."""
        return title(self.kind, self.name)

    @property
    def changes(self) -> list[Change]:
        """The fields that are to become others; of a new block those that are not the default."""
        return [*self._own(), *self._named()]

    def _own(self) -> Iterator[Change]:
        held = self.document.data if self.document else {}
        for name, new in self.data.items():
            old = held.get(name, _default(self.kind, name))
            if old != new:
                yield _change(name, None if self.document is None else old, new)

    def _named(self) -> Iterator[Change]:
        held = self.document.block_document_references if self.document else {}
        for name, new in self.references.items():
            shown = title(*new) if new else "none"
            if self.document is None:
                if new:
                    yield Change(name, None, shown)
                continue
            old = "written into the block" if self.document.data.get(name) is not None else "none"
            if name in held:
                block = held[name]["block_document"]
                old = f"{block['block_type']['name']}/{block['name']}"
            if old != shown:
                yield Change(name, old, shown)


def title(kind: type[Block], name: str) -> str:
    """A block as Prefect's UI calls it."""
    return f"{kind.get_block_type_name()}/{name}"


def _default(kind: type[Block], name: str) -> Any:
    value = kind.model_fields[name].get_default(call_default_factory=True)
    return None if value is PydanticUndefined else value


def _change(name: str, old: Any, new: Any) -> Change:
    before, after = _shown(old), _shown(new)
    if name in SECRET or max(len(before), len(after)) > LONGEST:
        return Change(name, None, "(set)" if old is None else CHANGED)
    return Change(name, None if old is None else before, after)


def _shown(value: Any) -> str:
    if isinstance(value, str) and value.isprintable():
        return value or '""'
    return json.dumps(value, ensure_ascii=False)


def drafts(
    inventory: Inventory, blocks: Blocks, ids: Mapping[str, str]
) -> tuple[dict[str, list[Draft]], list[Problem]]:
    """The blocks of every cluster that has an id, in the order in which they must be written; and what no block takes.

    Args:
        ids: of the clusters in the cloud, by the names of their entries.
    """
    found, problems = {}, []
    for name, cluster_id in ids.items():
        mine = list(_drafts(inventory, blocks, name, cluster_id))
        *managers, cluster = mine
        whole = {
            **cluster.data,
            "manager": managers[0].data,
            "cloud": blocks.clouds[inventory.clouds[inventory.clusters[name].cloud].read],
        }
        try:
            Cluster.model_validate(whole)
        except ValidationError as error:
            problems.append(inventory.document.problem(("clusters", name), faults_of(error)))
        else:
            found[name] = mine
    return found, problems


def _drafts(inventory: Inventory, blocks: Blocks, name: str, cluster_id: str) -> Iterator[Draft]:
    entry = inventory.clusters[name]
    cloud, login = inventory.clouds[entry.cloud], inventory.logins[entry.login]
    address = entry.address()

    def manager(block: str, template: str) -> Draft:
        held = blocks.managers[template].data
        user = {"user": held["user"], "password": held["password"]}
        return Draft(Manager, block, {**address, **user}, blocks.managers.get(block))

    yield manager(name, login.read)
    if login.change:
        yield manager(f"{name}{CHANGING}", login.change)
    references = {
        "manager": (Manager, name),
        "cloud": (Cloud, cloud.read),
        "changing_manager": (Manager, f"{name}{CHANGING}") if login.change else None,
        "changing_cloud": (Cloud, cloud.change) if cloud.change else None,
    }
    data = {"cluster_id": cluster_id, "source": source_of(name, entry), **entry.settings()}
    yield Draft(Cluster, name, data, blocks.clusters.get(name), references)


@dataclass(frozen=True)
class Written:
    """What became of a draft; `trouble` says why it was not written."""

    draft: Draft
    trouble: str = ""


async def write(client: PrefectClient, planned: Mapping[str, list[Draft]], blocks: Blocks) -> AsyncIterator[Written]:
    """Write what has changes, cluster by cluster; what fails keeps that cluster's later blocks from being written.

    Raises:
        httpx.TransportError: Prefect does not answer any more.
    """
    await Cluster.register_type_and_schema(client=client)  # and the types it names
    ids: dict[tuple[type[Block], str], UUID] = {
        (kind, name): document.id
        for kind, held in ((Cloud, blocks.cloud_documents), (Manager, blocks.managers))
        for name, document in held.items()
    }
    for mine in planned.values():
        trouble = ""
        for draft in mine:
            if not draft.changes:
                continue
            if trouble:
                yield Written(draft, f"not tried: {trouble}")
                continue
            try:
                ids[draft.kind, draft.name] = await _write(client, draft, ids)
            except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:  # its text may repeat what was sent
                trouble = f"Prefect answers {error.response.status_code}"
            except ObjectAlreadyExists:
                trouble = "it was made by somebody else just now"
            except ObjectNotFound:
                trouble = "it was deleted just now"
            yield Written(draft, trouble)
            trouble = trouble and f"{draft.title} was not written"


async def _write(client: PrefectClient, draft: Draft, ids: Mapping[tuple[type[Block], str], UUID]) -> UUID:
    """Here Prefect's documents are made of data: `Block.save` asks a dozen things more, for each of thousands."""
    references = {
        name: {"$ref": {"block_document_id": str(ids[named])}} if named else None
        for name, named in draft.references.items()
    }
    data = {**draft.data, **references}
    schema = draft.kind._block_schema_id
    if draft.document:
        update = BlockDocumentUpdate(block_schema_id=schema, data=data, merge_existing_data=False)
        await client.update_block_document(draft.document.id, update)
        return draft.document.id
    new = BlockDocumentCreate(
        name=draft.name, data=data, block_schema_id=schema, block_type_id=draft.kind._block_type_id
    )
    return (await client.create_block_document(new)).id
