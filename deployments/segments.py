"""One segment of a run, carried out in the worker's own process."""

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import Abort, Pause
from prefect.flow_engine import run_flow


@dataclass(eq=False)
class Segment:
    """What this worker has at work: `ended` is set when it is through, `begun` when it was ever entered."""

    run: UUID
    loop: asyncio.AbstractEventLoop
    future: Future[None] | None = None
    begun: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False


async def carried_out(
    flow: Flow[..., Any], flow_run: FlowRun, worker: asyncio.AbstractEventLoop, segment: Segment
) -> None:
    """Carry the segment out, and tell the worker's loop when it is through; how it ended, the run's state says."""
    segment.begun = True
    try:
        await run_flow(flow, flow_run=flow_run, return_type="state")  # type: ignore[misc]  # it is async
    except (Pause, Abort):  # it waits, or its state says that it is over
        pass
    finally:
        worker.call_soon_threadsafe(segment.ended.set)
