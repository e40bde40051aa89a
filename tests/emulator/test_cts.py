"""The face of CTS: what it lists, to whom, for how long, and the faults that put something into it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

from deployments.emulator.app import app_of
from deployments.emulator.inventory import Cluster
from deployments.emulator.region import Profile, Region
from deployments.emulator.signatures import Keys

pytestmark = pytest.mark.anyio
CloudClient = Callable[[Region], httpx.AsyncClient]
START = datetime(2026, 1, 5, tzinfo=UTC)
WEEK = {"from": "1000000000000", "to": "9999999999999"}


def path_of(region: Region) -> str:
    """The path of the trace list."""
    return f"/v3/{region.project_id}/traces"


def milliseconds(moment: datetime) -> int:
    """A moment as CTS writes it."""
    return round(moment.timestamp() * 1000)


async def listed(client: httpx.AsyncClient, region: Region, **query: str) -> Any:
    """The body of a 200."""
    answer = await client.get(path_of(region), params={"trace_type": "system"} | query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def names(client: httpx.AsyncClient, region: Region, **query: str) -> list[str]:
    """Names of the traces that are listed, in the order of the list."""
    return [trace["trace_name"] for trace in (await listed(client, region, **query))["traces"]]


@pytest.mark.parametrize("profile", ["documented", "assumed"])
async def test_a_person_s_change_is_a_trace(profile: Profile, cloud: CloudClient) -> None:
    """The fault puts one trace in the documented shape into CTS, with its user, name and age, in both profiles."""
    region = Region(profile=profile)
    cluster = region.cluster("mrs-001")
    options: dict[str, Any] = {"user": "erika", "seconds": 90, "trace": "updateMetadataAndServerAgency"}
    region.set_fault("agency-changed-by-person", cluster, **options)
    async with cloud(region) as client:
        body = await listed(client, region)
    trace = body["traces"][0]
    moment = milliseconds(START - timedelta(seconds=90))
    assert body == {"traces": [trace], "meta_data": {"count": 1, "marker": None}}
    assert trace == {
        "trace_id": trace["trace_id"],
        "trace_name": "updateMetadataAndServerAgency",
        "trace_rating": "normal",
        "trace_type": "ConsoleAction",
        "time": moment,
        "record_time": moment,
        "user": {
            "id": trace["user"]["id"],
            "name": "erika",
            "domain": {"id": region.domain_id, "name": "emulated"},
        },
        "service_type": "ECS",
        "resource_type": "ecs",
        "resource_id": cluster.master.server_id,
        "resource_name": "node-master1",
        "source_ip": "192.0.2.1",
        "api_version": "1.0",
        "code": "200",
    }


async def test_a_change_in_the_region_is_no_trace(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """Neither a write of the metadata nor a fault that unbinds puts anything into CTS."""
    region.set_fault("unbound", cluster)
    region.set_fault("mixed-agencies", cluster)
    region.set_metadata(cluster.master, {"agency_name": "mine"}, "a test")
    region.delete_metadata(cluster.master, "agency_name", "a test")
    async with cloud(region) as client:
        assert await listed(client, region, **WEEK) == {"traces": [], "meta_data": {"count": 0, "marker": None}}


async def test_pages_follow_the_marker(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """The newest come first, each page begins after the trace that `next` names, and the last has no marker."""
    for age in (30, 10, 50, 20, 40):
        region.traces.add(cluster.master, "erika", f"age-{age}", age)
    pages, query = [], {"limit": "2"}
    async with cloud(region) as client:
        while True:
            body = await listed(client, region, **query)
            pages.append(([trace["trace_name"] for trace in body["traces"]], body["meta_data"]["count"]))
            last, marker = body["traces"][-1]["trace_id"], body["meta_data"]["marker"]
            if marker is None:
                break
            assert marker == last
            query["next"] = marker
        whole = (await listed(client, region, limit="5"))["meta_data"]
    assert whole == {"count": 5, "marker": None}
    assert pages == [(["age-10", "age-20"], 2), (["age-30", "age-40"], 2), (["age-50"], 1)]


async def test_ten_are_listed_where_nothing_is_said(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """The default limit is 10, the largest 200."""
    for number in range(201):
        region.traces.add(cluster.master, "erika", f"trace-{number}", 1 + number)
    async with cloud(region) as client:
        assert await names(client, region) == [f"trace-{number}" for number in range(10)]
        assert await names(client, region, limit="200") == [f"trace-{number}" for number in range(200)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["b", "a"]),
        ({"trace_name": "a"}, ["a"]),
        ({"trace_name": "A"}, []),
        ({"user": "erika"}, ["a"]),
        ({"user": "nobody"}, []),
        ({"resource_name": "node-core1"}, ["b"]),
        ({"resource_type": "ecs", "service_type": "ECS", "trace_rating": "normal"}, ["b", "a"]),
        ({"resource_type": "evs"}, []),
        ({"trace_type": "data"}, []),
        ({"resource_id": "{server}"}, ["b"]),
        ({"trace_id": "{trace}", "trace_name": "b", "from": "1", "to": "2"}, ["a"]),
    ],
)
async def test_filters(
    region: Region, cluster: Cluster, cloud: CloudClient, query: dict[str, str], found: list[str]
) -> None:
    """Every filter leaves only what fits it exactly; a trace id makes the others void."""
    first = region.traces.add(cluster.master, "erika", "a", 20)
    region.traces.add(cluster.hosts["node-core1"], "otto", "b", 10)
    place = {"server": cluster.hosts["node-core1"].server_id, "trace": first.id}
    async with cloud(region) as client:
        assert await names(client, region, **{key: value.format(**place) for key, value in query.items()}) == found


async def test_the_window(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """What happened at `from` or `to` is outside; without them it is the last hour."""
    for age in (3_600, 3_599, 60, 0):
        region.traces.add(cluster.master, "erika", f"age-{age}", age)
    region.advance(0.5)
    since, until = milliseconds(START - timedelta(hours=1)), milliseconds(START)
    async with cloud(region) as client:
        inside = await names(client, region, **{"from": str(since), "to": str(until)})
        wider = await names(client, region, **{"from": str(since - 1), "to": str(until + 1)})
        last_hour = await names(client, region)
    assert inside == ["age-60", "age-3599"]
    assert wider == ["age-0", "age-60", "age-3599", "age-3600"]
    assert last_hour == ["age-0", "age-60", "age-3599"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"trace_type": ""}, "trace_type must be system or data"),
        ({"trace_type": "all"}, "trace_type must be system or data"),
        ({"from": "1"}, "from and to go together"),
        ({"to": "1"}, "from and to go together"),
        ({"from": "soon", "to": "1"}, "invalid from: soon"),
        ({"limit": "0"}, "invalid limit: 0"),
        ({"limit": "201"}, "invalid limit: 201"),
        ({"next": "nobody"}, "invalid next: nobody"),
    ],
)
async def test_a_query_that_is_wrong_is_a_400(
    region: Region, cloud: CloudClient, query: dict[str, str], words: str
) -> None:
    """The error has the documented shape and says what is wrong."""
    async with cloud(region) as client:
        answer = await client.get(path_of(region), params={"trace_type": "system"} | query)
    assert (answer.status_code, answer.json()) == (400, {"error_code": "CTS.0300", "error_msg": words})


@pytest.mark.parametrize(("secret", "signed_for", "status"), [("", "9", 200), ("wrong", "9", 401), ("", "8", 401)])
async def test_only_what_is_signed_right_is_answered(region: Region, secret: str, signed_for: str, status: int) -> None:
    """A signature of the vendor's signer is accepted; one with another key or of another query answers 401."""
    sent = {"Content-Type": "application/json", "Host": "cloud"}
    query = [("trace_type", "system"), ("limit", signed_for)]
    request = SdkRequest("GET", "http", "cloud", path_of(region), query_params=query, header_params=sent, body="")
    headers = Signer(Keys(region.access_key, secret or region.secret_key)).sign(request).header_params
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app_of(region)), base_url="http://cloud") as client:
        answer = await client.get(path_of(region), params={"trace_type": "system", "limit": "9"}, headers=headers)
        unsigned = await client.get(path_of(region), params={"trace_type": "system"})
    assert (answer.status_code, unsigned.status_code) == (status, 401)
    assert unsigned.json()["error_code"] == "APIG.0301"


