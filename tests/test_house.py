"""The rules of the house, read from the source itself: who may import whom, and what nobody does."""

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE

from tasks.retrying import may_pass

ROOT = Path(__file__).parent.parent
HOUSE = ("flows", "tasks", "deployments", "tests")
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in HOUSE
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_bytes(), str(path)) for module, path in SOURCES.items()}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
STEPS = ("tasks.alarms", "tasks.instances", "tasks.agencies", "tasks.tickets")
WITHOUT_PREFECT = (
    "tasks.models",
    "tasks.errors",
    "tasks.record",
    "tasks.permissions",
    "tasks.graph",
    "tasks.home",
    "tasks.timing",
    "tasks.sharing",
    "tasks.windows",
    "tasks.brakes",
    "tasks.claims",
    "tasks.clients",
    "tasks.ledger",
    "deployments.intake.syslog",
    "deployments.intake.framing",
    "deployments.intake.sockets",
    "deployments.intake.listener",
    "deployments.intake.smn",
    "deployments.intake.webhook",
    "deployments.intake.credentials",
    "deployments.intake.settings",
    "deployments.intake.acceptance",
    "deployments.emulator",
)
TOP_LEVEL = {"pyproject.toml", *HOUSE, "README.md", "Makefile", "requirements.lock", "LICENSE", "CHANGELOG.md"}
# What each task is. Reads are repeated by Prefect; looks are repeated by the wait around them; a gate that cannot be
# read refuses; waits look for themselves; what acts or writes is never repeated.
KINDS = {
    "find_alarms": "read",
    "look_at_instances": "read",
    "agency_is_bound": "read",
    "look_at_alarms": "look",
    "look_at_cluster": "look",
    "choose_clusters": "look",
    "look_at_clusters": "look",
    "nodes_to_bind": "gate",
    "agency_update_ended": "wait",
    "restart_instance": "act",
    "bind_node": "act",
    "file_ticket": "write",
    "publish_artifacts": "publish",
    "publish_sweep": "publish",
}


def task_of(thing: object) -> Task[..., object] | None:
    """Prefect's task, also of a step that `tasks.journal.once` carries out once; None: it is none."""
    step = inspect.getclosurevars(thing).nonlocals.get("step") if inspect.isfunction(thing) else None
    return next((each for each in (thing, step) if isinstance(each, Task)), None)


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of everything that is imported: modules, and what is taken from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of these packages or in one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ours(name: str) -> str:
    """The module of this project that an imported name is, or is taken from; empty where it is not ours."""
    return next((module for module in (name, name.rpartition(".")[0]) if module in SOURCES), "")


def offences(*packages: str, allowed: tuple[str, ...] = (), forbidden: tuple[str, ...] = ()) -> list[str]:
    """Imports in these packages that are not allowed (where something is), or are forbidden."""
    return [
        f"{module} imports {name}"
        for module, tree in TREES.items()
        if within(module, *packages)
        for name in imports(tree)
        if (allowed and not within(name, *allowed)) or within(name, *forbidden)
    ]


def nodes(*packages: str) -> Iterator[tuple[str, ast.AST]]:
    """Every node of these packages' syntax trees, with its place."""
    for module, tree in TREES.items():
        if within(module, *packages):
            yield from ((f"{module}:{getattr(node, 'lineno', 0)}", node) for node in ast.walk(tree))


def test_there_is_a_house_to_look_at() -> None:
    """The rules below are held against every package and module they name."""
    assert set(HOUSE) <= {module.split(".")[0] for module in SOURCES}
    assert {*STEPS, *WITHOUT_PREFECT} <= set(SOURCES)


def test_flows_import_tasks_and_prefect_only() -> None:
    """Flows decide: they import tasks, prefect, pydantic and the standard library, never a client."""
    allowed = ("tasks", "flows", "prefect", "pydantic", *sys.stdlib_module_names)
    assert offences("flows", allowed=allowed, forbidden=("tasks.clients",)) == []


def test_tasks_do_not_know_who_calls_them() -> None:
    """Tasks import no flow, and steps do not import each other."""
    found = offences("tasks", forbidden=("flows",))
    for step in STEPS:
        found += offences(step, forbidden=tuple(other for other in STEPS if other != step))
    assert found == []


@pytest.mark.parametrize("package", WITHOUT_PREFECT)
def test_no_prefect_below(package: str) -> None:
    """Models, errors, clients, parsers, waits and the emulator work without Prefect, through everything they import."""
    found, todo = {}, [module for module in SOURCES if within(module, package)]
    while todo:
        module = todo.pop()
        found[module] = [name for name in imports(TREES[module]) if within(name, "prefect")]
        todo += {ours(name) for name in imports(TREES[module])} - {"", *found}
    assert {module: names for module, names in found.items() if names} == {}


def test_the_emulator_knows_nothing_of_ours() -> None:
    """The emulator imports nothing of this project but itself, so that no client shares a mistake with it."""
    others = [name for name in offences("deployments.emulator", forbidden=HOUSE) if " deployments.emulator" not in name]
    assert others == []


def test_nobody_imports_deployments() -> None:
    """Only deployments and tests know how the project is run, and only tests know the tests."""
    assert offences("flows", "tasks", forbidden=("deployments",)) == []
    assert offences("flows", "tasks", "deployments", forbidden=("tests",)) == []


