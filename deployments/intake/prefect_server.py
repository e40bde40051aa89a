"""Asking the Prefect server: what may pass is told from what it refuses."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

PAGE = 200  # the server's own limit
RESTING = [StateType.SCHEDULED, StateType.PAUSED]  # of a run that waits for its time or for a person
PASSING = (401, 403, 408, 429)  # and 5xx: it lies with the server or its settings, not with what was asked

logger = logging.getLogger("runbooks.intake")


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
    """The flow run of this id; None where there is none (any more). Raises as `flow_runs`."""
    return (await flow_runs(client, id_)).get(id_ or "")


async def flow_runs(client: PrefectClient, *ids: str | None) -> dict[str, FlowRun]:
    """Flow runs by id; those that there are not (any more) are missing.

    Raises:
        PrefectAway: it cannot be asked now.
    """
    known = _known(ids)
    found: dict[str, FlowRun] = {}
    for start in range(0, len(known), PAGE):
        page = FlowRunFilter(id=FlowRunFilterId(any_=known[start : start + PAGE]))
        with asking():
            runs = await client.read_flow_runs(flow_run_filter=page, limit=PAGE)
        found |= {str(run.id): run for run in runs}
    return found


async def all_rest(client: PrefectClient, ids: Sequence[str]) -> bool:
    """Whether each of these runs waits for its time or for a person: counting costs a hundredth of reading.

    Args:
        ids: of a page of runs at most.

    Raises:
        PrefectAway: it cannot be asked now.
    """
    if not ids:
        return True
    resting = FlowRunFilter(
        id=FlowRunFilterId(any_=_known(ids)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=RESTING)),
    )
    with asking():
        return await client.count_flow_runs(flow_run_filter=resting) == len(ids)


def _known(ids: Sequence[str | None]) -> list[UUID]:
    """Those that are ids at all."""
    known: list[UUID] = []
    for id_ in ids:
        with suppress(ValueError):
            known.append(UUID(id_ or ""))
    return known


async def give_state(client: PrefectClient, run: FlowRun, state: State[Any]) -> None:
    """Give the run this state, unless it is so already; one that was deleted meanwhile the next look finds.

    Raises:
        PrefectAway: it cannot be asked now.
    """
    if run.state and run.state.type is state.type and run.state.is_final():
        return
    try:
        with asking():
            await client.set_flow_run_state(run.id, state, force=True)
    except (ObjectNotFound, PrefectHTTPStatusError) as error:
        logger.warning("%s does not become %s: %s", run.name, state.name, " ".join(str(error).split()))
