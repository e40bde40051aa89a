"""The flow against the procedure: every trace of the page, on both profiles, with exactly the changes it names."""

import json
from importlib.resources import files
from typing import Any

import pytest

from deployments.scenarios import SCENARIOS, Profile
from tests.flows.conftest import Result, Worlds

PROCEDURE = json.loads(files("flows").joinpath("procedures/ALM-12110.json").read_text())
WORDS = {
    *("CLEARED", "CLEARED-BY-PERSON", "CANNOT-TELL", "REFUSED", "DECLINED", "DRY-RUN", "JOINED", "CANCELLED", "ERROR")
}


def paths(step: str = "1") -> list[str]:
    """All ways through the procedure's edges from a step on, written as traces."""
    found = []
    for start, answer, target in PROCEDURE["edges"]:
        if start == step:
            here = step + {"yes": "y", "no": "n"}.get(answer, "")
            ends = [target] if target in ("END", "ESCALATE") else paths(target)
            found += [f"{here} {rest}" for rest in ends]
    return found


def is_legal(trace: str) -> bool:
    """Whether a trace is one of the page's, or a prefix of one and a word why it stops there, relapsed or not."""
    trace = trace.replace(" (recurred)", "")
    *steps, word = trace.split()
    prefixes = [whole.split()[: len(steps)] for whole in PROCEDURE["traces"]]
    return trace in PROCEDURE["traces"] or (word in WORDS and steps in prefixes)


def test_the_procedure_s_traces_are_the_paths_through_its_edges() -> None:
    """The seven traces of the procedure are all ways through its edges, and no others."""
    assert sorted(paths()) == sorted(PROCEDURE["traces"])


def test_the_scenarios_are_the_procedure() -> None:
    """On `assumed` the seven scenarios end in the seven traces, one each."""
    assert sorted(scenario.assumed for scenario in SCENARIOS.values()) == sorted(PROCEDURE["traces"])


@pytest.mark.server
@pytest.mark.anyio
@pytest.mark.parametrize("profile", ["assumed", "documented"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_each_scenario_leaves_its_trace_and_exactly_its_changes(
    world: Worlds, name: str, profile: Profile
) -> None:
    """A scenario ends as listed, changes what its trace says and nothing else, and has a ticket when it did not end."""
    async with world(profile=profile) as cluster:
        cluster.breaks(*SCENARIOS[name].faults)
        cluster.raises_the_alarm()
        result: Result = await cluster.run()
        trace = SCENARIOS[name].trace(profile)
        changes: list[Any] = []
        if profile == "assumed":
            changes += cluster.restarts() if "2n" in trace else []
            changes += cluster.binds() if "5n" in trace else []
        assert result == Result(trace.split()[-1], {cluster.host: trace}, changes, [], "")
        assert is_legal(trace)
        assert [ticket.correlation.split("/")[0] for ticket in result.tickets] == (
            [] if trace.endswith("END") else [cluster.block]
        )
