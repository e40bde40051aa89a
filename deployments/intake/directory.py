"""Which clusters there are: the cluster blocks in Prefect, kept in the ledger for the time Prefect is away."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from deployments.intake.acceptance import Reason
from tasks import timing
from tasks.blocks import Cluster as ClusterBlock
from tasks.errors import LedgerUnavailable, Unreachable
from tasks.fleet import documents_in, rows_of
from tasks.ledger.database import Ledger
from tasks.ledger.fleet_tables import ModeChange
from tasks.ledger.modes import Modes, note_modes
from tasks.ledger.receiving import clusters, sync_clusters
from tasks.ledger.tables import Cluster

logger = logging.getLogger("runbooks.intake")

REFRESH_EVERY = 60.0
REFRESH_AT_MOST_EVERY = 5.0  # for the sake of a name nobody knows
UNKNOWN_WAITS = 2.0  # seconds that it waits for Prefect at most
MODES = {"cluster": "mode", "restart": "restart_mode", "rebind": "rebind_mode"}  # the block's fields
SAID = {"cluster": "the mode", "restart": "the mode of restarts", "rebind": "the mode of binding"}


@dataclass(frozen=True)
class _Block:
    """Of a cluster's block what is needed here."""

    id: UUID
    name: str
    data: Mapping[str, Any]
    created: datetime | None


@dataclass(frozen=True)
class _Found:
    """What Prefect's blocks say: the clusters, and their modes by the names of the blocks."""

    clusters: Sequence[Cluster]
    modes: dict[str, Modes]


class Directory:
    """The clusters by everything they are called. `refresh` reads them anew; lookups never wait for Prefect.

    Args:
        ledger: keeps what was last read.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._by_block: dict[str, Cluster] = {}
        self._by_report: dict[str, list[Cluster]] = {}
        self._modes: dict[str, Modes] = {}  # as they were last seen here
        self._pages: dict[bytes, Sequence[_Block]] = {}  # what was last read, by its digest
        self._refreshed: datetime | None = None
        self._refreshing = asyncio.Lock()
        self.trouble = "the cluster blocks have not been read from Prefect yet"

    def __len__(self) -> int:
        return len(self._by_block)

    def all(self) -> Sequence[Cluster]:
        """Every cluster, by block name."""
        return list(self._by_block.values())

    def by_block(self, name: str) -> Cluster | tuple[Reason, str]:
        """The cluster with this block name, or why there is none."""
        found = self._by_block.get(name)
        return found or ("unknown-cluster", f"there is no MRS Cluster block {name!r}: make it, or check the spelling")

    def by_report(self, name: str) -> Cluster | tuple[Reason, str]:
        """The cluster that alarms call so (`source`), or with this id in the cloud; or why it cannot be told."""
        found = self._by_report.get(name, [])
        if len(found) == 1:
            return found[0]
        advice = "name it in the source field of exactly one MRS Cluster block"
        if not found:
            return "unknown-cluster", f"no cluster block has the name {name!r} as its source: {advice}"
        return "ambiguous-cluster", f"{len(found)} cluster blocks have the name {name!r} as its source: {advice}"

    async def refresh(self, *, for_unknown: bool = False) -> None:
        """Read the blocks anew, from Prefect if it answers, else from the ledger if nothing was read yet.

        Args:
            for_unknown: an unknown name asks for it: not more often than every few seconds, and it does not wait long,
                nor at all while Prefect is known to be away.

        Raises:
            LedgerUnavailable: the ledger does not answer.
        """
        if not for_unknown:
            await self._refresh(0)
        elif not (self.trouble and self._refreshed):
            with suppress(TimeoutError):
                async with asyncio.timeout(UNKNOWN_WAITS):
                    await self._refresh(REFRESH_AT_MOST_EVERY)

    async def _refresh(self, not_within: float) -> None:
        async with self._refreshing:
            now = timing.now()
            if self._refreshed and (now - self._refreshed).total_seconds() < not_within:
                return
            try:
                found = await self._read()
            finally:
                self._refreshed = timing.now()
            changed: list[ModeChange] = []
            async with self._ledger.writing() as session:
                if found is not None:
                    await sync_clusters(session, found.clusters, now)
                    news = {name: own for name, own in found.modes.items() if self._modes.get(name) != own}
                    changed = await note_modes(session, news, now)
                    await session.flush()
                known = await clusters(session)
            self._modes = self._modes if found is None else found.modes
            for each in changed:
                if each.old:
                    logger.info("%s of %s is %r now, it was %r", SAID[each.what], each.cluster, each.new, each.old)
            self._by_block = {cluster.name: cluster for cluster in known}
            by_report: dict[str, list[Cluster]] = defaultdict(list)
            for cluster in known:
                for name in {cluster.source, cluster.cluster_id}:
                    by_report[name].append(cluster)
            self._by_report = dict(by_report)

    async def keep_fresh(self) -> None:
        """Refresh every minute, for ever."""
        while True:
            try:
                await self.refresh()
            except LedgerUnavailable as error:
                logger.warning("%s", error)
            await asyncio.sleep(REFRESH_EVERY)

    async def _read(self) -> _Found | None:
        """The blocks, without their secrets; None where Prefect does not answer."""
        if not PREFECT_API_URL.value():  # a client would start a server of its own
            self.trouble = "PREFECT_API_URL is not set"
            return None
        pages: dict[bytes, Sequence[_Block]] = {}

        def read(page: bytes) -> Sequence[_Block]:
            digest = sha256(page).digest()
            pages[digest] = self._pages[digest] if digest in self._pages else _blocks(page)
            return pages[digest]

        try:
            async with get_client() as client:
                every = await rows_of(client, ClusterBlock.get_block_type_slug(), read, include_secrets=False)
            blocks = [block for block in every if _names_a_cluster(block)]
            found = _Found([*map(_cluster, blocks)], {block.name: _modes(block.data) for block in blocks})
        except (Unreachable, httpx.HTTPError, OSError, ValueError) as error:
            cause = error.__cause__ or error if isinstance(error, Unreachable) else error
            why = f"Prefect does not list the cluster blocks ({str(cause) or type(cause).__name__})".split("\n")[0]
            if why != self.trouble:
                logger.warning("%s: those last read are used", why)
            self.trouble = why
            return None
        self.trouble, self._pages = "", pages
        return found


def _blocks(page: bytes) -> Sequence[_Block]:
    return [_Block(each.id, each.name or "", each.data, each.created) for each in documents_in(page)]


def _names_a_cluster(block: _Block) -> bool:
    return bool(block.name and block.data.get("cluster_id") and block.data.get("source"))


def _modes(data: Mapping[str, Any]) -> Modes:
    """As the block's form shows them; a block that was made before there were modes has the defaults."""
    return {what: str(data.get(field) or ClusterBlock.model_fields[field].default) for what, field in MODES.items()}


def _cluster(block: _Block) -> Cluster:
    data = block.data
    return Cluster(
        name=block.name,
        cluster_id=str(data["cluster_id"]),
        source=str(data["source"]),
        speed=float(data.get("speed") or 1),
        connected=(block.created or datetime.now(UTC)),
        account=_account(data.get("cloud")),
        agency=str(data.get("agency") or ""),
        tickets=str(data.get("tickets") or ""),
    )


def _account(cloud: Any) -> str:
    """The domain id of the cluster's cloud block, which Prefect puts in its place; empty where it is not there."""
    return str(cloud.get("domain_id") or "") if isinstance(cloud, dict) else ""
