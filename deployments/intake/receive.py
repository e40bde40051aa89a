"""Lines in, flow runs out: what `runbooks intake` does with everything it hears."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, tzinfo

import httpx
import stamina
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError

from deployments.intake.dispatch import Dispatched, dispatch
from deployments.intake.syslog import Malformed, Observation, Template, parse_line

PASSING = (401, 403, 408, 429)  # and 5xx: it lies with the server or its settings, not with the line
WAIT_MAX = 15.0

logger = logging.getLogger("runbooks.intake")


async def receive(client: PrefectClient, line: bytes, peer: str, template: Template, zone: tzinfo = UTC) -> Dispatched:
    """One line: read it, start what it asks for, log what became of it. A Prefect that is down is waited for.

    Args:
        zone: the time zone of Manager, whose lines name none.
    """
    try:
        dispatched = await _taken(client, parse_line(line, template, zone=zone))
    except Malformed as error:
        dispatched = Dispatched("rejected", str(error))
    except PrefectHTTPStatusError as error:
        dispatched = Dispatched("rejected", f"Prefect refuses to start a run: {' '.join(str(error).split())}")
    level = logging.WARNING if dispatched.what == "rejected" else logging.INFO
    logger.log(level, "%s (from %s): %s", dispatched.what, peer, dispatched.why)
    return dispatched


async def _taken(client: PrefectClient, observation: Observation) -> Dispatched:
    """Dispatch, however long Prefect cannot take it."""
    async for attempt in stamina.retry_context(on=_may_pass, attempts=None, timeout=None, wait_max=WAIT_MAX):
        with attempt:
            return await dispatch(client, observation)
    raise AssertionError("unreachable: it is tried until it works")


def _may_pass(error: Exception) -> bool:
    """Whether to try again; says so, for nothing else would be seen of a Prefect that is down."""
    if isinstance(error, PrefectHTTPStatusError):
        status = error.response.status_code
        passing, why = status in PASSING or status >= 500, f"it answers {status}"
    else:
        passing, why = isinstance(error, httpx.TransportError), str(error) or type(error).__name__
    if passing:
        logger.warning("Prefect does not take it (%s): what was received waits and is tried again", why)
    return passing


def receiver(template: Template, zone: tzinfo) -> Callable[[bytes, str], Awaitable[None]]:
    """`receive` for a listener, with a Prefect client of its own for each line.

    One line after the other, whatever connection it came by: two that ask at the same time whether a run is at work
    would both start one.
    """
    one_at_a_time = asyncio.Lock()

    async def on_line(line: bytes, peer: str) -> None:
        async with one_at_a_time, get_client() as client:
            await receive(client, line, peer, template, zone)

    return on_line
