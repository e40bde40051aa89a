"""What is told of a sweep: texts of others stay text, and all forms say the same."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from tasks.ledger.fleet_tables import Sweep
from tasks.sweep.checks import CHECKS
from tasks.sweep.forms import as_csv, as_json
from tasks.sweep.picture import as_html
from tasks.sweep.reports import KINDS, LISTED, Found, Report, Row, as_markdown, as_rows, changed

NOW = datetime(2026, 11, 27, 5, tzinfo=UTC)
EVIL = '<script>alert("1")</script>&amp;|`*_[x](http://evil)'
FINE = {c.id: ("pass", "fine") if c.observable else ("cannot tell", "never") for c in CHECKS}


def a_sweep(id_: str = "sweep-2", started: datetime = NOW) -> Sweep:
    """A sweep that has ended."""
    return Sweep(id=id_, started=started, alive=started, ended=started + timedelta(minutes=5), planned=2)


def row(cluster: str, **answers: str) -> Row:
    """A cluster that is fine but for these checks, of which an evil text was seen."""
    wrong = {check.replace("_", "-"): (value, EVIL) for check, value in answers.items()}
    return Row(cluster, f"id-of-{cluster}", True, NOW, {**FINE, **wrong})


BEFORE = [
    row("a", manager="fail"),
    row("b", cloud="fail", agency_expiring="fail"),
    row("c", cloud="fail"),
    row("d", manager="fail"),
]
AFTER = [
    row("a", manager="fail", agency_nodes="fail"),
    row("b", instances="cannot tell", agency_expiring="n/a"),
    row("c", cloud="cannot tell"),
    Row(EVIL, "id", False, NOW, FINE | {"managed": ("fail", EVIL)}),
]
REPORT = Report(a_sweep(), AFTER, changed(a_sweep("sweep-1", NOW - timedelta(days=1)), BEFORE, AFTER))


class Page(HTMLParser):
    """What is in a page: its text, its tags and what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.titles = "", list[str](), list[str]()
        self.links: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "action", "data"):
                self.links.append(value)
            if name == "title" and value:
                self.titles.append(value)

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.text += data


def words_of(found: Sequence[Found]) -> list[tuple[str, str]]:
    """Cluster and check of each."""
    return [(each.cluster, each.check.id) for each in found]


def test_what_changed() -> None:
    """Each is new, fixed, standing, no longer applicable, not to be told any more, or of a cluster that is gone."""
    change = REPORT.change
    assert change is not None
    assert {
        "new": words_of(change.new),
        "fixed": words_of(change.fixed),
        "standing": words_of(change.standing),
        "lapsed": words_of(change.lapsed),
        "unknown": words_of(change.unknown),
        "gone": words_of(change.gone),
    } == {
        "new": [("a", "agency-nodes"), (EVIL, "managed")],
        "fixed": [("b", "cloud")],
        "standing": [("a", "manager")],
        "lapsed": [("b", "agency-expiring")],
        "unknown": [("c", "cloud")],
        "gone": [("d", "manager")],
    }
    assert REPORT.summary == (
        "3 findings on 2 of 4 clusters (2 new, 1 fixed, 1 standing, 1 no longer applicable, 1 no longer to be told, "
        "1 of clusters that are gone since the sweep of 2026-11-26 05:00 UTC); 2 answers on 2 clusters cannot be told; "
        "1 cluster is unmanaged."
    )


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        (("id-1", "id-1"), ("prod", "id-1"), {"fixed": [("prod", "managed")], "standing": [("prod", "obs-access")]}),
        (("old", "id-1"), ("prod", "id-1"), {"fixed": [("prod", "managed")], "standing": [("prod", "obs-access")]}),
        (("prod", ""), ("prod", "id-1"), {"fixed": [("prod", "managed")], "standing": [("prod", "obs-access")]}),
        (
            ("prod", "id-1"),
            ("prod", "id-2"),
            {"new": [("prod", "obs-access")], "gone": [("prod", "managed"), ("prod", "obs-access")]},
        ),
        (
            ("old", ""),
            ("prod", ""),
            {"new": [("prod", "obs-access")], "gone": [("old", "managed"), ("old", "obs-access")]},
        ),
    ],
    ids=["got a block", "renamed", "its id is known now", "another of that name", "no id"],
)
def test_which_cluster_is_the_same(
    old: tuple[str, str], new: tuple[str, str], kinds: dict[str, list[tuple[str, str]]]
) -> None:
    """A cluster is the same one whose id in the cloud is, or its name where one of the two has no id."""
    wrong = {"managed": ("fail", "no"), "obs-access": ("fail", "no")}
    before = [Row(*old, False, NOW, FINE | wrong)]
    after = [Row(*new, True, NOW, FINE | {"obs-access": ("fail", "no")})]
    change = changed(a_sweep("sweep-1"), before, after)
    assert {kind: words_of(getattr(change, kind)) for kind in KINDS if getattr(change, kind)} == kinds