async def test_another_project_is_forbidden(region: Region, cloud: CloudClient) -> None:
    """The project in the path must be the caller's."""
    async with cloud(region) as client:
        answer = await client.get(f"/v3/{'0' * 32}/traces?trace_type=system")
    assert (answer.status_code, answer.json()["error_code"]) == (403, "APIG.0302")


async def test_traces_are_kept_for_seven_days(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """Seven days of the region's time after it happened a trace is listed, a second later it is gone for good."""
    day = 86_400
    region.set_fault("agency-changed-by-person", cluster, seconds=7 * day + 1, trace="too-old")
    region.set_fault("agency-changed-by-person", cluster, seconds=day, trace="old")
    region.set_fault("agency-changed-by-person", cluster, seconds=0, trace="new")
    async with cloud(region) as client:
        seen = [await names(client, region, **WEEK)]
        for seconds in (6 * day, 1):
            region.advance(seconds)
            seen.append(await names(client, region, **WEEK))
    assert seen == [["new", "old"], ["new", "old"], ["new"]]


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        ("cts-down", 503, {"error_code": "CTS.0001", "error_msg": "The service is unavailable."}),
        ("cts-denied", 403, {"error_code": "CTS.0013", "error_msg": "No permission, Please check roles."}),
    ],
)
@pytest.mark.parametrize("place", [None, "mrs-001"])
async def test_cts_can_be_down_or_denied(
    region: Region, cloud: CloudClient, fault: str, status: int, error: dict[str, str], place: str | None
) -> None:
    """Wherever the fault is set, CTS refuses every caller until it is cleared; the other faces answer."""
    region.set_fault(fault, place)
    async with cloud(region) as client:
        refused = await client.get(path_of(region), params={"trace_type": "system"})
        others = await client.get(f"/v1.1/{region.project_id}/cluster_infos")
        region.clear_fault(fault, place)
        answered = await client.get(path_of(region), params={"trace_type": "system"})
    assert (refused.status_code, refused.json()) == (status, error)
    assert (others.status_code, answered.status_code) == (200, 200)


