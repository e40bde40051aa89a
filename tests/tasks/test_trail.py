"""The record of a run: wherever whatever happens, its traces are the page's, or their beginnings and a word."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.logging import disable_run_logger

from tasks.ledger.earlier import HandedOver
from tasks.ledger.episodes import Holding, Part
from tasks.models import NOT_LISTED, Alarm, Answer, Case, Deed, Outcome
from tasks.record import NEEDS_A_PERSON, NO_HOST, WHOLE_CLUSTER, WORST_FIRST, End, Entry
from tasks.trail import Trail

PROCEDURE = json.loads(files("flows").joinpath("procedures/ALM-12110.json").read_text())
PATHS: list[list[str]] = [trace.split() for trace in PROCEDURE["traces"]]
WORDS = [word for word in Outcome if word not in (Outcome.END, Outcome.ESCALATE)]
ASKS, ACTS = ("2", "3", "5", "6", "7"), ("3", "6")
AT = datetime(2026, 7, 1, 8, tzinfo=UTC)
CASE = Case(cluster="prod-1", alarm_id="12110", dry_run=False)


@pytest.fixture(autouse=True)
def outside_a_run() -> Iterator[None]:
    """A trail also writes to the run's log; there is no run here."""
    with disable_run_logger():
        yield


def alarm(host: str, serial: str = "") -> Alarm:
    """An alarm of this host."""
    return Alarm(alarm_id="12110", serial=serial, location=f"HostName={host}" if host else "RoleName=Meta")


def ways(step: str) -> list[str]:
    """How a host's part can end early when its next step is this one."""
    asked = ["answered"] if step in ASKS else []
    return ["stopped", *asked, *(["acted"] if step in ACTS else [])]


def places() -> list[tuple[list[str], int, str]]:
    """Every way through the page, every place on it, and every way to end there."""
    return [(path, place, way) for path in PATHS for place in range(1, len(path) - 1) for way in ways(path[place][0])]


def answer(host: str, value: str) -> Answer:
    """An answer as the steps give it."""
    return Answer.model_validate({"host": host, "value": value, "seen": "seen", "at": AT})


def go(trail: Trail, about: Alarm, path: list[str]) -> None:
    """Walk these steps of the page after the first."""
    for written in path:
        step, value = written[0], written[1:]
        if written in (Outcome.END, Outcome.ESCALATE):
            trail.end([about], Outcome(written), step="7")
        elif not value:
            trail.reached(step, [about])
        else:
            if step in ACTS:
                trail.acted(step, [Deed(host=about.host, did="done", at=AT, changed=True)], [about])
            host = "" if step == "5" else about.host  # the agency is the whole cluster's
            assert trail.answered(step, [answer(host, value)], [about]) == (
                ([about], []) if value == "y" else ([], [about])
            )


def leave(trail: Trail, about: Alarm, step: str, word: Outcome, way: str) -> None:
    """Let a host's part end with a word when this step is next."""
    match way:
        case "stopped":
            trail.stop(word, "why")
        case "answered":
            assert trail.answered(step, [answer("" if step == "5" else about.host, word)], [about]) == ([], [])
        case "acted":
            deed = Deed(host=about.host if step == "3" else "some-node", did="not done", at=AT, ended=word)
            assert trail.acted(step, [deed], [about]) == []


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_a_whole_path_leaves_its_trace(path: list[str]) -> None:
    """Every way through the page leaves exactly its listed trace and its last word as the run's."""
    trail, about = Trail(CASE), alarm("node-1")
    assert trail.found([about]) == [about]
    go(trail, about, path[1:])
    assert (trail.traces, trail.outcome) == ({"node-1": " ".join(path)}, path[-1])
    trail.stop(Outcome.ERROR, "the ticket could not be filed")
    assert trail.traces == {"node-1": " ".join(path)}
    assert (trail.ends[WHOLE_CLUSTER], trail.outcome) == (End(Outcome.ERROR, ""), Outcome.ERROR)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_at_every_place_leaves_a_legal_prefix_and_the_word(word: Outcome) -> None:
    """Left early anywhere, in any of the ways there are, a trace is the steps so far and one word, and stays so."""
    for path, place, way in places():
        trail, about = Trail(CASE), alarm("node-1")
        trail.found([about])
        go(trail, about, path[1:place])
        leave(trail, about, path[place][0], word, way)
        expected = {"node-1": " ".join([*path[:place], word])}
        at_the_end = path[place] in (Outcome.END, Outcome.ESCALATE)
        step = path[place - 1][0] if at_the_end else path[place][0]
        step = "5" if way == "stopped" and step == "4" else step  # step 4 only opens the console
        assert (trail.traces, trail.ends, trail.outcome) == (expected, {"node-1": End(word, step)}, word)
        trail.stop(Outcome.ERROR, "much later")
        assert trail.traces == expected


