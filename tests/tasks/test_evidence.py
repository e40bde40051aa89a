"""The report a person reads, in the Prefect UI as markdown and in the terminal as it is."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from prefect.logging import disable_run_logger

from flows.alm_12110 import PAGE
from tasks import timing
from tasks.evidence import MEANING, Page, brief, digest, drawn_report, quoted, record, report
from tasks.graph import Edge, Graph
from tasks.models import Alarm, Answer, Case, Deed, Outcome
from tasks.trail import Trail

AT = datetime(2026, 7, 1, 8, tzinfo=UTC)
SHORT = Page(
    alarm_id="12110",
    title="No keys",
    graph=Graph(
        {"1": "find it", "2": "normal?", "3": "cleared?", "7": "call O&M"},
        [
            Edge("1", "next", "2"),
            Edge("2", "yes", "7"),
            Edge("2", "no", "3"),
            Edge("3", "yes", "END"),
            Edge("3", "no", "7"),
            Edge("7", "next", "ESCALATE"),
        ],
    ),
    impact="jobs fail",
    by_hand={"3": "Restart it.", "7": "Call O&M."},
)
ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![](http://evil.example/pixel)",
    "[a]: http://evil.example",
    "<http://evil.example>",
    "` | ` |\n| x | y |",
    "a | b\r\n\n# heading\n- item",
    "\\| \\` \\<b>",
    "**bold** __bold__ _it_ ~~gone~~ &lt;b&gt;",
    "\x1b[31mred\x1b[0m \u202egnp.exe \x00",
    "MRS_ECS_DEFAULT_AGENCY on node-master1.example, O&M > Alarm",
]


class Standing:
    """A clock that stands still."""

    def now(self) -> datetime:
        """The time."""
        return AT

    async def sleep(self, seconds: float) -> None:
        """Nobody waits here."""
        raise AssertionError(f"asked to sleep {seconds} s")


@pytest.fixture(autouse=True)
def outside_a_run() -> Iterator[None]:
    """There is no run whose log a trail could write to, and time stands still."""
    token = timing.clock.set(Standing())
    with disable_run_logger():
        yield
    timing.clock.reset(token)


def alarm(host: str, serial: str) -> Alarm:
    """An alarm of this host."""
    return Alarm(alarm_id="12110", serial=serial, location=f"HostName={host}")


def test_a_report_as_a_whole() -> None:
    """A run with one host repaired and one refused reads like this, in plain text."""
    trail = Trail(Case(cluster="prod-1", alarm_id="12110", dry_run=False, comment="on call"))
    abnormal = trail.found([alarm("node-1", "17"), alarm("node-master2", "18")])
    said = [Answer(host=a.host, value="n", seen="Manager says 'Faulty'", at=AT) for a in abnormal]
    trail.answered("2", said, abnormal)
    later = AT + timedelta(minutes=10)
    deeds = [
        Deed(host="node-1", did="restarted (command 5)", at=later, changed=True),
        Deed(host="node-master2", did="not restarted: in maintenance", at=later, ended=Outcome.REFUSED),
    ]
    going = trail.acted("3", deeds, abnormal)
    trail.answered("3", [Answer(host="node-1", value="y", seen="cleared by Meta", at=later)], going)
    trail.end(going, Outcome.END, step="3")
    assert report(trail, SHORT, "http://prefect.example/runs/1") == (
        f"""\
# ALM-12110 No keys: prod-1

**REFUSED**. The next step was not allowed or not possible from here: a person is needed.

Impact while the alarm is active: jobs fail.

Flow run: http://prefect.example/runs/1

SHA-256 of what happened, line by line: {digest(trail)}

Comment of who started the run: on call

| host         | trace          | alarm |
| ------------ | -------------- | --- |
| node-1       | `1 2n 3y END`  | ALM-12110 on node-1 serial 17 |
| node-master2 | `1 2n REFUSED` | ALM-12110 on node-master2 serial 18 |

