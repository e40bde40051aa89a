"""What the tests of desk, directory, dispatcher, reconciler and service stand on: clusters, lines, a broken wire."""

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from string import Template as Format
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.intake.acceptance import Delivery, Source, digest_of
from deployments.intake.syslog import DEFAULT_TEMPLATE
from tasks.blocks import Cloud, Manager
from tasks.blocks import Cluster as ClusterBlock
from tasks.ledger.database import Ledger
from tasks.ledger.observing import Seen, Sighting, observe
from tasks.ledger.receiving import sync_clusters
from tasks.ledger.tables import Cluster
from tasks.models import Kind, Observation

LOOPBACK = "127.0.0.1"
MONTHS_AGO = datetime(2026, 1, 1, tzinfo=UTC)
OCCURRED = datetime(2026, 11, 22, 13, 47, 42, tzinfo=UTC)
FIELDS = {
    "id": "12110",
    "name": "Failed to get ECS temporary AK/SK",
    "serialNo": "4711",
    "category": "0",
    "occurTime": "2026-11-22 13:47:42",
    "clearTime": "--",
    "isAutoClear": "1",
    "locationInfo": "Source=${dn};ServiceName=Meta;RoleName=Meta;HostName=node-master1",
    "clearType": "-1",
    "level": "2",
    "cause": "",
    "additionalInfo": "",
    "object": "",
}
_numbers = itertools.count(1)


def a_cluster(name: str = "", source: str = "", cluster_id: str = "") -> Cluster:
    """A cluster that no other test knows, connected for months."""
    number = next(_numbers)
    return Cluster(
        name=name or f"intake-{number}",
        cluster_id=cluster_id or f"00000000-0000-4000-8000-{number:012}",
        source=source or f"prod {number}",
        speed=1.0,
        connected=MONTHS_AGO,
    )


def block_of(cluster: Cluster) -> ClusterBlock:
    """The cluster's block; nothing is ever called at its addresses."""
    nowhere = "http://127.0.0.1:9"
    cloud = Cloud(
        project_id="p",
        domain_id="d",
        mrs_url=nowhere,
        ecs_url=nowhere,
        iam_url=nowhere,
        access_key="AK",
        secret_key="secret-of-the-cloud",
    )
    manager = Manager(url=nowhere, user="runbooks", password="secret-of-the-manager")
    return ClusterBlock(cluster_id=cluster.cluster_id, source=cluster.source, manager=manager, cloud=cloud)


def line_of(cluster: Cluster, **changes: str) -> bytes:
    """The syslog line of a raised ALM-12110 of a cluster, some fields changed."""
    fields = Format(DEFAULT_TEMPLATE).substitute({"dn": cluster.source, **FIELDS, **changes})
    return f"<134>Nov 22 13:47:42 oms1 MRS Manager: {fields.replace('${dn}', cluster.source)}".encode()


def told(kind: Kind = "raised", host: str = "node-master1", serial: str = "4711", **more: Any) -> Observation:
    """What a source says about an alarm of the cluster `prod`."""
    observation: dict[str, Any] = {"alarm_id": "12110", "cluster": "prod", "occurred": OCCURRED, **more}
    return Observation(kind=kind, host=host, serial=serial, **observation)


def handed_in(observation: Observation, source: Source = "syslog", peer: str = "10.0.0.1") -> Delivery:
    """The same, as it is handed in at the desk."""
    digest = digest_of(repr(observation).encode("utf-8", "replace"))
    return Delivery(source, peer, digest, observation, f"it says {observation.kind}")


async def connect(ledger: Ledger, *clusters: Cluster) -> None:
    """The ledger knows these clusters as the last that Prefect named."""
    async with ledger.writing() as session:
        await sync_clusters(session, clusters, MONTHS_AGO)


async def seen(ledger: Ledger, cluster: Cluster, *observations: Observation) -> list[Seen]:
    """The ledger holds these observations, which came just now."""
    async with ledger.writing() as session:
        sightings = [Sighting(each, cluster, "syslog", "10.0.0.1", "digest") for each in observations]
        return await observe(session, sightings, datetime.now(UTC))


def rows(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What a connection of its own reads in the ledger's file."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(query, values).fetchall()
    finally:
        connection.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes to the ledger, and does not end."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def no_prefect() -> Any:
    """No Prefect server is named."""
    return temporary_settings(restore_defaults={PREFECT_API_URL})


async def runs_of(client: PrefectClient, tag: str) -> list[FlowRun]:
    """All flow runs with this tag."""
    return await client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag])))


async def eventually(is_so: Callable[[], Any], seconds: float = 20) -> Any:
    """What an asynchronous look answers as soon as that is something."""
    for _ in range(int(seconds / 0.1)):
        if answer := await is_so():
            return answer
        await asyncio.sleep(0.1)
    pytest.fail(f"waited {seconds} seconds in vain")


class Wire:
    """A wire to the Prefect server on a port of its own, which can be cut, lose answers, and answer for the server.

    Attributes:
        asked: everything that was sent over it.
        deaf_to: requests that hold these bytes are carried, their answers are lost: so many times.
        refuses: requests that hold these bytes are answered with a status instead.
    """

    def __init__(self, api: str) -> None:
        self._upstream = int(api.removesuffix("/api").rpartition(":")[2])
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self.asked = bytearray()
        self.deaf_to: dict[bytes, int] = {}
        self.refuses: dict[bytes, tuple[int, int]] = {}

    @property
    def api(self) -> str:
        """Prefect's address at this end of the wire."""
        return f"http://{LOOPBACK}:{self._port}/api"

    async def up(self) -> None:
        """Mend it, or lay it."""
        self._server = await asyncio.start_server(self._connected, LOOPBACK, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Cut it: nothing answers on its port."""
        if self._server:
            self._server.close()
        for writer in [*self._open]:
            writer.transport.abort()
        self._server = None
        await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while request := await _request(reader):
                self.asked += request
                if status := self._refusal(request):
                    writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
                    await writer.drain()
                    return
                answer = await self._answer(request)
                if self._is_lost(request):
                    return
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(LOOPBACK, self._upstream)
        try:
            writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            return (await reader.read()).replace(b"\r\nconnection: close", b"", 1)
        finally:
            writer.close()

    def _refusal(self, request: bytes) -> int:
        for part, (status, times) in self.refuses.items():
            if part in request and times:
                self.refuses[part] = (status, times - 1)
                return status
        return 0

    def _is_lost(self, request: bytes) -> bool:
        for part, times in self.deaf_to.items():
            if part in request and times:
                self.deaf_to[part] = times - 1
                return True
        return False


async def _request(reader: asyncio.StreamReader) -> bytes:
    """The next whole request; empty at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    parted = (each.partition(b": ") for each in head.split(b"\r\n"))
    fields: Mapping[bytes, bytes] = {name.lower(): value for name, _, value in parted}
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


@asynccontextmanager
async def wire(api: str, *, cut: bool = False) -> AsyncIterator[Wire]:
    """A wire to this server, which Prefect's clients use while the block runs."""
    laid = Wire(api)
    await laid.up()
    if cut:
        await laid.down()
    try:
        with temporary_settings({PREFECT_API_URL: laid.api}):
            yield laid
    finally:
        await laid.down()
