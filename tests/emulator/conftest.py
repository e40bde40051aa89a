"""A region per test, in-process clients, and the region served on a real port for the vendor's SDK."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region
from deployments.emulator.serve import serve

Served = Callable[[Region], str]
ManagerClient = Callable[[Region, Cluster], httpx.AsyncClient]
CloudClient = Callable[[Region], httpx.AsyncClient]


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of the async tests."""
    return "asyncio"


@pytest.fixture
def region() -> Region:
    """One cluster of three hosts, everything healthy."""
    return Region(clusters=1, hosts=3)


@pytest.fixture
def cluster(region: Region) -> Cluster:
    """The cluster of the region."""
    return region.cluster("mrs-001")


@pytest.fixture
def served() -> Iterator[Served]:
    """Serves a region on a free loopback port until the test ends; answers its URL."""
    with ExitStack() as stack:
        yield lambda region: stack.enter_context(_served(region))


@contextmanager
def _served(region: Region) -> Iterator[str]:
    listening = threading.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()

    def ready(port: int) -> None:
        ports.append(port)
        listening.set()

    task = loop.create_task(serve(region, ready=ready))

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert listening.wait(5)
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(5)


@pytest.fixture
def manager() -> ManagerClient:
    """Makes a client of a cluster's Manager that sends Basic with each call, without a socket."""

    def client(region: Region, cluster: Cluster) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app_of(region)),
            base_url=f"http://manager/managers/{cluster.id}/web/api/v2/",
            auth=(cluster.manager_user, cluster.manager_password),
        )

    return client


@pytest.fixture
def cloud() -> CloudClient:
    """Makes a client of the cloud faces that sends a token, without a socket."""

    def client(region: Region) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app_of(region)),
            base_url="http://cloud",
            headers={"X-Auth-Token": region.token},
        )

    return client
