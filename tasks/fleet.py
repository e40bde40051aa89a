"""The fleet: every cluster that has a block, and what is chosen of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar, get_args
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from tasks.blocks import Cluster, Mode
from tasks.errors import ConfigurationError, Unreachable
from tasks.loading import faults_of, prefect_unreachable
from tasks.models import few

NO_SUCH_TYPE = "Block type not found"  # Prefect's own words
ATTEMPTS = 3
SELECTORS = ("name", "cloud", "region", "mode")  # what is chosen by beside labels; no label is called so


class Identified(Protocol):
    """What has an id."""

    @property
    def id(self) -> UUID:
        """The block's."""


Row = TypeVar("Row", bound=Identified)


@dataclass(frozen=True)
class Fleet:
    """All cluster blocks, by their names.

    Attributes:
        broken: why a block cannot be used, without what is in it.
        clouds: the name of each cluster's cloud block, of broken ones too.
        broken_ids: the cluster's id in the cloud, of broken blocks that say it.
    """

    clusters: Mapping[str, Cluster]
    broken: Mapping[str, str]
    clouds: Mapping[str, str] = field(default_factory=dict)
    broken_ids: Mapping[str, str] = field(default_factory=dict)


async def read_fleet(client: PrefectClient) -> Fleet:
    """Every `Cluster` block with its secrets, page by page: Prefect puts the blocks it names in their places.

    Raises:
        Unreachable: the Prefect server cannot be asked.
    """
    clusters, broken, clouds, broken_ids = {}, {}, {}, {}
    for document in await documents_of(client, Cluster.get_block_type_slug()):
        name = document.name or str(document.id)
        try:  # as Cluster.aload does, but without an event for each of them
            clusters[name] = Cluster.model_validate(document.data)
        except ValidationError as error:
            broken[name] = faults_of(error)
            if isinstance(cluster_id := document.data.get("cluster_id"), str) and cluster_id:
                broken_ids[name] = cluster_id
        if reference := document.block_document_references.get("cloud"):
            clouds[name] = str(reference["block_document"]["name"])
    return Fleet(clusters, broken, clouds, broken_ids)


async def documents_of(client: PrefectClient, slug: str) -> list[BlockDocument]:
    """All blocks of a type as Prefect keeps them, with their secrets, by name; none where it was never registered.

    Raises:
        Unreachable: the Prefect server cannot be asked.
    """
    return await rows_of(client, slug, documents_in)


def documents_in(page: bytes) -> list[BlockDocument]:
    """The blocks in a page of JSON, as Prefect's server answers.

    Raises:
        ValueError: it is no such page.
    """
    return BlockDocument.model_validate_list(json.loads(page))


async def rows_of(
    client: PrefectClient, slug: str, read: Callable[[bytes], Sequence[Row]], *, include_secrets: bool = True
) -> list[Row]:
    """All blocks of a type, as `read` finds them in a page of JSON; a page is the same bytes until a block changes.

    Raises:
        Unreachable: the Prefect server cannot be asked.
    """
    try:
        kind = await client.read_block_type_by_slug(slug)
        for _ in range(ATTEMPTS):
            # The route that lists a type at once has no pages, and its time grows with the square of their number.
            chosen = {"block_documents": {"block_type_id": {"any_": [str(kind.id)]}, "is_anonymous": {"eq_": False}}}
            count = (await client.request("POST", "/block_documents/count", json=chosen)).json()
            found = await _pages(client, {**chosen, "include_secrets": include_secrets}, read)
            if len(found) == count:
                return found
    except ObjectNotFound as error:
        # No block of this type was ever made; any other 404 is a proxy's, or a wrong address.
        if isinstance(error.http_exc, httpx.HTTPStatusError) and NO_SUCH_TYPE in error.http_exc.response.text:
            return []
        raise prefect_unreachable(error, "blocks") from error
    except (httpx.HTTPError, ValueError) as error:  # ValueError: a proxy's page is no JSON
        raise prefect_unreachable(error, "blocks") from error
    raise Unreachable("blocks", f"blocks of the type {slug} come and go while they are listed: try again")


async def _pages(client: PrefectClient, chosen: dict[str, object], read: Callable[[bytes], Sequence[Row]]) -> list[Row]:
    """As many pages as there are, as long as the server makes them."""
    found: dict[UUID, Row] = {}
    offset = 0
    while rows := read(
        (await client.request("POST", "/block_documents/filter", json={**chosen, "offset": offset})).content
    ):
        found.update((each.id, each) for each in rows)
        offset += len(rows)
    return list(found.values())


def selected(fleet: Fleet, selection: Sequence[str]) -> dict[str, Cluster]:
    """The usable clusters that match all of the selection, by block name; may be none. No selection: all of them.

    Args:
        selection: `LABEL=VALUE`, `region=VALUE`, `cloud=BLOCK`, `mode=VALUE`, `name=GLOB`.

    Raises:
        ConfigurationError: one of them is malformed, or names a label that no cluster has.
    """
    chosen = dict(fleet.clusters)
    for each in selection:
        matches = _selector(fleet, each)
        chosen = {name: cluster for name, cluster in chosen.items() if matches(name, cluster)}
    return chosen


def pair_of(text: str) -> tuple[str, str]:
    """Key and value of one part of a selection.

    Raises:
        ConfigurationError: it is written otherwise.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise ConfigurationError(f"the selection {text!r} is not written as KEY=VALUE, for example stage=production")
    return key, value


def _selector(fleet: Fleet, text: str) -> Callable[[str, Cluster], bool]:
    key, value = pair_of(text)
    by_key: dict[str, Callable[[str, Cluster], bool]] = {
        "name": lambda name, _: fnmatchcase(name, value),
        "cloud": lambda name, _: fleet.clouds.get(name) == value,
        "region": lambda _, cluster: cluster.cloud.region == value,
        "mode": lambda _, cluster: cluster.mode == value,
    }
    if key == "mode" and value not in get_args(Mode):
        raise ConfigurationError(f"the selection {text!r} names no mode: write observe, approve or auto")
    labels = {label for cluster in fleet.clusters.values() for label in cluster.labels}
    if key not in by_key and key not in labels:
        known = sorted({*by_key, *labels})
        near = get_close_matches(key, known, 1)
        advice = f"did you mean {near[0]}?" if near else f"there is {few(known)}"
        raise ConfigurationError(f"the selection {text!r} names a label that no cluster has: {advice}")
    return by_key.get(key) or (lambda _, cluster: cluster.labels.get(key) == value)
