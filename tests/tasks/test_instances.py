"""Step 2 of the page as a pure function: what the sources say of one Meta instance, and what that answers."""

from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.health import health
from tasks.models import Component, Instance, ManagedHost, Node, Outcome

HOST, META = "node-1", "meta"
UP = (ManagedHost(name=HOST, status="Normal"), ManagedHost(name="node-2", status="Faulty"))
# Every running status that Manager's instance page publishes.
ANSWERS = {
    "Normal": "y",
    "Faulty": "n",
    "Failed to start": "n",
    "Starting": "wait",
    "Stopping": "wait",
    "Restoring": "wait",
    "Recommissioning": "wait",
    "Not started": Outcome.REFUSED,
    "Decommissioning": Outcome.REFUSED,
    "Decommissioned": Outcome.REFUSED,
    "Unknown": Outcome.CANNOT_TELL,
    "Failed to stop": Outcome.CANNOT_TELL,
}
UNLISTED = ("", "Zombie", "normal?", "Not normal")


def cloud(*statuses: str, host: str = HOST, service: str = "Meta", config: str = "Normal") -> tuple[Node, ...]:
    """The nodes API: one node with these Meta instances, beside a healthy service and a healthy other node."""
    meta = [Component(service=service, role="Meta", status=status, config=config) for status in statuses]
    other = Component(service="HDFS", role="DataNode", status="Normal")
    healthy = Node(host="node-2", components=(Component(service="Meta", status="Normal"),))
    return (healthy, Node(host=host, status="Normal", components=(other, *meta)))


def manager(*statuses: str, host: str = HOST, config: str = "Normal") -> tuple[Instance, ...]:
    """Manager: these Meta instances on the host, beside a healthy one elsewhere."""
    mine = [Instance(id=str(n), role="Meta", host=host, status=said, config=config) for n, said in enumerate(statuses)]
    return (Instance(id="9", role="Meta", host="node-2", status="Normal"), *mine)


@pytest.mark.parametrize("config", ["Normal", "Synchronized", "Expired"])
@pytest.mark.parametrize("written", [str, str.upper, str.lower, str.title])
@pytest.mark.parametrize("status", ANSWERS)
def test_each_published_status_has_its_answer(status: str, written: type[str], config: str) -> None:
    """A published status has its one answer from either source or both, in any case, whatever the configuration's."""
    said = written(status)
    of_cloud, of_manager = cloud(said, config=config), manager(said, config=config)
    about = f"{META} instance of {HOST}"
    verdict = ANSWERS[status]
    assert [
        health(HOST, META, of_cloud, None, None),
        health(HOST, META, None, UP, of_manager),
        health(HOST, META, of_cloud, UP, of_manager),
    ] == [
        (verdict, f"{about}: the nodes API says {said!r}"),
        (verdict, f"{about}: Manager says {said!r}"),
        (verdict, f"{about}: the nodes API says {said!r}; Manager says {said!r}"),
    ]


@example("").via("a field that is missing")
@given(st.text().filter(lambda text: text.lower() not in map(str.lower, ANSWERS)))
@settings(deadline=None)
def test_an_unlisted_status_is_cannot_tell(status: str) -> None:
    """Any text that is no published status is cannot tell, from either source, also beside one that says Normal."""
    verdicts = [
        health(HOST, META, cloud(status), None, None)[0],
        health(HOST, META, None, UP, manager(status))[0],
        health(HOST, META, cloud(status), UP, manager("Normal"))[0],
        health(HOST, META, cloud("Faulty"), UP, manager(status))[0],
    ]
    assert verdicts == [Outcome.CANNOT_TELL] * 4


def test_two_sources_answer_only_what_both_say() -> None:
    """Of all pairs, `y` needs two Normal, `n` two abnormal; one in transition waits; the rest is cannot tell."""
    answers = ANSWERS | dict.fromkeys(UNLISTED, Outcome.CANNOT_TELL)
    expected, judged = {}, {}
    for one, other in product(answers, repeat=2):
        both = {answers[one], answers[other]}
        waits = "wait" in both and both <= {"wait", "y", "n"}
        expected[one, other] = "wait" if waits else both.pop() if len(both) == 1 else Outcome.CANNOT_TELL
        judged[one, other] = health(HOST, META, cloud(one), UP, manager(other))[0]
    assert judged == expected
    assert {pair for pair, verdict in judged.items() if verdict == "y"} == {("Normal", "Normal")}
    assert {pair for pair, verdict in judged.items() if verdict == "n"} == set(
        product(("Faulty", "Failed to start"), repeat=2)
    )


@pytest.mark.parametrize("service", ["Meta", "META", "meta"])
def test_the_service_s_name_is_compared_in_any_case(service: str) -> None:
    """The block's `meta` is the cloud's `Meta`, and no other service is taken for it."""
    verdicts = [health(HOST, service, cloud("Faulty", service=name), None, None)[0] for name in ("Meta", "mEtA", "Met")]
    assert verdicts == ["n", "n", Outcome.CANNOT_TELL]


@pytest.mark.parametrize(
    ("nodes", "managed", "instances", "words"),
    [
        (None, None, None, "no source says how the meta instance of node-1 is"),
        (cloud(), None, None, "no source says how the meta instance of node-1 is"),
        (cloud(), UP, None, "no source says how the meta instance of node-1 is"),
        ((), None, None, "the cloud lists 0 nodes named node-1 in this cluster, not one"),
        (cloud("Faulty", host="node-10"), UP, None, "the cloud lists 0 nodes named node-1 in this cluster, not one"),
        (cloud("Faulty") * 2, None, None, "the cloud lists 2 nodes named node-1 in this cluster, not one"),
        (cloud("Faulty", "Faulty"), None, None, "the cloud lists 2 meta instances on node-1, not one"),
        (None, UP, manager(), "Manager lists 0 meta instances on node-1, not one"),
        (None, UP, manager("Faulty", "Faulty"), "Manager lists 2 meta instances on node-1, not one"),
        (None, UP[1:], manager("Faulty"), "Manager knows 0 hosts named node-1, not one"),
        (cloud("Faulty"), (), manager("Faulty"), "Manager knows 0 hosts named node-1, not one"),
        (None, UP * 2, manager("Faulty"), "Manager knows 2 hosts named node-1, not one"),
    ],
)
def test_what_is_not_there_exactly_once_is_cannot_tell(
    nodes: tuple[Node, ...] | None,
    managed: tuple[ManagedHost, ...] | None,
    instances: tuple[Instance, ...] | None,
    words: str,
) -> None:
    """No source, an unknown host, or a host, node or instance listed twice is cannot tell, and says which."""
    assert health(HOST, META, nodes, managed, instances) == (Outcome.CANNOT_TELL, words)


@pytest.mark.parametrize("status", ["Faulty", "FAULTY", "Failed to start"])
@pytest.mark.parametrize("instance", ANSWERS)
def test_a_host_that_is_itself_down_is_refused(status: str, instance: str) -> None:
    """A host that is not normal itself is never answered yes or no, whatever its instance is said to be."""
    managed = (ManagedHost(name=HOST, status=status),)
    words = f"host node-1 itself is {status!r}: restarting its instance is no help"
    assert health(HOST, META, cloud(instance), managed, manager(instance)) == (Outcome.REFUSED, words)
