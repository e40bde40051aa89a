"""The emulated region, clients of it that write down what they send, and errors searched for secrets."""

import base64
import traceback
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import pytest

from deployments import processes
from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region
from tasks.clients.ecs import Ecs
from tasks.clients.http import Api, Patience
from tasks.clients.iam import Iam
from tasks.clients.manager import Manager
from tasks.clients.mrs import Mrs
from tasks.clients.signing import SignedWithKeys
from tasks.errors import RunbookError
from tasks.models import Instance
from tests.conftest import serving

PATIENCE = Patience(timeout=2, attempts=3, first_pause=0.01, longest_pause=0.05)
HASTE = Patience(timeout=0.15, attempts=3, first_pause=0.01, longest_pause=0.05)
AGENCY = "MRS_ECS_DEFAULT_AGENCY"
Client = TypeVar("Client", bound=Api)


class Wire(httpx.AsyncBaseTransport):
    """A transport that writes down what is sent: the method, and the path below Manager's root or its last part."""

    def __init__(self, carrier: httpx.AsyncBaseTransport) -> None:
        self.carrier, self.sent = carrier, list[str]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Note it and pass it on."""
        root, below, path = request.url.path.partition("/web/api/v2/")
        self.sent.append(f"{request.method} {path if below else root.rpartition('/')[2]}")
        return await self.carrier.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.carrier.aclose()


async def error_of(call: Awaitable[object], *secrets: str) -> str:
    """Class and sentence of the error of ours with which the call ends; no secret is in it or in its traceback."""
    with pytest.raises(RunbookError) as caught:
        await call
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not [secret for secret in secrets if secret in shown]
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


@dataclass
class World:
    """A region with one cluster, its address, and clients of it; `wire` carries all of them."""

    region: Region
    url: str
    wire: Wire
    stack: AsyncExitStack
    secrets: set[str] = field(default_factory=set)

    @property
    def cluster(self) -> Cluster:
        """The one cluster."""
        return next(iter(self.region.clusters.values()))

    async def manager(self, *, password: str = "", user: str = "", **options: Any) -> Manager:
        """A client of the cluster's Manager; the right password and no dry run where nothing else is said."""
        user, password = user or self.cluster.manager_user, password or self.cluster.manager_password
        self.secrets |= {password, base64.b64encode(f"{user}:{password}".encode()).decode()}
        settings: dict[str, Any] = {"dry_run": False, "patience": PATIENCE, "transport": self.wire} | options
        url = f"{self.url}/managers/{self.cluster.id}/web/api/v2"
        return await self.stack.enter_async_context(Manager(url, user=user, password=password, **settings))

    async def mrs(self, **options: Any) -> Mrs:
        """A client of MRS with the region's keys."""
        client = await self._cloud(Mrs, "X-Project-Id", self.region.project_id, options)
        client.project_id = self.region.project_id
        return client

    async def ecs(self, **options: Any) -> Ecs:
        """A client of ECS with the region's keys."""
        client = await self._cloud(Ecs, "X-Project-Id", self.region.project_id, options)
        client.project_id = self.region.project_id
        return client

    async def iam(self, **options: Any) -> Iam:
        """A client of IAM with the region's keys."""
        client = await self._cloud(Iam, "X-Domain-Id", self.region.domain_id, options)
        client.domain_id = self.region.domain_id
        return client

    async def instance(self) -> Instance:
        """The Meta instance of the first host, as Manager lists it."""
        client = await self.manager(transport=self.wire.carrier)
        return (await client.instances("meta"))[0]

    async def error_of(self, call: Awaitable[object]) -> str:
        """As `error_of`, with the secrets of this region."""
        return await error_of(call, *self.secrets, self.region.secret_key, self.region.token)

    async def _cloud(self, kind: type[Client], scope: str, scope_id: str, options: Mapping[str, Any]) -> Client:
        keys = SignedWithKeys(self.region.access_key, self.region.secret_key, scope={scope: scope_id})
        settings = {"auth": keys, "dry_run": False, "patience": PATIENCE, "transport": self.wire, **options}
        client = kind(kind.__name__.upper(), self.url, **settings)
        self.stack.push_async_callback(client.aclose)
        return client


@pytest.fixture
async def world(anyio_backend: str) -> AsyncIterator[World]:
    """One cluster of three hosts, everything healthy, without a socket."""
    region = Region(hosts=3)
    async with AsyncExitStack() as stack:
        yield World(region, "http://127.0.0.1", Wire(httpx.ASGITransport(app_of(region))), stack)


@pytest.fixture
async def served_world(anyio_backend: str) -> AsyncIterator[World]:
    """The same on a port, where connections really break."""
    region = Region(hosts=3)
    async with serving(region) as url, AsyncExitStack() as stack:
        yield World(region, url, Wire(httpx.AsyncHTTPTransport()), stack)


@pytest.fixture
def free_port() -> int:
    """A port nobody listens on."""
    return processes.free_port()
