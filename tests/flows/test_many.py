"""Very many at once: hosts of one cluster, and clusters that share a cause."""

from datetime import timedelta

import pytest

from tasks import timing
from tasks.ledger.database import open_ledger
from tasks.ledger.observing import Sighting, observe
from tasks.ledger.receiving import sync_clusters
from tasks.ledger.tables import Cluster
from tasks.models import Observation
from tests.flows.conftest import Result, Worlds

pytestmark = [pytest.mark.server, pytest.mark.anyio]

HOSTS, CRASHED = 200, 7


async def test_two_hundred_alarmed_hosts_are_one_run_one_bind_and_one_ticket(world: Worlds) -> None:
    """Of 200 alarmed hosts seven are crashed: three are restarted, each node is bound once, and there is one ticket."""
    async with world(hosts=HOSTS, meta_hosts=HOSTS) as cluster:
        hosts = list(cluster.cluster.hosts)
        cluster.breaks("unbound")
        for host in hosts[:CRASHED]:
            cluster.breaks("crashed", host=host)
        cluster.raises_the_alarm()
        result = await cluster.run()
        restarted = [target for action, target in result.mutations if action == "restart-instance"]
        bound = [target for action, target in result.mutations if action == "set-metadata"]
        assert (len(restarted), set(restarted) <= set(hosts[:CRASHED]), bound) == (3, True, hosts)
        ends = [result.traces[host] for host in hosts[CRASHED:]]
        assert ends == ["1 2y 4 5n 6y END"] * (HOSTS - CRASHED)
        refused = [host for host in hosts[:CRASHED] if result.traces[host] == "1 2n REFUSED"]
        assert len(refused) == CRASHED - 3
        assert len(result.tickets) == 1


async def test_a_shared_cause_trips_the_breaker_and_is_one_incident(world: Worlds) -> None:
    """Thirty of a hundred clusters alarm together: every run only diagnoses, and all share one incident ticket."""
    async with world(clusters=3) as first:
        clusters = list(first.region.clusters.values())
        now = timing.wall()

        def known(name: str, id_: str) -> Cluster:
            return Cluster(
                name=name, cluster_id=id_, source=name, speed=1, connected=now - timedelta(days=1), account="one"
            )

        others = [known(f"other-{n}", f"00000000-0000-4000-8000-{n:012}") for n in range(99)]
        mine = known(first.block, first.cluster.id)
        async with open_ledger() as ledger, ledger.writing() as session:
            await sync_clusters(session, [mine, *others], now)
            sightings = [
                Sighting(
                    Observation(alarm_id="12110", kind="raised", cluster=each.name, host="node-1", serial="1"),
                    each,
                    "syslog",
                    "127.0.0.1",
                    "",
                )
                for each in others[:29]
            ]
            await observe(session, sightings, now)
        assert clusters[0] is first.cluster
        first.breaks("crashed")
        first.raises_the_alarm()
        for _ in range(2):
            result = await first.run(by_alarm=False)
            assert result == Result("REFUSED", {first.host: "1 2n REFUSED"}, [], [], "")
            assert [ticket.title for ticket in result.tickets] == [
                "Incident: many clusters alarm together; nothing is changed"
            ]
            assert "30 of 100 clusters alarmed within 15 minutes" in result.tickets[0].body
