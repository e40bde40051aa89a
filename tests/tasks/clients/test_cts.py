"""The client of CTS: which traces it gives, that it gives all of them, and what it makes of trouble."""

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Host
from deployments.emulator.region import Region
from tasks.blocks import Cloud, Cluster
from tasks.clients.cts import AGENCY_CHANGES, Cts
from tasks.clients.http import Patience
from tasks.clients.signing import SignedWithKeys
from tasks.connections import connected
from tasks.errors import ConfigurationError, RunbookError
from tasks.models import Case, Trace
from tests.tasks.clients.conftest import PATIENCE, World, error_of

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 5, tzinfo=UTC)
SINCE = NOW - timedelta(days=7)
CALL = "CTS GET v3//traces"
ROW = {"trace_name": "setMetadata", "time": 1, "trace_id": "t-1", "user": {"name": "erika"}, "resource_id": "s-1"}
Answer = Callable[[httpx.Request], httpx.Response]


async def cts_of(world: World, secret_key: str = "") -> Cts:
    """A client with the region's keys (or a wrong secret key)."""
    region = world.region
    keys = SignedWithKeys(region.access_key, secret_key or region.secret_key, scope={"X-Project-Id": region.project_id})
    cts = Cts("CTS", world.url, auth=keys, patience=PATIENCE, transport=world.wire)
    world.stack.push_async_callback(cts.aclose)
    cts.project_id = region.project_id
    return cts


def cts_answered(answer: Answer) -> Cts:
    """A client whose requests get these answers."""
    return Cts("CTS", "http://localhost", patience=Patience(attempts=1), transport=httpx.MockTransport(answer))


def page(*rows: dict[str, Any], marker: str | None = None, count: int | None = None) -> dict[str, Any]:
    """A page as CTS gives it."""
    return {"traces": list(rows), "meta_data": {"count": len(rows) if count is None else count, "marker": marker}}


def rows(first: int, last: int) -> list[dict[str, Any]]:
    """Traces with these numbers, which make their ids and times."""
    return [ROW | {"trace_id": f"t-{number}", "time": 1000 + number} for number in range(first, last)]


def changed(host: Host, user: str, name: str, age: float) -> Trace:
    """The trace of a change `age` seconds before now, without its id."""
    return Trace(name=name, user=user, time=NOW - timedelta(seconds=age), resource_id=host.server_id)


def without_ids(traces: tuple[Trace, ...]) -> list[Trace]:
    """The traces, their ids left out."""
    return [trace.model_copy(update={"id": ""}) for trace in traces]


async def changes(cts: Cts, **more: Any) -> tuple[Trace, ...]:
    """The changes of the cluster `c` in a week."""
    return await cts.agency_changes("c", SINCE, NOW, **more)


async def test_who_changed_the_agency(world: World) -> None:
    """A person's changes are given with name, user, time and server, the oldest first, each with an id of its own."""
    options: dict[str, Any] = {"user": "erika", "seconds": 90, "trace": "updateMetadataAndServerAgency"}
    world.region.set_fault("agency-changed-by-person", world.cluster, **options)
    world.region.set_fault("agency-changed-by-person", world.cluster, user="otto", seconds=120)
    found = await changes(await cts_of(world))
    assert without_ids(found) == [
        changed(world.cluster.master, "otto", "updateServerAgency", 120),
        changed(world.cluster.master, "erika", "updateMetadataAndServerAgency", 90),
    ]
    assert len({trace.id for trace in found} - {""}) == 2
    assert {trace.time.tzinfo for trace in found} == {UTC}


async def test_nobody_changed_it(world: World) -> None:
    """Without a trace the answer is empty: one request for each name."""
    assert await changes(await cts_of(world)) == ()
    assert world.wire.sent == ["GET traces"] * len(AGENCY_CHANGES)


async def test_only_changes_of_the_agency_are_given(world: World) -> None:
    """The five names of both clouds, and nothing else that happened to a server."""
    for age, name in enumerate((*AGENCY_CHANGES, "startServer", "updateserveragency"), 1):
        world.region.traces.add(world.cluster.master, "erika", name, age)
    found = await changes(await cts_of(world))
    assert [trace.name for trace in found] == [
        "deleteMetadata",
        "setMetadata",
        "updateMetadata",
        "updateMetadataAndServerAgency",
        "updateServerAgency",
    ]


