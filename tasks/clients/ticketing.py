"""What all ticket systems are told, and how it is found again there: nothing is ever told twice.

Each system is one function, `async def jira(account, change) -> str`, which returns what the system calls the ticket.
It looks for what it is about to make before it makes it, so it may be called again whatever came of the last call.
"""

import base64
import hashlib
import ssl
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from tasks.clients.answers import Model, understood
from tasks.clients.http import Api, Patience
from tasks.errors import OutcomeUnknown, ServerTrouble

Kind = Literal["file", "comment", "resolve", "reopen"]


@dataclass(frozen=True)
class Change:
    """One thing to tell of a ticket; `n` numbers them, from 1.

    Attributes:
        kind: file makes the ticket. reopen is a comment for which the ticket must be open; resolve one that ends it.
        source: who says it; what a later change of the same source says takes the place of the earlier one in a store
            that keeps one text.
        key: what the system calls the ticket; empty: it has not taken it yet.
        part_of, follows: what it calls the incident that this belongs to, and an older ticket about the same.
    """

    correlation: str
    n: int
    kind: Kind
    title: str
    text: str
    source: str = ""
    key: str = ""
    part_of: str = ""
    follows: str = ""

    @property
    def mark(self) -> str:
        """What tells the ticket from all others, in a system's labels and links."""
        return f"runbooks-{hashlib.sha256(self.correlation.encode()).hexdigest()[:20]}"

    @property
    def marker(self) -> str:
        """What tells this change from all others."""
        return f"{self.mark}/{self.n}"


@dataclass(frozen=True)
class Account:
    """Where a ticket system is, and as whom we come.

    Attributes:
        project: the queue, the project.
        transport: replaces the network, for tests.
    """

    url: str
    user: str = ""
    secret: str = field(default="", repr=False)
    project: str = ""
    issue_type: str = "Task"
    verify: ssl.SSLContext | bool = True
    patience: Patience = field(default=Patience(timeout=15.0, attempts=1))
    transport: httpx.AsyncBaseTransport | None = None


Tell = Callable[[Account, Change], Awaitable[str]]


class Shown(httpx.Auth):
    """Shows a secret in the Authorization header, in the given scheme; with a user as HTTP Basic."""

    def __init__(self, scheme: str, secret: str, user: str = "") -> None:
        pair = base64.b64encode(f"{user}:{secret}".encode()).decode()
        self._value = f"Basic {pair}" if user else f"{scheme} {secret}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header."""
        request.headers["Authorization"] = self._value
        yield request


def api_of(account: Account, name: str, address: str, auth: httpx.Auth | None) -> Api:
    """A client of the account's system at this address."""
    return Api(
        name,
        address,
        auth=auth,
        verify=account.verify,
        dry_run=False,
        patience=account.patience,
        transport=account.transport,
    )


def made(call: str, model: type[Model], content: Any) -> Model:
    """What the system says of what it has just made.

    Raises:
        OutcomeUnknown: it cannot be read, so it is not known what was made.
    """
    try:
        return understood(call, model, content)
    except ServerTrouble as error:
        raise OutcomeUnknown(call, f"sent, and the answer cannot be read ({error.why})") from error


def in_one_line(text: str, longest: int) -> str:
    """A title as systems take it: one line, not longer than that."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def cut(text: str, longest: int) -> str:
    """A text as long as the system takes it; says where it was cut."""
    if len(text) <= longest:
        return text
    said = "\n\n(cut here: the rest is in the run's report)"
    return f"{text[: longest - len(said)]}{said}"
