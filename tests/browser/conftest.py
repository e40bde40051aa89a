"""One stand and one browser for all tests of a module; the browser reaches this machine only."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Route, async_playwright

from tests.bench.servers import programs
from tests.browser.person import PATIENCE, Person, album
from tests.browser.stand import Played, played
from tests.conftest import without

CHROMIUM = Path("/usr/bin/chromium")
LOOPBACK = "127.0.0.1"
SWITCHES = ["--no-sandbox", f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {LOOPBACK}"]
# What the UI asks for by itself; it gets no answer, and works.
TELEMETRY = {"sr-client-cfg.amplitude.com", "api2.amplitude.com", "api-sr.amplitude.com"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Stand and browser live as long as a module's tests, on one event loop."""
    return "asyncio"


@pytest.fixture(scope="module")
def installed() -> None:
    """Chromium and PostgreSQL are there."""
    if not CHROMIUM.exists():
        without("Chromium (Debian package chromium) is not installed")
    try:
        programs()
    except RuntimeError as error:
        without(str(error))


@pytest.fixture(scope="module")
async def site(installed: None, anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Played]:
    """Prefect with its UI, and alarmed clusters."""
    async with played(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="module")
async def browser(installed: None, anyio_backend: str) -> AsyncIterator[Browser]:
    """Debian's Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        await browser.close()


@pytest.fixture
async def person(site: Played, browser: Browser, tmp_path: Path) -> AsyncIterator[Person]:
    """Somebody with a fresh window; what its page asks of other machines is refused, and must not matter."""
    asked: set[str] = set()

    async def answer(route: Route) -> None:
        host = urlsplit(route.request.url).hostname or ""
        if host == LOOPBACK:
            await route.continue_()
        else:
            asked.add(host)
            await route.abort()

    window = await browser.new_context(viewport={"width": 1200, "height": 900}, locale="en-GB", timezone_id="UTC")
    window.set_default_timeout(PATIENCE)
    await window.route("**/*", answer)
    yield Person(await window.new_page(), site.ui, album(tmp_path))
    await window.close()
    assert asked <= TELEMETRY