async def test_other_servers_are_left_out_where_ours_are_known(world: World) -> None:
    """With the cluster's servers only their traces are given, without them those of the whole project."""
    other = world.region.add_cluster()
    for cluster in (world.cluster, other):
        world.region.set_fault("agency-changed-by-person", cluster, user=cluster.name)
    servers = [host.server_id for host in world.cluster.hosts.values()]
    cts = await cts_of(world)
    everybody, ours, nobody = [await changes(cts, servers=known) for known in (None, servers, ())]
    assert sorted(trace.user for trace in everybody) == ["mrs-001", "mrs-002"]
    assert without_ids(ours) == [changed(world.cluster.master, "mrs-001", "updateServerAgency", 3600)]
    assert nobody == ()


async def test_a_trace_of_no_resource_or_of_the_cluster_is_ours() -> None:
    """What may be about the cluster is not left out."""
    named = [ROW | {"trace_id": f"t-{each}", "resource_id": each} for each in ("c", "s-1", "s-2", "", None)]
    async with cts_answered(lambda _: httpx.Response(200, json=page(*named))) as cts:
        found = await changes(cts, servers=["s-1"])
    assert [trace.resource_id for trace in found] == ["c", "s-1", "", ""]


async def test_both_moments_belong_to_the_window(world: World) -> None:
    """A change at the very moment of `since` or `until` is given, one beyond them is not."""
    for age in (59, 60, 90, 120, 121):
        world.region.traces.add(world.cluster.master, "erika", "setMetadata", age)
    since, until = NOW - timedelta(seconds=120), NOW - timedelta(seconds=60)
    cts = await cts_of(world)
    found = await cts.agency_changes("c", since, until)
    elsewhere = timezone(timedelta(hours=8))
    assert without_ids(found) == [changed(world.cluster.master, "erika", "setMetadata", age) for age in (120, 90, 60)]
    assert await cts.agency_changes("c", since.astimezone(elsewhere), until.astimezone(elsewhere)) == found


async def test_what_cts_has_forgotten_is_not_given(world: World) -> None:
    """Of more than seven days ago nothing is known, however early the window begins."""
    world.region.traces.add(world.cluster.master, "erika", "setMetadata", 0)
    world.region.advance(8 * 86_400)
    cts = await cts_of(world)
    assert await cts.agency_changes("c", NOW - timedelta(days=30), NOW + timedelta(days=8)) == ()


async def test_all_pages_are_read(world: World) -> None:
    """450 traces of one name are three pages of at most 200, and all of them are given, in order."""
    for number in range(450):
        world.region.traces.add(world.cluster.master, f"user-{number}", "setMetadata", 450 - number)
    found = await changes(await cts_of(world))
    assert [trace.user for trace in found] == [f"user-{number}" for number in range(450)]
    assert len(world.wire.sent) == len(AGENCY_CHANGES) + 2


