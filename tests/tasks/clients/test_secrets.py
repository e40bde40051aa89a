"""What proves who we are is in no log, and errors survive a pickle, which is how they travel between processes."""

import logging
import pickle

import pytest

from tasks.clients.signing import SignedWithKeys, SignedWithToken
from tasks.errors import (
    CannotTell,
    ConfigurationError,
    DryRun,
    LoginSuspended,
    NotAuthorized,
    NotOffered,
    OutcomeUnknown,
    Refused,
    Rejected,
    RemoteError,
    RunbookError,
    ServerTrouble,
    SessionLost,
    StepFailed,
    Throttled,
    UnknownCluster,
    Unreachable,
    Untrusted,
)
from tasks.models import Outcome
from tests.tasks.clients.conftest import World

REMOTE = (
    Unreachable,
    Untrusted,
    ServerTrouble,
    Throttled,
    Rejected,
    NotAuthorized,
    NotOffered,
    SessionLost,
    LoginSuspended,
    OutcomeUnknown,
)
LOCAL = (ConfigurationError, UnknownCluster, CannotTell, Refused, DryRun, StepFailed)


@pytest.mark.anyio
async def test_logs_hold_no_secret_at_any_level(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """With every logger at DEBUG, reads, a lost session, a retry and a mutation log no credential and no cookie."""
    caplog.set_level(logging.DEBUG)
    token = SignedWithToken(world.region.token)
    manager, ecs, tokened = await world.manager(), await world.ecs(), await world.ecs(auth=token)
    server = world.cluster.master.server_id
    await manager.clusters()
    sessions = set(world.cluster.sessions)
    world.region.advance(20 * 60 + 1)
    world.region.trouble.add("GET", "*/cloudservers/*", "status", times=1, status=500)
    await manager.clusters()
    await ecs.set_agency(server, await tokened.agency(server), would="bind")
    sessions |= set(world.cluster.sessions)
    logged = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    secrets = world.secrets | sessions | {world.region.secret_key, world.region.token, "Signature=", "Basic "}
    assert {"httpx", "stamina"} <= {record.name for record in caplog.records}
    assert [secret for secret in secrets if secret in logged] == []


def test_signers_do_not_show_their_keys() -> None:
    """Neither repr nor str."""
    signers = (SignedWithKeys("ak", "the-sk", security_token="the-sts", scope={}), SignedWithToken("the-token"))
    shown = "".join(f"{signer!r} {signer}" for signer in signers)
    assert [secret for secret in ("the-sk", "the-sts", "the-token") if secret in shown] == []


@pytest.mark.parametrize("kind", REMOTE)
def test_a_remote_error_survives_a_pickle(kind: type[RemoteError]) -> None:
    """Class, sentence, status and code."""
    error = kind("ECS GET x", "no") if kind is Throttled else kind("ECS GET x", "no", status=500, code="c")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), str(again), vars(again)) == (kind, "ECS GET x: no", vars(error))


@pytest.mark.parametrize("kind", LOCAL)
def test_an_error_of_ours_survives_a_pickle(kind: type[RunbookError]) -> None:
    """Class and sentence."""
    again = pickle.loads(pickle.dumps(kind("what, where, what to do")))  # noqa: S301
    assert (type(again), str(again)) == (kind, "what, where, what to do")


def test_a_refusal_keeps_its_word() -> None:
    """The outcome the gate named, and what Retry-After asked for, come through too."""
    refused = pickle.loads(pickle.dumps(Refused("cleared", Outcome.CLEARED)))  # noqa: S301
    throttled = pickle.loads(pickle.dumps(Throttled("ECS GET x", "slow", retry_after=7)))  # noqa: S301
    assert (refused.outcome, throttled.retry_after, throttled.status) == (Outcome.CLEARED, 7, 429)
