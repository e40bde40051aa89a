"""When a task that only reads is tried again. Tasks that change something never are."""

import logging
import os
from typing import Any

from prefect.client.schemas.objects import State, TaskRun

from tasks.errors import ConfigurationError, ServerTrouble, Unreachable, Untrusted

# Long enough together for an OMS switchover, during which Manager refuses connections for some minutes.
DEFAULT_DELAYS = "10,30,60,120"
MOST_DELAYS = 50  # Prefect takes no more


def delays(text: str) -> list[float]:
    """Seconds before each further try, from text such as `10,30,60`.

    Raises:
        ConfigurationError: it is anything else.
    """
    found = [float(part) for part in text.split(",") if part.strip().replace(".", "", 1).isdecimal()]
    if len(found) != len(text.split(",")) or len(found) > MOST_DELAYS:
        advice = f"give seconds with commas between, at most {MOST_DELAYS}, for example {DEFAULT_DELAYS}"
        raise ConfigurationError(f"RUNBOOKS_READ_RETRY_DELAYS is {text!r}: {advice}")
    return found


def configured(text: str) -> list[float]:
    """What the environment asks for; a malformed one is said, and does not keep a run from starting at 3 a.m."""
    try:
        return delays(text or DEFAULT_DELAYS)
    except ConfigurationError as error:
        logging.getLogger("runbooks").error("%s; until then it is %s", error, DEFAULT_DELAYS)
        return delays(DEFAULT_DELAYS)


DELAYS = configured(os.environ.get("RUNBOOKS_READ_RETRY_DELAYS", ""))
RETRIES = len(DELAYS)


async def may_pass(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Whether the trouble a read met may pass by itself: no answer, or a server in trouble."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, Unreachable | ServerTrouble) and not isinstance(error, Untrusted)