@pytest.mark.parametrize(
    "then",
    [page(), page(*rows(199, 200), marker="t-199"), page(*rows(190, 200), marker="t-199")],
    ids=["nothing", "the last one again", "the last ten again"],
)
async def test_a_marker_where_nothing_follows(then: dict[str, Any]) -> None:
    """A marker on the last page costs one more request, whether that gives nothing or what was given already."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.params["trace_name"] != "setMetadata":
            return httpx.Response(200, json=page())
        first = page(*rows(0, 200), marker="t-199")
        return httpx.Response(200, json=then if request.url.params.get("next") == "t-199" else first)

    async with cts_answered(answer) as cts:
        assert [trace.id for trace in await changes(cts)] == [f"t-{number}" for number in range(200)]


async def test_filters_that_are_not_known_there() -> None:
    """A CTS that lists everything for every name gives each change once, and no other operation."""
    everything = [ROW, ROW | {"trace_id": "t-2", "trace_name": "startServer"}]
    async with cts_answered(lambda _: httpx.Response(200, json=page(*everything))) as cts:
        assert await changes(cts) == (Trace.model_validate(ROW),)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (page(*rows(0, 200), marker="t-0"), "every page holds the same traces: CTS does not know next"),
        (page(ROW, count=2), "2 traces announced, 1 listed"),
        (page(ROW, marker="t-1", count=2), "2 traces announced, 1 listed"),
        (page(count=10**9), "1000000000 traces announced, 0 listed"),
    ],
)
async def test_pages_that_do_not_add_up(content: dict[str, Any], sentence: str) -> None:
    """A list that may be incomplete is no answer: nobody is said to have changed nothing."""
    async with cts_answered(lambda _: httpx.Response(200, json=content)) as cts:
        assert await error_of(changes(cts)) == f"ServerTrouble: {CALL}: {sentence}"


async def test_a_list_without_an_end() -> None:
    """One new trace per page, for ever, is given up after a hundred pages."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json=page(*rows(len(asked), len(asked) + 1), marker=f"t-{len(asked)}"))

    async with cts_answered(answer) as cts:
        error = await error_of(changes(cts))
    assert (error, len(asked)) == (f"ServerTrouble: {CALL}: 100 traces listed on 100 pages, and no end", 100)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{",
        "{}",
        '"x"',
        '{"traces": []}',
        '{"traces": null, "meta_data": {"count": 0}}',
        '{"traces": [], "meta_data": null}',
        '{"traces": [], "meta_data": {"marker": null}}',
        '{"traces": [], "meta_data": {"count": -1}}',
        '{"traces": [null], "meta_data": {"count": 1}}',
        '{"traces": [{}], "meta_data": {"count": 1}}',
        '{"traces": [{"trace_name": "setMetadata"}], "meta_data": {"count": 1}}',
        '{"traces": [{"trace_name": "setMetadata", "time": 0}], "meta_data": {"count": 1}}',
        '{"traces": [{"trace_name": "setMetadata", "time": "soon"}], "meta_data": {"count": 1}}',
        '{"traces": [{"trace_name": "setMetadata", "time": 1e400}], "meta_data": {"count": 1}}',
        '{"traces": [{"trace_name": "", "time": 1}], "meta_data": {"count": 1}}',
        '{"traces": [{"trace_name": null, "time": 1}], "meta_data": {"count": 1}}',
        '{"traces": [{"trace_name": "setMetadata", "time": 1, "user": ["x"]}], "meta_data": {"count": 1}}',
        '{"traces": [{"trace_name": "setMetadata", "time": 1, "user": {"name": {}}}], "meta_data": {"count": 1}}',
    ],
)
async def test_what_is_no_answer(body: str) -> None:
    """A body, page or trace that would have to be guessed is ServerTrouble naming the call, never an empty list."""
    async with cts_answered(lambda _: httpx.Response(200, text=body)) as cts:
        error = await error_of(changes(cts))
    assert error.startswith((f"ServerTrouble: {CALL}: the answer is not as described: ", f"ServerTrouble: {CALL}: the"))


