"""The blocks: what they refuse, what they never show, and what is said when one is missing or wrong."""

import re
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tasks.blocks import Cloud, Cluster, Manager
from tasks.clients.signing import SignedWithKeys, SignedWithToken
from tasks.errors import ConfigurationError, UnknownCluster
from tasks.loading import cluster_block
from tests.tasks.clients.conftest import error_of

SECRETS = ("s3cret-password", "s3cret-ak", "s3cret-sk", "s3cret-sts", "s3cret-token")
MANAGER = {"url": "https://10.0.0.1:28443/web/api/v2", "user": "runbooks", "password": "s3cret-password"}
PLACE = {
    "project_id": "p",
    "domain_id": "d",
    "mrs_url": "https://mrs",
    "ecs_url": "https://ecs",
    "iam_url": "https://iam",
}
KEYS = {"access_key": "s3cret-ak", "secret_key": "s3cret-sk"}
LOCAL = "http://127.0.0.1:8080"
LOCAL_PLACE = PLACE | {"mrs_url": LOCAL, "ecs_url": LOCAL, "iam_url": LOCAL}


def content(**changes: Any) -> dict[str, Any]:
    """What is put into a cluster's block, all secrets set."""
    cloud = {**PLACE, **KEYS, "security_token": "s3cret-sts"}
    return {"cluster_id": "c", "source": "mrs-001", "manager": MANAGER, "cloud": cloud, **changes}


def test_no_way_of_showing_a_block_shows_a_secret() -> None:
    """repr, str, JSON and dump, of a block and of the one that holds it; a token is as secret as a key."""
    tokened = Cloud.model_validate({**PLACE, "token": "s3cret-token"})
    cluster = Cluster.model_validate(content())
    shown = ""
    for block in (cluster, cluster.manager, cluster.cloud, tokened):
        shown += f"{block!r} {block} {block.model_dump_json()} {block.model_dump()} {block.model_dump(mode='json')}"
    assert [secret for secret in SECRETS if secret in shown] == []
    assert cluster.manager.password.get_secret_value() == "s3cret-password"


def test_secrets_are_marked_for_the_form() -> None:
    """Prefect encrypts and hides exactly these fields, in the cluster's form too."""
    schemas = {kind: kind.model_json_schema()["secret_fields"] for kind in (Manager, Cloud, Cluster)}
    cloud = ["access_key", "secret_key", "security_token", "token"]
    assert {kind: sorted(fields) for kind, fields in schemas.items()} == {
        Manager: ["password"],
        Cloud: cloud,
        Cluster: [
            *(f"changing_cloud.{field}" for field in cloud),
            "changing_manager.password",
            *(f"cloud.{field}" for field in cloud),
            "manager.password",
        ],
    }


