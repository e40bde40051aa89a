"""Asking the Prefect server: what may pass is told from what it refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

PASSING = (401, 403, 408, 429)  # and 5xx: it lies with the server or its settings, not with what was asked


class PrefectAway(Exception):
    """Prefect takes nothing now; says why. Worth trying again."""


@contextmanager
def asking() -> Iterator[None]:
    """Ask Prefect in this block.

    Raises:
        PrefectAway: it does not answer, or not now. Whatever it refuses for good is raised as it is.
    """
    try:
        yield
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        if status in PASSING or status >= 500:
            raise PrefectAway(f"Prefect answers {status}") from error
        raise
    except (httpx.HTTPError, OSError) as error:
        raise PrefectAway(f"Prefect cannot be reached ({str(error) or type(error).__name__})") from error


async def flow_run(client: PrefectClient, id_: str | None) -> FlowRun | None:
    """The flow run of this id; None where there is none (any more).

    Raises:
        PrefectAway: it cannot be asked now.
    """
    try:
        with asking():
            return await client.read_flow_run(UUID(id_ or ""))
    except (ObjectNotFound, ValueError):
        return None