FIELDS = ["traces", "meta_data", "count", "marker", "trace_name", "trace_id", "time", "user", "name", "resource_id"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(AGENCY_CHANGES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(content=JSON)
async def test_any_json_is_an_answer_or_an_error_of_ours(content: Any) -> None:
    """Whatever the fields hold, nothing but our errors comes out."""
    with suppress(RunbookError):
        await changes(cts_answered(lambda _: httpx.Response(200, content=json.dumps(content).encode())))


@pytest.mark.parametrize(
    ("given_", "user"),
    [({"name": "erika", "id": "1"}, "erika"), ("erika", "erika"), ({"name": None}, ""), ({"id": "1"}, ""), (None, "")],
)
def test_the_user_of_a_trace(given_: Any, user: str) -> None:
    """The user is an object with a name, or text; one that has no name is empty."""
    assert Trace.model_validate(ROW | {"user": given_}).user == user


def test_a_trace_is_frozen_and_comes_back_as_it_was_written() -> None:
    """It is a value, made by our names or by those of CTS, and survives being written down."""
    trace = Trace.model_validate(ROW)
    assert Trace.model_validate_json(trace.model_dump_json()) == trace
    assert trace == Trace(
        id="t-1", name="setMetadata", user="erika", time=datetime(1970, 1, 1, 0, 0, 0, 1000, UTC), resource_id="s-1"
    )
    with pytest.raises(ValidationError):
        trace.user = "otto"  # type: ignore[misc]


async def test_a_cts_that_is_denied_is_asked_once(world: World) -> None:
    """A 403 is NotAuthorized with the service's code and words, after one request."""
    world.region.set_fault("cts-denied")
    call = f"CTS GET v3/{world.region.project_id}/traces"
    assert await world.error_of(changes(await cts_of(world))) == (
        f"NotAuthorized: {call}: HTTP 403 CTS.0013: No permission, Please check roles."
    )
    assert world.wire.sent == ["GET traces"]


async def test_a_cts_that_is_down_is_asked_again(world: World) -> None:
    """A 503 is ServerTrouble after three requests; one that passes is no trouble."""
    call = f"CTS GET v3/{world.region.project_id}/traces"
    cts = await cts_of(world)
    world.region.trouble.add("GET", "*/traces", "status", times=2, status=503)
    assert (await changes(cts), len(world.wire.sent)) == ((), len(AGENCY_CHANGES) + 2)
    world.wire.sent.clear()
    world.region.set_fault("cts-down")
    assert await world.error_of(changes(cts)) == (
        f"ServerTrouble: {call}: HTTP 503 CTS.0001: The service is unavailable."
    )
    assert world.wire.sent == ["GET traces"] * 3


async def test_a_signature_that_is_wrong_is_not_authorized(world: World) -> None:
    """A wrong secret key is NotAuthorized, and no secret is shown."""
    world.secrets.add("wrong-secret-key")
    error = await world.error_of(changes(await cts_of(world, "wrong-secret-key")))
    call = f"CTS GET v3/{world.region.project_id}/traces"
    assert error.startswith(f"NotAuthorized: {call}: HTTP 401 APIG.0301: ")


PLACE = {
    "project_id": "p",
    "domain_id": "d",
    "mrs_url": "https://mrs",
    "ecs_url": "https://ecs",
    "iam_url": "https://i",
}


async def test_the_client_is_what_the_block_says() -> None:
    """A block without an address of CTS has no client of it; with one the address and the project reach the client."""
    without = Cloud.model_validate({**PLACE, "token": "t"})
    cts = Cloud.model_validate({**PLACE, "token": "t", "cts_url": "https://cts"}).get_cts()
    assert (without.cts_url, without.get_cts()) == ("", None)
    assert cts is not None
    async with cts:
        assert (str(cts.http.base_url), cts.project_id, cts.dry_run) == ("https://cts/", "p", True)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("cts", "the CTS address cannot be used: write it as https://host:port/path"),
        ("http://10.0.0.1", "the CTS address must begin with https://: 10.0.0.1 is another machine"),
    ],
)
def test_an_address_that_cannot_be_used(url: str, sentence: str) -> None:
    """What is wrong with it is said when the client is asked for, as with the other addresses."""
    with pytest.raises(ConfigurationError, match=sentence):
        Cloud.model_validate({**PLACE, "token": "t", "cts_url": url}).get_cts()


def test_a_cts_elsewhere_is_never_fast() -> None:
    """A speed is refused where CTS alone is not on this machine."""
    region, local = Region(), "http://127.0.0.1:8080"
    cluster = region.cluster("mrs-001")

    def block(cts_url: str) -> Cluster:
        cloud = cloud_block(region, local, cts_url=cts_url)
        return cluster_block(cluster, manager_block(cluster, local), cloud, speed=60)

    assert [block(url).speed for url in ("", local)] == [60, 60]
    with pytest.raises(ValidationError, match=r"not for 'cts\.example\.org': leave it at 1"):
        block("https://cts.example.org")


@pytest.mark.server
async def test_a_connection_has_a_client_of_cts_where_the_block_names_one(prefect_server: str) -> None:
    """It is opened and closed with the others; where the block names none there is none."""
    region, nowhere = Region(), "http://127.0.0.1:9"
    cluster = region.cluster("mrs-001")
    closed = []
    for settings_ in ({}, {"cts_url": ""}):
        name = f"cts-{uuid4().hex[:8]}"
        cloud = cloud_block(region, nowhere, **settings_)
        await cluster_block(cluster, manager_block(cluster, nowhere), cloud).save(name)
        async with connected(Case(cluster=name, alarm_id="12110")) as connection:
            closed.append(connection.cts and connection.cts.http.is_closed)
        closed.append(connection.cts and connection.cts.http.is_closed)
    assert closed == [False, True, None, None]
