"""Which routes a change needs, and whether they ever answered: one that never did is asked of a person instead."""

import logging
from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from tasks import timing
from tasks.claims import holds, looked_up, noted
from tasks.clients.routes import CLOUD_ROUTES, call_of
from tasks.connections import Connection
from tasks.errors import LedgerUnavailable, NotOffered, Refused
from tasks.ledger.answering import Asked, keep_answers, never_answered, was_restarted
from tasks.ledger.episodes import Holding
from tasks.models import Case

logger = logging.getLogger("runbooks")

# What is read at the moment of a change: to know that it may be made, and how it ends.
NEEDED: Mapping[str, tuple[str, ...]] = {
    "restart": ("alarms", "hosts", "instances", "commands", "record", "nodes", "agency update", "restart"),
    "rebind": ("alarms", "hosts", "commands", "record", "nodes", "agency update", "metadata", "agency"),
}


def calls_of(connection: Connection) -> dict[str, str]:
    """Name of each route -> service, method and path by which it is called for this cluster."""
    manager = {name: call_of(route, "Manager") for name, route in connection.manager.routes.items()}
    return manager | {name: call_of(route, route.service) for name, route in CLOUD_ROUTES.items()}


async def have_answered(case: Case, connection: Connection, action: str) -> None:
    """The gate of the routes: each that the action needs has answered once, if `runbooks doctor` has asked it.

    Where it never has, or was told another route meanwhile, the other gates read these routes themselves right now.

    Raises:
        Refused: one never answered: a person can do it by hand.
        LedgerUnavailable: that cannot be read.
    """
    if not holds(case):
        return  # a dry run; whoever else holds nothing is kept from changing anything
    calls = calls_of(connection)
    needed = {name: calls[name] for name in NEEDED[action]}
    silent = await looked_up(case, lambda session, _: never_answered(session, case.cluster, needed))
    if silent:
        first = silent[0]
        asked = f"was asked at {first.asked:%Y-%m-%d %H:%M} UTC and has never answered ({first.said})"
        more = f", and {len(silent) - 1} more that it needs" if len(silent) > 1 else ""
        again = f"`runbooks doctor {case.cluster}` asks again"
        raise Refused(f"{first.call} {asked}{more}; {again}", by_hand=True)


async def restart_was_refused(case: Case, connection: Connection, error: NotOffered) -> None:
    """Manager does not offer the restart that was sent: keep that, so that the next run asks a person at once.

    Not where it has ever taken one: then it does not know the instance, and the route is there.
    """
    call = calls_of(connection)["restart"]
    if not holds(case) or error.call.split(" ")[1:2] == ["GET"]:  # of the reads before it
        return
    rating = connection.manager.routes["restart"].rating

    async def write(session: AsyncSession, _: Holding) -> None:
        if not await was_restarted(session, connection.cluster.cluster_id):
            asked = Asked("restart", call, rating, answered=False, said=error.why)
            await keep_answers(session, case.cluster, [asked], timing.wall())

    try:
        await noted(case, write)
    except LedgerUnavailable as trouble:
        logger.warning("that Manager does not offer %s is not in the ledger: %s", call, trouble)
