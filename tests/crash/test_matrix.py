"""A part of the matrix that `make crash` tries as a whole: the worker is killed at messages of a run."""

import itertools
from typing import Literal

import pytest

from tests.crash.matrix import points, spread, try_all
from tests.crash.stand import Cell, Stand
from tests.crash.wires import Point

pytestmark = [pytest.mark.server, pytest.mark.anyio, pytest.mark.xdist_group("crash"), pytest.mark.timeout(900)]

SCENARIOS = ("crashed", "unbound")
POINTS = 8


async def test_a_worker_killed_at_any_message_repeats_nothing(standing: Stand, cell: Cell) -> None:
    """Killed before or after calls and commits, runs end as if they were not, or in a prefix and one ticket."""
    async with standing.cell("two") as other:
        seeds = itertools.count(1)
        counted = await try_all([cell, other], [(name, None) for name in SCENARIOS], seeds)
        whole = [(each.scenario, point) for each in counted for point in points(each.ended.counts)]
        assert len(whole) >= 200
        tried = await try_all([cell, other], spread(whole, POINTS), seeds)
        assert [each for each in (*counted, *tried) if each.wrong] == []
        assert sum(each.ended.where != "" for each in tried) >= POINTS // 2


@pytest.mark.parametrize(
    ("when", "expected"), [("before", ("1 2n CANNOT-TELL", 0, 1)), ("after", ("1 2n 3y END", 1, 0))]
)
async def test_a_restart_is_never_sent_twice(
    cell: Cell, when: Literal["before", "after"], expected: tuple[str, int, int]
) -> None:
    """Killed right before it sends the restart the run sends none and escalates; right after, it sees it to its end."""
    point = Point("cloud", 0, when, like="^POST .*restart")
    ended = await cell.run("crashed", point, seed=900 + len(when))
    assert ended.where.startswith("POST ")
    restarts = [change for change in ended.changes if change[0] == "restart-instance"]
    assert (ended.trace, len(restarts), ended.tickets) == expected


@pytest.mark.parametrize(
    ("when", "expected"), [("before", ("1 2y 4 5n ERROR", 1, 1)), ("after", ("1 2y 4 5n 6y END", 3, 0))]
)
async def test_a_node_is_never_bound_twice(
    cell: Cell, when: Literal["before", "after"], expected: tuple[str, int, int]
) -> None:
    """Killed at the second node's bind the run reads it back: unseen it stops with a ticket, seen it binds the rest."""
    seen = 0

    async def at_the_second() -> bool:
        nonlocal seen
        seen += 1
        if seen == 1:
            cell.trap.sprung = False
            return False
        return await cell.kill()

    spring, cell.trap.spring = cell.trap.spring, at_the_second
    try:
        ended = await cell.run("unbound", Point("cloud", 0, when, like="^POST .*/metadata"), seed=910 + len(when))
    finally:
        cell.trap.spring = spring
    assert (ended.trace, len(ended.changes), ended.tickets) == expected
