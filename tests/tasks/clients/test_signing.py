"""Requests are signed so that whoever verifies them with the vendor's signer agrees; the emulator does."""

from datetime import UTC, datetime, timedelta

import pytest

from deployments.emulator.signatures import Keys
from tasks.clients.signing import SignedWithKeys, SignedWithToken
from tests.tasks.clients.conftest import AGENCY, World, error_of

pytestmark = pytest.mark.anyio
TEMPORARY = Keys("TEMPORARYACCESS", "temporary-secret", "temporary-token", datetime.now(UTC) + timedelta(hours=1))


async def test_queries_and_bodies_are_signed(world: World) -> None:
    """A query with blanks, signs and other alphabets and a JSON body with them come through with their signature."""
    name = "Agentur für ECS & Co/+=~%41 日本"
    world.region.agencies.add(name)
    server = world.cluster.master.server_id
    mrs, ecs, iam = await world.mrs(), await world.ecs(), await world.iam()
    assert len(await mrs.nodes(world.cluster.id)) == 3
    assert [(found := await iam.agency(name)) and found.name] == [name]
    await ecs.set_agency(server, name, would="bind")
    assert await ecs.agency(server) == name
    assert [(entry.who, entry.detail) for entry in world.region.log] == [
        (f"ak:{world.region.access_key}", {"agency_name": name})
    ]


async def test_a_path_with_other_letters_is_signed(world: World) -> None:
    """The service answers that it has no such cluster, not that the signature is wrong."""
    mrs = await world.mrs()
    assert "HTTP 400 12000003: The cluster does not exist." in await world.error_of(mrs.cluster("größe ü"))


async def test_temporary_keys_carry_their_token(world: World) -> None:
    """The security token goes along and is signed; without it, or with another, the same keys are refused."""
    world.region.temporary_keys[TEMPORARY.ak] = TEMPORARY
    scope = {"X-Project-Id": world.region.project_id}
    world.secrets |= {TEMPORARY.sk, TEMPORARY.token, "another-token"}
    tokens = {TEMPORARY.token: "", "another-token": "invalid", "": "invalid"}
    for token, refusal in tokens.items():
        keys = SignedWithKeys(TEMPORARY.ak, TEMPORARY.sk, security_token=token, scope=scope)
        ecs = await world.ecs(auth=keys)
        if not refusal:
            await ecs.set_agency(world.cluster.master.server_id, AGENCY, would="bind")
            continue
        call = f"ECS GET v1/{world.region.project_id}/cloudservers/{world.cluster.master.server_id}"
        assert await world.error_of(ecs.agency(world.cluster.master.server_id)) == (
            f"NotAuthorized: {call}: HTTP 401 APIG.0301: Incorrect IAM authentication information: "
            "the security token is invalid or expired"
        )


async def test_a_wrong_secret_key_is_refused(world: World) -> None:
    """The service's words are passed on; the key is not in them."""
    world.secrets.add("not-the-secret-key")
    keys = SignedWithKeys(world.region.access_key, "not-the-secret-key", scope={})
    ecs, server = await world.ecs(auth=keys), world.cluster.master.server_id
    call = f"ECS GET v1/{world.region.project_id}/cloudservers/{server}"
    assert await world.error_of(ecs.agency(server)) == (
        f"NotAuthorized: {call}: HTTP 401 APIG.0301: "
        "Incorrect IAM authentication information: verify aksk signature fail"
    )


async def test_a_token_goes_as_it_is(world: World) -> None:
    """X-Auth-Token, for reads and mutations alike; a wrong one is refused and not repeated in the error."""
    ecs, server = await world.ecs(auth=SignedWithToken(world.region.token)), world.cluster.master.server_id
    await ecs.set_agency(server, AGENCY, would="bind")
    assert (await ecs.agency(server), [entry.who for entry in world.region.log]) == (AGENCY, ["token"])
    world.secrets.add("an-old-token")
    refused = await world.error_of((await world.ecs(auth=SignedWithToken("an-old-token"))).agency(server))
    assert refused.endswith("HTTP 401 401: the token is invalid or expired")


@pytest.mark.parametrize("token", ["top-secret\n", "top\nsecret", "top\0secret"])
async def test_a_credential_that_no_header_can_hold(served_world: World, token: str) -> None:
    """A pasted line break is an error of the configuration that does not show what was pasted."""
    world = served_world
    ecs = await world.ecs(auth=SignedWithToken(token))
    sentence = await error_of(ecs.agency("a-server"), token, token.strip(), "secret\\n")
    assert sentence == (
        f"ConfigurationError: ECS GET v1/{world.region.project_id}/cloudservers/a-server: cannot be sent: "
        "an id, key or token in the block holds a line break or a character that is not allowed"
    )
