"""The compliance sweep: every cluster of the fleet is looked at, and what is not as it should be is listed."""

import asyncio
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from prefect.states import Completed, Failed
from pydantic import Field

from flows.episode import run_id
from tasks.errors import ConfigurationError, LedgerUnavailable, Unreachable
from tasks.fleet import pair_of
from tasks.sweep.steps import choose_clusters, look_at_clusters, summed_up
from tasks.sweep.work import Order, at_work


@flow(
    name="sweep",
    flow_run_name="sweep",
    retries=0,
    persist_result=False,
    result_storage=Path(gettempdir()),  # nothing is kept there; without a word Prefect asks its server
)
async def sweep(
    select: Annotated[list[str] | None, Field(json_schema_extra={"title": "Select"})] = None,
    remediate: Annotated[bool, Field(json_schema_extra={"title": "Remediate"})] = False,
) -> State[Any]:
    """Hold every cluster against the checks, and change nothing. An active ALM-12110 nobody told of gets its run.

    Args:
        select: Only clusters that match all of these: LABEL=VALUE, region=VALUE, cloud=BLOCK, mode=VALUE, name=GLOB.
            Left out: the whole fleet, and clusters that a cloud has and no block names. An empty list: nothing.
        remediate: On: clusters with an active ALM-12110 that nobody is at get a run again, also where a person has its
            ticket, in the mode of their block and by the same gates.
    """
    if select is not None and not select:
        what = "the selection is empty; leave it out for the whole fleet."
        return Completed(name="NOTHING", message=f"Nothing was swept: {what}")
    order = Order(run=run_id(), selection=tuple(each.strip() for each in select or ()), remediate=remediate)
    try:
        for each in order.selection:
            pair_of(each)  # a mistake is said before anything is begun
        async with at_work(order) as work:
            chosen = await choose_clusters(order)
            looks = (look_at_clusters(order, names, names[0], len(names)) for names in work.shards)
            ended = await asyncio.gather(
                *looks, return_exceptions=True
            )  # all of them, before what they share is closed
            if work.lost:
                raise Pause  # another process goes on with it
            for error in ended:
                if isinstance(error, BaseException):
                    raise error
            summary, findings = await summed_up(order)
    except (ConfigurationError, LedgerUnavailable, Unreachable) as error:
        return Failed(message=str(error))
    if not chosen:
        about = f"the selection {', '.join(order.selection)}" if order.selection else "the fleet"
        return Completed(name="NOTHING", message=f"Nothing was swept: {about} holds no cluster. {summary}")
    return Completed(name="FINDINGS" if findings else "NO-FINDINGS", message=summary)
