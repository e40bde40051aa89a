"""The page of a sweep, in Debian's Chromium."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tasks.sweep.picture import as_html
from tasks.sweep.reports import Report
from tests.sweep.test_reports import a_sweep, row

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

CLUSTERS = 3000
UNREACHABLE = ("agency_record", "agency_nodes", "agency_expected", "agency_usable", "agency_obs", "instances")


async def test_a_fleet_of_three_thousand(browser: Browser, tmp_path: Path) -> None:
    """The page of 3,000 clusters, of which a third cannot be told for an outage, is searched, sorted and asked."""
    away = {"cloud": "fail", **dict.fromkeys(UNREACHABLE, "cannot tell")}
    rows = [row(f"prod-{n:04}", **(away if n % 3 == 0 else {})) for n in range(CLUSTERS - 1)]
    page = tmp_path / "sweep.html"
    page.write_text(as_html(Report(a_sweep(), [*rows, row("odd-one", instances="fail")])))
    window = await browser.new_context(viewport={"width": 1400, "height": 1000})
    told = await window.new_page()
    await told.goto(page.as_uri())
    count, lines = told.locator("#count"), told.locator(".heat tbody tr:not([hidden])")
    await expect(count).to_have_text("3000 of 3000 clusters")
    await expect(told.locator(".map a")).to_have_count(CLUSTERS)
    await told.get_by_label("which").select_option(label="with a no")
    await expect(count).to_have_text("1001 of 3000 clusters")
    await told.get_by_label("filter").fill("prod-0003")
    await expect(lines.locator("th")).to_have_text(["prod-0003"])
    await told.get_by_label("filter").fill("")
    await told.get_by_title("Every Meta instance is normal").click()
    await expect(lines.first.locator("th")).to_have_text("odd-one")
    await lines.first.get_by_text("F", exact=True).click()
    await expect(told.locator("#told")).to_contain_text("odd-one, Every Meta instance is normal (Major)")
    await window.close()