def test_the_page_needs_nothing_else_and_shows_texts_as_they_are() -> None:
    """The page refers to nothing outside itself, has one script, and shows what others wrote as text."""
    page = Page(as_html(REPORT))
    assert [link for link in page.links if not (link or "").startswith("#c")] == []
    assert (page.tags.count("script"), page.tags.count("iframe"), page.tags.count("img")) == (1, 0, 0)
    assert EVIL in page.text
    assert f"{EVIL} (unmanaged, id)" in page.titles
    assert (page.tags.count("tr"), page.tags.count("td")) == (
        1 + len(CHECKS) + 1 + len(AFTER),
        9 * len(CHECKS) + len(AFTER) * len(CHECKS),
    )


def test_the_worst_cluster_comes_first() -> None:
    """In the page and among the findings the worst cluster comes first."""
    text = as_html(REPORT)
    assert text.index('<tr id="c0" class="f_"><th title="a">') < text.index('<tr id="c1"')
    assert words_of(REPORT.findings) == [("a", "manager"), ("a", "agency-nodes"), (EVIL, "managed")]


def test_markdown_shows_texts_as_they_are() -> None:
    """In the summary what others wrote is text, in a table and in a list."""
    text = as_markdown(REPORT)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    assert [child.type for child in inline if child.type in ("link_open", "image", "html_inline")] == []
    assert EVIL in "".join(child.content for child in inline if child.type == "text" or child.type == "text_special")


def test_a_spreadsheet_carries_out_nothing() -> None:
    """Every answer is a line of the CSV, and a cell that a spreadsheet would carry out begins with a quotation mark."""
    report = Report(a_sweep(), [row("=HYPERLINK(1)", manager="fail")])
    lines = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(lines) == len(CHECKS)
    assert {line["cluster"] for line in lines} == {"'=HYPERLINK(1)"}
    (failed,) = (line for line in lines if line["value"] == "fail")
    assert failed == {
        "cluster": "'=HYPERLINK(1)",
        "cluster_id": "id-of-=HYPERLINK(1)",
        "managed": "yes",
        "at": "2026-11-27T05:00:00+00:00",
        "check": "manager",
        "severity": "Major",
        "value": "fail",
        "change": "",
        "seen": EVIL,
    }


def test_json_holds_everything() -> None:
    """The JSON has the sweep, the checks with counts, every answer, and what changed."""
    plain = json.loads(as_json(REPORT))
    assert plain["sweep"] == {
        "id": "sweep-2",
        "selection": [],
        "remediate": False,
        "planned": 2,
        "started": "2026-11-27T05:00:00+00:00",
        "ended": "2026-11-27T05:05:00+00:00",
        "summary": REPORT.summary,
    }
    assert [each["id"] for each in plain["checks"]] == [check.id for check in CHECKS]
    assert plain["checks"][2]["answers"] == {"fail": 1, "pass": 3}
    assert [each["cluster"] for each in plain["clusters"]] == ["a", "b", "c", EVIL]
    assert plain["clusters"][0]["answers"]["manager"] == {"value": "fail", "seen": EVIL}
    assert plain["change"]["fixed"] == [{"cluster": "b", "check": "cloud", "seen": "fine"}]
    assert plain["change"]["lapsed"] == [{"cluster": "b", "check": "agency-expiring", "seen": EVIL}]


def test_a_long_table_says_what_it_leaves_out() -> None:
    """The table in Prefect has so many rows at most, and its last one says how many more there are."""
    rows = as_rows(Report(a_sweep(), [row(f"c{n:04}", manager="fail") for n in range(LISTED + 2)]))
    assert (len(rows), rows[-1]) == (
        LISTED + 1,
        {"cluster": "and 2 more findings: `runbooks sweep report sweep-2`"},
    )


@pytest.mark.parametrize("clusters", [0, 3000])
def test_a_page_of_any_size(clusters: int) -> None:
    """A page of no cluster and one of three thousand, of which each hundredth has a finding, are below 2 MB."""
    rows = [row(f"prod-{n:04}", **({"manager": "fail"} if n % 100 == 0 else {})) for n in range(clusters)]
    text = as_html(Report(a_sweep(), rows))
    assert (len(text) < 2_000_000, text.count('<tr id="c')) == (True, clusters)
