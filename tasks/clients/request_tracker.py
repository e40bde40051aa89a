"""Request Tracker 5, by its REST 2 interface.

A ticket is found again by a link "refers to" `urn:runbooks-...`, a comment by its subject: both are of every plain RT
(a custom field would have to be made by an administrator first), both are in the database when the answer is given, and
the link stays with a ticket that is merged into another. The account needs SeeQueue, CreateTicket, ShowTicket,
ShowTicketComments, CommentOnTicket and ModifyTicket in its queue; whoever may not see comments would repeat them.
"""

import logging
from typing import Any

from pydantic import Field

from tasks.clients.answers import understood
from tasks.clients.http import Api
from tasks.clients.ticketing import Account, Change, Shown, api_of, in_one_line, made
from tasks.errors import Rejected
from tasks.models import Frozen, Text

ENDED = frozenset({"resolved", "rejected", "deleted"})  # of the default lifecycle
LONGEST_SUBJECT = 190  # the column holds 200 characters
MOST = "100"  # hits; more than one is a mistake already

logger = logging.getLogger("runbooks")


class _Hit(Frozen):
    id: Text = Field(min_length=1)


class _Hits(Frozen):
    items: tuple[_Hit, ...]


class _Ticket(Frozen):
    status: Text


async def request_tracker(account: Account, change: Change) -> str:
    """Tell Request Tracker of the change; returns the ticket's number.

    Raises:
        RemoteError: it was not taken; OutcomeUnknown: it may have been.

    Source: RT 5, RT::REST2: GET tickets (TicketSQL), POST ticket, GET attachments, POST ticket/{id}/comment,
    GET and PUT ticket/{id}.
    """
    async with _api(account) as api:
        key = change.key or await _found(api, change)
        if not key:
            return await _made(api, account, change)
        if change.kind == "file":
            return key
        await _comment(api, key, change)
        if change.kind in ("resolve", "reopen"):
            await _set_status(api, key, change)
        return key


async def is_usable(account: Account) -> str:
    """What the account sees of its queue, in words.

    Source: RT 5, RT::REST2: GET queue/{name}.
    """
    async with _api(account) as api:
        await api.read(f"queue/{account.project}")
    return f"queue {account.project}"


def _api(account: Account) -> Api:
    auth = Shown("token", account.secret, account.user)
    return api_of(account, "Request Tracker", f"{account.url.rstrip('/')}/REST/2.0", auth)


async def _found(api: Api, change: Change) -> str:
    """The oldest ticket with the mark; empty: none."""
    query = {"query": f"RefersTo = 'urn:{change.mark}'", "orderby": "id", "per_page": MOST}
    hits = understood(f"{api.name} GET tickets", _Hits, await api.read("tickets", params=query))
    found = sorted((hit.id for hit in hits.items), key=int)
    if len(found) > 1:
        logger.warning("Request Tracker has %s for one thing: %s is used", _named(found), found[0])
    return found[0] if found else ""


def _named(found: list[str]) -> str:
    return f"{len(found)} tickets ({', '.join(found)})"


async def _made(api: Api, account: Account, change: Change) -> str:
    body: dict[str, Any] = {
        "Queue": account.project,
        "Subject": in_one_line(change.title, LONGEST_SUBJECT),
        "Content": change.text,
        "ContentType": "text/plain",
        "RefersTo": [f"urn:{change.mark}", *([change.follows] if change.follows else [])],
    }
    if change.part_of:
        body["MemberOf"] = change.part_of
    answer = (await api.act("POST", "ticket", body=body, would="file a ticket")).content
    return made(f"{api.name} POST ticket", _Hit, answer).id


async def _comment(api: Api, key: str, change: Change) -> None:
    query = {"query": f'[{{"field": "Subject", "value": "{change.marker}"}}]', "per_page": "1"}
    told = understood(f"{api.name} GET attachments", _Hits, await api.read("attachments", params=query))
    if not told.items:
        body = {"Subject": change.marker, "Content": change.text, "ContentType": "text/plain"}
        await api.act("POST", f"ticket/{key}/comment", body=body, would="comment on a ticket")


async def _set_status(api: Api, key: str, change: Change) -> None:
    """Let the ticket be open, or resolved; what a person has ended otherwise stays so when it is to end."""
    wanted = "resolved" if change.kind == "resolve" else "open"
    if await _is(api, key, wanted):
        return
    said = (await api.act("PUT", f"ticket/{key}", body={"Status": wanted}, would="change a ticket's status")).content
    if not await _is(api, key, wanted):  # RT answers 200 to a status that it does not take
        raise Rejected(f"{api.name} PUT ticket/{key}", f"it does not become {wanted}: {said}", status=200)


async def _is(api: Api, key: str, wanted: str) -> bool:
    read = await api.read(f"ticket/{key}", params={"fields": "Status"})
    status = understood(f"{api.name} GET ticket/{key}", _Ticket, {"status": (read or {}).get("Status")}).status
    return (status in ENDED) == (wanted == "resolved")