@given(
    st.lists(st.tuples(st.sampled_from(places()), st.sampled_from(WORDS)), min_size=1, max_size=6),
    st.sampled_from(WORDS),
)
@settings(deadline=None, max_examples=60)
def test_hosts_are_recorded_apart(parts: list[tuple[tuple[list[str], int, str], Outcome]], last: Outcome) -> None:
    """Each host of a run has the trace of its own part, a stop ends those still going, the worst names the run."""
    trail, expected = Trail(CASE), {}
    abouts = [alarm(f"node-{number}") for number in range(len(parts))]
    trail.found(abouts)
    for about, ((path, place, way), word) in zip(abouts, parts, strict=True):
        go(trail, about, path[1:place])
        if way != "stopped":
            leave(trail, about, path[place][0], word, way)
        expected[about.host] = " ".join([*path[:place], last if way == "stopped" else word])
    trail.stop(last, "why")
    assert trail.traces == expected
    words = {last if way == "stopped" else word for (_, _, way), word in parts}
    words |= set() if any(way == "stopped" for (_, _, way), _ in parts) else {last}
    assert trail.outcome == next(word for word in WORST_FIRST if word in words)


def test_the_worst_word_names_the_run() -> None:
    """Every outcome has its rank, those that need a person come first, and any two hosts' run has the worse one's."""
    order = "ERROR CANNOT-TELL REFUSED DECLINED CANCELLED ESCALATE DRY-RUN END CLEARED-BY-PERSON CLEARED JOINED"
    assert (" ".join(WORST_FIRST), len(WORST_FIRST)) == (order, len(Outcome))
    assert set(WORST_FIRST[: len(NEEDS_A_PERSON)]) == NEEDS_A_PERSON
    for one, other in product(Outcome, repeat=2):
        trail = Trail(CASE)
        trail.found([alarm("a"), alarm("b")])
        trail.end([alarm("a")], one, step="2")
        trail.end([alarm("b")], other, step="2")
        assert trail.outcome == min(one, other, key=WORST_FIRST.index)
        assert trail.needs_a_person == bool({one, other} & NEEDS_A_PERSON)


def test_a_run_without_an_alarm_is_cleared() -> None:
    """Where step 1 finds nothing there are no traces and nobody is needed."""
    trail = Trail(CASE)
    assert trail.found([]) == []
    assert (trail.traces, trail.outcome, trail.needs_a_person) == ({}, Outcome.CLEARED, False)


def test_a_run_stopped_before_any_host_is_known_ends_as_a_whole() -> None:
    """A stop before step 1 has an answer is the whole cluster's, with the reason written down."""
    trail = Trail(CASE)
    trail.stop(Outcome.JOINED, "another run is at it")
    (entry,) = trail.entries
    assert (entry.step, entry.host, entry.kind, entry.text) == (
        "",
        WHOLE_CLUSTER,
        "ended",
        "JOINED: another run is at it",
    )
    assert (trail.traces, trail.ends) == ({}, {WHOLE_CLUSTER: End(Outcome.JOINED, "")})


def test_an_alarm_without_a_host_is_cannot_tell() -> None:
    """An alarm whose location names no host ends at step 1, beside those that are followed, quoting its location."""
    trail = Trail(CASE)
    named, unnamed = alarm("node-1", "1"), alarm("", "2")
    assert trail.found([unnamed, named]) == [named]
    assert trail.traces == {NO_HOST: "1 CANNOT-TELL", "node-1": "1"}
    assert "(RoleName=Meta)" in trail.entries[1].text


def test_a_bind_that_ends_ends_every_host_it_was_for() -> None:
    """A deed of step 6 is a node's, not an alarmed host's: when it ends, all alarmed hosts end with it."""
    trail, abouts = Trail(CASE), [alarm("node-1"), alarm("node-2")]
    trail.found(abouts)
    deeds = [
        Deed(host="node-7", did="bound", at=AT, changed=True),
        Deed(host="", did="broke off", at=AT + timedelta(minutes=1), ended=Outcome.ERROR),
    ]
    assert trail.acted("6", deeds, abouts) == []
    assert trail.ends == dict.fromkeys(("node-1", "node-2"), End(Outcome.ERROR, "6"))
    assert trail.done_at == {"6": AT}
    assert [entry.host for entry in trail.entries[-2:]] == ["node-7", WHOLE_CLUSTER]


def test_the_wait_counts_from_the_last_thing_done() -> None:
    """`done_at` is when the last deed of a step was seen to be done; one that ended does not count."""
    trail, abouts = Trail(CASE), [alarm("a"), alarm("b"), alarm("c")]
    trail.found(abouts)
    times = [AT + timedelta(minutes=minutes) for minutes in (1, 5, 9)]
    deeds = [
        Deed(host="a", did="restarted", at=times[0]),
        Deed(host="b", did="restarted", at=times[1]),
        Deed(host="c", did="refused", at=times[2], ended=Outcome.REFUSED),
    ]
    assert trail.acted("3", deeds, abouts) == abouts[:2]
    assert trail.done_at == {"3": times[1]}


def test_a_look_before_a_change_is_no_change() -> None:
    """What was looked at before a restart is recorded as asked, and neither begins the wait nor counts as done."""
    trail, about = Trail(CASE), alarm("a")
    trail.found([about])
    look = Deed(host="a", did="before the restart: seen", at=AT, looked=True)
    assert trail.acted("3", [look], [about]) == [about]
    assert (trail.done_at, trail.entries[-1]) == ({}, Entry(AT, "3", "a", "asked", "before the restart: seen"))
    assert trail.answered("3", [answer("a", "n")], [about]) == ([], [about])
    assert trail.traces == {"a": "2y"}  # nothing was changed, so step 3 was none


