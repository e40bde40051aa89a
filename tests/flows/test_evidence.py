"""What a run leaves as evidence: its record in the ledger, its ticket, and its artifacts in the Prefect UI."""

import json
import re
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from sqlalchemy import select

from flows.alm_12110 import PAGE
from tasks.graph import Way, flowchart
from tasks.ledger.database import open_ledger
from tasks.ledger.keeping import Line, digest_of, records_of
from tasks.ledger.tables import Episode, Intent
from tests.flows.conftest import World, Worlds

pytestmark = [pytest.mark.server, pytest.mark.anyio]


async def record() -> list[Line]:
    """The lines of the only run, as the ledger keeps them."""
    async with open_ledger() as ledger, ledger.reading() as session:
        episode = (await session.scalars(select(Episode))).one()
        (lines,) = (await records_of(session, episode.id)).values()
        return lines


async def intents() -> dict[str, str]:
    """Target -> the id by which Manager or the cloud knows what was asked of it."""
    async with open_ledger() as ledger, ledger.reading() as session:
        found = (await session.scalars(select(Intent).order_by(Intent.at, Intent.target))).all()
        return {f"{each.step} {each.target}": each.command for each in found}


async def artifact(key: str) -> Any:
    """The last artifact of this key."""
    async with get_client() as client:
        wanted = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
        (found,) = await client.read_latest_artifacts(artifact_filter=wanted)
        return found.data


def of(lines: list[Line], step: str, kind: str) -> list[str]:
    """What was said at a step."""
    return [line.text for line in lines if (line.step, line.kind) == (step, kind)]


async def both(cluster: World) -> None:
    """The instance has crashed and the agency is gone; the run repairs both."""
    cluster.breaks("crashed", "unbound")
    cluster.raises_the_alarm()
    assert (await cluster.run()).traces == {cluster.host: "1 2n 3n 4 5n 6y END"}


async def test_the_record_says_what_was_seen_and_done_by_whom(world: Worlds) -> None:
    """Before the restart the cluster as it was; each change with its id, by whom, and what was before and after."""
    async with world() as cluster:
        await both(cluster)
        lines, ids, host = await record(), await intents(), cluster.host
        (before,) = [text for text in of(lines, "3", "asked") if text.startswith("before the restart")]
        assert re.fullmatch(
            rf"before the restart: Meta instances: 1 'Faulty' \({host} 'Faulty', started [\d-]+ [\d:]+\); "
            rf"active alarms: 1 \(12110 on {host}\)",
            before,
        )
        (restart,) = of(lines, "3", "did")
        user, moment = cluster.cluster.manager_user, r"started [\d-]+ [\d:]+"
        assert re.fullmatch(
            rf"restarted \(command {ids[f'3 {host}']}\) by Manager user '{user}': "
            rf"was 'Faulty', {moment}, is 'Normal', {moment}",
            restart,
        )
        by, agency = "by the credentials of the cluster block", cluster.cluster.last_agency
        assert of(lines, "6", "did")[:-1] == [
            f"bound {by} (X-Request-Id {ids[f'6 {node}']}): agency was none, is {agency}, read back"
            for node in cluster.cluster.hosts
        ]
        assert len({*ids.values()}) == 1 + len(cluster.cluster.hosts)
        assert cluster.region.access_key not in json.dumps([str(line) for line in lines])


async def test_the_ticket_is_plain_and_names_the_record(world: Worlds) -> None:
    """The ticket has no drawing, and the SHA-256 it names is that of lines that the ledger holds."""
    async with world() as cluster:
        cluster.breaks("wedged")
        cluster.raises_the_alarm()
        (ticket,) = (await cluster.run()).tickets
        lines = await record()
        (named,) = re.findall(r"SHA-256 of what happened, line by line: ([0-9a-f]{64})", ticket.body)
        assert named in [digest_of(lines[:length]) for length in range(1, len(lines) + 1)]
        assert ("mermaid" in ticket.body, "The page's steps" in ticket.body) == (False, False)


async def test_the_artifacts_of_a_run(world: Worlds) -> None:
    """The report holds the way over the page's graph and each step; the episode is among those that are open."""
    async with world() as cluster:
        await both(cluster)
        text = await artifact(f"alm-12110-{cluster.block}")
        drawn = flowchart(PAGE.graph, [Way(["1", "2n", "3n", "4", "5n", "6y"], "END", "6")])
        assert f"```mermaid\n{drawn}\n```" in text
        rows = re.findall(r"^\| (\d) +\| (\S+) +\| .*? \| (\w+) +\| ", text, re.MULTILINE)
        answers = [("1", "found"), ("2", "no"), ("3", "no"), ("5", "no"), ("6", "yes")]
        assert rows == [(step, cluster.host, answer) for step, answer in answers]
        listed = json.loads(await artifact("open-episodes"))
        (mine,) = [row for row in listed if row["cluster"] == cluster.block]
        assert (mine["state"], mine["hosts"]) == ("done, a relapse would continue it", cluster.host)
        assert mine["waits for"].startswith("a relapse, until ")
