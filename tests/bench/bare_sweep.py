"""The bare script that a sweep is measured against: asyncio, httpx and the vendor's signer, and nothing else.

It sends the requests that a sweep sends to healthy clusters, as many at a time, and throws the answers away.
"""

import asyncio
import ssl
from collections.abc import Generator, Sequence
from typing import Any

import httpx
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer


class Signed(httpx.Auth):
    """The vendor's signature."""

    def __init__(self, access_key: str, secret_key: str, scope: dict[str, str]) -> None:
        self.signer, self.scope = Signer(BasicCredentials(access_key, secret_key)), scope

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign it."""
        url = request.url
        headers = {"host": request.headers["host"], **self.scope}
        query = list(url.params.multi_items())
        sdk_request = SdkRequest(
            method=request.method,
            schema=url.scheme,
            host=headers["host"],
            resource_path=url.path,
            query_params=query,
            header_params=headers,
            body="",
        )
        request.headers.update(self.signer.sign(sdk_request).header_params)
        yield request


async def bare(
    url: str, account: tuple[str, str, str, str], fleet: Sequence[tuple[str, str, str]], at_once: int
) -> tuple[int, int]:
    """Look at every cluster (id, Manager's user and password); returns how many requests, and at a time at most."""
    project, domain, access_key, secret_key = account
    places = asyncio.Semaphore(at_once)
    clusters = asyncio.Semaphore(128)
    trusted = ssl.create_default_context()  # one for all: to make one takes longer than all requests of a cluster
    sent = under_way = most = 0

    async def get(client: httpx.AsyncClient, path: str, **more: Any) -> Any:
        nonlocal sent, under_way, most
        async with places:
            sent, under_way = sent + 1, under_way + 1
            most = max(most, under_way)
            answer = await client.get(path, **more)
            under_way -= 1
        return answer.raise_for_status().json()

    async def cloud_of(cloud: httpx.AsyncClient, id_: str) -> None:
        await get(cloud, f"/v1.1/{project}/cluster_infos/{id_}")
        query = {"limit": "100", "offset": "1", "query_node_detail": "true"}
        nodes = (await get(cloud, f"/v2/{project}/clusters/{id_}/nodes", params=query))["nodes"]
        servers = [node["server_info"]["server_id"] for node in nodes]
        await asyncio.gather(*(get(cloud, f"/v1/{project}/cloudservers/{server}") for server in servers))

    async def manager_of(id_: str, user: str, password: str) -> None:
        root = f"{url}/managers/{id_}/web/api/v2"
        async with httpx.AsyncClient(base_url=root, verify=trusted, trust_env=False) as manager:
            await get(manager, "session/status", auth=(user, password))
            page = {"limit": "500", "offset": "0"}
            await get(manager, "alarms", params={"clusterId": "1", "status": "uncleared", **page})
            await get(manager, "alarms/masking", params={"clusterId": "1"})
            await get(manager, "clusters/1/services/meta/instances", params=page)

    async def look(cloud: httpx.AsyncClient, id_: str, user: str, password: str) -> None:
        async with clusters:
            await asyncio.gather(cloud_of(cloud, id_), manager_of(id_, user, password))

    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    keys = Signed(access_key, secret_key, {"X-Project-Id": project})
    domain_keys = Signed(access_key, secret_key, {"X-Domain-Id": domain})
    async with (
        httpx.AsyncClient(base_url=url, auth=keys, limits=limits, verify=trusted, trust_env=False) as cloud,
        httpx.AsyncClient(base_url=url, auth=domain_keys, verify=trusted, trust_env=False) as iam,
    ):
        found = await get(
            iam, "/v3.0/OS-AGENCY/agencies", params={"domain_id": domain, "name": "MRS_ECS_DEFAULT_AGENCY"}
        )
        agency = found["agencies"][0]["id"]
        await get(iam, f"/v3.0/OS-AGENCY/domains/{domain}/agencies/{agency}/roles")
        await asyncio.gather(*(look(cloud, *each) for each in fleet))
    return sent, most
