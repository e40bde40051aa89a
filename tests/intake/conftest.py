import os
import shutil

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The intake runs on asyncio only."""
    return "asyncio"


@pytest.fixture
def logger() -> str:
    """The path of util-linux ``logger``, the judge of the listener that shares no code with it."""
    path = shutil.which("logger")
    if path is None and "CI" in os.environ:
        pytest.fail("util-linux logger is not installed, and CI must not go without it")
    if path is None:
        pytest.skip("util-linux logger is not installed")
    return path
