"""`runbooks demo` as a person runs it: a real Prefect server, worker and syslog line, and what is left afterwards."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from deployments.scenarios import SCENARIOS, Profile
from tests.deployments.conftest import COMMAND, Ended, Runbooks, environment, processes_of

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("demo")]

RESTART = {"action": "restart-instance", "target": "node-master1"}
BINDS = [{"action": "set-metadata", "target": host} for host in ("node-master1", "node-core1", "node-core2")]


def expected(scenario: str, profile: Profile) -> dict[str, Any]:
    """What a scenario's line must hold, but for the ids."""
    trace = SCENARIOS[scenario].trace(profile)
    changes = [] if profile == "documented" else [RESTART] * ("2n" in trace) + BINDS * ("5n" in trace)
    return {
        "scenario": scenario,
        "profile": profile,
        "outcome": trace.split()[-1],
        "traces": {"node-master1": trace},
        "mutations": changes,
        "ticket": not trace.endswith("END"),
        "flow_run_id": True,
    }


def results(ended: Ended) -> list[dict[str, Any]]:
    """The lines of standard output, each one JSON object; of the ids only whether there is one."""
    lines = [json.loads(line) for line in ended.out.splitlines()]
    return [{**line, "ticket": line["ticket"] is not None, "flow_run_id": bool(line["flow_run_id"])} for line in lines]


def left_behind(folder: Path) -> list[str]:
    """Temporary folders that are still there, and processes that still run."""
    return [path.name for path in folder.iterdir() if path.name != "prefect"] + processes_of(folder)


@pytest.mark.parametrize("profile", ["assumed", "documented"])
async def test_all_scenarios_end_as_they_must(runbooks: Runbooks, tmp_path: Path, profile: Profile) -> None:
    """The seven scenarios, played at the same time, end as listed: one JSON line each, exit code 0, nothing left."""
    ended = await runbooks("demo", "--scenario", "all", "--profile", profile, "--json")
    assert results(ended) == [expected(scenario, profile) for scenario in SCENARIOS]
    assert ended.code == 0
    assert "NOT as expected" not in ended.err
    assert left_behind(tmp_path) == []


async def test_one_scenario_with_a_fault_and_trouble_more(runbooks: Runbooks, tmp_path: Path) -> None:
    """A restart that takes twenty minutes and a Manager that answers 503 twice delay the repair and do not stop it."""
    more = ("--fault", "slow-restart@node-master1", "--trouble", "503 GET */alarms 2", "--speed", "120")
    ended = await runbooks("demo", "--scenario", "crashed", *more, "--json")
    (result,) = results(ended)
    assert (ended.code, result) == (0, expected("crashed", "assumed"))
    told = [line[10:] for line in ended.err.splitlines()]
    assert "mrs-001 is broken: crashed" in told
    on_disk = "syslog, now on disk: ALM-12110 on node-master1 of mrs-001 opened episode "
    assert [line.startswith(on_disk) for line in told].count(True) == 1
    assert "  2n  is the Meta role instance of that host normal? no" in {
        line[7:].rstrip() for line in ended.err.splitlines()
    }
    assert left_behind(tmp_path) == []


async def test_ctrl_c_ends_all_that_was_started(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a run: exit code 130, nothing is left, and the caller's Prefect was never touched."""
    database = tmp_path / "real.db"
    callers = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_SERVER_API_AUTH_STRING": "me:hush",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    }
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "demo",
        "--json",
        env=environment(tmp_path, **callers),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    while b" step 1, " not in (line := await process.stderr.readline()):
        assert line, "the demo ended by itself"
    assert len(processes_of(tmp_path)) >= 3  # the demo, its server, its worker
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # an impatient second one disturbs nothing
    out, err = await process.communicate()
    assert (process.returncode, out, err.splitlines()[-1]) == (130, b"", b"stopped; what was started is ended again")
    assert b"Traceback" not in err
    assert not database.exists()
    assert left_behind(tmp_path) == []
