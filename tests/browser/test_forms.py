"""Persons at the Prefect UI: the form of a manual run, the form of an approval, and what becomes of the run."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.person import FIELDS, PATIENCE, Person
from tests.browser.stand import CLUSTERS, Played
from tests.crash.stand import until

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("browser"), pytest.mark.timeout(600)]

HELP = (
    "Name of the cluster's block (Blocks > MRS Cluster).",
    "Only this host, by its name on Manager. Empty: every alarmed host of the cluster.",
    "On: change nothing, show the plan. Off: change what the cluster's block allows.",
    "For the record: why you start it.",
)


async def test_the_form_of_a_manual_run_explains_itself(person: Person) -> None:
    """It asks for cluster, host, dry run (on) and comment in this order, each with its help, and takes no empty one."""
    await person.opens_the_form()
    shown = await person.page.get_by_role("main").inner_text()
    lines = [line.strip() for line in shown.splitlines() if line.strip() in (*FIELDS, *HELP)]
    assert lines == [each for pair in zip(FIELDS, HELP, strict=True) for each in pair]
    await expect(person.page.get_by_role("switch", name="Dry run")).to_be_checked()
    await person.takes_a_picture("form", person.page.get_by_role("main"))
    await person.page.get_by_role("button", name="Submit").click()
    await expect(person.page.get_by_text("'cluster' is a required property", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("cluster", "host", "state", "message"),
    [
        ("anaIytics", "", "Failed", "there is no cluster 'anaIytics': make it in the Prefect UI under Blocks > MRS"),
        ("analytics", "node-9", "ERROR", "Manager does not know host 'node-9': the cluster's hosts are node-core1, "),
        ("analytics", "node-core1", "CANNOT-TELL", "Manager lists no ALM-12110 of node-core1, active or cleared"),
        ("healthy", "", "CLEARED", "There is no active alarm"),
    ],
)
async def test_what_is_wrong_in_the_form_is_said(
    person: Person, cluster: str, host: str, state: str, message: str
) -> None:
    """A cluster that is not there, a host that is not there or has no alarm: the run's state says so in a sentence."""
    await person.starts(cluster, host)
    await person.sees_the_state(state)
    await person.reads_the_message(re.compile(re.escape(message)))


async def test_an_approved_run_repairs_and_shows_its_evidence(person: Person, site: Played) -> None:
    """Started and approved by the forms, the run restarts, ends END, and its report opens from its page."""
    page = person.page
    await person.starts("analytics", dry_run=False, comment="jobs on OBS fail")
    await person.sees_the_state("Suspended")
    assert site.changes("analytics") == []
    await person.reads_the_message(re.compile("A person is asked, until .* UTC: Resume shows what."))
    await person.picks("Resume")
    form = page.get_by_role("dialog")
    await expect(form.get_by_text("Restart the Meta instance of these hosts")).to_be_in_viewport()
    await expect(form.get_by_text("Without an answer by")).to_be_in_viewport()
    await expect(form.get_by_role("button", name="Select Decision")).to_be_in_viewport()
    await person.takes_a_picture("approval", form)
    await form.get_by_role("button", name="Select Decision").click()
    await page.get_by_role("option", name="approve").click()
    await form.get_by_role("textbox", name="Your name").fill("Ada")
    await form.get_by_role("textbox", name="Comment").fill("jobs fail, go ahead")
    await form.get_by_role("button", name="Resume").click()
    await person.sees_the_state("END")
    await person.reads_the_message("END. node-master1: 1 2n 3y END")
    assert site.changes("analytics") == [("restart-instance", "node-master1")]
    await page.get_by_role("tab", name="Logs").click()
    said = re.compile(r"restart approved by Ada \(claimed, unauthenticated.*\): jobs fail, go ahead")
    await expect(page.get_by_text(said)).to_be_visible()
    await page.get_by_role("tab", name="Artifacts").click()
    await page.get_by_role("link", name="MARKDOWN alm-12110-analytics").click()
    await page.get_by_role("main").get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).first.click()
    report = page.get_by_role("tabpanel", name="Artifact")
    await expect(report.get_by_role("heading", name="analytics")).to_be_visible()
    await expect(report).to_contain_text("END")
    await person.takes_a_picture("artifact", report)


async def test_a_rejected_run_changes_nothing(person: Person, site: Played) -> None:
    """Rejected by the older UI's form, which is what links to a run open, the run ends DECLINED with a ticket."""
    page = person.page
    await person.starts("billing", dry_run=False)
    await person.sees_the_state("Suspended")
    await page.goto(page.url.replace("/v2/", "/"))
    await page.get_by_role("button", name="Resume").click()
    form = page.get_by_role("dialog")
    await expect(form.get_by_text("What it may interrupt:")).to_be_in_viewport()
    await person.takes_a_picture("rejection", form)
    await form.get_by_role("group").first.get_by_role("button").press("ArrowDown")
    await page.get_by_role("option", name="reject").click()
    await form.get_by_role("textbox").first.fill("Ada")
    await form.get_by_role("button", name="Submit").click()
    await expect(page.get_by_text("DECLINED", exact=True).first).to_be_visible(timeout=PATIENCE)
    await page.goto(page.url.replace("/runs/", "/v2/runs/"))
    await person.reads_the_message(re.compile(r"^DECLINED\. node-master1: 1 2n DECLINED\. Ticket T-"))
    assert site.changes("billing") == []


async def test_a_run_that_nobody_answers_ends_refused(person: Person, site: Played) -> None:
    """Left alone until its time is over, the run ends REFUSED with a ticket, and the page shows it without a reload."""
    await person.starts("clickstream", dry_run=False)
    await person.sees_the_state("Suspended")
    await person.sees_the_state("REFUSED")
    await person.reads_the_message(re.compile(r"^REFUSED\. node-master1: 1 2n REFUSED\. Ticket T-"))
    assert site.changes("clickstream") == []


async def test_a_waiting_run_can_be_cancelled(person: Person, site: Played) -> None:
    """Cancelled from its menu while a person is asked, the run ends Cancelled and there is one ticket about it."""
    await person.starts("datalake", dry_run=False)
    await person.sees_the_state("Suspended")
    await person.picks("Cancel")
    await person.page.get_by_role("alertdialog").get_by_role("button", name="Cancel Flow Run").click()
    await person.sees_the_state("Cancelled")

    async def filed() -> bool:
        tickets = (site.stand.home / "tickets").glob("T-*.json")
        return ["datalake" in path.read_text() for path in tickets].count(True) == 1

    await until(filed)
    assert site.changes("datalake") == []


async def test_a_sweep_whose_form_is_left_as_it_is(person: Person, site: Played) -> None:
    """A person who starts `sweep/now` and fills nothing in gets the whole fleet swept, and nothing is changed."""
    # The last test: what a sweep finds has runs from now on.
    before = {name: site.changes(name) for name in CLUSTERS}
    await person.opens_the_form("sweep", "now", "Remediate")
    await person.takes_a_picture("sweep-form", person.page.get_by_role("main"))
    await person.page.get_by_role("button", name="Submit").click()
    await person.page.get_by_role("link", name="View run").click()
    await person.sees_the_state("FINDINGS")
    await person.reads_the_message(re.compile(f" on [1-9] of {len(CLUSTERS)} clusters"))
    assert {name: site.changes(name) for name in CLUSTERS} == before
    await person.page.get_by_role("tab", name="Artifacts").click()
    await person.takes_a_picture("sweep-artifacts", person.page.get_by_role("main"))
