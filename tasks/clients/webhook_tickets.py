"""Any other ticket system, by a webhook of the user's own: each change is one POST, which may come more than once."""

import httpx

from tasks.clients.ticketing import Account, Change, Shown, api_of


async def webhook(account: Account, change: Change) -> str:
    """POST the change; returns the `key` that the answer names, else the ticket's mark.

    Whoever receives it tells repetitions by the header Idempotency-Key, which is the same for the same change and no
    other, and tickets by `correlation`. Any 2xx means that it was taken.

    Raises:
        RemoteError: it was not taken; OutcomeUnknown: it may have been.

    Source: the header is that of the IETF draft "The Idempotency-Key HTTP Header Field".
    """
    address = httpx.URL(account.url)
    auth = Shown("Bearer", account.secret) if account.secret else None
    async with api_of(account, "ticket webhook", str(address.copy_with(path="/", query=None)), auth) as api:
        body = {
            "correlation": change.correlation,
            "number": change.n,
            "kind": change.kind,
            "key": change.key,
            "title": change.title,
            "text": change.text,
            "part_of": change.part_of,
            "follows": change.follows,
        }
        once = {"Idempotency-Key": f'"{change.marker}"'}
        path = address.path.lstrip("/")
        answer = (await api.act("POST", path, body=body, would="tell a webhook", headers=once, plain=True)).content
    key = answer.get("key") if isinstance(answer, dict) else None
    return key if isinstance(key, str) and key else change.key or change.mark
