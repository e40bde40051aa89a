"""The page's graph: what each of its traces takes, what a word at any step adds, and how it is drawn."""

import json
from importlib.resources import files
from itertools import pairwise

import pytest

from flows.alm_12110 import PAGE
from tasks.graph import Edge, Way, flowchart, taken
from tasks.models import Outcome

PROCEDURE = json.loads(files("flows").joinpath("procedures/ALM-12110.json").read_text())
GRAPH = PAGE.graph
WORDS = [word for word in Outcome if word not in (Outcome.END, Outcome.ESCALATE)]


def edges_of(trace: str) -> list[Edge]:
    """What a whole trace takes, step by step."""
    steps = trace.split()
    answers = {"y": "yes", "n": "no"}
    found = []
    for here, there in pairwise(steps):
        found.append(Edge(here[0], answers.get(here[1:], "next"), there if there.isupper() else there[0]))
    return found


@pytest.mark.parametrize("trace", PROCEDURE["traces"])
def test_a_whole_trace_takes_the_edges_between_its_steps(trace: str) -> None:
    """Each of the page's traces takes exactly the edges of its steps, all of which the page has."""
    *steps, word = trace.split()
    found = taken(GRAPH, [Way(steps, word, "7")])
    assert list(found) == edges_of(trace)
    assert set(found) <= set(GRAPH.edges)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("trace", PROCEDURE["traces"])
def test_a_page_that_was_left_leads_to_the_word(trace: str, word: Outcome) -> None:
    """Left with a word at any step the way is the page's up to there, and one edge more, to the word."""
    *steps, _ = trace.split()
    for place in range(1, len(steps)):
        at = steps[place][0]
        found = taken(GRAPH, [Way(steps[:place], word, at)])
        assert list(found) == [*edges_of(" ".join(steps[: place + 1]))[:place], Edge(at, "", word)]
        assert all(edge in GRAPH.edges for edge in list(found)[:-1])


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (Way(["1", "2y"], "CANNOT-TELL", "5"), "1 2y 4 5"),  # step 4 only opens the console
        (Way(["1"], "JOINED", "1"), "1"),
        (Way(["1"], "ERROR", ""), "1"),  # no step in particular: where it was
        (Way(["1", "2y", "4", "5y", "7"], "DRY-RUN", "7"), "1 2y 4 5y 7"),
    ],
)
def test_where_a_way_was_left(way: Way, expected: str) -> None:
    """A step that asks nothing is passed on the way to the one at which the word was said; it may be the last one."""
    last = expected.split()[-1]
    assert list(taken(GRAPH, [way])) == [*edges_of(expected), Edge(last, "", way.word)]


def test_the_drawing_of_one_host() -> None:
    """Every step and way of the page is drawn, the ways taken are thick, and nothing is counted."""
    assert flowchart(GRAPH, [Way(["1", "2n", "3n", "4", "5n", "6y"], "END", "6")]) == (
        """\
flowchart TD
  s1["1. find the alarm on Manager and the IP address of its host"]
  s2{{"2. is the Meta role instance of that host normal?"}}
  s3{{"3. restart the abnormal instance, wait several minutes: is the alarm cleared?"}}
  s4["4. go to the MRS console (cloud API)"]
  s5{{"5. is the cluster bound to an agency?"}}
  s6{{"6. rebind the cluster to an agency, wait a few minutes: is the alarm cleared?"}}
  s7["7. contact O&M personnel"]
  s1 --> s2
  s2 -->|"yes"| s4
  s2 -->|"no"| s3
  s3 -->|"yes"| w_END(["END"])
  s3 -->|"no"| s4
  s4 --> s5
  s5 -->|"yes"| s7
  s5 -->|"no"| s6
  s6 -->|"yes"| w_END(["END"])
  s6 -->|"no"| s7
  s7 --> w_ESCALATE(["ESCALATE"])
  linkStyle 0,2,4,5,7,8 stroke:#2f6feb,stroke-width:4px"""
    )


def test_the_drawing_of_several_hosts() -> None:
    """Of several hosts each way says how many took it, and each word stands at the step at which they left."""
    ways = [Way(["1", "2n"], "REFUSED", "3"), Way(["1", "2n"], "REFUSED", "3"), Way(["1"], "CLEARED-BY-PERSON", "1")]
    lines = flowchart(GRAPH, ways).splitlines()
    assert [line for line in lines if "1 host" in line or "2 hosts" in line or "linkStyle" in line] == [
        '  s1 -->|"2 hosts"| s2',
        '  s2 -->|"no, 2 hosts"| s3',
        '  s3 -.->|"2 hosts"| w_3_REFUSED(["REFUSED"])',
        '  s1 -.->|"1 host"| w_1_CLEARED_BY_PERSON(["CLEARED-BY-PERSON"])',
        "  linkStyle 0,2,11,12 stroke:#2f6feb,stroke-width:4px",
    ]


def test_without_a_host_nothing_is_thick() -> None:
    """A run that followed no alarm took no way."""
    assert "linkStyle" not in flowchart(GRAPH, [])
