"""A fleet on paper: its clusters as the ledger knows them, and what is told of their alarms, as lines and as JSON."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from deployments.intake.settings import Settings
from tasks.ledger.database import Ledger
from tasks.ledger.receiving import sync_clusters
from tasks.ledger.tables import Cluster

Kind = Literal["raised", "cleared"]


@dataclass(frozen=True)
class Alarm:
    """What is told of one alarm; `n` counts what is told, so that no two lines are alike."""

    n: int
    cluster: int
    host: int
    serial: int
    kind: Kind
    occurred: datetime

    @property
    def line(self) -> bytes:
        """As Manager's syslog, RFC 5424, with the line end."""
        category, cleared, by = ("0", "--", "-1") if self.kind == "raised" else ("1", _local(datetime.now(UTC)), "0")
        place = f"Source={source_of(self.cluster)};ServiceName=Meta;RoleName=Meta;HostName=node-{self.host}"
        body = (
            f"{source_of(self.cluster)}|12110|Failed to get ECS temporary AK/SK|{self.serial}|{category}|"
            f"{_local(self.occurred)}|{cleared}|1|{place}|{by}|2||{self.n}|"
        )
        return f"<134>1 {datetime.now(UTC).isoformat()} oms1 MRS-Manager - - - {body}\n".encode()

    @property
    def item(self) -> dict[str, str]:
        """As the webhook's JSON."""
        return {
            "cluster": source_of(self.cluster),
            "alarm_id": "12110",
            "kind": self.kind,
            "host": f"node-{self.host}",
            "serial": str(self.serial),
            "occurred": self.occurred.isoformat(timespec="seconds"),
        }


def body_of(alarms: list[Alarm]) -> bytes:
    """The webhook's body for one alarm or for many."""
    items = [alarm.item for alarm in alarms]
    return json.dumps(items[0] if len(items) == 1 else {"alarms": items}).encode()


def told(clusters: int, hosts: int, seed: int) -> Iterator[Alarm]:
    """Raises, re-reports and clears over all hosts at random, without end: of a host one alarm at a time."""
    chance, active, serial = random.Random(seed), dict[tuple[int, int], tuple[int, datetime]](), 0
    n = 0
    while True:
        place = chance.randrange(clusters), chance.randrange(hosts)
        n += 1
        if place not in active:
            serial += 1
            active[place] = serial, datetime.now(UTC).replace(microsecond=0)
            yield Alarm(n, *place, serial, "raised", active[place][1])
        elif chance.random() < 0.5:
            yield Alarm(n, *place, active[place][0], "raised", active[place][1])
        else:
            known, occurred = active.pop(place)
            yield Alarm(n, *place, known, "cleared", occurred)


def raises(clusters: int, hosts: int) -> Iterator[Alarm]:
    """One new alarm after the other, each with a serial number of its own, host by host, without end."""
    n = 0
    while True:
        n += 1
        place = n % (clusters * hosts)
        yield Alarm(n, place % clusters, place // clusters, n, "raised", datetime.now(UTC).replace(microsecond=0))


async def know(ledger: Ledger, clusters: int) -> None:
    """Let the ledger know so many clusters, as if they had been read from Prefect a while ago."""
    now = datetime.now(UTC)
    found = [
        Cluster(
            name=f"cluster-{n}",
            cluster_id=f"00000000-0000-4000-8000-{n:012d}",
            source=source_of(n),
            speed=1,
            connected=now - timedelta(days=1),
        )
        for n in range(clusters)
    ]
    async with ledger.writing() as session:
        await sync_clusters(session, found, now)


def source_of(cluster: int) -> str:
    """What a cluster's alarms call it."""
    return f"mrs-{cluster}"


def settings_of(*, token_file: str, http: int = 0, syslog: int = 0) -> Settings:
    """An intake on loopback with webhook and syslog over TCP; nothing is polled, for no cluster is there."""
    return Settings.model_validate(
        {
            "http": {"port": http},
            "syslog": {"port": syslog, "protocols": ["tcp"]},
            "webhook": {"token_file": token_file},
            "polling": {"enabled": False},
        }
    )


def _local(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