@pytest.mark.parametrize("kind", [Manager, Cloud, Cluster])
def test_every_field_of_a_form_explains_itself(kind: type[Manager]) -> None:
    """A sentence per field, but for the two blocks a cluster refers to."""
    fields = set(kind.model_fields) - {"manager", "cloud"}
    assert {name for name in fields if kind.model_fields[name].description} == fields


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        (KEYS, True),
        (KEYS | {"security_token": "s3cret-sts"}, True),
        ({"token": "s3cret-token"}, True),
        ({}, False),
        ({"access_key": "s3cret-ak"}, False),
        ({"secret_key": "s3cret-sk"}, False),
        (KEYS | {"token": "s3cret-token"}, False),
    ],
)
def test_a_cloud_has_one_credential(given: dict[str, str], accepted: bool) -> None:
    """Keys or a token; the refusal does not show what was put in."""
    if accepted:
        auth = SignedWithToken if "token" in given else SignedWithKeys
        clients = Cloud.model_validate({**PLACE, **given}).get_clients(dry_run=True)
        assert [type(client.http.auth) for client in clients] == [auth] * 3
        return
    with pytest.raises(ValidationError, match="give either access_key and secret_key, or token") as caught:
        Cloud.model_validate({**PLACE, **given})
    assert [secret for secret in SECRETS if secret in str(caught.value)] == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mode": "yolo"}, "mode"),
        ({"restart_mode": "yolo"}, "restart_mode"),
        ({"rebind_mode": ""}, "rebind_mode"),
        ({"on_unbound": "create"}, "on_unbound"),
        ({"wait_after_restart": 359}, "wait_after_restart"),
        ({"wait_after_rebind": 359.9}, "wait_after_rebind"),
        ({"speed": 0}, "speed"),
        ({"speed": -1}, "speed"),
        ({"manager": MANAGER | {"cluster_number": 0}}, "cluster_number"),
        ({"manager": {"url": "https://m", "password": "s3cret-password"}}, "user"),
        ({"manager": MANAGER | {"password": ["s3cret-password"]}}, "password"),
        ({"cloud": {**PLACE, **KEYS, "secret_key": ["s3cret-sk"]}}, "secret_key"),
    ],
)
def test_what_a_cluster_refuses(changes: dict[str, Any], field: str) -> None:
    """Unknown words, waits shorter than one poll of Meta, standing time; the field is named and no secret is shown."""
    with pytest.raises(ValidationError) as caught:
        Cluster.model_validate(content(**changes))
    assert field in str(caught.value)
    assert [secret for secret in SECRETS if secret in str(caught.value)] == []


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("changing_manager", "url", "https://10.0.0.2:28443/web/api/v2"),
        ("changing_manager", "cluster_number", 2),
        *[("changing_cloud", field, f"{value}-2") for field, value in PLACE.items()],
    ],
)
def test_changes_go_where_reads_go(name: str, field: str, value: object) -> None:
    """The block for changes leads to the very same place as the one that reads, only the login may be another."""
    reads = {**MANAGER} if name == "changing_manager" else {**PLACE, **KEYS}
    own = reads | ({"user": "changer"} if name == "changing_manager" else {"access_key": "s3cret-ak2"})
    assert getattr(Cluster.model_validate(content(**{name: own})), name) is not None
    what = f"{name}.{field} is '{value}' and {name.removeprefix('changing_')}.{field} "
    with pytest.raises(ValidationError, match=re.escape(what)) as caught:
        Cluster.model_validate(content(**{name: own | {field: value}}))
    assert "both must lead to the same place, only the login may differ" in str(caught.value)
    assert [secret for secret in SECRETS if secret in str(caught.value)] == []


def test_a_slash_at_the_end_is_the_same_place() -> None:
    """An address with a slash at its end is the same address."""
    own = MANAGER | {"url": MANAGER["url"] + "/"}
    assert Cluster.model_validate(content(changing_manager=own)).changing_manager is not None


def test_changes_take_the_routes_of_reads() -> None:
    """The login for changes goes by the routes of the block that reads; others of its own are refused."""
    routes = {"restart": "PUT own/restart"}
    cluster = Cluster.model_validate(content(manager=MANAGER | {"routes": routes}, changing_manager=MANAGER))
    own = cluster.manager_for_changes()
    assert own is not None
    assert own.routes == routes
    assert Cluster.model_validate(content()).manager_for_changes() is None
    with pytest.raises(ValidationError, match="leave it empty, those of manager are used"):
        Cluster.model_validate(content(changing_manager=MANAGER | {"routes": routes}))


def test_a_new_cluster_is_safe() -> None:
    """Approve, escalate, no agency, real time, and waits longer than a poll."""
    cluster = Cluster.model_validate(content())
    assert (cluster.mode, cluster.on_unbound, cluster.agency, cluster.speed) == ("approve", "escalate", "", 1)
    assert (cluster.wait_after_restart, cluster.wait_after_rebind) == (600, 900)
    assert (cluster.mode_of("restart"), cluster.mode_of("rebind")) == ("approve", "approve")
    assert (cluster.windows, cluster.freezes, cluster.time_zone) == ([], [], "UTC")


@pytest.mark.parametrize(
    ("mode", "of_action", "counts"),
    [
        ("observe", "as the cluster", "observe"),
        ("observe", "observe", "observe"),
        ("observe", "approve", "observe"),
        ("observe", "auto", "observe"),
        ("approve", "as the cluster", "approve"),
        ("approve", "observe", "observe"),
        ("approve", "approve", "approve"),
        ("approve", "auto", "auto"),
        ("auto", "as the cluster", "auto"),
        ("auto", "observe", "observe"),
        ("auto", "approve", "approve"),
        ("auto", "auto", "auto"),
    ],
)
@pytest.mark.parametrize(("action", "other"), [("restart", "rebind"), ("rebind", "restart")])
def test_an_action_has_its_own_mode_or_the_clusters(
    action: Literal["restart", "rebind"], other: Literal["restart", "rebind"], mode: str, of_action: str, counts: str
) -> None:
    """An action's own mode counts for it and not for the other, but a cluster in observe stays so for both."""
    cluster = Cluster.model_validate(content(mode=mode, **{f"{action}_mode": of_action}))
    assert (cluster.mode_of(action), cluster.mode_of(other)) == (counts, mode)