## Why it stopped

- node-master2 (REFUSED at step 3): not restarted: in maintenance

## What to do next

- node-master2: Restart it.

## What happened

- 2026-07-01 08:00:00 UTC, step 1, node-1: ALM-12110 on node-1 serial 17 is active on Manager
- 2026-07-01 08:00:00 UTC, step 1, node-master2: ALM-12110 on node-master2 serial 18 is active on Manager
- 2026-07-01 08:00:00 UTC, step 2, node-1: Manager says 'Faulty'
- 2026-07-01 08:00:00 UTC, step 2, node-master2: Manager says 'Faulty'
- 2026-07-01 08:10:00 UTC, step 3, node-1: restarted (command 5)
- 2026-07-01 08:10:00 UTC, step 3, node-master2: not restarted: in maintenance
- 2026-07-01 08:10:00 UTC, step 3, node-1: cleared by Meta
"""
    )


def test_a_report_for_the_ui() -> None:
    """The Prefect UI gets the page's steps as a table too, host by host, with its evidence cut, and the graph."""
    trail = Trail(Case(cluster="prod-1", alarm_id="12110", dry_run=False))
    first, second = alarms = trail.found([alarm("node-1", "17"), alarm("node-2", "18")])
    seen = "meta instance of node-1: the nodes API says 'Faulty'; Manager says 'Faulty', started 2026-07-01 07:00:00"
    answers = [
        Answer(host="node-1", value="n", seen=seen, at=AT),
        Answer(host="node-2", value="y", seen="ok ~ b", at=AT),
    ]
    trail.answered("2", answers, alarms)
    trail.reached("7", [second])
    trail.end([second], Outcome.ESCALATE, step="7")
    trail.acted("3", [Deed(host="node-1", did="not restarted: no", at=AT, ended=Outcome.REFUSED)], [first])
    plain, drawn = report(trail, SHORT, ""), drawn_report(trail, SHORT, "")
    steps = """\
## The page's steps

| step | host   | question | answer   | evidence                                                     | time (UTC) |
| ---- | ------ | -------- | -------- | ------------------------------------------------------------ | --- |
| 1    | node-1 | find it  | found    | ALM-12110 serial 17 is active on Manager                     | 07-01 08:00:00 |
| 2    | node-1 | normal?  | no       | meta instance: the ... 'Faulty', started 2026-07-01 07:00:00 | 07-01 08:00:00 |
| 3    | node-1 | cleared? | REFUSED  | not restarted: no                                            | 07-01 08:00:00 |
| 1    | node-2 | find it  | found    | ALM-12110 serial 18 is active on Manager                     | 07-01 08:00:00 |
| 2    | node-2 | normal?  | yes      | ok \\~ b                                                      | 07-01 08:00:00 |
| 7    | node-2 | call O&M | ESCALATE |                                                              |  |

## The way through the page

```mermaid
flowchart TD
  s1["1. find it"]
  s2{{"2. normal?"}}
  s3{{"3. cleared?"}}
  s7["7. call O&M"]
  s1 -->|"2 hosts"| s2
  s2 -->|"yes, 1 host"| s7
  s2 -->|"no, 1 host"| s3
  s3 -->|"yes"| w_END(["END"])
  s3 -->|"no"| s7
  s7 -->|"1 host"| w_ESCALATE(["ESCALATE"])
  s3 -.->|"1 host"| w_3_REFUSED(["REFUSED"])
  linkStyle 0,1,2,5,6 stroke:#2f6feb,stroke-width:4px
```

"""
    assert drawn == plain.replace("## What happened", f"{steps}## What happened")


