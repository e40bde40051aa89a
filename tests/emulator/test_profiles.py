"""The two profiles, the route table, the 501, and what the emulator may import."""

import ast
from pathlib import Path

import httpx
import pytest

import deployments.emulator
from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Profile, Region

pytestmark = pytest.mark.anyio
ROOT = "/managers/{cluster_id}/web/api/v2"
ASSUMED = {
    ("GET", f"{ROOT}/alarms"),
    ("GET", f"{ROOT}/alarms/masking"),
    ("GET", f"{ROOT}/clusters/{{manager_id}}/hosts"),
    ("GET", f"{ROOT}/clusters/{{manager_id}}/services/{{service}}/instances"),
    ("POST", f"{ROOT}/clusters/{{manager_id}}/services/{{service}}/instances/restart"),
    ("GET", f"{ROOT}/commands"),
    ("GET", f"{ROOT}/commands/{{command_id}}"),
}
CONFIRMED = {
    ("GET", f"{ROOT}/session/status"),
    ("GET", "/managers/{cluster_id}/cas/login"),
    ("GET", f"{ROOT}/clusters"),
    ("GET", f"{ROOT}/clusters/{{manager_id}}/services/{{service}}/summary"),
    ("GET", "/v1.1/{project_id}/cluster_infos"),
    ("GET", "/v1.1/{project_id}/cluster_infos/{cluster_id}"),
    ("GET", "/v1.1/{project_id}/clusters/{cluster_id}/hosts"),
    ("GET", "/v2/{project_id}/clusters/{cluster_id}/nodes"),
    ("GET", "/v2/{project_id}/clusters/{cluster_id}/agency-mapping"),
    ("GET", "/v1/{project_id}/clusters/{cluster_id}/async_task_status/update_ecs_agency"),
    ("GET", "/v1/{project_id}/cloudservers/{server_id}"),
    ("GET", "/v1/{project_id}/cloudservers/{server_id}/metadata-options"),
    ("POST", "/v1/{project_id}/cloudservers/{server_id}/metadata"),
    ("DELETE", "/v1/{project_id}/cloudservers/{server_id}/metadata/{key}"),
    ("GET", "/v3.0/OS-AGENCY/agencies"),
    ("GET", "/v3.0/OS-AGENCY/agencies/{agency_id}"),
    ("GET", "/v3.0/OS-AGENCY/domains/{domain_id}/agencies/{agency_id}/roles"),
    ("GET", "/v3.0/OS-AGENCY/projects/{project_id}/agencies/{agency_id}/roles"),
    ("GET", "/v3.0/OS-INHERIT/domains/{domain_id}/agencies/{agency_id}/roles/inherited_to_projects"),
    ("POST", "/v3.0/OS-CREDENTIAL/securitytokens"),
    ("GET", "/v3/{project_id}/traces"),
    ("GET", "/smn/{certificate_id}"),
    ("GET", "/rest/v2/notifications/subscription/confirm"),
}


def client_of(region: Region, cluster: Cluster) -> httpx.AsyncClient:
    """A client with Basic for Manager and a token for the cloud."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app_of(region)),
        base_url="http://cloud",
        auth=(cluster.manager_user, cluster.manager_password),
        headers={"X-Auth-Token": region.token},
    )


@pytest.mark.parametrize("profile", ["documented", "assumed"])
async def test_the_route_table_says_what_is_confirmed(profile: Profile) -> None:
    """Every route is rated; `documented` serves the CONFIRMED ones only, `assumed` all."""
    region = Region(profile=profile)
    async with client_of(region, region.cluster("mrs-001")) as client:
        table = (await client.get("/emulator/routes")).json()
    rated = {
        rating: {(route["method"], route["path"]) for route in table if route["rating"] == rating}
        for rating in ("CONFIRMED", "ASSUMED")
    }
    served = {(route["method"], route["path"]) for route in table if route["served"]}
    assert rated == {"CONFIRMED": CONFIRMED, "ASSUMED": ASSUMED}
    assert served == (CONFIRMED | ASSUMED if profile == "assumed" else CONFIRMED)


@pytest.mark.parametrize(("profile", "refused"), [("documented", ASSUMED), ("assumed", set())])
async def test_a_profile_serves_its_routes_and_no_others(profile: Profile, refused: set[tuple[str, str]]) -> None:
    """Called for real, every route of the profile answers something else than 501, and only they do."""
    region = Region(profile=profile)
    cluster = region.cluster("mrs-001")
    values = {
        "cluster_id": cluster.id,
        "manager_id": "1",
        "service": "meta",
        "project_id": region.project_id,
        "server_id": cluster.master.server_id,
        "certificate_id": region.smn.certificate_id,
    }
    unserved = set()
    async with client_of(region, cluster) as client:
        for method, path in CONFIRMED | ASSUMED:
            url = path.format_map(values | {"command_id": "1", "key": "k", "agency_id": "a", "domain_id": "d"})
            if (await client.request(method, url)).status_code == 501:
                unserved.add((method, path))
    assert unserved == refused


async def test_the_documented_profile_still_tells_instance_health(cluster: Cluster) -> None:
    """The nodes API tells the status of Meta, and no start time, in both profiles alike."""
    bodies = []
    for profile in ("documented", "assumed"):
        region = Region(profile=profile)
        async with client_of(region, region.cluster("mrs-001")) as client:
            path = f"/v2/{region.project_id}/clusters/{cluster.id}/nodes?query_node_detail=true"
            bodies.append((await client.get(path)).json())
    assert bodies[0] == bodies[1]
    assert [component["running_status"] for component in bodies[0]["nodes"][0]["component_infos"]] == ["Normal"] * 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/openstack/latest/securitykey"),
        ("GET", "/latest/api/token"),
        ("POST", "/v3.0/OS-AGENCY/agencies"),
        ("PUT", "/v2/p/clusters/c/agency-mapping"),
        ("DELETE", "/v1.1/p/cluster_infos/c"),
        ("PATCH", "/emulator/faults"),
        ("HEAD", "/nothing"),
    ],
)
async def test_an_unknown_path_is_a_loud_501(region: Region, cluster: Cluster, method: str, path: str) -> None:
    """Whatever is not served says so, the metadata service and mutations nobody needs included."""
    async with client_of(region, cluster) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 501
    if method != "HEAD":
        text = f"the emulator does not serve {method} {path}; GET /emulator/routes lists what it serves"
        assert answer.json() == {"error_code": "EMULATOR.501", "error_msg": text}


def test_the_emulator_imports_nothing_of_ours() -> None:
    """Neither prefect nor any package of this project but the emulator itself, and no import inside a function."""
    files = sorted(Path(deployments.emulator.__file__).parent.glob("**/*.py"))
    wrong = []
    for file in files:
        tree = ast.parse(file.read_text())
        nested = [
            node for function in ast.walk(tree) if isinstance(function, _FUNCTIONS) for node in ast.walk(function)
        ]
        wrong += [(file.name, "inside a function") for node in nested if isinstance(node, ast.Import | ast.ImportFrom)]
        for name in _imported(tree):
            first = name.split(".")[0]
            ours = first in ("flows", "tasks", "tests", "prefect", "deployments")
            if ours and not (name == "deployments.emulator" or name.startswith("deployments.emulator.")):
                wrong.append((file.name, name))
    assert len(files) > 15
    assert wrong == []


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _imported(tree: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.append(node.module or "")
    return names
