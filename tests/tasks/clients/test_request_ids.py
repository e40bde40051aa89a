"""The cloud's id of a request, by which its support finds it: of every change, and of no read."""

from typing import Any

import httpx
import pytest

from tasks.clients.ecs import Ecs
from tasks.clients.manager import Manager
from tasks.models import Instance
from tests.tasks.clients.conftest import AGENCY, World, error_of

pytestmark = pytest.mark.anyio

ID = "bb91ae0d8d0e4ccd0f2bd1f94f6c4a1c"
CALL = "ECS POST v1//cloudservers/a-server/metadata"


def answered(status: int, **content: Any) -> Ecs:
    """ECS that answers so, with its id of the request."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, headers={"X-Request-Id": ID}, **content))
    return Ecs("ECS", "http://localhost", dry_run=False, transport=transport)


async def test_a_bind_returns_it(world: World) -> None:
    """What the emulated cloud answers to a bind carries an id, another one each time."""
    ecs, server = await world.ecs(), world.cluster.master.server_id
    ids = [await ecs.set_agency(server, AGENCY, would="bind") for _ in range(2)]
    assert [len(each) for each in ids] == [32, 32]
    assert ids[0] != ids[1]


async def test_a_cloud_may_give_none() -> None:
    """A bind that is answered without an id is a bind."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={}))
    async with Ecs("ECS", "http://localhost", dry_run=False, transport=transport) as ecs:
        assert await ecs.set_agency("a-server", AGENCY, would="bind") == ""


@pytest.mark.parametrize(
    ("status", "content", "sentence"),
    [
        (403, {"json": {"error": {"code": "Ecs.0005", "message": "denied"}}}, "NotAuthorized: {}: HTTP 403 {}"),
        (429, {"json": {"error_code": "APIG.0308", "error_msg": "slow"}}, "Throttled: {}: HTTP 429 {}"),
        (503, {"text": "busy"}, "OutcomeUnknown: {}: sent, and not answered for (HTTP 503{})"),
        (200, {"text": "hello"}, "OutcomeUnknown: {}: sent, and not answered for (the answer is not JSON {})"),
    ],
)
async def test_a_change_that_went_wrong_names_it(status: int, content: dict[str, Any], sentence: str) -> None:
    """Whatever ECS says of a bind, the error names the id it gave."""
    words = {
        403: f"Ecs.0005: denied (request {ID})",
        429: f"APIG.0308: slow (request {ID})",
        503: f": busy (request {ID})",
        200: f"(text/plain; charset=utf-8): hello (request {ID})",
    }
    async with answered(status, **content) as ecs:
        assert await error_of(ecs.set_agency("a-server", AGENCY, would="bind")) == sentence.format(CALL, words[status])


async def test_a_read_does_not_name_it() -> None:
    """The same trouble of a read is told in the same words each time."""
    async with answered(403, json={"error": {"code": "Ecs.0005", "message": "denied"}}) as ecs:
        path = "ECS GET v1//cloudservers/a-server"
        assert await error_of(ecs.agency("a-server")) == f"NotAuthorized: {path}: HTTP 403 Ecs.0005: denied"


async def test_who_acts_is_named_without_a_secret() -> None:
    """Manager's client acts as its user, and says nothing of the password."""
    async with Manager("http://localhost", user="runbooks", password="hunter2") as manager:
        assert manager.acts_as == "Manager user 'runbooks'"
        assert await error_of(manager.restart("meta", Instance(id="11", host="node-1")), "hunter2") == (
            "DryRun: would restart the meta instance of node-1"
        )
