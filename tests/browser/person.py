"""What a person does in the Prefect UI, by what is written on the screen."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Locator, Page, expect

PATIENCE = 90_000.0  # milliseconds until something shows: a run goes on meanwhile, on a machine with other work
FIELDS = ("Cluster", "Host (Optional)", "Dry run (Optional)", "Comment (Optional)")


@dataclass(frozen=True)
class Person:
    """Somebody who sees one page of the UI, whose first page is `home`, and keeps pictures in the folder `album`."""

    page: Page
    home: str
    album: Path

    async def opens_the_form(
        self, flow: str = "alm-12110", deployment: str = "by-hand", field: str = "Cluster"
    ) -> None:
        """Of a run by a person, from the first page on, until this field of it is there."""
        await self.page.goto(self.home)
        await self.page.get_by_role("link", name="Deployments").click()
        mine = self.page.get_by_role("link", name=flow, exact=True)
        await self.page.get_by_role("row").filter(has=mine).get_by_role("link", name=deployment, exact=True).click()
        await self.page.get_by_role("button", name="Run", exact=True).click()
        await self.page.get_by_role("menuitem", name="Custom run").click()
        label = self.page.get_by_role("main").get_by_text(re.compile(rf"^{field}( \(Optional\))?$")).first
        await expect(label).to_be_visible(timeout=PATIENCE)

    def field(self, label: str) -> Locator:
        """The text field with this label."""
        return self.page.get_by_role("textbox", name=label, exact=True)

    async def starts(self, cluster: str, host: str = "", *, dry_run: bool = True, comment: str = "") -> None:
        """Fill the form in, send it, and open the run."""
        await self.opens_the_form()
        cluster_, host_, dry_run_, comment_ = FIELDS
        await self.field(cluster_).fill(cluster)
        await self.field(host_).fill(host)
        await self.page.get_by_role("switch", name=dry_run_).set_checked(dry_run)
        await self.field(comment_).fill(comment)
        await self.page.get_by_role("button", name="Submit").click()
        await self.page.get_by_role("link", name="View run").click()

    async def sees_the_state(self, name: str) -> None:
        """At the top of the run's page, as soon as the run is in it."""
        shown = self.page.get_by_role("main").get_by_text(name, exact=True).first
        await expect(shown).to_be_visible(timeout=PATIENCE)

    async def reads_the_message(self, words: str | re.Pattern[str]) -> None:
        """Of the run's state."""
        await self.page.get_by_role("tab", name="Details").click()
        message = self.page.get_by_role("term").filter(has_text="State Message").locator("+ dd")
        await expect(message).to_have_text(words)

    async def picks(self, item: str) -> None:
        """Of the run's menu."""
        await self.page.get_by_role("main").get_by_role("button", name="Open menu").click()
        await self.page.get_by_role("menuitem", name=item, exact=True).click()

    async def takes_a_picture(self, name: str, part: Locator) -> None:
        """Keep how this part of the page looks, as far as the window shows it."""
        await self.page.wait_for_load_state("networkidle")  # what is drawn as late as it is fetched: graphs
        await expect(part).to_be_visible()
        where = await part.bounding_box()  # None: it is being drawn anew just now, then the whole window
        await self.page.screenshot(path=self.album / f"{name}.png", animations="disabled", clip=where)


def album(folder: Path) -> Path:
    """Where pictures are kept: RUNBOOKS_SCREENSHOTS names the folder of those that the README shows."""
    return Path(os.environ.get("RUNBOOKS_SCREENSHOTS") or folder)
