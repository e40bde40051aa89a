"""What the doctor advises by the kind of failure, and what it tells of alarm sources: pure functions, by tables."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from deployments.doctor.advice import Place, advice
from deployments.doctor.findings import Finding
from deployments.doctor.sources import AGAIN, BEAT, ON_MANAGER, SWITCH_ON, prefect_login, sources
from deployments.doctor.verdicts import Memory, Verdict, verdicts
from tasks.answering import NEEDED
from tasks.blocks import Cluster
from tasks.clients.manager import REJECTED
from tasks.errors import (
    ConfigurationError,
    LoginSuspended,
    NotAuthorized,
    NotOffered,
    Rejected,
    RemoteError,
    ServerTrouble,
    SessionLost,
    Throttled,
    Unreachable,
    Untrusted,
)
from tasks.ledger.hearing import Heard
from tests.conftest import serving_prefect
from tests.tasks.test_blocks import content

CONNECTING = httpx.ConnectError("")
BLOCK = "the cluster's MRS Manager block"
MANAGER = Place("Manager", "https://10.0.0.1:28443/web/api/v2", BLOCK, "user 'u'", "the role Manager_viewer", "hosts")
ECS = Place("ECS", "https://ecs.example.org", "the cloud block", "its key", "the policy action ecs:cloudServers:get")
CALL = "X GET y"


def caused(error: RemoteError, cause: Exception) -> RemoteError:
    """The error with what it came from."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("at", "error", "cause", "words"),
    [
        (
            MANAGER,
            caused(Unreachable(CALL, "no"), httpx.ConnectTimeout("")),
            "port closed: Manager",
            "TCP 28443 of 10.",
        ),
        (
            ECS,
            caused(Unreachable(CALL, "no"), httpx.ConnectError("")),
            "port closed: ECS",
            "TCP 443 of ecs.example.org",
        ),
        (MANAGER, Unreachable(CALL, "no answer within 20 s"), "no answer: Manager", "takes connections and does not"),
        (MANAGER, Untrusted(CALL, "self-signed: set ca_file or ca_pem"), "certificate not trusted: Manager", "ca_pem"),
        (
            MANAGER,
            Untrusted(CALL, "mismatch: give the address by a name"),
            "certificate not trusted: Manager",
            "by a name",
        ),
        (MANAGER, LoginSuspended(CALL, "suspended"), "login rejected: Manager", "the right password of user 'u'"),
        (MANAGER, NotAuthorized(CALL, REJECTED, status=401), "login rejected: Manager", "the right password of user"),
        (MANAGER, NotAuthorized(CALL, "the user is locked", status=401), "login refused: Manager", "is locked"),
        (
            MANAGER,
            NotAuthorized(CALL, "HTTP 403", status=403),
            "permission missing: the role Manager_viewer",
            "give user 'u' the role Manager_viewer",
        ),
        (
            ECS,
            NotAuthorized(CALL, "HTTP 403", status=403),
            "permission missing: the policy action ecs:cloudServers:get",
            "give its key the policy action ecs:cloudServers:get",
        ),
        (ECS, NotAuthorized(CALL, "HTTP 401", status=401), "login rejected: ECS", "wrong, expired or disabled"),
        (MANAGER, SessionLost(CALL, "to the login page", status=302), "no session: Manager", "REST root"),
        (MANAGER, NotOffered(CALL, "HTTP 404", status=404), "route not offered: hosts", "`routes` of the cluster's"),
        (ECS, NotOffered(CALL, "HTTP 404", status=404), "route not offered: ECS", "the right address"),
        (ECS, Throttled(CALL, "HTTP 429"), "throttled: ECS", "ask again"),
        (
            MANAGER,
            ServerTrouble(CALL, "the answer is not as described: hosts: not a list"),
            "answer not understood: Manager hosts",
            "name the right one in `routes`",
        ),
        (ECS, ServerTrouble(CALL, "HTTP 503", status=503), "trouble at ECS", "ask again in a while"),
        (ECS, Rejected(CALL, "HTTP 400", status=400), "request refused: ECS", "cluster_id"),
        (ECS, ConfigurationError("a key holds a line break"), "wrong block: ECS", "correct the cloud block"),
    ],
)
def test_each_failure_has_its_advice(
    at: Place, error: RemoteError | ConfigurationError, cause: str, words: str
) -> None:
    """The cause is the same for all clusters where it is the same, and what to do names the thing to change."""
    found = advice(at, error)
    assert found.cause == cause
    assert words in found.settle


