"""Trouble on a mutation: it is sent exactly once, and the error says whether it may have happened."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tasks.clients.ecs import Ecs
from tasks.clients.http import Api, Patience
from tasks.clients.manager import Manager
from tasks.models import Instance
from tests.tasks.clients.conftest import AGENCY, HASTE, PATIENCE, World, error_of

pytestmark = pytest.mark.anyio
Act = Callable[[], Awaitable[object]]


async def restart(world: World, **options: Any) -> Act:
    """The restart of the first instance, with a client whose session is open."""
    manager, instance = await world.manager(**options), await world.instance()
    await manager.clusters()
    world.wire.sent.clear()
    return lambda: manager.restart("meta", instance)


async def set_agency(world: World, **options: Any) -> Act:
    """The binding of the first host."""
    ecs = await world.ecs(**options)
    return lambda: ecs.set_agency(world.cluster.master.server_id, AGENCY, would="bind node-master1")


MUTATIONS = {
    "restart": (restart, "*/restart", "POST clusters/1/services/meta/instances/restart"),
    "set_agency": (set_agency, "*/metadata", "POST metadata"),
}
TROUBLES: dict[str, tuple[str | None, dict[str, Any], str, int]] = {
    "none": (None, {}, "", 1),
    "wrong type": ("wrong-type", {}, "", 1),
    "late": ("latency", {"seconds": 0.3}, "OutcomeUnknown: {}: sent, and the answer was lost (no answer within", 0),
    "reset": ("reset", {}, "OutcomeUnknown: {}: sent, and the answer was lost (http://127.0.0.1", 0),
    "answer lost": ("answer-lost", {}, "OutcomeUnknown: {}: sent, and the answer was lost (http://127.0.0.1", 1),
    "truncated": ("truncated", {}, "OutcomeUnknown: {}: sent, and not answered for (the answer is not JSON", 1),
    "500": ("status", {"status": 500}, "OutcomeUnknown: {}: sent, and not answered for (HTTP 500: 500 500)", 0),
    "502": ("status", {"status": 502}, "OutcomeUnknown: {}: sent, and not answered for (HTTP 502: 502 502)", 0),
    "429": ("status", {"status": 429, "retry_after": 0}, "Throttled: {}: HTTP 429 APIG.0308: The throttling", 0),
    "409": ("status", {"status": 409}, "Rejected: {}: HTTP 409: 409 409", 0),
    "403": ("status", {"status": 403}, "NotAuthorized: {}: HTTP 403: 403 403", 0),
    "501": ("status", {"status": 501}, "NotOffered: {}: HTTP 501: 501 501", 0),
    "302": ("lost-session", {}, "SessionLost: {}: redirected to a login page: there is no session", 0),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_mutation_is_sent_once(world: World, name: str, trouble: str) -> None:
    """Whatever comes back, one request was made; where it cannot be known whether it acted, the error says that."""
    await _is_sent_once(world, name, trouble)


@pytest.mark.parametrize("trouble", ["none", "reset", "answer lost"])
@pytest.mark.parametrize("name", MUTATIONS)
async def test_a_mutation_is_sent_once_when_connections_break(served_world: World, name: str, trouble: str) -> None:
    """The same on a real connection, which no layer below opens again to repeat it."""
    await _is_sent_once(served_world, name, trouble)


async def _is_sent_once(world: World, name: str, trouble: str) -> None:
    kind, options, sentence, happened = TROUBLES[trouble]
    prepare, route, request = MUTATIONS[name]
    act = await prepare(world, patience=HASTE if kind == "latency" else PATIENCE)
    if kind:
        world.region.trouble.add("POST", route, kind, times=None, **options)
    if sentence:
        server = f"v1/{world.region.project_id}/cloudservers/{world.cluster.master.server_id}/metadata"
        call = {"restart": f"Manager {request}", "set_agency": f"ECS POST {server}"}[name]
        assert (await world.error_of(act())).startswith(sentence.format(call))
    else:
        await act()
    new_logins = ["GET session/status"] if (name, trouble) == ("restart", "302") else []
    assert world.wire.sent == [request, *new_logins]
    assert len(world.region.log) == happened


@pytest.mark.parametrize(
    ("name", "would"),
    [("restart", "would restart the meta instance of node-master1"), ("set_agency", "would bind node-master1")],
)
async def test_a_dry_run_sends_nothing(world: World, name: str, would: str) -> None:
    """It says what it would do; no request leaves, not even a login."""
    act = await MUTATIONS[name][0](world, dry_run=True)
    assert (await world.error_of(act()), world.wire.sent, world.region.log) == (f"DryRun: {would}", [], [])


async def test_a_client_is_dry_unless_told() -> None:
    """Forgetting to say it is safe."""
    async with Api("ECS", "http://127.0.0.1:1") as api:
        assert await error_of(api.act("POST", "x", would="do it")) == "DryRun: would do it"


async def test_a_mutation_nobody_received_did_not_happen(free_port: int) -> None:
    """A refused connection is Unreachable, not an unknown outcome."""
    async with Ecs("ECS", f"http://127.0.0.1:{free_port}", dry_run=False) as ecs:
        assert await error_of(ecs.set_agency("a-server", AGENCY, would="bind")) == (
            "Unreachable: ECS POST v1//cloudservers/a-server/metadata: "
            f"http://127.0.0.1:{free_port}/ cannot be reached (All connection attempts failed)"
        )


async def test_a_connection_that_is_never_accepted_did_not_happen() -> None:
    """Connecting gives up before the call does, so that it is known that nothing was sent."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(address)
        patience = Patience(timeout=0.3, attempts=1)
        async with Ecs("ECS", f"http://127.0.0.1:{address[1]}", dry_run=False, patience=patience) as ecs:
            assert await error_of(ecs.set_agency("a-server", AGENCY, would="bind")) == (
                "Unreachable: ECS POST v1//cloudservers/a-server/metadata: no answer within 0.3 s "
                f"from http://127.0.0.1:{address[1]}/"
            )


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("reset", {}, "Unreachable"),
        ("latency", {"seconds": 0.3}, "Unreachable"),
        ("status", {"status": 502}, "ServerTrouble"),
        ("status", {"status": 429}, "Throttled"),
        ("status", {"status": 404}, "NotOffered"),
    ],
)
@pytest.mark.parametrize("session", ["none yet", "lost"])
async def test_trouble_of_the_login_is_no_unknown_outcome(
    world: World, session: str, kind: str, options: dict[str, Any], error: str
) -> None:
    """Where the login before the restart fails, or the one after a 302, the restart is known not to have happened."""
    manager, instance = await world.manager(patience=HASTE), await world.instance()
    if session == "lost":
        await manager.clusters()
        world.cluster.sessions.clear()
    world.wire.sent.clear()
    world.region.trouble.add("GET", "*/session/status", kind, times=None, **options)
    found = await world.error_of(manager.restart("meta", instance))
    assert found.startswith(f"{error}: Manager GET session/status: ")
    restarts = ["POST clusters/1/services/meta/instances/restart"] if session == "lost" else []
    assert (world.wire.sent, world.region.log) == ([*restarts, "GET session/status"], [])


