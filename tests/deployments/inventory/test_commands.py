"""`runbooks clusters list`, `show`, `add` and `check`, as a person runs them."""

import json

import pytest

from deployments.inventory.inventory import read_inventory
from deployments.inventory_commands import check_names
from tasks.loading import cluster_block
from tests.deployments.inventory.conftest import Stand

pytestmark = [pytest.mark.server, pytest.mark.anyio]


async def test_blocks_and_clouds_are_listed_together(stand: Stand) -> None:
    """Managed, gone and unmanaged clusters with what is known of them; a project with two keys is listed once."""
    stand.write({"a": stand.entry(0, labels={"stage": "lab"}, mode="observe"), "b": stand.entry(1)})
    assert (await stand.sync())[0] == 0
    gone = stand.clusters[1]
    del stand.region.clusters[gone.id]
    ended = await stand("list", "--json")
    first, third = stand.clusters
    here = {"cloud": "cloud-read", "state": "running", "version": "MRS 3.2.0-LTS.1", "nodes": 1, "labels": {}}
    nothing = {"state": "", "version": "", "nodes": None}
    assert (ended.code, json.loads(ended.out)) == (
        0,
        [
            {
                **here,
                "name": "a",
                "id": first.id,
                "mode": "observe",
                "standing": "managed",
                "labels": {"stage": "lab"},
            },
            {**here, **nothing, "name": "b", "id": gone.id, "mode": "approve", "standing": "gone"},
            {**here, "name": "mrs-003", "id": third.id, "mode": "", "standing": "unmanaged"},
        ],
    )
    shown = await stand("list", "--select", "stage=lab", "--select", "mode=observe")
    assert [line.split("│")[1].strip() for line in shown.out.splitlines() if first.id[:8] in line] == ["a"]
    assert third.id[:8] not in shown.out
    assert "stage=lab" in shown.out
    wrong = await stand("list", "--cloud", "cloud-raed")
    assert (wrong.code, wrong.err) == (
        2,
        "error: there is no block 'MRS Cloud/cloud-raed', there is cloud-change, cloud-read\n",
    )


async def test_a_cloud_that_is_not_there_does_not_hide_the_rest(stand: Stand) -> None:
    """Its clusters are unknown, one line says why, and the exit code says that something is missing."""
    stand.write({"a": stand.entry(0)})
    assert (await stand.sync())[0] == 0
    stand.region.trouble.add("GET", "*/cluster_infos", "status", times=None, status=403)
    ended = await stand("list", "--json")
    assert (ended.code, [(each["name"], each["standing"]) for each in json.loads(ended.out)]) == (1, [("a", "unknown")])
    assert ended.err.startswith("cloud cloud-read could not be asked: MRS GET v1.1/")


async def test_a_cluster_is_shown_without_secrets(stand: Stand) -> None:
    """Every field, the blocks it names by address and user, and what its cloud says now."""
    stand.write({"a": stand.entry(0, labels={"stage": "lab"})})
    assert (await stand.sync())[0] == 0
    ended = await stand("show", "a")
    said = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in ended.out.splitlines()}
    manager = f"{stand.url}/managers/{stand.clusters[0].id}/web/api/v2 (cluster 1, user"
    assert {name: said[name] for name in ("manager", "changing_manager", "labels", "mode", "in its cloud")} == {
        "manager": f"{manager} read)",
        "changing_manager": f"{manager} change)",
        "labels": '{"stage": "lab"}',
        "mode": "approve",
        "in its cloud": "running, MRS 3.2.0-LTS.1, 1 nodes, named mrs-001",
    }
    missing = await stand("show", "b")
    assert (missing.code, missing.err.partition(":")[2].strip()[:24]) == (2, "there is no cluster 'b':")


async def test_a_cluster_is_added_and_connected(stand: Stand) -> None:
    """Into a new file, then into the same one; what was added is right, and a sync makes its blocks."""
    manager = f"{stand.url}/managers"
    file = str(stand.path)
    options = ("--login", "manager-read", "--file", file)
    first = await stand("add", "cloud-read", "mrs-001", "--manager", f"{manager}/1", *options, "--label", "stage=lab")
    made = f"`runbooks clusters sync {file}` makes its blocks\n"
    assert (first.code, first.out) == (0, f"{file}: mrs-001 added; {made}")
    third = stand.clusters[2].id
    second = await stand("add", "cloud-read", third, "--manager", f"{manager}/3", *options, "--name", "c")
    assert (second.code, second.out) == (0, f"{file}: c added; {made}")
    assert (
        stand.path.read_text()
        == f"""# yaml-language-server: $schema=clusters.schema.json
clouds:
  cloud-read:
    read: cloud-read
logins:
  manager-read:
    read: manager-read
clusters:
  mrs-001:
    cloud: cloud-read
    login: manager-read
    cluster_id: {stand.clusters[0].id}
    manager:
      url: {manager}/1
    labels:
      stage: lab
  c:
    cloud: cloud-read
    login: manager-read
    cluster_id: {third}
    source: mrs-003
    manager:
      url: {manager}/3
"""
    )
    await check_names(read_inventory(stand.path))
    assert (await stand.sync())[1][-1] == "4 block(s) written"
    assert (await cluster_block("c", stand.client)).source == "mrs-003"
    before = stand.path.read_text()
    for name, error in (
        ("mrs-001", f"{file}:24: clusters.mrs-001: is there already, in line 9"),
        ("mrs-009", "cloud cloud-read has no cluster 'mrs-009', did you mean mrs-003?"),
    ):
        again = await stand("add", "cloud-read", name, "--manager", "https://x", *options)
        assert (again.code, error in again.err, stand.path.read_text()) == (2, True, before)


async def test_a_check_asks_prefect_and_the_clouds(stand: Stand) -> None:
    """What a sync would stumble over is told, and nothing is written."""
    stand.write({"a": stand.entry(0, cluster_id="x"), "mrs-009": {"manager": {"url": "https://b"}}})
    ended = await stand("check", str(stand.path))
    assert (ended.code, ended.out.splitlines()) == (
        1,
        [
            f"{stand.path}:5: clusters.a.cluster_id: cloud here has no cluster of this id",
            f"{stand.path}:6: clusters.mrs-009.name_in_cloud: cloud here has no cluster called mrs-009, "
            "did you mean mrs-003?",
        ],
    )
    assert (await stand.blocks())["cluster"] == []
