"""What a run has learned it does not ask again: each step is carried out once per attempt, however it ended."""

import asyncio
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_type_hints

import pytest
from prefect import Task
from prefect.exceptions import Pause
from pydantic import BaseModel
from sqlalchemy import select, update

import tasks
from tasks import errors, timing
from tasks.approvals import Agreement
from tasks.claims import noted
from tasks.journal import KEPT, MOST_LETTERS, Once, as_first_seen, once
from tasks.ledger.database import open_ledger
from tasks.ledger.earlier import HandedOver
from tasks.ledger.episodes import Holding, let_go
from tasks.ledger.learning import learn
from tasks.ledger.tables import Episode, Learned
from tasks.models import Alarm, Answer, Case, Component, Deed, Node, Outcome
from tests.ledger.conftest import sqlite_with_schema
from tests.tasks.acting import a_case, holding, ledger_at_home

__all__ = ["ledger_at_home", "sqlite_with_schema"]  # fixtures: a ledger with nothing in it
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("ledger_at_home")]
CASE = a_case("run-17")
AT = datetime(2026, 11, 25, 12, 30, 15, 123456, tzinfo=UTC)


class Counting:
    """Steps that count how often they are carried out, and answer with that."""

    def __init__(self) -> None:
        self.done: list[str] = []

        @once("1")
        async def plain(case: Case) -> int:
            """A step that has no arguments."""
            self.done.append("plain")
            return len(self.done)

        @once("{step} {alarms}")
        async def of_alarms(case: Case, alarms: Sequence[Alarm], *, step: str = "3") -> int:
            self.done.append(f"of_alarms {step} {len(alarms)}")
            return len(self.done)

        @once("6 {alarm.host}")
        async def of_one(case: Case, alarm: Alarm) -> int:
            self.done.append(f"of_one {alarm.host}")
            return len(self.done)

        self.plain, self.of_alarms, self.of_one = plain, of_alarms, of_one


async def learned() -> list[tuple[str, str, str]]:
    """Attempt, key and value of everything that was learned."""
    async with open_ledger() as ledger, ledger.reading() as session:
        rows = await session.scalars(select(Learned).order_by(Learned.key))
        return [(each.attempt, each.key, each.value) for each in rows]


def alarms(*hosts: str) -> list[Alarm]:
    """One of each host."""
    return [Alarm(alarm_id="12110", location=f"HostName={host}", serial=str(n)) for n, host in enumerate(hosts)]


async def test_a_step_is_carried_out_once() -> None:
    """Begun anew after a wait a run gets what its step returned then, with its key and time in the ledger."""
    steps = Counting()
    async with holding("17") as mine:
        found = [await steps.plain(CASE), await steps.plain(CASE)]
        await noted(CASE, let_go)
    async with holding("17"):
        found.append(await steps.plain(CASE))
    assert (found, steps.done) == ([1, 1, 1], ["plain"])
    assert await learned() == [(mine.attempt, "plain 1", '{"value": 1}')]


async def test_another_attempt_does_it_again() -> None:
    """Another run of the episode, and the same one once another had it, carry the step out for themselves."""
    steps = Counting()
    found = []
    for run in ("17", "18", "17"):
        async with holding(run):
            found.append(await steps.plain(a_case(f"run-{run}")))
        async with open_ledger() as ledger, ledger.writing() as session:  # its lease ends
            await session.execute(update(Episode).values(lease=timing.wall()))
    assert (found, len(await learned())) == ([1, 2, 3], 3)


async def test_who_holds_nothing_learns_nothing() -> None:
    """A dry run, and one that does not hold its episode, carry a step out each time and write nothing down."""
    steps = Counting()
    dry = a_case("run-16", dry_run=True)
    async with holding("16", dry_run=True), holding("17"):
        found = [await steps.plain(case) for case in (dry, dry, a_case("run-18"), a_case("run-18"))]
    assert (found, await learned()) == ([1, 2, 3, 4], [])


async def test_the_key_tells_calls_apart() -> None:
    """Each step, page step and host is a call of its own; the order of hosts, their serials and defaults make none."""
    steps = Counting()
    both, turned = alarms("node-1", "node-2"), alarms("node-2", "node-1")
    async with holding("17"):
        for each in (both, turned, tuple(both)):
            await steps.of_alarms(CASE, each)
        await steps.of_alarms(CASE, alarms=both, step="3")
        await steps.of_alarms(CASE, both, step="6")
        await steps.of_alarms(CASE, both[:1])
        await steps.of_alarms(CASE, [])
        await steps.of_one(CASE, both[0])
        await steps.of_one(CASE, turned[1])
        await steps.of_one(CASE, both[1])
    assert [key for _, key, _ in await learned()] == [
        "of_alarms 3 []",
        "of_alarms 3 node-1",
        "of_alarms 3 node-1,node-2",
        "of_alarms 6 node-1,node-2",
        "of_one 6 node-1",
        "of_one 6 node-2",
    ]
    assert len(steps.done) == 6