@pytest.mark.parametrize(
    ("alarms", "subject"),
    [
        ([alarm("b", "17"), alarm("a", "18")], "prod-1/12110/b/17/"),
        ([alarm("b"), alarm("a")], "prod-1/12110/run/7"),
        ([alarm("", "17")], "prod-1/12110/(no host)/17/"),
        ([], "prod-1/12110/run/7"),
    ],
)
def test_runs_about_the_same_alarms_have_one_subject(alarms: list[Alarm], subject: str) -> None:
    """The subject is the oldest occurrence, whatever the order, the comment and the way the run went; or the run."""
    for order, comment in product(permutations(alarms), ("", "again")):
        trail = Trail(CASE.model_copy(update={"comment": comment, "run": "7"}))
        trail.found(order)
        trail.stop(Outcome.ERROR, comment)
        assert trail.subject == subject


def handed(host: str, serial: str, ended: str = "ESCALATE") -> HandedOver:
    """An active alarm for which the page ended before."""
    return HandedOver(host=host, serial=serial, occurred=None, ended=ended)


def test_what_a_person_has_already_is_left_alone() -> None:
    """An alarm for which the page ended before ends as JOINED and is no part of this run; a later one is followed."""
    trail, old, again, other = Trail(CASE), alarm("node-1", "1"), alarm("node-2", "9"), alarm("node-3", "3")
    trail.earlier = Holding("e", 2, handed_over=[handed("node-1", "1"), handed("node-2", "2")])
    assert trail.found([old, again, other]) == [again, other]
    trail.end([again, other], Outcome.END, step="3")
    assert (trail.traces["node-1"], trail.outcome) == ("1 JOINED", Outcome.END)
    assert trail.entries[1].text == "JOINED: the page has ended for this alarm before (ESCALATE): see its ticket"
    assert trail.parts == [Part(again, "END", "1 END"), Part(other, "END", "1 END")]


@pytest.mark.parametrize("status", ["Auto", "auto", "Manual", NOT_LISTED])
def test_an_alarm_that_is_not_active_is_not_followed(status: str) -> None:
    """An alarm that was over, or that Manager does not list, ends at step 1 with the word for that."""
    trail, gone = Trail(CASE), alarm("node-1", "1").model_copy(update={"status": status})
    assert trail.found([gone]) == []
    word = {"auto": "CLEARED", "manual": "CLEARED-BY-PERSON"}.get(status.lower(), "CANNOT-TELL")
    assert trail.traces == {"node-1": f"1 {word}"}
    assert trail.parts == [Part(gone, word, f"1 {word}")]


@pytest.mark.parametrize("path", [path for path in PATHS if path[-1] == Outcome.END], ids=" ".join)
@pytest.mark.parametrize("way", ["through", "stopped", "once more"])
def test_a_relapse_goes_on_where_its_repair_has_failed(path: list[str], way: str) -> None:
    """A relapse continues the trace that ended in END at its last step, which now reads no, and a host apart begins."""
    trail, back, new = Trail(CASE), alarm("node-1", "2"), alarm("node-2")
    step = path[-2][0]
    repaired = " ".join(path) if way != "once more" else " ".join([*path[:-2], f"{step}n (recurred)", "4 5n 6y END"])
    trail.earlier = Holding("e", 2, repaired={"node-1": repaired})
    alarms = trail.found([back, new])
    begin, after_3, after_6 = trail.relapsed(alarms)
    at_step_6 = step == "6" or way == "once more"
    assert (begin, after_3, after_6) == ([new], [] if at_step_6 else [back], [back] if at_step_6 else [])
    start = repaired.removesuffix(f" {'6' if at_step_6 else '3'}y END")
    start += f" {'6' if at_step_6 else '3'}n (recurred)"
    if way == "stopped":
        trail.stop(Outcome.ERROR, "why")
        assert trail.traces == {"node-1": f"{start} ERROR", "node-2": "1 ERROR"}
        assert trail.ends["node-1"] == End(Outcome.ERROR, "7" if at_step_6 else "5")
        return
    trail.reached("7", [back])
    trail.end([back], Outcome.ESCALATE, step="7")
    assert trail.traces == {"node-1": f"{start} 7 ESCALATE", "node-2": "1"}


def test_where_no_alarm_is_told_apart_the_subject_is_the_episode() -> None:
    """Two runs of an episode whose alarms have neither serial nor time have one subject; without an episode, two."""
    subjects = []
    for run, host, episode in (("7", "a", "e"), ("8", "b", "e"), ("8", "b", "")):
        trail = Trail(CASE.model_copy(update={"run": run}))
        trail.earlier = Holding(episode, 1) if episode else None
        trail.found([alarm(host)])
        subjects.append(trail.subject)
    assert subjects == ["prod-1/12110/episode/e", "prod-1/12110/episode/e", "prod-1/12110/run/8"]
