"""`runbooks demo --fleet` as a person runs it: a sweep, the alarms and their repair, another sweep."""

from pathlib import Path

import pytest

from tests.deployments.conftest import Runbooks, processes_of

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("demo")]

ENDINGS = ("mrs-001 END. ", "mrs-002 END. ", "mrs-003 ESCALATE. ")


async def test_the_fleet_is_swept_repaired_and_swept_again(runbooks: Runbooks, tmp_path: Path) -> None:
    """Of ten clusters the sweep names the eight that are broken; what can be repaired is; the next sweep says so."""
    page = tmp_path / "fleet.html"
    ended = await runbooks("demo", "--fleet", "10", "--report", str(page))
    assert ended.code == 0, ended.out + ended.err
    told = ended.out.splitlines()
    first, second = [line for line in told if " findings on " in line]
    assert " findings on 6 of 10 clusters; " in first
    assert " of 10 clusters (" in second
    assert " 3 fixed, " in second
    assert [sum(ending in line for line in told) for ending in ENDINGS] == [1, 1, 1]
    shown = page.read_text()
    assert ("Sweep of 10 clusters" in shown, "mrs-004" in shown) == (True, True)
    page.unlink()
    assert processes_of(tmp_path) == []


async def test_a_fleet_breaks_its_clusters_itself(runbooks: Runbooks) -> None:
    """Scenarios and faults do not go with a fleet, and that is said before anything is started."""
    ended = await runbooks("demo", "--fleet", "10", "--fault", "crashed")
    assert (ended.code, ended.err.strip()) == (
        2,
        "error: --fleet breaks its clusters itself: add --speed, --report or --keep only",
    )