@pytest.mark.parametrize("number", ["", "abc", "\xb2", "-1", "11 "])
async def test_an_instance_without_a_number_is_not_restarted(world: World, number: str) -> None:
    """The id is what Manager listed; one that is no number is Manager's trouble, and nothing is sent."""
    manager = await world.manager()
    instance = Instance(id=number, role="meta", host="node-1")
    assert await world.error_of(manager.restart("meta", instance)) == (
        f"ServerTrouble: Manager GET instances: the instance of node-1 is listed with the id {number.strip()!r}, "
        "which is no number"
    )
    assert world.wire.sent == []


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (b'{"commandId": 7}', "7"),
        (b'{"commandId": "7"}', "7"),
        (b'{"commandId": null}', ""),
        (b'{"commandId": [7]}', ""),
        (b"{}", ""),
        (b"[]", ""),
        (b"", ""),
    ],
)
async def test_the_command_of_a_restart(content: bytes, command: str) -> None:
    """An accepted restart whose answer names no command is followed without one, never taken for a failure."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=content))
    async with Manager("http://localhost", user="u", password="p", dry_run=False, transport=transport) as manager:
        assert await manager.restart("meta", Instance(id="11")) == command


@pytest.mark.parametrize("server", ["", "..", "a/b", "a?b", "a#b", "a\nb", "\xe4"])
async def test_a_server_id_leads_nowhere_else(world: World, server: str) -> None:
    """Ids come from answers: one that is none is not put into a path, for reading or for writing."""
    ecs = await world.ecs()
    shown = " ".join(server.split())
    sentence = f"ServerTrouble: ECS cloudservers: a node's server id is {shown!r}: nothing sent"
    assert await world.error_of(ecs.agency(server)) == sentence
    assert await world.error_of(ecs.set_agency(server, AGENCY, would="bind")) == sentence
    assert world.wire.sent == []