def test_windows_and_freezes_stay_as_written() -> None:
    """The block holds the very texts a person wrote, so that the form shows them again."""
    written = {
        "windows": ["mon - fri 22:00-6:00", "daily 01:30-04:00"],
        "freezes": ["2026-12-20 to 2027-01-06", "2026-12-24 12:00 to 2026-12-27 06:00"],
        "time_zone": "Europe/Berlin",
    }
    cluster = Cluster.model_validate(content(**written))
    assert {field: getattr(cluster, field) for field in written} == written


@pytest.mark.parametrize(
    ("changes", "place", "sentence"),
    [
        (
            {"windows": ["daily 01:30-04:00", "Mon-Fri 22-06"]},
            ("windows", 1),
            "maintenance window 'Mon-Fri 22-06': '22' is no time between 00:00 and 24:00; write it like "
            "'Mon-Fri 22:00-06:00', 'Sat,Sun 00:00-24:00' or 'daily 01:30-04:00'",
        ),
        (
            {"freezes": ["2026-12-24"]},
            ("freezes", 0),
            "change freeze '2026-12-24': it is not a date, 'to', and a date; write it like "
            "'2026-12-20 to 2027-01-06' or '2026-12-24 12:00 to 2026-12-27 06:00'",
        ),
        (
            {"time_zone": "Berlin"},
            ("time_zone",),
            "no such time zone: 'Berlin'; write it like Europe/Berlin or UTC",
        ),
    ],
)
def test_a_window_nobody_can_read_is_refused_at_once(
    changes: dict[str, Any], place: tuple[str | int, ...], sentence: str
) -> None:
    """A block with an unreadable window, freeze or time zone is not made, and the error shows a right one."""
    with pytest.raises(ValidationError) as caught:
        Cluster.model_validate(content(**changes))
    assert [(e["loc"], e["msg"]) for e in caught.value.errors()] == [(place, f"Value error, {sentence}")]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/x", "http://localhost:1/x", "http://127.8.8.8/x", "http://[::1]:1/x"]
)
def test_the_emulator_may_be_fast(url: str) -> None:
    """On loopback, Manager and cloud."""
    cloud = {**LOCAL_PLACE, **KEYS}
    assert Cluster.model_validate(content(manager=MANAGER | {"url": url}, cloud=cloud, speed=60)).speed == 60


@pytest.mark.parametrize(
    ("url", "place", "host"),
    [
        ("https://10.0.0.1:28443/web", LOCAL_PLACE, "10.0.0.1"),
        ("https://manager/web", LOCAL_PLACE, "manager"),
        ("https://localhost.example.org/web", LOCAL_PLACE, "localhost.example.org"),
        ("https://127.0.0.1.example.org/web", LOCAL_PLACE, "127.0.0.1.example.org"),
        ("https://localhost@10.0.0.1/web", LOCAL_PLACE, "10.0.0.1"),
        ("https://127.1/web", LOCAL_PLACE, "127.1"),
        ("nonsense", LOCAL_PLACE, ""),
        (LOCAL, PLACE, "mrs"),
        (LOCAL, LOCAL_PLACE | {"iam_url": "https://iam.eu-de.example.org"}, "iam.eu-de.example.org"),
    ],
)
def test_a_real_cluster_is_never_fast(url: str, place: dict[str, str], host: str) -> None:
    """Wherever one address is not this machine's, through a tunnel to Manager too, time runs at its own speed."""
    refused = f"speed is for the emulator on this machine only, not for '{host}': leave it at 1"
    with pytest.raises(ValidationError, match=refused):
        Cluster.model_validate(content(manager=MANAGER | {"url": url}, cloud={**place, **KEYS}, speed=2))
    assert Cluster.model_validate(content(manager=MANAGER | {"url": url}, cloud={**place, **KEYS})).speed == 1


