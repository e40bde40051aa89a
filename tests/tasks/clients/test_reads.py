"""Trouble on a read: it is tried again while that may help, and ends in the error that says what happened."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from tasks.clients.ecs import Ecs
from tasks.clients.http import Patience
from tasks.errors import Throttled
from tests.tasks.clients.conftest import AGENCY, HASTE, PATIENCE, World, error_of

pytestmark = pytest.mark.anyio
SERVER = "*/cloudservers/*"
TROUBLES = [
    ("latency", {"seconds": 0.2}, "Unreachable: {call}: no answer within 0.15 s from {url}/"),
    ("reset", {}, "Unreachable: {call}: {url}/ cannot be reached (the connection broke)"),
    (
        "answer-lost",
        {},
        "Unreachable: {call}: {url}/ cannot be reached (Server disconnected without sending a response.): "
        "if that port speaks TLS, its address begins with https://",
    ),
    ("status", {"status": 500}, "ServerTrouble: {call}: HTTP 500: 500 500"),
    ("status", {"status": 502}, "ServerTrouble: {call}: HTTP 502: 502 502"),
    (
        "status",
        {"status": 429, "retry_after": 0},
        "Throttled: {call}: HTTP 429 APIG.0308: The throttling threshold has been reached",
    ),
]


@pytest.mark.parametrize(("kind", "options", "sentence"), TROUBLES)
async def test_a_read_is_repeated(served_world: World, kind: str, options: dict[str, Any], sentence: str) -> None:
    """Trouble that passes at the third attempt is no trouble; one that stays is named after three requests."""
    world = served_world
    ecs, server = await world.ecs(patience=HASTE if kind == "latency" else PATIENCE), world.cluster.master.server_id
    world.region.trouble.add("GET", SERVER, kind, times=2, **options)
    assert (await ecs.agency(server), len(world.wire.sent)) == (AGENCY, 3)
    world.region.trouble.add("GET", SERVER, kind, times=None, **options)
    call = f"ECS GET v1/{world.region.project_id}/cloudservers/{server}"
    assert await world.error_of(ecs.agency(server)) == sentence.format(call=call, url=world.url)
    assert len(world.wire.sent) == 6


async def test_a_truncated_answer_is_repeated(served_world: World) -> None:
    """Half a JSON text is an answer that cannot be read; the words of its beginning are shown."""
    world = served_world
    ecs, server = await world.ecs(), world.cluster.master.server_id
    world.region.trouble.add("GET", SERVER, "truncated", times=None)
    error = await world.error_of(ecs.agency(server))
    call = f"ECS GET v1/{world.region.project_id}/cloudservers/{server}"
    assert error.startswith(f'ServerTrouble: {call}: the answer is not JSON (application/json): {{"server":{{"id"')
    assert (error.endswith("..."), len(world.wire.sent)) == (True, 3)


async def test_json_with_another_label_is_read(world: World) -> None:
    """The content counts, not its type: JSON called text/html is JSON."""
    world.region.trouble.add("GET", SERVER, "wrong-type")
    ecs = await world.ecs()
    assert (await ecs.agency(world.cluster.master.server_id), len(world.wire.sent)) == (AGENCY, 1)


async def test_a_refusal_is_not_repeated(world: World) -> None:
    """A 4xx is final: one request."""
    mrs = await world.mrs()
    call = f"MRS GET v1.1/{world.region.project_id}/cluster_infos/nobody"
    assert await world.error_of(mrs.cluster("nobody")) == (
        f"Rejected: {call}: HTTP 400 12000003: The cluster does not exist."
    )
    assert world.wire.sent == ["GET nobody"]


async def test_retry_after_is_waited_for(world: World) -> None:
    """The next attempt is not made before the moment the service named, as seconds or as an HTTP date."""
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    ecs = await world.ecs(patience=Patience(timeout=3, attempts=2, first_pause=0.01, longest_pause=5))
    first, second, _ = (host.server_id for host in world.cluster.hosts.values())
    date = format_datetime(moment, usegmt=True)
    world.region.trouble.add("GET", f"*/{first}", "status", status=429, retry_after="1")
    world.region.trouble.add("GET", f"*/{second}", "status", status=429, retry_after=date)
    answered: dict[str, datetime] = {}

    async def ask(server: str) -> None:
        assert await ecs.agency(server) == AGENCY
        answered[server] = datetime.now(UTC)

    began = datetime.now(UTC)
    await asyncio.gather(ask(first), ask(second))
    assert (answered[first] >= began + timedelta(seconds=1), answered[second] >= moment) == (True, True)


async def test_a_long_retry_after_is_not_cut_short(world: World) -> None:
    """Asked to stay away longer than a call may pause, the call ends at once and tells how long."""
    world.region.trouble.add("GET", SERVER, "status", times=None, status=429, retry_after=120)
    ecs = await world.ecs()
    with pytest.raises(Throttled) as caught:
        await ecs.agency(world.cluster.master.server_id)
    assert (caught.value.retry_after, len(world.wire.sent)) == (120, 1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("-7", None),
        ("soon", None),
        ("1.5", None),
        ("\xb2", None),
        ("9" * 400, float("inf")),
        ("Mon, 05 Jan 1970 00:00:00 GMT", 0.0),
        ("Mon, 05 Jan 2026 00:00:00 -0000", None),
        ("Mon, 05 Jan 2026 00:00:00 +99999999999999999999", None),
        ("Mon, 05 Jan 99999 00:00:00 GMT", None),
    ],
)
async def test_any_retry_after_is_a_number_or_nothing(value: str, seconds: float | None) -> None:
    """Seconds, a date, or words nobody understands."""
    headers = [(b"Retry-After", value.encode("latin-1"))]
    ecs = Ecs("ECS", "http://localhost", transport=httpx.MockTransport(lambda _: httpx.Response(429, headers=headers)))
    async with ecs:
        ecs.patience = Patience(attempts=1)
        with pytest.raises(Throttled) as caught:
            await ecs.agency("a-server")
    assert caught.value.retry_after == seconds


async def test_pauses_grow_and_differ(world: World) -> None:
    """Two reads that fail together do not come back together."""
    world.region.trouble.add("GET", SERVER, "status", times=None, status=500)
    patience = Patience(timeout=3, attempts=2, first_pause=0.03, longest_pause=0.5)
    took = []
    for _ in range(3):
        ecs, began = await world.ecs(patience=patience), time.monotonic()
        await world.error_of(ecs.agency(world.cluster.master.server_id))
        took.append(round(time.monotonic() - began, 3))
    assert len(set(took)) > 1
    assert min(took) >= 0.03


async def test_an_answer_that_drips_ends_in_time() -> None:
    """The limit is for the whole answer: a byte now and then does not prolong it."""

    async def drips() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=drips()))
    patience, began = Patience(timeout=0.2, attempts=1), time.monotonic()
    async with Ecs("ECS", "http://localhost", patience=patience, transport=transport) as ecs:
        assert await error_of(ecs.agency("a-server")) == (
            "Unreachable: ECS GET v1//cloudservers/a-server: no answer within 0.2 s from http://localhost/"
        )
    assert time.monotonic() - began < 2


async def test_an_endless_answer_is_given_up() -> None:
    """More than 64 MB is no answer of these APIs."""

    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1_000_000

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=forever()))
    async with Ecs("ECS", "http://localhost", patience=Patience(attempts=1), transport=transport) as ecs:
        assert await error_of(ecs.agency("a-server")) == (
            "ServerTrouble: ECS GET v1//cloudservers/a-server: the answer is longer than 64 MB"
        )


async def test_a_port_nobody_listens_on(world: World, free_port: int) -> None:
    """The address is named, and that nobody answers there."""
    async with Ecs("ECS", f"http://127.0.0.1:{free_port}", patience=PATIENCE) as ecs:
        assert await world.error_of(ecs.agency("a-server")) == (
            f"Unreachable: ECS GET v1//cloudservers/a-server: http://127.0.0.1:{free_port}/ cannot be reached "
            "(All connection attempts failed)"
        )
