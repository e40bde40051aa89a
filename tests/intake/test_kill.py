"""`kill -9` of the intake under load: what was answered with "accepted" is there afterwards, and nothing is twice."""

import asyncio
import itertools
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import URL, func, make_url, select

from tasks.ledger.database import open_ledger, unchecked_ledger, upgrade_schema
from tasks.ledger.tables import Episode, ObservationRow, Occurrence
from tests.bench.fleet import Alarm, body_of, know, raises, settings_of
from tests.bench.senders import LOOPBACK, TOKEN, Poster
from tests.intake.conftest import until
from tests.intake.killed import killable

pytestmark = [pytest.mark.anyio, pytest.mark.command]

ROOT = Path(__file__).parents[2]
CLUSTERS, HOSTS = 50, 40
KILLS = int(os.environ.get("RUNBOOKS_KILLS", "12")) // 2  # for each kind of ledger
WEBHOOK_SENDERS = 4
LINES_AT_ONCE = 5


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """An empty ledger of either kind."""
    if request.param == "sqlite":
        return make_url(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    database: str = request.getfixturevalue("postgresql_database")
    return make_url(database).set(drivername="postgresql+asyncpg")


@dataclass
class Senders:
    """Send alarms, each with a serial number of its own, to whatever intake is there; note what was acknowledged."""

    chance: random.Random
    alarms: Iterator[Alarm] = field(default_factory=lambda: raises(CLUSTERS, HOSTS))
    acked: set[str] = field(default_factory=set)
    cut: int = 0  # requests without an answer: they are sent again, as every sender must
    lines: int = 0

    async def post(self, poster: Poster, pending: list[list[Alarm]]) -> None:
        """Post until the connection breaks; what had no answer stays in `pending`."""
        with suppress(OSError, EOFError):
            while True:
                if not pending:
                    pending.append(list(itertools.islice(self.alarms, self.chance.randint(1, 5))))
                self.cut += 1
                status, answer = await poster.post(body_of(pending[0]))
                self.cut -= 1
                assert status == 200, answer
                self.note(pending.pop(), answer)

    def note(self, sent: list[Alarm], answer: bytes) -> None:
        """Keep the serial numbers of what is said to be on disk."""
        said = json.loads(answer)["alarms"]
        assert [each["status"] in ("accepted", "duplicate") for each in said] == [True] * len(sent)
        self.acked |= {str(alarm.serial) for alarm in sent}

    async def syslog(self, port: int) -> None:
        """Send lines over TCP until the connection breaks."""
        with suppress(OSError):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                while True:
                    some = list(itertools.islice(self.alarms, LINES_AT_ONCE))
                    writer.write(b"".join(alarm.line for alarm in some))
                    self.lines += len(some)
                    await writer.drain()
                    await asyncio.sleep(0.02)
            finally:
                writer.close()


async def test_kill(url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any number of kills at random instants every acknowledged alarm is in one episode, and none is twice."""
    monkeypatch.syspath_prepend(ROOT)
    (tmp_path / "token").write_text(TOKEN)
    settings = settings_of(token_file=str(tmp_path / "token"))
    async with unchecked_ledger(url) as ledger:
        await upgrade_schema(ledger)
        await know(ledger, CLUSTERS)
    senders, pending = Senders(random.Random(12110)), [list[list[Alarm]]() for _ in range(WEBHOOK_SENDERS)]
    for n in range(KILLS):
        before = len(senders.acked)
        async with asyncio.TaskGroup() as group, killable(settings, url, tmp_path / "prefect") as ports:
            for mine in pending:
                group.create_task(senders.post(Poster(ports["http"]), mine))
            group.create_task(senders.syslog(ports["tcp"]))
            if n % 4:  # else it is killed while it starts, or with its first alarms
                await until(lambda: len(senders.acked) > before, seconds=30)  # noqa: B023 - called within this round
            await asyncio.sleep(senders.chance.uniform(0, 0.5))
    async with killable(settings, url, tmp_path / "prefect") as ports:
        poster = Poster(ports["http"])
        for [unanswered] in pending:
            status, answer = await poster.post(body_of(unanswered))
            assert status == 200
            senders.note(unanswered, answer)
        await poster.close()
    await judge(url, senders)


async def judge(url: URL, senders: Senders) -> None:
    """Read the ledger, and compare it with what was acknowledged."""
    async with open_ledger(url) as ledger, ledger.reading() as session:
        rows = (await session.execute(select(Occurrence.serial, Occurrence.cluster_id, Occurrence.episode_id))).all()
        episodes = {each.id: each.cluster_id for each in await session.scalars(select(Episode))}
        observations = await session.scalar(select(func.count(ObservationRow.id)))
    of_serial = Counter(serial for serial, _, _ in rows)
    print(f"{KILLS} kills, {len(senders.acked)} acknowledged, {senders.cut} cut off, {senders.lines} lines sent")
    assert senders.cut >= KILLS  # else the kills hit an idle intake, and this proves nothing
    assert len(senders.acked) >= KILLS
    assert [serial for serial, times in of_serial.items() if times > 1] == []
    assert senders.acked - of_serial.keys() == set()
    assert [serial for serial, cluster, episode in rows if episodes.get(episode or "") != cluster] == []
    assert sorted(episodes.values()) == sorted(set(episodes.values()))
    assert observations is not None
    assert observations >= len(rows)
