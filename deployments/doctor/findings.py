"""What was found, and asking for it: an answer, or one of our errors with what to do about it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from deployments.doctor.advice import Advice, Place, advice
from tasks.clients.http import Api
from tasks.errors import ConfigurationError, RemoteError


@dataclass(frozen=True)
class Finding:
    """What one route did, or one other thing that was looked at.

    Attributes:
        call: service, method and path.
        fine: the runbook can use what it said; None: it was not asked.
        means: for the page's steps.
        settle: what a person must do about it, `cause` what for; empty: nothing.
        answered: it is a route, and answered with something of use; None: it is none, or was not asked.
        warns: that it is not fine keeps no run from its work.
    """

    name: str
    call: str
    rating: str
    fine: bool | None
    said: str
    means: str
    settle: str = ""
    cause: str = ""
    answered: bool | None = None
    warns: bool = False


@dataclass(frozen=True)
class Check:
    """A route, what its answer is good for, and how to ask it.

    `ask` says what it answered; raises Unfit where that is of no use.
    """

    name: str
    call: str
    rating: str
    means: str
    at: Place
    api: Api | None
    ask: Callable[[], Awaitable[Any]]


class NotAsked(str):
    """Why something was not asked, in place of an answer."""


class Unfit(Exception):
    """It answered, and the answer is of no use."""

    def __init__(self, said: str, settle: Advice) -> None:
        super().__init__(said)
        self.settle = settle


async def asked(check: Check) -> Finding:
    """Ask it, and say what came of it and what to do about it."""
    return (await tried(check))[0]


async def tried(check: Check) -> tuple[Finding, RemoteError | ConfigurationError | None]:
    """The same, with the error that there was in place of an answer."""
    told = partial(Finding, check.name, check.call, check.rating)
    try:
        answer = await check.ask()
    except Unfit as error:
        settle = error.settle
        return told(False, str(error), negated(check), settle.settle, settle.cause, answered=True), None
    except (RemoteError, ConfigurationError) as error:
        settle = advice(check.at, error)
        said = error.why if isinstance(error, RemoteError) else str(error)
        return told(False, said, negated(check), settle.settle, settle.cause, answered=False), error
    if isinstance(answer, NotAsked):
        return told(None, str(answer), check.means), None
    return told(True, _words(answer), check.means, answered=True), None


def negated(check: Check) -> str:
    """What it means that the check's answer is of no use."""
    return f"NOT: {check.means}"


def _words(answer: Any) -> str:
    return str(answer) if isinstance(answer, str) or not hasattr(answer, "__len__") else f"{len(answer)} listed"
