"""One stand for all tests of a module: processes are started once, and each test plays its scenario in a cell."""

from collections.abc import AsyncIterator

import pytest

from tests.bench.servers import programs
from tests.conftest import without
from tests.crash.processes import stand
from tests.crash.stand import Cell, Stand


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The stand lives as long as a module's tests, on one event loop."""
    return "asyncio"


@pytest.fixture(scope="module")
async def standing(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """PostgreSQL, Prefect and an intake."""
    try:
        programs()
    except RuntimeError as error:
        without(str(error))
    async with stand(tmp_path_factory.mktemp("crash")) as made:
        yield made


@pytest.fixture(scope="module")
async def cell(standing: Stand) -> AsyncIterator[Cell]:
    """A worker."""
    async with standing.cell("one") as made:
        yield made