async def test_each_setting_is_one_more_trace(cloud: CloudClient) -> None:
    """Set again it adds another, and clearing it takes back those of that place and no others."""
    region = Region(clusters=2)
    first, second = region.clusters.values()
    region.traces.add(first.master, "somebody", "startServer", 5)
    for user in ("erika", "otto"):
        region.set_fault("agency-changed-by-person", user=user)
    async with cloud(region) as client:
        both = await listed(client, region, **WEEK)
        region.clear_fault("agency-changed-by-person", first)
        left = await listed(client, region, **WEEK)
    seen = [sorted((trace["user"]["name"], trace["resource_id"]) for trace in body["traces"]) for body in (both, left)]
    kept = [("erika", second.master.server_id), ("otto", second.master.server_id)]
    ours = ("somebody", first.master.server_id)
    more = [("erika", first.master.server_id), ("otto", first.master.server_id)]
    assert seen == [sorted([*kept, *more, ours]), sorted([*kept, ours])]


@pytest.mark.parametrize("seconds", [-1, "soon", "nan", "inf"])
async def test_an_age_that_is_none_is_refused(region: Region, cluster: Cluster, seconds: Any) -> None:
    """A change in the future, or at no time at all, is not set and leaves nothing behind."""
    with pytest.raises(ValueError, match=r"seconds old|could not convert"):
        region.set_fault("agency-changed-by-person", cluster, seconds=seconds)
    assert (list(region.faults), region.traces.kept()) == ([], [])


async def test_it_can_be_switched_over_http(region: Region, cluster: Cluster, cloud: CloudClient) -> None:
    """The control route sets the fault with its options, and its defaults are a person's change an hour ago."""
    fault = {"name": "agency-changed-by-person", "cluster": "mrs-001"}
    async with cloud(region) as client:
        first = await client.post("/emulator/faults", json=fault)
        second = await client.post("/emulator/faults", json=fault | {"options": {"user": "erika", "seconds": 1}})
        body = await listed(client, region, **WEEK)
    assert (first.status_code, second.status_code) == (200, 200)
    assert [(trace["trace_name"], trace["user"]["name"], trace["time"]) for trace in body["traces"]] == [
        ("updateServerAgency", "erika", milliseconds(START) - 1_000),
        ("updateServerAgency", "a-person", milliseconds(START) - 3_600_000),
    ]
