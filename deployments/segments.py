"""One segment of a run, carried out in the worker's own process, and the threads that do so."""

import asyncio
import threading
from collections.abc import Collection
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


class Loops:
    """Event loops in threads of their own: in the main one Prefect takes SIGTERM for a run's own, and breaks it off.

    They are several, for Prefect holds up a segment's whole loop, 0.1 s each time, when the segment begins to watch for
    a suspension and when it ends to.
    """

    def __init__(self, count: int = 4) -> None:
        self._loops = [asyncio.new_event_loop() for _ in range(count)]
        self._threads = [
            threading.Thread(target=each.run_forever, name="segments", daemon=True) for each in self._loops
        ]

    def start(self) -> None:
        """From here on they carry out."""
        for thread in self._threads:
            thread.start()

    def idlest(self, segments: Collection[Segment]) -> asyncio.AbstractEventLoop:
        """The one with the fewest of these."""
        return min(self._loops, key=lambda loop: sum(each.loop is loop for each in segments))

    def stop(self) -> None:
        """Leave whatever is still at work there where it is."""
        for loop, thread in zip(self._loops, self._threads, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


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