def test_imports_are_absolute_and_at_the_top() -> None:
    """Nothing is imported inside a function or relative to a package."""
    inside = [
        f"{place} {inner.lineno}"
        for place, node in nodes(*HOUSE)
        if isinstance(node, FUNCTIONS)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert inside + [name for tree in TREES.values() for name in imports(tree) if name.startswith(".")] == []


def test_modules_are_named_after_what_they_do() -> None:
    """No module or package is a drawer for everything, and no file shadows the package `tasks`."""
    drawers = {"utils", "util", "common", "base", "core", "helpers", "misc"}
    assert [module for module in SOURCES if drawers & set(module.split("."))] == []
    assert not (ROOT / "flows" / "tasks.py").exists()


def test_nobody_catches_everything() -> None:
    """No `except` is bare or for Exception or BaseException, and nothing suppresses them."""
    caught = [(place, node.type) for place, node in nodes(*HOUSE) if isinstance(node, ast.ExceptHandler)]
    suppressed = [
        (place, argument)
        for place, node in nodes(*HOUSE)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress")
        for argument in node.args
    ]
    blanket = r"\b(Base)?Exception\b"
    found = [place for place, kind in caught + suppressed if kind is None or re.search(blanket, ast.unparse(kind))]
    assert found == []


def test_tests_replace_nothing() -> None:
    """No test imports a mock or replaces an attribute of anything."""
    assert offences("tests", forbidden=("unittest", "mock", "pytest_mock", "asynctest")) == []
    replaced = ("monkeypatch.setattr", "monkeypatch.delattr", "monkeypatch.setitem", "mocker.patch")
    calls = [(place, ast.unparse(node.func)) for place, node in nodes("tests") if isinstance(node, ast.Call)]
    assert [place for place, called in calls if called in replaced] == []


def test_every_test_states_its_claim() -> None:
    """Every test function has a docstring of one sentence."""
    found = []
    for place, node in nodes("tests"):
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_"):
            claim = " ".join((ast.get_docstring(node) or "").split())
            if not claim.endswith(".") or re.search(r"[.!?] [A-Z]", claim):
                found.append(f"{place} {node.name}: {claim!r}")
    assert found == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_top_level_is_the_agreed_one() -> None:
    """The repository's top level holds the agreed names and dotfiles, and nothing else."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {name.split("/")[0] for name in listed.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
    assert {"pyproject.toml", *HOUSE} <= names


def test_the_lock_pins_and_hashes_everything() -> None:
    """Every requirement of the lock has a version and hashes, no address is in it, and no direct dependency misses."""
    text = (ROOT / "requirements.lock").read_text()
    entries = [
        " ".join(entry.split()) for entry in re.sub(r"(?m)^\s*#.*\n?", "", text).replace("\\\n", " ").splitlines()
    ]
    entry = re.compile(r"([\w.-]+)==([\w.!+]+)( ;[^#]*?)?( --hash=sha256:[0-9a-f]{64})+")
    assert [line for line in entries if not entry.fullmatch(line)] == []
    assert "://" not in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    direct = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in wanted}
    assert direct - {line.split("==")[0] for line in entries} == set()


def things_of_tasks() -> list[object]:
    """Everything that is defined in the modules of `tasks`, or imported there."""
    migrations = "tasks.ledger.migrations"  # only alembic can import these
    names = [module for module in SOURCES if within(module, "tasks") and not within(module, migrations)]
    return [thing for name in names for thing in vars(importlib.import_module(name)).values()]


def test_reads_are_repeated_and_acts_never() -> None:
    """Every task is of a known kind, reads retry trouble that may pass, all others have no retries, none is cached."""
    tasks = {task.fn.__name__: task for thing in things_of_tasks() if (task := task_of(thing))}
    assert set(tasks) == set(KINDS)
    repeated = {name for name, task in tasks.items() if task.retries}
    assert repeated == {name for name, kind in KINDS.items() if kind in ("read", "publish")}
    reads = [name for name, kind in KINDS.items() if kind == "read"]
    assert [name for name in reads if tasks[name].retry_condition_fn is not may_pass] == []
    cached = [name for name, task in tasks.items() if task.cache_policy is not NO_CACHE or task.cache_key_fn]
    assert cached == []


def test_acts_are_carried_out_once() -> None:
    """A run that is begun anew carries out no act, gate or wait again: each is kept with what came of it."""
    bare = {thing.fn.__name__ for thing in things_of_tasks() if isinstance(thing, Task)}
    assert [name for name, kind in KINDS.items() if kind in ("act", "gate", "wait") and name in bare] == []


def test_flows_are_not_repeated() -> None:
    """No flow has retries: each would do again what the run has done already."""
    modules = [importlib.import_module(module) for module in SOURCES if within(module, "flows")]
    flows = [thing for module in modules for thing in vars(module).values() if isinstance(thing, Flow)]
    assert flows
    assert [flow.name for flow in flows if flow.retries] == []


def test_defaults_of_the_environment_repeat_no_change() -> None:
    """Prefect's default retries, set for a whole fleet, reach neither the flow nor a task that changes something."""
    environment = {**os.environ, "PREFECT_TASKS_DEFAULT_RETRIES": "2", "PREFECT_FLOWS_DEFAULT_RETRIES": "1"}
    program = (
        "from flows.alm_12110 import alm_12110; from tasks.agencies import bind_node; "
        "from tasks.instances import restart_instance; from tasks.tickets import file_ticket; "
        "from tests.test_house import task_of; "
        "tasks = map(task_of, (restart_instance, bind_node, file_ticket)); "
        "print([each.retries for each in (alm_12110, *tasks)])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 0, 0, 0]\n"
