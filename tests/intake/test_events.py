"""What the intake tells Prefect: events, as information, and never in the way of an alarm."""

import asyncio

import pytest

from deployments.intake.desk import News
from deployments.intake.events import MOST_UNTOLD, Teller
from deployments.intake.metrics import Metrics
from tasks.ledger.observing import Seen, Sighting
from tests.intake.standing import a_cluster, eventually, told

pytestmark = pytest.mark.anyio


async def test_news_is_told_in_the_background() -> None:
    """News is told one by one in its order, the rest at the end; what is too much at once is counted and not told."""
    metrics, heard = Metrics(), list[list[News]]()
    teller = Teller(lambda changes: heard.append(list(changes)), metrics)
    cluster = a_cluster()
    news = [
        News(Sighting(told(serial=str(n)), cluster, "syslog", "", ""), Seen(True, "", occurrence=str(n)))
        for n in range(MOST_UNTOLD + 3)
    ]
    teller(news)
    assert heard == []
    telling = asyncio.create_task(teller.run())

    async def some_are_told() -> bool:
        return len(heard) >= 3

    await eventually(some_are_told)
    telling.cancel()
    await asyncio.wait([telling])
    assert [len(each) for each in heard[:3]] == [1, 1, 1]
    assert [each for some in heard for each in some] == news[:MOST_UNTOLD]
    assert metrics.registry.get_sample_value("runbooks_intake_untold_changes_total") == 3
