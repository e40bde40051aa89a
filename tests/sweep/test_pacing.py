"""The pace of a sweep: a cap and a budget that are kept, and hung requests that hold up nobody."""

import asyncio

import pytest

from tasks.errors import ConfigurationError
from tasks.sweep.pacing import BURST, SLOW_AFTER, Limits, Pace, configured

pytestmark = pytest.mark.anyio
FAST = Limits(at_once=4, slow=6, per_second=100_000)


async def send(pace: Pace, endpoint: str, takes: float, sent: list[float] | None = None) -> None:
    """One request."""
    async with pace.turn(endpoint)():
        if sent is not None:
            sent.append(asyncio.get_running_loop().time())
        await asyncio.sleep(takes)


async def test_the_cap_is_kept() -> None:
    """No more requests are under way at a time than the cap says, whatever their endpoints."""
    pace = Pace(FAST)
    await asyncio.gather(*(send(pace, f"Manager {n}", 0.01) for n in range(40)))
    assert (pace.most, sum(pace.sent.values())) == (4, 40)


@pytest.mark.parametrize("per_second", [40.0, 400.0])
async def test_the_budget_of_an_endpoint_is_kept(per_second: float) -> None:
    """In no second an endpoint gets more than its budget and a tenth of it, however many wait."""
    pace, sent = Pace(Limits(at_once=100, slow=0, per_second=per_second)), list[float]()
    await asyncio.gather(*(send(pace, "MRS", 0, sent) for _ in range(int(1.5 * per_second))))
    most = max(sum(start <= each < start + 1 for each in sent) for start in sent)
    assert 0.7 * per_second < most <= per_second * (1 + BURST) + 1


async def test_an_endpoint_that_has_used_its_budget_delays_no_other() -> None:
    """Those who wait for one endpoint's budget keep no place from requests to another."""
    pace, sent = Pace(Limits(at_once=2, slow=0, per_second=10)), list[float]()
    waiting = [asyncio.create_task(send(pace, "MRS", 0)) for _ in range(20)]
    await asyncio.sleep(0)
    began = asyncio.get_running_loop().time()
    await send(pace, "ECS", 0, sent)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert sent[0] - began < 0.1


async def test_hung_requests_give_their_places_to_others() -> None:
    """Requests that hang hold a place for a second; together with the others they are as many as both limits allow."""
    pace, sent = Pace(FAST), list[float]()
    began = asyncio.get_running_loop().time()
    hung = [asyncio.create_task(send(pace, f"Manager {n}", 60)) for n in range(6)]
    await asyncio.sleep(2.5 * SLOW_AFTER)
    await asyncio.gather(*(send(pace, "MRS", 0.01, sent) for _ in range(40)))
    assert (sent[-1] - began < 3.5 * SLOW_AFTER, pace.most) == (True, 10)
    for each in hung:
        each.cancel()
    await asyncio.gather(*hung, return_exceptions=True)
    await asyncio.gather(*(send(pace, "MRS", 0.01) for _ in range(8)))
    assert pace.most == 10


async def test_a_request_that_is_given_up_gives_its_place_back() -> None:
    """A request that is cancelled while it waits or while it is under way leaves every place free."""
    pace = Pace(Limits(at_once=1, slow=0, per_second=100_000))
    both = [asyncio.create_task(send(pace, "MRS", 60)) for _ in range(2)]
    await asyncio.sleep(0.01)
    for each in reversed(both):
        each.cancel()
    await asyncio.gather(*both, return_exceptions=True)
    async with asyncio.timeout(1):
        await send(pace, "MRS", 0)


def test_the_limits_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment sets cap and budget; what is no number is refused by its name."""
    assert configured() == Limits(at_once=40, slow=60, per_second=50)
    monkeypatch.setenv("RUNBOOKS_SWEEP_AT_ONCE", "10")
    monkeypatch.setenv("RUNBOOKS_SWEEP_PER_SECOND", "2.5")
    assert configured() == Limits(at_once=10, slow=15, per_second=2.5)
    for wrong in ("many", "0", "-1", "inf", "nan"):
        monkeypatch.setenv("RUNBOOKS_SWEEP_AT_ONCE", wrong)
        with pytest.raises(ConfigurationError, match=r"^RUNBOOKS_SWEEP_AT_ONCE is '.*': write a number from 1 on"):
            configured()
