"""The desk: nothing is answered before it is on disk, and nobody waits for ever."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import URL, event
from sqlalchemy.exc import OperationalError

from deployments.intake.acceptance import Delivery, Receipt, Source
from deployments.intake.desk import STOPPED, LedgerDesk, News
from deployments.intake.directory import Directory
from deployments.intake.metrics import Metrics
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import DRIVERS, open_ledger
from tasks.ledger.tables import Cluster
from tests.intake.standing import a_cluster, connect, handed_in, locked, no_prefect, rows, told

pytestmark = pytest.mark.anyio

OF_THE_BLOCK: tuple[Source, ...] = ("smn", "poll", "command")
ADVICE = "name it in the source field of exactly one MRS Cluster block"


@dataclass
class Stand:
    """A desk at work on a ledger's file, whose only cluster is the block `block`, which alarms call `prod`."""

    desk: LedgerDesk
    metrics: Metrics
    file: Path
    running: asyncio.Task[None]
    news: list[News] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)

    def count(self, name: str, **labels: str) -> float | None:
        """A number at /metrics; None where there is none."""
        return self.metrics.registry.get_sample_value(f"runbooks_intake_{name}", labels)

    def episodes(self) -> list[tuple[str, str]]:
        """Id and state of all episodes, as another connection reads them."""
        return [(row[0], row[1]) for row in rows(self.file, "SELECT id, state FROM episodes ORDER BY opened")]

    def rejections(self) -> list[tuple[str, str, str, str, str, int]]:
        """All that was rejected, as another connection reads it."""
        query = "SELECT source, peer, reason, why, excerpt, times FROM rejections ORDER BY first"
        return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in rows(self.file, query)]


@asynccontextmanager
async def standing(file: Path, *clusters: Cluster, patience: float = 0.2) -> AsyncIterator[Stand]:
    """A desk at work while the block runs; another writer of the ledger is waited for only so many seconds."""
    url = URL.create(DRIVERS["sqlite"], database=str(file), query={"timeout": str(patience)})
    known = clusters or (a_cluster("block", "prod", "id-of-prod"),)
    with no_prefect():
        async with open_ledger(url) as ledger:
            await connect(ledger, *known)
            directory, metrics, news = Directory(ledger), Metrics(), list[News]()
            await directory.refresh()
            desk = LedgerDesk(ledger, directory, runbooks=["12110"], metrics=metrics, changed=news.extend)
            stand = Stand(desk, metrics, file, asyncio.create_task(desk.run()), news)
            event.listen(ledger.engine.sync_engine, "commit", lambda _: stand.commits.append(1))
            try:
                yield stand
            finally:
                stand.running.cancel()
                await asyncio.wait([stand.running])


async def waiting(*work: asyncio.Task[list[Receipt]]) -> None:
    """Some time passes, in which none of these is answered."""
    await asyncio.sleep(0.1)
    assert not any(each.done() for each in work)


def all_at_once(desk: LedgerDesk, deliveries: Sequence[Delivery]) -> list[asyncio.Task[list[Receipt]]]:
    """Each delivery handed in by somebody else."""
    return [asyncio.create_task(desk.accept([each])) for each in deliveries]


async def test_a_receipt_comes_after_the_commit(ledger_file: Path) -> None:
    """While the commit cannot be made there is no receipt and no row; once there is a receipt, others read the row."""
    async with standing(ledger_file, patience=30) as stand:
        with locked(ledger_file):
            (handing_in,) = all_at_once(stand.desk, [handed_in(told())])
            await waiting(handing_in)
            assert (stand.episodes(), stand.news) == ([], [])
        (receipt,) = await handing_in
        [(episode, state)] = stand.episodes()
    why = f"ALM-12110 on node-master1 of block opened episode {episode}"
    assert (receipt, state) == (Receipt("accepted", why, episode=episode), "raised")
    assert [(each.seen.episode, each.seen.opened) for each in stand.news] == [(episode, True)]


