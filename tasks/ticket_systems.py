"""Which ticket system is told, and with what: a form in the Prefect UI, and the function that its kind names."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Self
from urllib.parse import urlsplit

import httpx
from prefect.blocks.core import Block
from prefect.exceptions import PrefectHTTPStatusError
from pydantic import ConfigDict, Field, SecretStr, ValidationError, model_validator

from tasks.clients import jira as jira_api
from tasks.clients import request_tracker as rt_api
from tasks.clients.http import trusting
from tasks.clients.jira import SEARCHABLE_AFTER, jira
from tasks.clients.request_tracker import request_tracker
from tasks.clients.ticketing import Account, Change, Tell
from tasks.clients.webhook_tickets import webhook
from tasks.errors import ConfigurationError, Unreachable
from tasks.ticket_files import local

Kind = Literal["Request Tracker", "Jira", "webhook"]
Send = Callable[[Change], Awaitable[str]]

# A request whose answer was lost may be at work for a while: a search does not find what it is about to make.
AT_WORK = timedelta(minutes=2)
REMOTE = timedelta(seconds=90)


@dataclass(frozen=True)
class System:
    """A ticket system.

    Attributes:
        send: tells it of a change; returns what it calls the ticket.
        lasting: longer than that no call lasts.
        certain_after: a ticket of which it is not known whether it was made can be searched for reliably after so long.
    """

    send: Send
    lasting: timedelta
    certain_after: timedelta

    def certain(self, kind: str) -> timedelta:
        """The same for a change of this kind: what belongs to a known ticket is read from that ticket."""
        return self.certain_after if kind == "file" else min(self.certain_after, AT_WORK)


LOCAL = System(local, timedelta(seconds=10), timedelta(0))
SYSTEMS: dict[Kind, tuple[Tell, timedelta]] = {
    "Request Tracker": (request_tracker, AT_WORK),
    "Jira": (jira, SEARCHABLE_AFTER),
    "webhook": (webhook, timedelta(0)),  # whoever receives it tells repetitions by their key
}


class TicketSystem(Block):
    """Where tickets are filed, and as whom."""

    _block_type_name = "MRS Ticket System"
    _block_type_slug = "mrs-ticket-system"
    _description = "A ticket system: Request Tracker 5, Jira Cloud, or a webhook of your own."
    model_config = ConfigDict(hide_input_in_errors=True)

    kind: Kind = Field(description="What it is.")
    url: str = Field(
        title="URL", description="https://rt.example.org, https://example.atlassian.net, or the webhook's address."
    )
    user: str = Field(
        "",
        description="Request Tracker: of a password; empty: the secret is a token. Jira: the account's mail address.",
    )
    secret: SecretStr = Field(
        SecretStr(""), description="The password or token (Jira: API token; webhook: sent as a bearer token)."
    )
    project: str = Field("", description="Request Tracker: the queue. Jira: the project's key.")
    issue_type: str = Field("Task", description="Jira: the type of issue that is made.")
    ca_pem: str = Field("", description="PEM text of its CA, where that is not a public one.")
    ca_file: str = Field("", description="Or the path of that PEM file on the workers and the intake.")

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if self.kind == "webhook":
            if urlsplit(self.url).query:  # it would be in logs
                raise ValueError("the webhook's address has no query: put the token into the field for it")
            return self
        if not self.project:
            raise ValueError("project is needed: the queue of Request Tracker, or the key of Jira's project")
        if not self.secret.get_secret_value():
            raise ValueError("secret is needed: a password or token")
        return self

    def account(self) -> Account:
        """Where it is, and as whom we come."""
        return Account(
            self.url,
            user=self.user,
            secret=self.secret.get_secret_value(),
            project=self.project,
            issue_type=self.issue_type,
            verify=trusting(self.ca_file, self.ca_pem),
        )

    def system(self) -> System:
        """The system, ready to be told."""
        return system_of(self.kind, self.account())


def system_of(kind: Kind, account: Account) -> System:
    """The system of that kind, at this account."""
    tell, certain_after = SYSTEMS[kind]

    async def send(change: Change) -> str:
        return await tell(account, change)

    return System(send, REMOTE, certain_after)


async def system_named(name: str) -> System:
    """The system of the block of that name; empty: the files of this machine.

    Raises:
        ConfigurationError: there is no such block, or it cannot be used.
        Unreachable: the Prefect server cannot be asked.
    """
    return (await ticket_system(name)).system() if name else LOCAL


async def ticket_system(name: str) -> TicketSystem:
    """The block of that name. Raises as `system_named`."""
    try:
        return await TicketSystem.aload(name)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise Unreachable("ticket system's block", f"Prefect cannot be reached ({type(error).__name__})") from error
    except RuntimeError as error:  # Prefect's wrapping; the chain below it would show what was put in, secrets too
        if not isinstance(error.__cause__, ValidationError):
            raise
        faults = "; ".join(each["msg"] for each in error.__cause__.errors(include_url=False, include_input=False))
        raise ConfigurationError(f"the block 'MRS Ticket System/{name}' cannot be used: {faults}") from None
    except ValueError as error:
        advice = "make it in the Prefect UI under Blocks > MRS Ticket System, or check the cluster's field `tickets`"
        raise ConfigurationError(f"there is no ticket system {name!r}: {advice}") from error


async def look_at(block: TicketSystem) -> str:
    """Whether the system can be reached and shows what we need, in words; a webhook cannot be asked.

    Raises:
        RemoteError, ConfigurationError: it cannot.
    """
    if block.kind == "Request Tracker":
        return await rt_api.is_usable(block.account())
    return await jira_api.is_usable(block.account()) if block.kind == "Jira" else ""
