"""Telling people that they are needed: the notification blocks of Prefect (mail, Slack, Teams, webhooks and more)."""

import logging
from collections.abc import Sequence

import httpx
from prefect.blocks.abstract import NotificationBlock, NotificationError
from prefect.blocks.core import Block
from prefect.exceptions import PrefectHTTPStatusError

WAYS = "such as slack-webhook/on-call: the type's slug and the block's name, as the Prefect UI shows them"

# Apprise's errors are of Prefect's own kind, a webhook's those of HTTP, mail's those of sockets.
NOT_SENT = (NotificationError, OSError, RuntimeError, ValueError, httpx.HTTPError)

logger = logging.getLogger("runbooks")


async def notify(names: Sequence[str], subject: str, body: str) -> None:
    """Send it to each of these blocks. One that cannot be told is a line in the log: what is asked waits all the same.

    Args:
        names: as `slug/name`, for example `slack-webhook/on-call`.
    """
    for name in names:
        try:
            block: object = await Block.aload(name)
        except (ValueError, LookupError, RuntimeError, httpx.HTTPError, PrefectHTTPStatusError) as error:
            logger.error("notification %r cannot be loaded (%s); it must be one %s", name, type(error).__name__, WAYS)
            continue
        if not isinstance(block, NotificationBlock):
            logger.error("%r is no notification block; it must be one %s", name, WAYS)
            continue
        try:
            with block.raise_on_failure():
                await block.notify(body, subject)
        except NOT_SENT as error:  # the text may hold its address
            logger.error("notification %r was not delivered (%s)", name, type(error).__name__)