async def test_what_is_handed_in_at_once_shares_a_commit(ledger_file: Path) -> None:
    """Fifty deliveries by fifty hands at one time are one commit, each with a receipt of its own, in its order."""
    async with standing(ledger_file) as stand:
        hosts = [f"node-{n}" for n in range(50)]
        receipts = await asyncio.gather(*all_at_once(stand.desk, [handed_in(told(host=host)) for host in hosts]))
        [(episode, _)] = stand.episodes()
        assert stand.commits == [1]
    how = ["opened", *["joins"] * 49]
    assert receipts == [
        [Receipt("accepted", f"ALM-12110 on {host} of block {word} episode {episode}", episode=episode)]
        for host, word in zip(hosts, how, strict=True)
    ]
    assert [each.seen.opened for each in stand.news] == [True] + [False] * 49


async def test_what_comes_again_is_a_duplicate(ledger_file: Path) -> None:
    """The same alarm from another source is a duplicate of the same episode, and no news."""
    async with standing(ledger_file) as stand:
        (first,) = await stand.desk.accept([handed_in(told())])
        (again,) = await stand.desk.accept([handed_in(told(cluster="block"), "command", "me@here")])
        assert again == Receipt("duplicate", "ALM-12110 on node-master1 of block is known", episode=first.episode)
        assert (len(stand.news), len(stand.episodes())) == (1, 1)
        kept = rows(ledger_file, "SELECT source, peer, duplicate FROM observations ORDER BY id")
    assert kept == [("syslog", "10.0.0.1", 0), ("command", "me@here", 1)]


@pytest.mark.parametrize(
    ("source", "changes", "reason", "why"),
    [
        (
            "syslog",
            {"cluster": "nobody"},
            "unknown-cluster",
            f"no cluster block has the name 'nobody' as its source: {ADVICE}",
        ),
        (
            "syslog",
            {"cluster": "block"},
            "unknown-cluster",
            f"no cluster block has the name 'block' as its source: {ADVICE}",
        ),
        (
            "command",
            {"cluster": "prod"},
            "unknown-cluster",
            "there is no MRS Cluster block 'prod': make it, or check the spelling",
        ),
        (
            "webhook",
            {"cluster": "twins"},
            "ambiguous-cluster",
            f"2 cluster blocks have the name 'twins' as its source: {ADVICE}",
        ),
        (
            "syslog",
            {"alarm_id": "45192"},
            "no-runbook",
            "there is no runbook for alarm 45192 of 'prod', only for 12110: see its page, or do not send it here",
        ),
        (
            "syslog",
            {"host": ""},
            "no-host",
            "ALM-12110 of 'prod' comes without a host: put ${locationInfo} in the format on Manager, or start the "
            "runbook by hand",
        ),
        ("smn", {"kind": "event"}, "event", "12110 of 'prod' is an event, not an alarm: do not send it here"),
        (
            "syslog",
            {"host": "node\x00"},
            "malformed",
            "a field of the alarm holds a character that cannot be printed",
        ),
        ("poll", {"host": "n" * 256}, "malformed", "the host or the serial number is longer than 255 characters"),
        (
            "webhook",
            {"cluster": "\ud800"},
            "malformed",
            "a field of the alarm holds a character that cannot be printed",
        ),
    ],
)
async def test_what_cannot_be_followed_is_rejected_and_listed(
    ledger_file: Path, source: Source, changes: dict[str, str], reason: str, why: str
) -> None:
    """What names no cluster, runbook or host of ours is rejected in one sentence, starts nothing, and is listed."""
    known = (
        a_cluster("block", "prod", "id-of-prod"),
        a_cluster("twin-1", "twins", "id-1"),
        a_cluster("twin-2", "twins", "id-2"),
    )
    delivery = handed_in(replace(told(), **changes), source)  # type: ignore[arg-type]
    delivery = replace(delivery, excerpt="how it began")
    async with standing(ledger_file, *known) as stand:
        for _ in range(2):
            (receipt,) = await stand.desk.accept([delivery])
            assert (receipt.what, receipt.reason, receipt.episode) == ("rejected", reason, "")
            assert receipt.why.startswith(why)
        kept = stand.rejections()
        assert kept == [(source, "10.0.0.1", reason, receipt.why, "how it began", 2)]
        assert (stand.episodes(), stand.news) == ([], [])
        assert stand.count("rejected_total", source=source, reason=reason) == 2


