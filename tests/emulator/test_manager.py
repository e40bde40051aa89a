"""Manager: sessions and locks, and the lists of alarms, hosts, instances and commands."""

from collections.abc import Callable

import httpx
import pytest

from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Region

pytestmark = pytest.mark.anyio
ManagerClient = Callable[[Region, Cluster], httpx.AsyncClient]
REJECTED = "The credentials you provided cannot be determined to be authentic"
RESTART = "clusters/1/services/meta/instances/restart"


def root(cluster: Cluster) -> str:
    """The root of the cluster's Manager."""
    return f"http://manager/managers/{cluster.id}/web/api/v2/"


@pytest.fixture
def anonymous(region: Region) -> httpx.AsyncClient:
    """A client without credentials that does not follow redirects."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app_of(region)))


async def test_basic_opens_a_session_that_lives_by_its_cookie(cluster: Cluster, anonymous: httpx.AsyncClient) -> None:
    """`session/status` with Basic sets an HttpOnly cookie for this Manager; other calls need only the cookie."""
    async with anonymous as client:
        login = (cluster.manager_user, cluster.manager_password)
        opened = await client.get(root(cluster) + "session/status", auth=login)
        listed = await client.get(root(cluster) + "clusters")
        status = await client.get(root(cluster) + "session/status")
    cookie = opened.headers["set-cookie"]
    assert (opened.status_code, cookie.split("=")[0], "HttpOnly" in cookie) == (200, "JSESSIONID", True)
    assert f"Path=/managers/{cluster.id}" in cookie
    assert (listed.status_code, status.status_code, "set-cookie" in status.headers) == (200, 200, False)
    assert listed.json() == [
        {
            "id": 1,
            "name": "mrs-001",
            "hostsNum": 3,
            "serviceNum": 1,
            "badHostsNum": 0,
            "badServiceNum": 0,
            "packs": [{"type": "MRS", "version": "3.2.0-LTS.1"}],
        }
    ]


async def test_a_session_of_one_manager_is_none_of_another(region: Region, anonymous: httpx.AsyncClient) -> None:
    """Even sent to the other Manager, the cookie opens nothing there."""
    first, second = region.cluster("mrs-001"), region.add_cluster()
    async with anonymous as client:
        opened = await client.get(root(first) + "session/status", auth=(first.manager_user, first.manager_password))
        answer = await client.get(root(second) + "clusters", headers={"Cookie": opened.headers["set-cookie"]})
        wrong = await client.get(root(second) + "clusters", auth=(first.manager_user, first.manager_password))
    assert (answer.status_code, wrong.status_code) == (302, 401)


async def test_no_session_is_redirected_to_the_login_page(cluster: Cluster, anonymous: httpx.AsyncClient) -> None:
    """302; who follows it gets an HTML page with 200, which is not the answer to the question."""
    async with anonymous as client:
        answer = await client.get(root(cluster) + "clusters")
        followed = await client.get(root(cluster) + "clusters", follow_redirects=True)
    assert (answer.status_code, answer.headers["location"].split("?")[0]) == (
        302,
        f"/managers/{cluster.id}/cas/login",
    )
    assert (followed.status_code, followed.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_an_idle_session_ends_after_20_minutes(
    region: Region, cluster: Cluster, anonymous: httpx.AsyncClient
) -> None:
    """Use keeps a session alive; 20 idle minutes of emulated time end it."""
    async with anonymous as client:
        await client.get(root(cluster) + "session/status", auth=(cluster.manager_user, cluster.manager_password))
        seen = []
        for seconds in (1200, 1200, 1201, 0):
            region.advance(seconds)
            seen.append((await client.get(root(cluster) + "clusters")).status_code)
    assert seen == [200, 200, 302, 302]


async def test_five_wrong_passwords_lock_the_user_for_five_minutes(
    region: Region, cluster: Cluster, anonymous: httpx.AsyncClient
) -> None:
    """401 with the CAS text, then 401 with `locked` even for the right password, until five minutes have passed."""
    login = (cluster.manager_user, cluster.manager_password)
    async with anonymous as client:

        async def call(auth: tuple[str, str]) -> tuple[int, bool, bool]:
            answer = await client.get(root(cluster) + "clusters", auth=auth)
            return answer.status_code, REJECTED in answer.text, "locked" in answer.text

        wrong = [await call((cluster.manager_user, "wrong")) for _ in range(4)]
        right = await call(login)
        wrong += [await call((cluster.manager_user, "wrong")) for _ in range(5)]
        locked = await call(login)
        region.advance(299)
        still = await call(login)
        region.advance(1)
        assert wrong == [(401, True, False)] * 9
        assert (right, locked, still) == ((200, False, False), (401, False, True), (401, False, True))
        assert await call(login) == (200, False, False)


@pytest.mark.parametrize("authorization", ["Basic !", "Bearer x", "Basic /w==", ""])
async def test_a_malformed_login_is_rejected(
    cluster: Cluster, anonymous: httpx.AsyncClient, authorization: str
) -> None:
    """Whatever is sent, the answer is 401 and no error of the server."""
    async with anonymous as client:
        answer = await client.get(root(cluster) + "clusters", headers={"Authorization": authorization})
    assert (answer.status_code, REJECTED in answer.text) == (401, True)


async def test_the_service_summary_names_the_running_status(
    region: Region, cluster: Cluster, manager: ManagerClient
) -> None:
    """The name of the service matches in any case; another service is unknown."""
    async with manager(region, cluster) as client:
        healthy = await client.get("clusters/1/services/META/summary")
        region.set_fault("crashed", cluster, "node-core1")
        faulty = await client.get("clusters/1/services/Meta/summary")
        unknown = await client.get("clusters/1/services/HDFS/summary")
    assert [answer.json()["properties"][0]["value"] for answer in (healthy, faulty)] == ["Normal", "Faulty"]
    assert (unknown.status_code, sorted(unknown.json())) == (404, ["errorCode", "errorMsg"])


async def test_alarms_hold_what_the_alarm_page_shows(region: Region, cluster: Cluster, manager: ManagerClient) -> None:
    """One alarm, every field."""
    host = cluster.hosts["node-core1"]
    region.set_fault("crashed", cluster, host)
    region.advance(900)
    async with manager(region, cluster) as client:
        answer = await client.get("alarms")
    assert answer.json() == {
        "totalCount": 1,
        "alarms": [
            {
                "alarmId": "12110",
                "alarmName": "Failed to get ECS temporary AK/SK",
                "severity": "Major",
                "serialNo": "1001",
                "occurTime": round((region.clock.start.timestamp() + host.polls_from + 600) * 1000),
                "clearTime": 0,
                "status": "Uncleared",
                "autoClear": True,
                "source": "mrs-001",
                "object": "meta",
                "location": "Source=mrs-001;ServiceName=meta;RoleName=meta;HostName=node-core1",
                "cause": "The meta service fails to obtain the temporary AK/SK of the ECS.",
                "additionalInfo": "",
            }
        ],
    }


async def test_alarms_are_filtered_and_paged(manager: ManagerClient) -> None:
    """Filters count before the page is cut; newest first; ten to a page unless asked otherwise."""
    region = Region(hosts=12)
    cluster = region.cluster("mrs-001")
    region.set_fault("iam-down")
    region.advance(900)
    region.clear_fault("iam-down", cluster, "node-core1")
    region.advance(300)

    async with manager(region, cluster) as client:

        async def ask(query: str) -> tuple[int, list[str]]:
            answer = (await client.get(f"alarms?{query}")).json()
            return answer["totalCount"], [alarm["serialNo"] for alarm in answer["alarms"]]

        everything = await ask("limit=1000")
        default = await ask("")
        third = await ask("limit=10&offset=20")
        beyond = await ask("offset=24")
        cleared = await ask("status=cleared")
        uncleared = await ask("status=uncleared&alarmId=12110&clusterId=1&limit=1000")
        one = await ask("serialNo=1003")
        elsewhere = await ask("clusterId=2")
        bad = [(await client.get(f"alarms?{query}")).status_code for query in ("status=new", "limit=0", "offset=x")]
    serials = everything[1]
    assert serials == [str(number) for number in range(1024, 1000, -1)]
    assert (default, third, beyond) == ((24, serials[:10]), (24, serials[20:]), (24, []))
    assert (cleared[0], uncleared[0], one, elsewhere, bad) == (2, 11, (1, ["1003"]), (0, []), [400, 400, 400])


async def test_hosts_and_instances_are_paged(region: Region, cluster: Cluster, manager: ManagerClient) -> None:
    """Every field of a host and of an instance, one to a page."""
    region.advance(60)
    host = cluster.hosts["node-core1"]
    async with manager(region, cluster) as client:
        hosts = await client.get("clusters/1/hosts?limit=1&offset=1")
        instances = await client.get("clusters/1/services/meta/instances?limit=1&offset=1")
        elsewhere = await client.get("clusters/2/hosts")
    addresses = {"managementIp": host.ip, "businessIp": host.ip}
    assert hosts.json() == {
        "totalCount": 3,
        "hosts": [{"hostName": "node-core1", "runningStatus": "Normal", "maintenanceMode": False} | addresses],
    }
    assert instances.json() == {
        "totalCount": 3,
        "instances": [
            {
                "id": host.instance_id,
                "roleName": "meta",
                "hostName": "node-core1",
                "instanceGroup": "default",
                "runningStatus": "Normal",
                "configStatus": "Synchronized",
                "startTime": 1_767_571_200_000,
            }
            | addresses
        ],
    }
    assert elsewhere.status_code == 404


async def test_a_restart_is_a_command_and_is_logged(region: Region, cluster: Cluster, manager: ManagerClient) -> None:
    """One command restarts several instances, a second is refused meanwhile, and each host is in the log."""
    numbers = [host.instance_id for host in cluster.hosts.values()]
    async with manager(region, cluster) as client:
        accepted = await client.post(RESTART, json={"instanceIds": numbers[:2]})
        refused = await client.post(RESTART, json={"instanceIds": numbers[2:]})
        region.advance(60)
        again = await client.post(RESTART, json={"instanceIds": numbers[2:]})
        commands = (await client.get("commands")).json()
        first = (await client.get("commands/101")).json()
        started = (await client.get("clusters/1/services/meta/instances")).json()["instances"]
        missing = await client.get("commands/999")
    assert (accepted.json(), refused.status_code, again.json()) == ({"commandId": 101}, 409, {"commandId": 102})
    assert [(each["commandId"], each["state"]) for each in commands["commands"]] == [
        (102, "IN_PROGRESS"),
        (101, "COMPLETE"),
    ]
    assert first == {
        "commandId": 101,
        "name": "Restart Instance",
        "state": "COMPLETE",
        "progress": 100,
        "startTime": 1_767_571_200_000,
        "endTime": 1_767_571_260_000,
        "failedEntities": [],
    }
    assert [each["startTime"] - 1_767_571_200_000 for each in started] == [60_000, 60_000, 0]
    assert missing.status_code == 404
    assert [(entry.who, entry.action, entry.target, entry.detail) for entry in region.log] == [
        ("runbooks", "restart-instance", "node-master1", {"commandId": 101}),
        ("runbooks", "restart-instance", "node-core1", {"commandId": 101}),
        ("runbooks", "restart-instance", "node-core2", {"commandId": 102}),
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("[]", 400),
        ("{}", 400),
        ('{"instanceIds": []}', 400),
        ('{"instanceIds": ["11"]}', 400),
        ('{"instanceIds": [true]}', 400),
        ('{"instanceIds": 11}', 400),
        ('{"instanceIds": [11, 99]}', 404),
    ],
)
async def test_a_restart_that_names_no_instance_does_nothing(
    region: Region, cluster: Cluster, manager: ManagerClient, body: str, status: int
) -> None:
    """Malformed is 400, unknown is 404, an empty list is never everything, and nothing is restarted."""
    async with manager(region, cluster) as client:
        answer = await client.post(RESTART, content=body)
    assert (answer.status_code, sorted(answer.json())) == (status, ["errorCode", "errorMsg"])
    assert (region.log, [region.meta.status(host) for host in cluster.hosts.values()]) == ([], ["Normal"] * 3)


async def test_a_manager_that_does_not_exist_is_a_404(anonymous: httpx.AsyncClient) -> None:
    """The UUID in the root must be that of a cluster."""
    async with anonymous as client:
        answer = await client.get("http://manager/managers/nobody/web/api/v2/session/status")
    assert answer.status_code == 404