async def test_the_key_of_many_alarms_is_short() -> None:
    """The key of two hundred hosts is no longer than that of few, the same in any order, and another for one less."""
    steps = Counting()
    many = alarms(*(f"node-{number:03}.cluster.example.com" for number in range(200)))
    async with holding("17"):
        found = [await steps.of_alarms(CASE, each) for each in (many, many[::-1], many[1:], many[:1])]
    assert found == [1, 1, 2, 3]
    assert {len(key) for _, key, _ in await learned()} == {len("of_alarms 3 ") + length for length in (64, 28)}
    assert MOST_LETTERS == 120


def subclasses(of: type[Exception]) -> Iterator[type[Exception]]:
    """The class and all below it."""
    yield of
    for each in of.__subclasses__():
        yield from subclasses(each)


OURS = sorted(
    {each for each in subclasses(errors.RunbookError) if each.__module__.startswith("tasks.")},
    key=lambda each: each.__name__,
)
STEPS_OWN = [each for each in OURS if issubclass(each, KEPT)]


def an_error(of: type[Exception]) -> Exception:
    """An error of this class, with all that it takes."""
    words = ("Manager GET alarms", "the sky fell: 'ö'") if issubclass(of, errors.RemoteError) else ("no answer",)
    return of(*words)


class Failing:
    """A step that ends with an error, and counts how often it is carried out."""

    def __init__(self, error: BaseException) -> None:
        self.times = 0

        @once("")
        async def step(case: Case) -> None:
            self.times += 1
            raise error

        self.step = step

    async def ended(self) -> tuple[type[BaseException], str]:
        """What it ends with."""
        with pytest.raises(BaseException) as raised:  # noqa: PT011  that is the question
            await self.step(CASE)
        return type(raised.value), str(raised.value)


@pytest.mark.parametrize("of", STEPS_OWN, ids=[each.__name__ for each in STEPS_OWN])
async def test_an_error_of_the_step_is_learned(of: type[Exception]) -> None:
    """A step that failed fails with the same class and words for the run begun anew, and is not carried out again."""
    failing = Failing(error := an_error(of))
    async with holding("17"):
        found = [await failing.ended(), await failing.ended()]
        await noted(CASE, let_go)
    async with holding("17"):
        found.append(await failing.ended())
    assert (found, failing.times) == ([(of, str(error))] * 3, 1)


PASSING = [*(an_error(each) for each in OURS if each not in STEPS_OWN), ZeroDivisionError("a mistake"), Pause()]


@pytest.mark.parametrize("error", PASSING, ids=[type(each).__name__ for each in PASSING])
async def test_other_errors_say_nothing_of_the_step(error: BaseException) -> None:
    """A wrong block, an absent ledger, a pause or a mistake of ours is not learned: the step is carried out again."""
    failing = Failing(error)
    async with holding("17"):
        found = [await failing.ended(), await failing.ended()]
    assert (found, failing.times, await learned()) == ([(type(error), str(error))] * 2, 2, [])


async def test_which_errors_are_learned() -> None:
    """What is learned is that nobody can tell, that the step failed, or what Manager or the cloud said, no more."""
    others = {each.__name__ for each in OURS if each not in STEPS_OWN}
    assert others == {
        "RunbookError",
        "ConfigurationError",
        "UnknownCluster",
        "LedgerUnavailable",
        "Refused",
        "DryRun",
    }


async def test_the_first_process_counts() -> None:
    """Of two processes that carry a step out at once both get what the first one wrote down."""
    done: list[int] = []
    both = asyncio.Barrier(2)

    @once("")
    async def step(case: Case) -> int:
        await both.wait()
        done.append(len(done) + 1)
        return done[-1]

    async with holding("17"):
        found = await asyncio.gather(step(CASE), step(CASE))
    assert (done, len(set(found)), [value for _, _, value in await learned()]) == (
        [1, 2],
        1,
        [f'{{"value": {found[0]}}}'],
    )


async def test_what_another_process_learned_meanwhile_counts() -> None:
    """A process that is slower than another of its run gets what that one learned, an error as well."""

    @once("")
    async def step(case: Case) -> int:
        told = '{"error": "CannotTell", "args": ["no answer"]}'
        await noted(case, lambda session, mine: learn(session, mine.attempt, "step ", told, timing.wall()))
        return 1

    async with holding("17"):
        with pytest.raises(errors.CannotTell, match=r"^no answer$"):
            await step(CASE)


async def test_a_process_that_was_taken_over_teaches_nothing() -> None:
    """What a segment comes to after another one of its run has gone on counts for itself alone."""
    done: list[int] = []

    @once("")
    async def step(case: Case) -> int:
        done.append(len(done) + 1)
        if done == [1]:
            await noted(CASE, let_go)
            async with holding("17"):  # it goes on elsewhere, and waits by now
                await noted(CASE, let_go)
        return done[-1]

    async with holding("17"):
        first = await step(CASE)
    async with holding("17"):
        second = await step(CASE)
    assert (first, second, [value for _, _, value in await learned()]) == (1, 2, ['{"value": 2}'])