async def test_names_are_looked_up_as_their_source_calls_them(ledger_file: Path) -> None:
    """Syslog and the webhook give the name of alarms or the cloud's id; SMN, polling and the command the block's."""
    async with standing(ledger_file) as stand:
        receipts = await stand.desk.accept(
            [
                handed_in(told(cluster="prod"), "syslog"),
                handed_in(told(cluster="id-of-prod"), "webhook"),
                *(handed_in(told(cluster="block"), source) for source in OF_THE_BLOCK),
            ]
        )
    assert [receipt.what for receipt in receipts] == ["accepted", *["duplicate"] * 4]


async def test_a_mixed_batch_is_answered_in_its_order(ledger_file: Path) -> None:
    """Of one handful each gets its own receipt in its place, what is rejected among what is not."""
    async with standing(ledger_file) as stand:
        handful = [told(cluster="nobody"), told(), told(alarm_id="1"), told(), told(host="node-2")]
        receipts = await stand.desk.accept([handed_in(each) for each in handful])
        assert stand.commits == [1]
    assert [(each.what, each.reason) for each in receipts] == [
        ("rejected", "unknown-cluster"),
        ("accepted", None),
        ("rejected", "no-runbook"),
        ("duplicate", None),
        ("accepted", None),
    ]


async def test_a_ledger_that_cannot_write_is_told_to_all(ledger_file: Path) -> None:
    """While the ledger cannot write, everybody who hands in is told, and nothing is kept; later ones succeed."""
    async with standing(ledger_file) as stand:
        with locked(ledger_file):
            work = all_at_once(stand.desk, [handed_in(told(host=f"node-{n}")) for n in range(20)])
            others = [
                asyncio.ensure_future(stand.desk.heard("syslog", "10.0.0.1")),
                asyncio.ensure_future(stand.desk.first_time("smn", "m-1")),
                asyncio.ensure_future(stand.desk.reject("webhook", "10.0.0.1", "malformed", "no JSON", b"x")),
            ]
            ended = await asyncio.gather(*work, *others, return_exceptions=True)
        assert {(type(each), "database is locked" in str(each)) for each in ended} == {(LedgerUnavailable, True)}
        assert (stand.episodes(), stand.rejections(), stand.news) == ([], [], [])
        assert stand.count("accepted_total", source="syslog") is None
        (receipt,) = await stand.desk.accept([handed_in(told())])
        assert (receipt.what, len(stand.episodes())) == ("accepted", 1)
        assert await stand.desk.first_time("smn", "m-1")


async def test_a_desk_that_is_ended_leaves_nobody_waiting(ledger_file: Path) -> None:
    """Whoever waits when the desk is ended, or comes later, is told to try again."""
    async with standing(ledger_file, patience=1) as stand:
        with locked(ledger_file):
            in_hand = all_at_once(stand.desk, [handed_in(told())])
            await waiting(*in_hand)
            behind = all_at_once(stand.desk, [handed_in(told(host="node-2"))])
            await waiting(*behind)
            stand.running.cancel()
            ended = await asyncio.wait_for(asyncio.gather(*in_hand, *behind, return_exceptions=True), 10)
        with pytest.raises(LedgerUnavailable, match="being stopped"):
            await asyncio.wait_for(stand.desk.accept([handed_in(told())]), 5)
        assert [(type(each), str(each)) for each in ended] == [(LedgerUnavailable, STOPPED)] * 2
        assert stand.episodes() == []


