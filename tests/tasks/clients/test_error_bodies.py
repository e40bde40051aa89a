"""The service's own code and words, in every shape they come in; what it repeats of our credentials is taken out."""

import json
from typing import Any

import httpx
import pytest

from tasks.clients.ecs import Ecs
from tasks.clients.http import Patience
from tasks.clients.signing import SignedWithKeys, SignedWithToken
from tasks.errors import RemoteError
from tests.tasks.clients.conftest import error_of

pytestmark = pytest.mark.anyio
CALL = "ECS GET v1//cloudservers/a-server"
DEEP = b"[" * 100_000


def ecs_answered(status: int, auth: httpx.Auth | None = None, **content: Any) -> Ecs:
    """A client whose every request gets this answer."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, **content))
    return Ecs("ECS", "http://localhost", auth=auth, patience=Patience(attempts=1), transport=transport)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ({"error_code": "12000003", "error_msg": "no cluster"}, "12000003", "no cluster"),
        ({"errorCode": "400", "errorMsg": "no"}, "400", "no"),
        ({"code": "Ecs.0114", "message": "no server"}, "Ecs.0114", "no server"),
        ({"error": {"code": 403, "message": "no right", "title": "Forbidden"}}, "403", "no right"),
        ({"error": {"code": "Ecs.0114", "message": "no server"}}, "Ecs.0114", "no server"),
        ({"error": {"error_code": "IAM.0011", "error_msg": "no"}}, "IAM.0011", "no"),
        ({"badRequest": {"message": "no", "code": 400}}, "400", "no"),
        ({"error_msg": "no code"}, "", "no code"),
        ({"error_msg": "null code", "error_code": None}, "", "null code"),
        ({"error_msg": None, "error_code": "1"}, "", '{"error_msg":null,"error_code":"1"}'),
        ({"error_msg": {"a": 1}, "error_code": [2]}, "", '{"error_msg":{"a":1},"error_code":[2]}'),
        ({"error_code": {"a": 1}, "error_msg": "odd code"}, "", "odd code"),
        (["no"], "", '["no"]'),
        ("no", "", '"no"'),
    ],
)
async def test_the_services_words(content: Any, code: str, words: str) -> None:
    """The documented shapes give code and words, any other is shown as it is."""
    async with ecs_answered(400, json=content) as ecs:
        with pytest.raises(RemoteError) as caught:
            await ecs.agency("a-server")
    shown = f"{CALL}: HTTP 400{f' {code}' if code else ''}: {words}"
    assert (str(caught.value), caught.value.status, caught.value.code) == (shown, 400, code)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Bad Request"),
        (b"<html><head><title>Oh</title></head>\n<body><h1>no</h1></body></html>", "Oh no"),
        (b"<" * 100_000, "<" * 117 + "..."),
        (b"words " * 100, "words " * 19 + "wor..."),
        (b"\x1b[31mred\x07\r\nnext line", "[31mred next line"),
        (b"\xff\xfe\xfa", "\ufffd\ufffd\ufffd"),
        (DEEP, "[" * 117 + "..."),
        (b'{"error_code":1,"error_msg":' + DEEP, '{"error_code":1,"error_msg":' + "[" * 89 + "..."),
        (b'{"error_code":"1","error_msg":"' + b"x" * 1000 + b'"}', "1: " + "x" * 117 + "..."),
    ],
)
async def test_any_body_is_one_short_line(body: bytes, words: str) -> None:
    """HTML, binary, terminal commands, endless or deep bodies: at most 120 printable characters."""
    async with ecs_answered(400, content=body) as ecs:
        shown = f"Rejected: {CALL}: HTTP 400: {words}" if words[:3] != "1: " else f"Rejected: {CALL}: HTTP 400 {words}"
        assert await error_of(ecs.agency("a-server")) == shown


@pytest.mark.parametrize("charset", ["hex", "zlib", "rot13", "nonsense", "utf-7", "undefined"])
@pytest.mark.parametrize("status", [200, 400])
async def test_no_charset_is_believed(charset: str, status: int) -> None:
    """A charset that is no text encoding is not used for decoding."""
    headers = {"Content-Type": f"text/html; charset={charset}"}
    async with ecs_answered(status, content=b"<p>no</p>", headers=headers) as ecs:
        assert (await error_of(ecs.agency("a-server"))).endswith(": no")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (300, "SessionLost"),
        (302, "SessionLost"),
        (307, "SessionLost"),
        (400, "Rejected"),
        (401, "NotAuthorized"),
        (403, "NotAuthorized"),
        (404, "NotOffered"),
        (405, "NotOffered"),
        (409, "Rejected"),
        (429, "Throttled"),
        (500, "ServerTrouble"),
        (501, "NotOffered"),
        (503, "ServerTrouble"),
        (599, "ServerTrouble"),
        (799, "ServerTrouble"),
    ],
)
async def test_the_status_decides_the_error(status: int, error: str) -> None:
    """One class of the tree for each; a redirect is never followed."""
    async with ecs_answered(status, headers={"Location": "https://elsewhere/"}) as ecs:
        assert (await error_of(ecs.agency("a-server"))).partition(":")[0] == error


@pytest.mark.parametrize(
    "auth", [SignedWithToken("the-token"), SignedWithKeys("AK", "the-sk", security_token="the-sts-token", scope={})]
)
@pytest.mark.parametrize("shape", ["json", "text"])
async def test_credentials_a_service_repeats_are_taken_out(auth: httpx.Auth, shape: str) -> None:
    """A proxy that answers with the request's own headers does not get them into our errors."""

    def echo(request: httpx.Request) -> httpx.Response:
        sent = "; ".join(
            request.headers.get(name, "-") for name in ("x-auth-token", "x-security-token", "authorization")
        )
        return httpx.Response(400, text=json.dumps({"error_msg": sent}) if shape == "json" else sent)

    async with Ecs("ECS", "http://localhost", auth=auth, transport=httpx.MockTransport(echo)) as ecs:
        shown = await error_of(ecs.agency("a-server"), "the-token", "the-sts-token", "Signature=")
    assert shown in (f"Rejected: {CALL}: HTTP 400: ***; -; -", f"Rejected: {CALL}: HTTP 400: -; ***; ***")
