"""`runbooks clusters check --offline` and `schema`: what needs nothing but the file."""

import json
from pathlib import Path

import pytest

from deployments.inventory.entries import schema
from tests.deployments.conftest import Runbooks
from tests.deployments.inventory.test_inventory import EXAMPLE, ONE

pytestmark = [pytest.mark.anyio, pytest.mark.command, pytest.mark.xdist_group("command")]


async def test_a_file_is_checked_by_itself(runbooks: Runbooks, tmp_path: Path) -> None:
    """Every problem in a line of its own on standard output, and exit code 1; 0 where there is none."""
    path = tmp_path / "clusters.yaml"
    path.write_text(f"{ONE}    mod: auto\n    moed: auto\n")
    wrong = await runbooks("clusters", "check", str(path), "--offline")
    lines = [f"{path}:9: clusters.a.mod: unknown key, did you mean mode?"]
    lines += [f"{path}:10: clusters.a.moed: unknown key, did you mean mode?"]
    assert (wrong.code, wrong.out.splitlines(), wrong.err) == (1, lines, "")
    right = await runbooks("clusters", "check", str(EXAMPLE), "--offline")
    assert (right.code, right.out) == (0, f"{EXAMPLE}: 3 cluster(s), nothing is wrong\n")


async def test_the_schema_is_printed(runbooks: Runbooks) -> None:
    """As JSON, for a file beside the clusters."""
    ended = await runbooks("clusters", "schema")
    assert (ended.code, json.loads(ended.out)) == (0, schema())


async def test_a_file_that_is_not_there_is_named(runbooks: Runbooks) -> None:
    """One sentence."""
    ended = await runbooks("clusters", "check", "nowhere.yaml", "--offline")
    assert (ended.code, ended.err) == (2, "error: nowhere.yaml: No such file or directory\n")