async def test_a_desk_that_breaks_leaves_nobody_waiting(ledger_file: Path) -> None:
    """A mistake that no retry mends ends the desk with its error; whoever waited is told to try again."""
    async with standing(ledger_file) as stand:
        rows(ledger_file, "DROP TABLE observations")
        work = all_at_once(stand.desk, [handed_in(told(host=f"node-{n}")) for n in range(3)])
        ended = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), 10)
        assert [(type(each), str(each)) for each in ended] == [(LedgerUnavailable, STOPPED)] * 3
        with pytest.raises(OperationalError, match="no such table: observations"):
            await stand.running
        with pytest.raises(LedgerUnavailable, match="being stopped"):
            await asyncio.wait_for(stand.desk.heard("syslog", "10.0.0.1"), 5)


async def test_who_goes_away_disturbs_nobody(ledger_file: Path) -> None:
    """A sender that gives up before the commit changes nothing for the others; what it brought is kept."""
    async with standing(ledger_file, patience=30) as stand:
        with locked(ledger_file):
            gone, stays = all_at_once(stand.desk, [handed_in(told()), handed_in(told(host="node-2"))])
            await waiting(gone, stays)
            gone.cancel()
            await asyncio.wait([gone])
        (receipt,) = await stays
        assert receipt.what == "accepted"
        assert [each.sighting.observation.host for each in stand.news] == ["node-master1", "node-2"]


async def test_a_message_s_id_is_new_once(ledger_file: Path) -> None:
    """An id is new the first time, for each source of its own."""
    async with standing(ledger_file) as stand:
        asked = [("smn", "m-1"), ("smn", "m-1"), ("webhook", "m-1"), ("smn", "m-2")]
        assert [await stand.desk.first_time(source, id_) for source, id_ in asked] == [  # type: ignore[arg-type]
            True,
            False,
            True,
            True,
        ]


async def test_what_is_counted(ledger_file: Path) -> None:
    """New, known and rejected are counted by source; the desk says when it heard each and how long commits took."""
    async with standing(ledger_file) as stand:
        await stand.desk.accept([handed_in(told()), handed_in(told()), handed_in(told(host="node-2"))])
        await stand.desk.accept([handed_in(told(cluster="nobody"), "webhook")])
        await stand.desk.reject("smn", "10.0.0.2", "malformed", "no JSON", b"\x00[")
        await stand.desk.heard("poll", "block")
        assert stand.rejections()[-1] == ("smn", "10.0.0.2", "malformed", "no JSON", "·[", 1)
        assert (
            stand.count("accepted_total", source="syslog"),
            stand.count("duplicates_total", source="syslog"),
            stand.count("rejected_total", source="webhook", reason="unknown-cluster"),
            stand.count("rejected_total", source="smn", reason="malformed"),
            stand.count("commit_seconds_count"),
        ) == (2, 1, 1, 1, 4)
        last = [stand.count("source_last_seen_seconds", source=each) for each in ("syslog", "webhook", "smn", "poll")]
        assert all(each and each > 1_700_000_000 for each in last)
        kept = rows(ledger_file, "SELECT source, peer FROM sources ORDER BY source")
        assert kept == [("poll", "block"), ("smn", "10.0.0.2"), ("syslog", "10.0.0.1"), ("webhook", "10.0.0.1")]


async def test_the_age_of_what_waits_is_known(ledger_file: Path) -> None:
    """The age of what waits for its commit grows while it waits, and is nothing where nothing waits."""
    async with standing(ledger_file, patience=30) as stand:
        assert stand.desk.queue_age() == 0.0
        with locked(ledger_file):
            first = all_at_once(stand.desk, [handed_in(told())])
            await waiting(*first)
            assert 0.05 < stand.desk.queue_age() < 5
            second = all_at_once(stand.desk, [handed_in(told(host="node-2"))])
            await waiting(*second)
            assert 0.15 < stand.desk.queue_age() < 5
        await asyncio.gather(*first, *second)
        assert stand.desk.queue_age() == 0.0


def test_a_file_is_what_others_read(ledger_file: Path) -> None:
    """The other connection of these tests is SQLite's own and sees a lock as such."""
    with (
        locked(ledger_file),
        closing(sqlite3.connect(ledger_file, timeout=0)) as connection,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        connection.execute("BEGIN IMMEDIATE")