def test_a_report_of_a_run_that_joined() -> None:
    """A run that followed no alarm has no empty tables, and asks nobody for anything."""
    trail = Trail(Case(cluster="prod-1", alarm_id="12110"))
    trail.stop(Outcome.JOINED, "worked on by run 7")
    assert report(trail, SHORT, "") == (
        f"""\
# ALM-12110 No keys: prod-1

**JOINED** (dry run). Another run is working on this cluster; this one did nothing.

SHA-256 of what happened, line by line: {digest(trail)}

No alarm was followed.

## What happened

- 2026-07-01 08:00:00 UTC, (the cluster): JOINED: worked on by run 7
"""
    )


def test_a_ticket_says_where_to_look_and_until_when() -> None:
    """For each host that needs a person: its log, the hour around its alarm, and the end of its last keys."""
    raised = datetime(2026, 7, 1, 7, 45, tzinfo=UTC)
    timed = Alarm(alarm_id="12110", location="HostName=node-1", occurred=raised)
    trail = Trail(Case(cluster="prod-1", alarm_id="12110"))
    trail.end(trail.found([timed, alarm("node-2", "18")]), Outcome.ESCALATE, step="7")
    next_ = report(trail, PAGE, "").split("## What to do next\n\n")[1].split("\n\n")[0].splitlines()
    because = PAGE.felt_because
    log = "/var/log/Bigdata/meta/mrs-meta.log"
    unknown = "where the alarm's time is not known here, look it up on Manager"
    assert next_[1:] == [
        f"- node-1: read {log} from 2026-07-01 06:45 to 2026-07-01 08:45 UTC, an hour around the alarm",
        f"- node-1: the impact is felt at the latest at 2026-07-01 08:35 UTC: {because}",
        f"- {unknown}: read {log} of its host from one hour before to one hour after it",
        f"- {unknown}: the impact is felt at the latest 50 minutes after it: {because}",
    ]


def test_a_run_s_part_in_a_shared_ticket() -> None:
    """In few lines: how it ended, where the rest is and by which SHA-256, the impact, and until when it is not felt."""
    raised = datetime(2026, 7, 1, 7, 45, tzinfo=UTC)
    trail = Trail(Case(cluster="prod-1", alarm_id="12110", dry_run=False))
    trail.end(
        trail.found([Alarm(alarm_id="12110", location="HostName=node-1", occurred=raised)]), Outcome.REFUSED, step="3"
    )
    page = replace(SHORT, log="/var/log/meta.log", felt_within=timedelta(minutes=50), felt_because="keys live an hour")
    assert brief(trail, page, "http://prefect.example/runs/1") == (
        f"""\
## prod-1: REFUSED

Flow run: http://prefect.example/runs/1

SHA-256 of what happened, line by line: {digest(trail)}

Impact while ALM-12110 is active: jobs fail.

- node-1: `1 REFUSED`
- node-1: read /var/log/meta.log from 2026-07-01 06:45 to 2026-07-01 08:45 UTC, an hour around the alarm
- node-1: the impact is felt at the latest at 2026-07-01 08:35 UTC: keys live an hour
"""
    )


def test_the_digest_is_that_of_the_record() -> None:
    """Whoever has the record, one JSON list a line, gets the digest that the ticket names; any other word, another."""
    trail = Trail(Case(cluster="prod-1", alarm_id="12110"))
    trail.stop(Outcome.ERROR, "broken")
    line = '["2026-07-01T08:00:00+00:00","","(the cluster)","ended","ERROR: broken"]\n'
    assert (record(trail), digest(trail)) == (line, hashlib.sha256(line.encode()).hexdigest())


def test_every_word_is_explained_and_every_step_has_a_hand_over() -> None:
    """Each outcome has a sentence, and ends at any step of the page lead to something a person can do."""
    assert set(MEANING) == set(Outcome)
    for step in ("", "1", "2", "3", "4", "5", "6", "7"):
        trail = Trail(Case(cluster="prod-1", alarm_id="12110"))
        trail.found([alarm("node-1", "17")])
        trail.end([alarm("node-1", "17")], Outcome.ERROR, step=step)
        assert f"\n- node-1: {PAGE.by_hand.get(step, PAGE.by_hand['7'])}\n" in report(trail, PAGE, "")


