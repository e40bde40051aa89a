"""When a task that only reads is tried again. Tasks that change something never are."""

import os
from typing import Any

from prefect.client.schemas.objects import State, TaskRun

from tasks.errors import ServerTrouble, Unreachable, Untrusted

# Long enough together for an OMS switchover, during which Manager refuses connections for some minutes.
DELAYS = [float(part) for part in os.environ.get("RUNBOOKS_READ_RETRY_DELAYS", "10,30,60,120").split(",")]
RETRIES = len(DELAYS)


async def may_pass(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Whether the trouble a read met may pass by itself: no answer, or a server in trouble."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, Unreachable | ServerTrouble) and not isinstance(error, Untrusted)
