"""A question that is never answered again, from each time on that it is asked: nothing is changed on a guess."""

import itertools
from collections import Counter
from typing import Any

import pytest

from deployments.emulator.trouble import Rule, Trouble
from tests.flows.conftest import Worlds
from tests.flows.test_conformance import is_legal

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.timeout(900)]


SEEDS = itertools.count(1)  # of the regions: a cluster that has been repaired once is another matter


def route(path: str) -> str:
    """The path without the ids in it, which are others in each region."""
    return "/".join("*" if len(part) > 24 else part for part in path.split("/"))


class Heard(Trouble):
    """Keeps what was asked, up to the first change."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.changed = False

    def take(self, method: str, path: str) -> Rule | None:
        """As ever, and kept."""
        self.changed = self.changed or method != "GET"
        if not self.changed:
            self.reads.append(route(path))
        return super().take(method, path)


@pytest.mark.parametrize(("fault", "plainly"), [("crashed", "1 2n 3y END"), ("unbound", "1 2y 4 5n 6y END")])
async def test_nothing_is_changed_where_a_question_is_not_answered(world: Worlds, fault: str, plainly: str) -> None:
    """Whatever is read before the first change, from whichever time on it cannot be: nothing is changed, and one ticket
    says why."""

    async def run(path: str = "", answered: int = 0) -> tuple[Heard, Any]:
        async with world(seed=next(SEEDS), hosts=1) as cluster:
            cluster.breaks(fault)
            cluster.raises_the_alarm()
            cluster.region.trouble = heard = Heard()
            if path:
                heard.add("GET", path, "latency", answered, seconds=0)
                heard.add("GET", path, "status", None, status=403)
            return heard, await cluster.run()

    heard, result = await run()
    assert list(result.traces.values()) == [plainly]
    told = 0
    for path, times in Counter(heard.reads).items():
        for answered in range(times):
            _, result = await run(path, answered)
            told += 1
            assert result.mutations == [], (path, answered)
            assert result.outcome in ("CANNOT-TELL", "REFUSED", "ERROR"), (path, answered)
            assert all(is_legal(trace) for trace in result.traces.values()), (path, answered)
            assert len(result.tickets) == told, (path, answered)
    assert told > 10