def shown(text: str) -> str:
    """What of a foreign text is to be seen: its printable characters, in one line."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


@given(
    st.one_of(st.sampled_from(ATTACKS), st.text(max_size=40), st.text("\\`*_[](){}<>#+-!|~&;:= \n\tab1", max_size=40))
)
@settings(deadline=None, max_examples=200)
@example("[x](y)")
@example("[x][y] [x]: y")
@example("http://a_b_/*c*")
def test_a_foreign_text_is_shown_as_it_is_and_is_nothing_but_text(text: str) -> None:
    """A text of others in a table's cell is that text to a markdown reader: no markup, no HTML, no further cell."""
    tokens = (
        MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(f"| a |\n|---|\n| {quoted(text)} |\n\nend")
    )
    cells = [token for token in tokens if token.type == "inline"]
    assert [cell.content for cell in cells[0::2]] == ["a", "end"]
    children = cells[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == shown(text)


@pytest.mark.parametrize("text", ATTACKS)
def test_no_field_of_others_breaks_out_of_the_steps(text: str) -> None:
    """No evidence and no host adds a row, a cell or markup to the table of steps, or is in the drawing at all."""
    trail = Trail(Case(cluster="prod-1", alarm_id="12110"))
    (about,) = trail.found([alarm(f"x{text}", "17")])
    trail.answered("2", [Answer(host=about.host, value="n", seen=text * 3, at=AT)], [about])
    trail.stop(Outcome.ERROR, text)
    written = drawn_report(trail, SHORT, "").partition("## The page's steps")[2].partition("## What happened")[0]
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(written)
    inline = [child.type for token in tokens for child in token.children or []]
    assert set(inline) <= {"text", "text_special"}
    assert [sum(token.type == kind for token in tokens) for kind in ("tr_open", "td_open", "fence")] == [4, 18, 1]
    fence = next(token.content for token in tokens if token.type == "fence")
    assert text not in fence


@pytest.mark.parametrize("text", ATTACKS)
def test_no_field_of_others_breaks_out_of_the_report(text: str) -> None:
    """Host, location, evidence, cluster and comment cannot add rows, headings, links or HTML to the report."""
    trail = Trail(Case(cluster=text, alarm_id="12110", comment=text))
    alarms = trail.found([alarm(text, text), Alarm(alarm_id="12110", location=text)])
    trail.answered("2", [Answer(host=a.host, value="n", seen=text, at=AT) for a in alarms], alarms)
    trail.stop(Outcome.ERROR, text)
    written = report(trail, SHORT, "http://prefect.example/runs/1")
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(written)
    inline = [child for token in tokens for child in token.children or []]
    assert {token.type for token in inline} <= {
        "text",
        "text_special",
        "softbreak",
        "code_inline",
        "strong_open",
        "strong_close",
    }
    kinds = ("tr_open", "table_open", "list_item_open", "heading_open")
    hand_overs = len({end.step if end.step in SHORT.by_hand else "7" for end in trail.ends.values()})
    expected = [len(trail.traces) + 1, 1, len(trail.entries) + hand_overs + len(trail.ends), 4]
    assert [sum(token.type == kind for token in tokens) for kind in kinds] == expected
    assert {token.content for token in inline if token.type == "code_inline"} == set(trail.traces.values())
    assert all(letter.isprintable() or letter == "\n" for letter in written)


def test_ordinary_texts_stay_as_they_are() -> None:
    """Names, routes and sentences that are no markup are not touched: the plain text stays readable."""
    ordinary = "ECS GET v1/ab_cd/cloudservers/7: HTTP 503 (O&M > Alarm), MRS_ECS_AGENCY = 'x' [1, 2]; 5% #3 a-b"
    assert quoted(ordinary) == ordinary
