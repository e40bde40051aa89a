"""Lines in, flow runs out: what `runbooks intake` does with everything it hears."""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, tzinfo

import httpx
import stamina
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError

from deployments.intake.dispatch import Dispatched, dispatch
from deployments.intake.syslog import Malformed, Template, parse_line

logger = logging.getLogger("runbooks.intake")


async def receive(client: PrefectClient, line: bytes, peer: str, template: Template, zone: tzinfo = UTC) -> Dispatched:
    """One line: read it, start what it asks for, log what became of it. A Prefect that is down is waited for.

    Args:
        zone: the time zone of Manager, whose lines name none.
    """
    try:
        observation = parse_line(line, template, zone=zone)
    except Malformed as error:
        dispatched = Dispatched("rejected", str(error))
    else:
        async for attempt in stamina.retry_context(
            on=(httpx.TransportError, PrefectHTTPStatusError), attempts=None, timeout=None, wait_max=30.0
        ):
            with attempt:
                dispatched = await dispatch(client, observation)
    level = logging.WARNING if dispatched.what == "rejected" else logging.INFO
    logger.log(level, "%s (from %s): %s", dispatched.what, peer, dispatched.why)
    return dispatched


def receiver(template: Template, zone: tzinfo) -> Callable[[bytes, str], Awaitable[None]]:
    """`receive` for a listener, with a Prefect client of its own for each line."""

    async def on_line(line: bytes, peer: str) -> None:
        async with get_client() as client:
            await receive(client, line, peer, template, zone)

    return on_line
