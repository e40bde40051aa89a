"""Who may call the cloud faces."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region
from deployments.emulator.signatures import Keys

pytestmark = pytest.mark.anyio
CloudClient = Callable[[Region], httpx.AsyncClient]


def signed(region: Region, method: str, path: str, body: str = "", **headers: str) -> httpx.Request:
    """A request signed by the vendor's signer for the host `cloud`."""
    sent = {"Content-Type": "application/json", "Host": "cloud", **headers}
    request = SdkRequest(method, "http", "cloud", path, query_params=[], header_params=sent, body=body)
    result = Signer(Keys(region.access_key, region.secret_key)).sign(request)
    return httpx.Request(method, f"http://cloud{path}", headers=result.header_params, content=body)


@pytest.fixture
def server(region: Region, cluster: Cluster) -> str:
    """The path of a server."""
    return f"/v1/{region.project_id}/cloudservers/{cluster.master.server_id}"


def client_of(region: Region) -> httpx.AsyncClient:
    """A client that sends no credentials of its own."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app_of(region)), base_url="http://cloud")


async def test_a_signed_request_is_accepted(region: Region, server: str) -> None:
    """Method, path, headers, date and body as signed: 200."""
    body = json.dumps({"metadata": {"agency_name": "x"}})
    async with client_of(region) as client:
        assert (await client.send(signed(region, "POST", server + "/metadata", body))).status_code == 200


@pytest.mark.parametrize(("minutes", "status"), [(0, 200), (-14, 200), (14, 200), (-16, 401), (16, 401)])
async def test_the_date_may_be_15_minutes_off(region: Region, server: str, minutes: int, status: int) -> None:
    """The date of the signature is compared with the wall clock, whatever the emulated time."""
    region.advance(86_400)
    date = f"{datetime.now(UTC) + timedelta(minutes=minutes):%Y%m%dT%H%M%SZ}"
    async with client_of(region) as client:
        answer = await client.send(signed(region, "GET", server, **{"X-Sdk-Date": date}))
    assert answer.status_code == status
    if status == 401:
        assert answer.json() == {
            "error_code": "APIG.0301",
            "error_msg": "Incorrect IAM authentication information: signature expired",
        }


def _other_body(request: httpx.Request) -> httpx.Request:
    changed = request.content.replace(b'"x"', b'"y"')
    return httpx.Request(request.method, request.url, headers=request.headers, content=changed)


def _other_query(request: httpx.Request) -> httpx.Request:
    return httpx.Request(request.method, f"{request.url}?a=1", headers=request.headers, content=request.content)


def _other_header(request: httpx.Request) -> httpx.Request:
    request.headers["X-Project-Id"] = "another"
    return request


def _unsigned_payload(request: httpx.Request) -> httpx.Request:
    request.headers["X-Sdk-Content-Sha256"] = "UNSIGNED-PAYLOAD"
    authorization = request.headers["Authorization"]
    request.headers["Authorization"] = authorization.replace("x-sdk-date", "x-sdk-content-sha256;x-sdk-date")
    return request


def _unsigned_host(request: httpx.Request) -> httpx.Request:
    request.headers["Authorization"] = request.headers["Authorization"].replace("host;", "")
    return request


def _unknown_key(request: httpx.Request) -> httpx.Request:
    request.headers["Authorization"] = request.headers["Authorization"].replace("Access=EMU", "Access=NOBODY")
    return request


def _no_date(request: httpx.Request) -> httpx.Request:
    del request.headers["X-Sdk-Date"]
    return request


def _nothing(request: httpx.Request) -> httpx.Request:
    del request.headers["Authorization"]
    return request


@pytest.mark.parametrize(
    "tamper",
    [_other_body, _other_query, _other_header, _unsigned_payload, _unsigned_host, _unknown_key, _no_date, _nothing],
)
async def test_what_is_not_as_signed_is_refused(
    region: Region, server: str, tamper: Callable[[httpx.Request], httpx.Request]
) -> None:
    """401 in the gateway's shape, and nothing happens."""
    body = json.dumps({"metadata": {"agency_name": "x"}})
    request = signed(region, "POST", server + "/metadata", body, **{"X-Project-Id": region.project_id})
    async with client_of(region) as client:
        answer = await client.send(tamper(request))
    assert (answer.status_code, answer.json()["error_code"], sorted(answer.json())) == (
        401,
        "APIG.0301",
        ["error_code", "error_msg"],
    )
    assert region.log == []


async def test_a_signature_for_one_path_is_none_for_another(region: Region, cluster: Cluster, server: str) -> None:
    """The path is part of what is signed."""
    request = signed(region, "GET", server)
    other = str(request.url).replace(cluster.master.server_id, cluster.hosts["node-core1"].server_id)
    async with client_of(region) as client:
        assert (await client.get(other, headers=request.headers)).status_code == 401


async def test_a_wrong_token_is_refused_in_each_service_s_own_way(
    region: Region, cluster: Cluster, server: str, cloud: CloudClient
) -> None:
    """MRS documents 500 with 130000002; ECS and IAM answer 401 in their shapes."""
    async with cloud(region) as client:
        client.headers["X-Auth-Token"] = "wrong"
        mrs = await client.get(f"/v1.1/{region.project_id}/cluster_infos/{cluster.id}")
        ecs = await client.get(server)
        iam = await client.get(f"/v3.0/OS-AGENCY/agencies?domain_id={region.domain_id}")
    assert (mrs.status_code, mrs.json()["error_code"]) == (500, "130000002")
    assert (ecs.status_code, ecs.json()["error"]["code"]) == (401, "401")
    assert (iam.status_code, iam.json()["error"]["title"]) == (401, "Unauthorized")


async def test_another_project_is_forbidden(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """The project in the path must be the caller's."""
    async with cloud(region) as client:
        answer = await client.get(f"/v1.1/{'0' * 32}/cluster_infos/{cluster.id}")
    assert (answer.status_code, answer.json()["error_code"]) == (403, "APIG.0302")


@pytest.mark.parametrize("body", ["", "[]", "{", '{"metadata": {}}', '{"metadata": {"k": 1}}', '{"metadata": []}'])
async def test_malformed_metadata_is_a_400(region: Region, server: str, cloud: CloudClient, body: str) -> None:
    """The error has the shape of ECS, and nothing happens."""
    async with cloud(region) as client:
        answer = await client.post(server + "/metadata", content=body)
    assert (answer.status_code, sorted(answer.json()["error"]), region.log) == (400, ["code", "message"], [])


@pytest.mark.parametrize("body", ["", "{}", '{"auth": {"identity": {"methods": ["token"], "assume_role": {}}}}'])
async def test_malformed_requests_for_keys_are_a_400(region: Region, cloud: CloudClient, body: str) -> None:
    """The error has the shape of IAM."""
    async with cloud(region) as client:
        answer = await client.post("/v3.0/OS-CREDENTIAL/securitytokens", content=body)
    assert (answer.status_code, answer.json()["error"]["title"]) == (400, "Bad Request")
