"""What a run has learned or done it takes from the ledger when it is begun anew: nothing is asked or done twice.

A run that waits ends its process, and one whose worker dies is begun anew: both carry out the flow from its beginning.
Prefect's own persisted results lie on the disk of the worker that wrote them; the ledger is what all workers reach.
"""

import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from tasks import errors, timing
from tasks.claims import holds, looked_up, noted
from tasks.ledger.episodes import Holding, still_holds
from tasks.ledger.learning import learn, learned
from tasks.models import Alarm, Case

P = ParamSpec("P")
T = TypeVar("T")
Known = TypeVar("Known", covariant=True)


class Once(Protocol[P, Known]):
    """A step that is carried out once; `fn` is it without that, and without Prefect."""

    fn: Callable[..., Any]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[Known]:
        """Carry it out, or get what came of it before."""


# What a step may end with. Others (a wrong block, a ledger that does not answer) say nothing of the step.
KEPT = (errors.CannotTell, errors.StepFailed, errors.RemoteError)
MOST_LETTERS = 120


def once(key: str) -> Callable[[Callable[P, Awaitable[T]]], Once[P, T]]:
    """Carry a step out once per attempt; begun anew, the run gets what it returned, or failed with, then.

    A run that holds no episode (a dry run) carries it out each time.

    Args:
        key: what tells this call from all others of the run: the page's step, and arguments in braces as in the names
            of task runs. Alarms stand for their hosts.
    """

    def decorate(step: Callable[P, Awaitable[T]]) -> Once[P, T]:
        function = getattr(step, "fn", step)
        signature = inspect.signature(function)
        kept: TypeAdapter[T] = TypeAdapter(get_type_hints(function)["return"])

        @wraps(function)
        async def remembered(*args: P.args, **kwargs: P.kwargs) -> T:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            case: Case = bound.arguments["case"]
            if not holds(case):
                return await step(*args, **kwargs)
            named = {name: _name(value) for name, value in bound.arguments.items()}
            text = f"{function.__name__} {key.format(**named)}"
            known = await looked_up(case, lambda session, mine: learned(session, mine.attempt, text))
            if known is None:
                value = await _carried_out(lambda: step(*args, **kwargs), kept)
                known = await noted(case, lambda session, mine: _kept(session, mine, text, value))
            return _value(kept, known)

        remembered.fn = function  # type: ignore[attr-defined]  # as Prefect's tasks have it
        return cast("Once[P, T]", remembered)

    return decorate


@once("")
async def as_first_seen(case: Case, holding: Holding) -> tuple[Holding, datetime]:
    """What the run found in the ledger when it first took its episode, and when that was: the same whenever it is
    begun anew, though more may be reported meanwhile."""
    return holding, timing.now()


async def _kept(session: AsyncSession, mine: Holding, key: str, value: str) -> str:
    """What counts now: what another segment learned before, else this value; kept while the fence holds, no longer.

    A segment that was taken over finds its changes refused: the one that has gone on must not take that for its own.
    """
    if not await still_holds(session, mine):
        return await learned(session, mine.attempt, key) or value
    return await learn(session, mine.attempt, key, value, timing.wall())


async def _carried_out(step: Callable[[], Awaitable[T]], kept: TypeAdapter[T]) -> str:
    try:
        value = await step()
    except KEPT as error:
        return json.dumps({"error": type(error).__name__, "args": list(map(str, error.args))})
    return json.dumps({"value": kept.dump_python(value, mode="json")})


def _value(kept: TypeAdapter[T], text: str) -> T:
    known = json.loads(text)
    if "error" in known:
        raise getattr(errors, known["error"])(*known["args"])
    return kept.validate_python(known["value"])


def _name(value: object) -> object:
    if isinstance(value, Sequence) and value and all(isinstance(each, Alarm) for each in value):
        value = ",".join(sorted(each.host for each in value))
    if isinstance(value, str) and len(value) > MOST_LETTERS:
        return hashlib.sha256(value.encode()).hexdigest()
    return value
