"""A question that is never answered again, from each time on that it is asked: nothing is changed on a guess."""

from collections import Counter
from typing import Any

import pytest

from deployments.emulator.trouble import Rule, Trouble
from tests.flows.conftest import Worlds
from tests.flows.test_conformance import is_legal

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.timeout(900)]


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
            self.reads.append(path)
        return super().take(method, path)


@pytest.mark.parametrize(
    ("fault", "plainly", "not_needed"),
    [("crashed", "1 2n 3y END", {"instances": 1, "alarms": 1}), ("unbound", "1 2y 4 5n 6y END", {})],
)
async def test_nothing_is_changed_where_a_question_is_not_answered(
    world: Worlds, fault: str, plainly: str, not_needed: dict[str, int]
) -> None:
    """Whatever is read before the first change, from whichever time on it cannot be: nothing is changed, and one ticket
    says why. Only the snapshot before a restart, its last looks at instances and alarms, may be missing."""

    async def run(path: str = "", answered: int = 0) -> tuple[Heard, Any]:
        async with world() as cluster:
            cluster.breaks(fault)
            cluster.raises_the_alarm()
            cluster.region.trouble = heard = Heard()
            if path:
                heard.add("GET", path, "latency", answered, seconds=0)
                heard.add("GET", path, "status", None, status=503)
            return heard, await cluster.run()

    heard, result = await run()
    assert list(result.traces.values()) == [plainly]
    harmless = []
    for path, times in Counter(heard.reads).items():
        for answered in range(times):
            _, result = await run(path, answered)
            (trace,) = result.traces.values()
            assert is_legal(trace), (path, answered)
            assert len(result.tickets) == (trace != plainly), (path, answered)
            if result.mutations:
                harmless.append(path.rpartition("/")[2])
    assert Counter(harmless) == not_needed
