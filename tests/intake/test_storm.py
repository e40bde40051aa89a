"""Ten thousand deliveries of one cluster's alarms, over four sources at once, against a real Prefect server."""

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from sqlalchemy import func, make_url, select

from deployments.intake.acceptance import Delivery, digest_of
from deployments.intake.desk import LedgerDesk
from deployments.intake.service import Running, intake
from deployments.intake.settings import Settings
from tasks.ledger.database import open_ledger
from tasks.ledger.tables import Episode, ObservationRow, Occurrence
from tasks.models import Observation
from tests.intake.conftest import LOOPBACK, send, until
from tests.intake.standing import a_cluster, block_of

pytestmark = [pytest.mark.anyio, pytest.mark.server]

TOKEN = "a-token-of-the-tests"
HOSTS, COPIES = 200, 50
DATAGRAMS_AT_ONCE, ALARMS_AT_ONCE = 50, 50


@pytest.fixture
async def cluster(deployed: None) -> str:
    """The name of a cluster's block, which is also what its alarms call it."""
    name = f"storm-{uuid4().hex}"
    await block_of(a_cluster(name, name, str(uuid4()))).save(name)
    return name


class Storm:
    """One alarm of each host, told again and again; each source tells as much of it as it knows."""

    def __init__(self, cluster: str) -> None:
        self.cluster, self.occurred = cluster, datetime.now(UTC).replace(microsecond=0)

    def line(self, host: int) -> bytes:
        """As Manager's syslog."""
        body = f"{self.cluster}|12110|Failed|{4711 + host}|0|{self.occurred:%Y-%m-%d %H:%M:%S}|--|1|"
        return f"<134>MRS Manager: {body}HostName=node-{host}|-1|2|||".encode()

    def item(self, host: int) -> dict[str, str]:
        """As JSON, without the time."""
        return {
            "cluster": self.cluster,
            "alarm_id": "12110",
            "kind": "raised",
            "host": f"node-{host}",
            "serial": str(4711 + host),
        }

    async def over_tcp(self, port: int, hosts: Sequence[int]) -> None:
        """All over one connection."""
        await send(port, b"".join(self.line(host) + b"\n" for host in hosts))

    async def over_udp(self, port: int, hosts: Sequence[int]) -> None:
        """A datagram each."""
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(LOOPBACK, port)
        )
        for n, host in enumerate(hosts):
            transport.sendto(self.line(host))
            if n % DATAGRAMS_AT_ONCE == 0:
                await asyncio.sleep(0.01)
        transport.close()

    async def over_http(self, port: int, hosts: Sequence[int]) -> None:
        """In batches."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            for some in _batches(hosts):
                content = json.dumps({"alarms": [self.item(host) for host in some]})
                headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
                answer = await http.post(f"http://{LOOPBACK}:{port}/alarms", content=content, headers=headers)
                assert answer.status_code == 200, answer.text

    async def at_the_desk(self, desk: LedgerDesk, hosts: Sequence[int]) -> None:
        """By a person, who knows the host only, and as read from Manager, in turns."""
        for n, some in enumerate(_batches(hosts)):
            deliveries = []
            for host in some:
                told = Observation(alarm_id="12110", kind="raised", cluster=self.cluster, host=f"node-{host}")
                deliveries.append(Delivery("poll" if n % 2 else "command", "somebody", digest_of(b"told"), told))
            receipts = await desk.accept(deliveries)
            assert {receipt.what for receipt in receipts} <= {"accepted", "duplicate"}


def _batches(hosts: Sequence[int]) -> list[Sequence[int]]:
    return [hosts[first : first + ALARMS_AT_ONCE] for first in range(0, len(hosts), ALARMS_AT_ONCE)]


def taken(running: Running) -> float:
    """Observations that were written down, new or known."""
    counters = (running.metrics.accepted, running.metrics.duplicates)
    samples = [sample for counter in counters for family in counter.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


async def test_storm(cluster: str, tmp_path: Path) -> None:
    """Ten thousand deliveries of two hundred hosts' alarms over four sources are one episode and one flow run."""
    (tmp_path / "token").write_text(TOKEN)
    settings = Settings.model_validate(
        {
            "http": {"port": 0},
            "syslog": {"port": 0},
            "webhook": {"token_file": str(tmp_path / "token")},
            "polling": {"enabled": False},
        }
    )
    copies = [host for host in range(HOSTS) for _ in range(COPIES)]
    random.Random(12110).shuffle(copies)
    storm = Storm(cluster)
    url = make_url(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    async with open_ledger(url) as ledger, intake(settings, ledger, tell=lambda _: None) as running:
        async with asyncio.TaskGroup() as sources:
            sources.create_task(storm.over_tcp(running.ports["tcp"], copies[0::4]))
            sources.create_task(storm.over_udp(running.ports["udp"], copies[1::4]))
            sources.create_task(storm.over_http(running.ports["http"], copies[2::4]))
            sources.create_task(storm.at_the_desk(running.desk, copies[3::4]))
        lost = running.counters
        await until(lambda: taken(running) + lost.lost + lost.dropped == len(copies), seconds=60)
        async with ledger.reading() as session:
            written = await session.scalar(select(func.count(ObservationRow.id)))
            occurrences = (await session.execute(select(Occurrence.host, Occurrence.episode_id))).all()
            (episode,) = (await session.scalars(select(Episode))).all()
        assert written == len(copies) - lost.lost - lost.dropped
        assert sorted(occurrences) == sorted((f"node-{host}", episode.id) for host in range(HOSTS))
        by_cluster = FlowRunFilter(tags=FlowRunFilterTags(all_=[f"cluster:{cluster}"]))
        async with get_client() as client:
            for _ in range(100):
                if await client.read_flow_runs(flow_run_filter=by_cluster):
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(2)  # the dispatcher looks every second: another one would be here by now
            (run,) = await client.read_flow_runs(flow_run_filter=by_cluster)
        async with ledger.reading() as session:
            (episode,) = (await session.scalars(select(Episode))).all()
        assert (episode.run, run.idempotency_key) == (str(run.id), f"{episode.id}:1")
