"""Runs on clusters of which the doctor knows which routes answer: what never did is handed to a person at once."""

import pytest

from tasks import timing
from tasks.ledger.answering import Asked, answers_of, keep_answers
from tasks.ledger.database import open_ledger
from tests.flows.conftest import Result, World, Worlds

pytestmark = [pytest.mark.server, pytest.mark.anyio]
HOSTS = "Manager GET clusters/{cluster}/hosts"
RESTART = "Manager POST clusters/{cluster}/services/{service}/instances/restart"


async def never_answered(cluster: World, name: str, call: str) -> None:
    """The doctor has asked this route of the cluster in vain."""
    async with open_ledger() as ledger, ledger.writing() as session:
        await keep_answers(session, cluster.block, [Asked(name, call, "ASSUMED", False, "HTTP 404: no")], timing.wall())


@pytest.mark.parametrize(
    ("faults", "name", "call", "trace"),
    [
        (("crashed",), "hosts", HOSTS, "1 2n REFUSED"),
        (("crashed",), "restart", RESTART, "1 2n REFUSED"),
        (("unbound",), "agency", "IAM GET OS-AGENCY/agencies", "1 2y 4 5n REFUSED"),
    ],
)
async def test_what_never_answered_is_handed_off(
    world: Worlds, faults: tuple[str, ...], name: str, call: str, trace: str
) -> None:
    """An action one of whose routes never answered is not begun; the ticket names the route and what to do."""
    async with world() as cluster:
        cluster.breaks(*faults)
        cluster.raises_the_alarm()
        await never_answered(cluster, name, call)
        result = await cluster.run()
        assert result == Result("REFUSED", {cluster.host: trace}, [], result.tickets, "")
        (ticket,) = result.tickets
        said = ticket.body.replace("\\", "").replace("`", "")  # as text of others is quoted in markdown
        assert f"{call} was asked at " in said
        assert f"and has never answered (HTTP 404: no); runbooks doctor {cluster.block} asks again" in said


@pytest.mark.parametrize(
    ("faults", "name", "call", "trace"),
    [
        (("unbound",), "restart", RESTART, "1 2y 4 5n 6y END"),
        (("crashed",), "agency", "IAM GET OS-AGENCY/agencies", "1 2n 3y END"),
        (("crashed",), "hosts", "Manager GET by/another/path", "1 2n 3y END"),
    ],
    ids=["a bind needs no restart", "a restart needs no agency", "by another call"],
)
async def test_what_is_not_needed_is_not_missed(
    world: Worlds, faults: tuple[str, ...], name: str, call: str, trace: str
) -> None:
    """A route that the action does not need, or that was called otherwise, hinders nothing."""
    async with world() as cluster:
        cluster.breaks(*faults)
        cluster.raises_the_alarm()
        await never_answered(cluster, name, call)
        result = await cluster.run()
        done = cluster.restarts() if "crashed" in faults else cluster.binds()
        assert result == Result("END", {cluster.host: trace}, done, [], "")


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_restart_that_is_not_offered_is_tried_once(world: Worlds, status: int) -> None:
    """Manager has no restart: the run is handed off, and the next one hands off without sending it again."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        rule = cluster.region.trouble.add("POST", "*/instances/restart", "status", times=2, status=status)
        for sent in (1, 1):
            result = await cluster.run(by_alarm=False)
            assert (result.outcome, result.traces, result.mutations) == ("REFUSED", {cluster.host: "1 2n REFUSED"}, [])
            assert rule.times == 2 - sent
        async with open_ledger() as ledger, ledger.reading() as session:
            row = (await answers_of(session, cluster.block))["restart"]
        assert (row.call, row.answered) == (RESTART, None)
        assert row.said.startswith(f"HTTP {status}")