async def test_what_a_run_first_saw_stays() -> None:
    """What the run found in the ledger when it took its episode, and when, is the same whenever it is begun anew."""
    async with holding("17") as mine:
        first = await as_first_seen(CASE, mine)
        await noted(CASE, let_go)
    async with holding("17") as again:
        assert again.token == 2
        seen, began = await as_first_seen(CASE, again)
    assert (seen, seen.attempt, began) == (first[0], mine.attempt, first[1])
    assert (seen, began <= timing.now()) == (mine, True)


def test_a_step_keeps_its_own_face() -> None:
    """A step that is carried out once has the name, words and plain function of the step itself."""
    plain = Counting().plain
    assert (plain.fn.__name__, plain.fn.__doc__) == ("plain", "A step that has no arguments.")
    assert (getattr(plain, "__name__", ""), plain.__doc__) == ("plain", "A step that has no arguments.")


NODE = Node(
    host="node-1",
    status="Normal",
    server_id="s-1",
    ip="10.0.0.1",
    components=(Component(service="Meta", role="Meta", status="Faulty", config="Expired"),),
)
ALARM = Alarm(
    alarm_id="12110",
    serial="17",
    status="Auto",
    occurred=AT,
    cleared=AT.astimezone(timezone(timedelta(hours=8))),
    source="prod",
    location='ServiceName=Meta;HostName="größer" \0 \N{PILE OF POO}',
)
DEEDS = [
    Deed(host="node-1", did="restarted", at=AT, changed=True),
    Deed(host="", did="not bound: a gate", at=AT, ended=Outcome.REFUSED, incident="20261125-abc"),
]
ANSWERS = [
    Answer(host="node-1", value="y", seen="cleared", at=AT),
    Answer(host="", value="n", seen="", at=AT),
    *(Answer(host="node-2", value=each, seen="'\"\n", at=AT) for each in Outcome),
]
HOLDING = Holding(
    "e-1",
    7,
    ["node-1"],
    {"node-1": "1 2n 3y END"},
    [HandedOver(host="node-2", serial="", occurred=None, ended="ESCALATE", cleared_seen=AT)],
    "run-17@now",
)
# What each step of ours may return.
RETURNED: dict[str, list[Any]] = {
    "find_alarms": [(), (ALARM, Alarm(alarm_id="12110", reported=True))],
    "alarms_clear": [[], ANSWERS],
    "cleared_meanwhile": [[], ANSWERS],
    "instances_are_normal": [[], ANSWERS],
    "look_before_restart": [*DEEDS, Deed(host="node-1", did="looked", at=AT, looked=True)],
    "restart_instance": DEEDS,
    "restarted_by_hand": [[], DEEDS],
    "bound_by_hand": [[], DEEDS],
    "look_at_cluster": [[], ANSWERS],
    "agreement": [Agreement(go=True), Agreement(done_by="Ada", deeds=tuple(DEEDS))],
    "agency_is_bound": ANSWERS,
    "nothing_to_bind": [None, *DEEDS],
    "nodes_to_bind": [(), (NODE, Node(host="node-2")), *DEEDS],
    "bind_node": DEEDS,
    "agency_update_ended": DEEDS,
    "as_first_seen": [(HOLDING, AT), (Holding("e-1", 1, [], {}, []), AT)],
}


def steps_of_ours() -> dict[str, Once[..., Any]]:
    """Every step in `tasks` that is carried out once, by its name."""
    names = [each.name for each in pkgutil.iter_modules(tasks.__path__, "tasks.")]
    things = [thing for name in names for thing in vars(importlib.import_module(name)).values()]
    return {thing.fn.__name__: thing for thing in things if hasattr(thing, "fn") and not isinstance(thing, Task)}


def test_every_step_is_tried() -> None:
    """The table of what steps return has all steps that are carried out once, and their names are all different."""
    assert set(RETURNED) == set(steps_of_ours())


def kinds(value: object) -> object:
    """The types of a value and of everything in it."""
    if isinstance(value, BaseModel):
        return type(value), {name: kinds(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, list | tuple):
        return type(value), [kinds(each) for each in value]
    return type(value)


@pytest.mark.parametrize("name", sorted(RETURNED))
async def test_what_steps_return_survives(name: str) -> None:
    """Everything that a step of ours may return comes back from the ledger as it was, in its own types."""
    values = RETURNED[name]

    async def step(case: Case, number: int) -> Any:
        return values[number]

    step.__annotations__["return"] = get_type_hints(steps_of_ours()[name].fn)["return"]
    kept = once("{number}")(step)
    async with holding("17"):
        for _ in range(2):
            for number, value in enumerate(values):
                found = await kept(CASE, number)
                assert (found, kinds(found)) == (value, kinds(value))
    assert len(await learned()) == len(values)