ROUTES = sorted({*NEEDED["restart"], *NEEDED["rebind"], "changes"} - {"restart"})


@pytest.mark.parametrize(
    ("unasked", "bind"),
    [
        ("", Verdict("automatic", "the mode for it is auto, and all it needs answers")),
        ("metadata", Verdict("not done", "cannot be told, not asked: call of metadata (no node is known)")),
    ],
)
def test_a_route_that_was_not_asked_promises_nothing(unasked: str, bind: Verdict) -> None:
    """Where a route that a bind needs was not asked none is promised, also if it answered before; a restart is."""
    block = Cluster.model_validate(content(mode="auto", on_unbound="rebind", agency="A"))
    findings = [Finding("restart", "call of restart", "", None, "it changes something", "")]
    for name in ROUTES:
        fine = None if name == unasked else True
        findings.append(Finding(name, f"call of {name}", "", fine, "no node is known", "", answered=fine))
    found = verdicts(block, findings, Memory(frozenset(ROUTES)))
    automatic = Verdict("automatic", "the mode for it is auto, and all it needs answers")
    assert (found["restart"], found["bind"]) == (automatic, bind)


NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
START = "start the intake (`runbooks intake`, or `runbooks up`), on the same ledger"


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        (
            Heard(),
            [
                (False, "never read by an intake", START),
                (None, "cannot be told: no alarm of this cluster came by syslog within the last month", SWITCH_ON),
                (None, "cannot be told: no alarm of this cluster came by syslog within the last month", SWITCH_ON),
            ],
        ),
        (
            Heard({"syslog": NOW - 3 * HOUR}, NOW - 4 * MINUTE, NOW - HOUR, NOW - MINUTE / 2, True),
            [
                (True, "last read 30 s ago", ""),
                (True, "its sender was last heard 4 min ago", ""),
                (True, "an active alarm was last told again 60 min ago", ""),
            ],
        ),
        (
            Heard({"syslog": NOW - 3 * HOUR}, NOW - 3 * HOUR, None, NOW - MINUTE, False),
            [
                (False, "Manager offers no alarm list", ""),
                (False, "its sender was last heard 3 h ago", f"{ON_MANAGER}, switch {BEAT} on, every 15 minutes"),
                (
                    None,
                    "last alarm 3 h ago, and none was told twice while it was active",
                    f"{ON_MANAGER}, switch {AGAIN} on, every 15 minutes",
                ),
            ],
        ),
        (
            Heard(polled=NOW - 11 * MINUTE, offered=True),
            [(False, "last read 11 min ago", START)],
        ),
        (
            Heard(polled=NOW - MINUTE, offered=False),
            [
                (
                    False,
                    "Manager offers no alarm list",
                    f"let syslog tell: {ON_MANAGER}, name the intake; or SMN or the webhook (README, Alarms in)",
                )
            ],
        ),
    ],
    ids=["nothing", "all is on", "switches off", "intake down", "no source"],
)
def test_what_can_be_told_of_the_sources(heard: Heard, told: list[tuple[bool | None, str, str]]) -> None:
    """Polling, heartbeat and re-report by what the ledger heard; what cannot be told is said so, with the switch."""
    found = sources(heard, NOW)
    assert [(each.fine, each.said, each.settle) for each in found][: len(told)] == told
    assert all(each.warns and each.answered is None for each in found)


@pytest.mark.server
@pytest.mark.anyio
async def test_a_prefect_without_a_login_is_a_warning(prefect_server: str) -> None:
    """An API that lets in whoever reaches it is not fine, which keeps no run from its work."""
    found = await prefect_login()
    assert (found.fine, found.warns, found.said) == (False, True, "it lets in whoever reaches it")
    assert "PREFECT_SERVER_API_AUTH_STRING" in found.settle


@pytest.mark.server
@pytest.mark.anyio
async def test_a_prefect_with_a_login_is_fine(tmp_path: Path) -> None:
    """Also where we have that login: it is asked as somebody who has none."""
    login = {"PREFECT_SERVER_API_AUTH_STRING": "admin:hush"}
    with serving_prefect(tmp_path, **login), temporary_settings({PREFECT_API_AUTH_STRING: "admin:hush"}):
        found = await prefect_login()
    assert (found.fine, found.said, found.settle) == (True, "HTTP 401 to whoever has none", "")