@pytest.mark.anyio
async def test_clients_are_what_the_block_says() -> None:
    """Addresses, ids, dry run and TLS verification reach the clients."""
    cluster = Cluster.model_validate(content())
    for dry_run in (True, False):
        manager = cluster.manager.get_client(dry_run=dry_run)
        mrs, ecs, iam = cluster.cloud.get_clients(dry_run=dry_run)
        assert [str(client.http.base_url) for client in (manager, mrs, ecs, iam)] == [
            "https://10.0.0.1:28443/web/api/v2/",
            "https://mrs/",
            "https://ecs/",
            "https://iam/",
        ]
        assert [client.dry_run for client in (manager, mrs, ecs, iam)] == [dry_run] * 4
        assert (mrs.project_id, ecs.project_id, iam.domain_id, manager.cluster) == ("p", "p", "d", 1)
        for client in (manager, mrs, ecs, iam):
            await client.aclose()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ca_file": "/nowhere.pem"}, r"the CA file /nowhere\.pem cannot be used"),
        ({"routes": {"alarms": "alarms"}}, "Manager route 'alarms' is 'alarms'"),
        ({"url": "10.0.0.1"}, "the Manager address cannot be used"),
        (
            {"url": "http://10.0.0.1:28443/web/api/v2"},
            "the Manager address must begin with https://: 10.0.0.1 is another",
        ),
    ],
)
def test_a_manager_that_cannot_be_reached_as_written(changes: dict[str, Any], sentence: str) -> None:
    """What is wrong in the block is said when a client is asked for, before any call."""
    with pytest.raises(ConfigurationError, match=sentence):
        Manager.model_validate(MANAGER | changes).get_client(dry_run=True)


@pytest.fixture
async def saved(prefect_server: str, anyio_backend: str) -> AsyncIterator[str]:
    """The name of a cluster's block in a real Prefect server."""
    await Cluster.model_validate(content()).save("blocks-test", overwrite=True)
    yield "blocks-test"
    await Cluster.adelete("blocks-test")


@pytest.mark.server
@pytest.mark.anyio
async def test_a_block_comes_back_as_it_was_saved(saved: str) -> None:
    """Secrets included, and they are still secrets."""
    found, put_in = await cluster_block(saved), Cluster.model_validate(content())
    shown, before = found.model_dump(), put_in.model_dump()
    assert {field: shown[field] for field in Cluster.model_fields} == {f: before[f] for f in Cluster.model_fields}
    assert "s3cret" not in repr(found)
    assert (found.manager.password, found.cloud.secret_key) == (put_in.manager.password, put_in.cloud.secret_key)


@pytest.mark.server
@pytest.mark.anyio
async def test_a_missing_block_tells_how_to_make_one(prefect_server: str) -> None:
    """The name is shown, so that a misspelling is seen."""
    assert await error_of(cluster_block("nobody")) == (
        "UnknownCluster: there is no cluster 'nobody': make it in the Prefect UI under Blocks > MRS Cluster, "
        "or check the spelling"
    )
    assert issubclass(UnknownCluster, ConfigurationError)


@pytest.mark.anyio
async def test_a_server_in_trouble_is_asked_again() -> None:
    """A Prefect server that answers 500, as when its database is busy, is asked again before a gate stays shut."""
    answers = [500, 500, 404]
    asked: list[str] = []

    async def troubled(request: Request) -> Response:
        asked.append(request.url.path)
        return JSONResponse({"detail": "QueuePool limit"}, answers.pop(0))

    async with PrefectClient(Starlette(routes=[Route("/{path:path}", troubled)])) as client:
        assert "there is no cluster 'prod'" in await error_of(cluster_block("prod", client))
    assert asked == ["/api/block_types/slug/mrs-cluster/block_documents/name/prod"] * 3


@pytest.mark.server
@pytest.mark.anyio
async def test_a_wrong_block_names_its_fields(saved: str) -> None:
    """What Prefect stored and our form does not accept is told by field and reason, without any value."""
    async with get_client() as client:
        document = await client.read_block_document_by_name(saved, "mrs-cluster")
        wrong = content(mode="yolo", manager=MANAGER | {"cluster_number": 0})
        await client.update_block_document(
            document.id,
            BlockDocumentUpdate(block_schema_id=document.block_schema_id, data=wrong, merge_existing_data=False),
        )
    assert await error_of(cluster_block(saved), *SECRETS, "yolo") == (
        "ConfigurationError: the block 'MRS Cluster/blocks-test' cannot be used: "
        "manager.cluster_number: Input should be greater than or equal to 1; "
        "mode: Input should be 'observe', 'approve' or 'auto'"
    )
