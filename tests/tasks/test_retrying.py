"""Which troubles of a read may pass, and how long after each other it is tried again."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, exception_to_failed_state

from tasks.errors import (
    CannotTell,
    ConfigurationError,
    DryRun,
    EndNotSeen,
    LedgerUnavailable,
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
from tasks.retrying import DEFAULT_DELAYS, configured, delays, may_pass

PASS = (Unreachable, ServerTrouble, Throttled)
STAY = (Untrusted, RemoteError, Rejected, NotAuthorized, NotOffered, SessionLost, LoginSuspended, OutcomeUnknown)
OURS = (
    RunbookError,
    ConfigurationError,
    UnknownCluster,
    LedgerUnavailable,
    CannotTell,
    Refused,
    DryRun,
    StepFailed,
    EndNotSeen,
)
ERRORS: list[tuple[BaseException, bool]] = [
    *((kind("ECS GET x", "why"), True) for kind in PASS),
    *((kind("ECS GET x", "why"), False) for kind in STAY),
    *((kind("why"), False) for kind in OURS),
    *((kind("why"), False) for kind in (ValueError, TimeoutError, ConnectionError, KeyError)),
]


async def judged(state: State[Any]) -> bool:
    """What `may_pass` says of a task run that ended so."""
    run = TaskRun(task_key="read", dynamic_key="0", flow_run_id=uuid4(), start_time=datetime.now(UTC))
    return await may_pass(None, run, state)


@pytest.mark.anyio
@pytest.mark.parametrize(("error", "passes"), ERRORS, ids=lambda value: type(value).__name__)
async def test_only_a_silent_or_a_troubled_server_is_asked_again(error: BaseException, passes: bool) -> None:
    """No answer and a server in trouble may pass; a wrong certificate, any refusal and errors in our code do not."""
    assert await judged(await exception_to_failed_state(error)) is passes


@pytest.mark.anyio
async def test_a_read_that_succeeded_is_not_repeated() -> None:
    """A result is no trouble, not even one that is an error of a kind that may pass."""
    assert await judged(Completed(data="read")) is False


def test_every_error_of_ours_was_judged() -> None:
    """The tables above hold every kind of error that there is."""
    kinds, found = [RunbookError], {RunbookError}
    while kinds:
        below = kinds.pop().__subclasses__()
        kinds += below
        found |= set(below)
    assert {kind for kind in found if kind.__module__ == "tasks.errors"} == {*PASS, *STAY, *OURS}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(DEFAULT_DELAYS, [10, 30, 60, 120]), ("0,0", [0, 0]), ("0.5", [0.5]), (" 1 , 2 ", [1, 2]), ("1.", [1])],
)
def test_delays_are_seconds_with_commas(text: str, seconds: list[float]) -> None:
    """Seconds with commas between, spaces around, fractions allowed."""
    assert delays(text) == seconds


@pytest.mark.parametrize(
    "text", ["ten", "", ",", "1,,2", "10;30", "-1", "nan", "inf", "1e3", ".", "1 2", "0x1", "1," * 50 + "1"]
)
def test_malformed_delays_are_refused(text: str) -> None:
    """Anything else is an error of ours that quotes it and shows how to write it."""
    with pytest.raises(ConfigurationError) as raised:
        delays(text)
    advice = "give seconds with commas between, at most 50, for example 10,30,60,120"
    assert str(raised.value) == f"RUNBOOKS_READ_RETRY_DELAYS is {text!r}: {advice}"


def test_a_malformed_variable_is_said_and_keeps_no_run_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    """With a malformed RUNBOOKS_READ_RETRY_DELAYS the default holds, and the log says what is wrong with it."""
    assert configured("10 s") == delays(DEFAULT_DELAYS)
    (record,) = caplog.records
    assert record.getMessage().startswith("RUNBOOKS_READ_RETRY_DELAYS is '10 s': give seconds with commas between")


def test_what_the_environment_asks_for_holds() -> None:
    """A well-formed value is taken, and none means the default."""
    assert (configured("1,2.5"), configured("")) == ([1.0, 2.5], delays(DEFAULT_DELAYS))
