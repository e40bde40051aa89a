"""The logins of the pretend region that may look and change nothing."""

from typing import Any

import httpx
import pytest

from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region

pytestmark = pytest.mark.anyio
RESTART = "clusters/1/services/meta/instances/restart"


def client(region: Region, cluster: Cluster, user: str, password: str) -> httpx.AsyncClient:
    """Logs in with each call, or by a session where one was opened."""
    url = f"http://manager/managers/{cluster.id}/web/api/v2/"
    return httpx.AsyncClient(transport=httpx.ASGITransport(app_of(region)), base_url=url, auth=(user, password))


@pytest.mark.parametrize("session", [False, True])
async def test_the_viewer_looks_and_changes_nothing(region: Region, cluster: Cluster, session: bool) -> None:
    """Manager's viewer reads everything and is refused a restart, by a session too; the other user may restart."""
    instance = {"instanceIds": [cluster.hosts["node-core1"].instance_id]}
    looked, changed = [], []
    for user, password in (
        (cluster.viewer_user, cluster.viewer_password),
        (cluster.manager_user, cluster.manager_password),
    ):
        async with client(region, cluster, user, password) as manager:
            login: Any = None if session else httpx.USE_CLIENT_DEFAULT
            if session:
                await manager.get("session/status")
            looked.append((await manager.get("alarms", auth=login)).status_code)
            changed.append(await manager.post(RESTART, json=instance, auth=login))
    assert (looked, [answer.status_code for answer in changed]) == ([200, 200], [403, 200])
    assert changed[0].json() == {"errorCode": "403", "errorMsg": "the user has no permission for this operation"}
    assert [(entry.who, entry.action) for entry in region.log] == [("runbooks", "restart-instance")]
    assert dict(region.calls) == {(who, how): 1 for who in ("viewer", "runbooks") for how in ("GET", "POST")}


async def test_a_wrong_password_of_the_viewer_is_rejected(region: Region, cluster: Cluster) -> None:
    """Another password, or none, lets nobody in as the viewer."""
    for password in ("wrong", ""):
        async with client(region, cluster, cluster.viewer_user, password) as manager:
            assert (await manager.get("clusters")).status_code == 401
