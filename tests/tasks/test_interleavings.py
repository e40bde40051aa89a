"""Runs that an alarm, a sweep and a person start for one cluster at the same time, in very many orders."""

import asyncio
import os
import random
from datetime import timedelta

import pytest
from sqlalchemy import select

from tasks.blocks import Cloud, Cluster, Manager
from tasks.claims import claimed, settled
from tasks.errors import Refused
from tasks.gates import intend
from tasks.intents import seen_to_its_end
from tasks.ledger.database import open_ledger
from tasks.ledger.episodes import Asking, Held, Part
from tasks.ledger.tables import Intent
from tasks.models import Alarm, Case, Outcome

pytestmark = pytest.mark.anyio

INTERLEAVINGS = int(os.environ.get("RUNBOOKS_INTERLEAVINGS") or 100)  # 1,000 take two minutes
AT_ONCE = 20
TARGETS = ("node-1", "node-2", "node-3")


def a_block(number: int) -> Cluster:
    """A cluster of its own; nothing is called at its addresses."""
    nowhere = "http://127.0.0.1:9"
    cloud = Cloud(
        project_id="p", domain_id="d", mrs_url=nowhere, ecs_url=nowhere, iam_url=nowhere, access_key="a", secret_key="s"
    )
    manager = Manager(url=nowhere, user="u", password="p")
    id_ = f"00000000-0000-4000-8000-{number:012}"
    return Cluster(cluster_id=id_, source=f"c{number}", manager=manager, cloud=cloud, mode="auto")


async def one_cluster(number: int) -> tuple[list[str], set[str]]:
    """Three runs race; what was begun and ended, in order, and what is repaired after it."""
    chance = random.Random(number)
    block, log, repaired = a_block(number), list[str](), set[str]()

    async def hesitate() -> None:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)

    async def run(who: str, *, automated: bool) -> None:
        case = Case(cluster=f"block-{number}", alarm_id="12110", dry_run=False, run=f"{who}-{number}")
        await hesitate()
        asking = Asking(case.run, who, automated=automated)
        async with claimed(case, asking, cluster_id=block.cluster_id) as claim:
            if isinstance(claim, Held):
                return
            for target in TARGETS:
                await hesitate()
                if target in repaired:
                    continue
                try:
                    await intend(case, block, "rebind", target, TARGETS[0])
                except Refused:
                    break
                log.append(f"begin {target}")
                await hesitate()
                repaired.add(target)
                log.append(f"end {target}")
                await seen_to_its_end(case, "6", target, "bound")
            alarm = Alarm(alarm_id="12110", serial="1", location=f"HostName={TARGETS[0]}")
            await settled(case, [Part(alarm, Outcome.END, "1 2y 4 5n 6y END")], Outcome.END, "")

    starts = [("alarm", True), ("sweep", True), ("person", False)]
    chance.shuffle(starts)
    await asyncio.gather(*(run(who, automated=automated) for who, automated in starts))
    return log, repaired


async def test_racing_runs_change_one_thing_at_a_time_and_each_once() -> None:
    """In a hundred random orders of three runs there are never two changes at once, and none is made twice."""
    async with open_ledger():  # made once, not by all at the same time
        pass
    left = iter(range(INTERLEAVINGS))

    async def some() -> None:
        for number in left:
            log, repaired = await one_cluster(number)
            assert log == [f"{word} {target}" for target in TARGETS for word in ("begin", "end")]
            assert repaired == set(TARGETS)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def test_a_change_whose_end_nobody_saw_keeps_others_away() -> None:
    """A run died after it set out to change something: another one of the cluster changes nothing for an hour."""
    block, case = a_block(1), Case(cluster="block-1", alarm_id="12110", dry_run=False, run="first")
    async with claimed(case, Asking("first", "", automated=True), cluster_id=block.cluster_id):
        await intend(case, block, "restart", "node-1", "node-1", before="{}")
        await settled(case, [], Outcome.ERROR, "")
    second = case.model_copy(update={"run": "second"})
    async with claimed(second, Asking("second", "", automated=False), cluster_id=block.cluster_id):
        with pytest.raises(Refused, match=r"another run began to change node-1 at .* and has not seen the end of it"):
            await intend(second, block, "rebind", "node-2", "node-1")
        async with open_ledger() as ledger, ledger.writing() as session:
            intent = (await session.scalars(select(Intent))).one()
            intent.at -= timedelta(hours=1, seconds=1)
        await intend(second, block, "rebind", "node-2", "node-1")
