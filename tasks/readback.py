"""How the binding of a node ended: read from its metadata. It changes nothing."""

import logging

from tasks import timing
from tasks.connections import Connection
from tasks.errors import EndNotSeen, LedgerUnavailable, RemoteError
from tasks.intents import command_is
from tasks.models import Case, Deed, Node

READ_BACK_EVERY, READ_BACK_TAKES = 5.0, 120.0  # seconds of the cluster's time

logger = logging.getLogger("runbooks")


def named(request: str) -> str:
    """How the cloud's support finds what was asked of it. Source: header `X-Request-Id` of the answer."""
    return f"X-Request-Id {request}" if request else "its X-Request-Id is not known"


async def request_is(case: Case, node: Node, request: str) -> None:
    """Keep the cloud's id of a bind; it has been sent, so what counts now is how it ends."""
    try:
        await command_is(case, "6", node.host, request)
    except LedgerUnavailable as error:
        logger.warning("that the bind of %s was the cloud's request %s is not in the ledger: %s", node, request, error)


async def read_back(connection: Connection, node: Node, agency: str, how: str) -> Deed:
    """Read the node until it names the agency that it was told, or was about to be told; nothing is told again.

    Args:
        how: it was told, in words.

    Raises:
        EndNotSeen: after two minutes it still names another, or none.
    """
    speed, seen = connection.cluster.speed, ""
    told = f"by {connection.ecs_for_changes.acts_as} ({how})"
    until = timing.later(READ_BACK_TAKES, since=timing.now(), speed=speed)
    async for _ in timing.looks(until, every=READ_BACK_EVERY, speed=speed):
        try:
            seen = await connection.ecs.agency(node.server_id)
        except RemoteError as error:
            seen = str(error)
        if seen == agency:
            did = f"bound {told}: agency was none, is {seen}, read back"
            return Deed(host=node.host, did=did, at=timing.now(), changed=True)
    was = f"{node.host} was to use {agency}, told {told}"
    raise EndNotSeen(f"{was}; its metadata says {seen or 'none'!r}; never told twice")
