"""`runbooks doctor --all`: one line for each cluster, what is to be settled by its cause, and the exit code."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from tests.conftest import serving, serving_prefect
from tests.deployments.conftest import Runbooks
from tests.deployments.test_doctor import rows

pytestmark = [pytest.mark.server, pytest.mark.anyio]
NOWHERE = "http://127.0.0.1:9/web/api/v2"
BOTH = {"mode": "auto", "on_unbound": "rebind"}


@asynccontextmanager
async def a_fleet(home: Path) -> AsyncIterator[str]:
    """Five clusters, of a Prefect server of their own: three whose Manager is out of reach, one with a wrong key."""
    region = Region(clusters=5, meta_hosts=1, start=datetime.now(UTC))
    async with serving(region) as url:
        with serving_prefect(home) as api:
            right, wrong = cloud_block(region, url), cloud_block(region, url, access_key="another")
            one, two, three, four, five = region.clusters.values()
            for name, cluster, manager, cloud, labels in (
                ("good", one, manager_block(one, url), right, {"stage": "production"}),
                ("closed-a", two, manager_block(two, url, url=NOWHERE), right, {}),
                ("closed-b", three, manager_block(three, url, url=NOWHERE), right, {}),
                ("dark", four, manager_block(four, url, url=NOWHERE), wrong, {}),
                ("broken", five, manager_block(five, url), right, {}),
            ):
                await cluster_block(cluster, manager, cloud, labels=labels, **BOTH).save(name)
            async with get_client() as client:
                document = await client.read_block_document_by_name("broken", "mrs-cluster")
                changed = BlockDocumentUpdate(data={"mode": "yolo"}, merge_existing_data=True)
                await client.update_block_document(document.id, changed)
            yield api
            assert region.log == []


async def test_a_fleet_is_examined(runbooks: Runbooks, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each has its line, a broken block too; causes are grouped, what keeps runs from their work comes first."""
    async with a_fleet(tmp_path_factory.mktemp("prefect-of-a-fleet")) as api:
        ended = await runbooks("doctor", "--all", PREFECT_API_URL=api)
        selected = await runbooks("doctor", "--all", "--select", "stage=production", PREFECT_API_URL=api)
        listed = await runbooks("doctor", "--all", "--json", PREFECT_API_URL=api)
        none = await runbooks("doctor", "--all", "--select", "name=nobody", PREFECT_API_URL=api)
    found = rows(ended)
    assert (ended.code, ended.err) == (1, "")
    assert list(found) == ["broken", "closed-a", "closed-b", "dark", "good"]
    assert found["good"] == ["yes", "automatic", "automatic", "automatic", "12 of 12", "no intake polls"]
    handed = ["handed off"] * 3
    assert found["closed-a"] == found["closed-b"] == ["yes", *handed, "6 of 12", "port closed: Manager"]
    assert found["dark"] == ["no", *handed, "0 of 11", "port closed: Manager"]
    assert found["broken"][:5] == ["no", "", "", "", ""]
    assert found["broken"][5].startswith("mode: ")
    causes = [line.strip() for line in ended.out.splitlines() if line.rstrip().endswith(("closed-b, dark", ": dark"))]
    assert causes == [
        "port closed (Manager): 3 clusters: closed-a, closed-b, dark",
        "login rejected (MRS, IAM, CTS): 1 cluster: dark",
    ]
    last = "The runbook can run on 3 of 5 clusters; `runbooks doctor CLUSTER` shows one in full."
    assert ended.out.splitlines()[-1] == last
    assert (selected.code, list(rows(selected))) == (0, ["good"])
    assert selected.out.splitlines()[-1] == "Not selected, for their blocks cannot be used: broken"
    as_data = json.loads(listed.out)
    assert listed.code == 1
    assert [(each["cluster"], each["can_run"]) for each in as_data] == [
        ("broken", False),
        ("closed-a", True),
        ("closed-b", True),
        ("dark", False),
        ("good", True),
    ]
    assert as_data[0]["trouble"].startswith("mode: ")
    assert (none.code, none.out) == (2, "")
    assert none.err == "error: no cluster is selected by name=nobody: nothing is examined\n"
