"""The intake as a whole: all sources on one ledger, what it says of itself, and how it ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from deployments.intake.events import event_id
from deployments.intake.service import Running, intake
from deployments.intake.settings import Http, Polling, Settings, Syslog, Webhook
from tasks.errors import ConfigurationError
from tasks.ledger.database import DRIVERS, Ledger, open_ledger
from tasks.ledger.tables import Cluster
from tests.intake.conftest import send
from tests.intake.standing import LOOPBACK, a_cluster, block_of, connect, eventually, line_of, locked, rows, runs_of

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-tests"
NOBODY = "http://127.0.0.1:9/api"
COMMAND = str(Path(sys.executable).with_name("runbooks"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything on free ports of loopback, with a token for the webhook, without polling."""
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    return Settings(
        http=Http(port=0),
        syslog=Syslog(port=0),
        webhook=Webhook(token_file=token),
        polling=Polling(enabled=False),
    )


@dataclass
class Outside:
    """What one sees of an intake from outside."""

    running: Running
    http: httpx.AsyncClient

    async def datagram(self, line: bytes) -> None:
        """Send a line by UDP."""
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(LOOPBACK, self.running.ports["udp"])
        )
        transport.sendto(line)
        transport.close()

    async def line(self, line: bytes) -> None:
        """Send a line by TCP."""
        await send(self.running.ports["tcp"], line + b"\n")

    async def posted(self, cluster: str, **more: str) -> httpx.Response:
        """Post an alarm to the webhook."""
        alarm = {
            "cluster": cluster,
            "alarm_id": "12110",
            "kind": "raised",
            "host": "node-master1",
            "serial": "4711",
            "occurred": "2026-11-22T13:47:42Z",
        }
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return await self.http.post("/alarms", json={**alarm, **more}, headers=headers)


@asynccontextmanager
async def running(settings: Settings, ledger: Ledger, api: str = NOBODY) -> AsyncIterator[Outside]:
    """An intake at work, with this Prefect server."""
    with temporary_settings({PREFECT_API_URL: api}):
        async with intake(settings, ledger) as at_work:
            url = f"http://{LOOPBACK}:{at_work.ports['http']}"
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
                yield Outside(at_work, http)


async def told_by_hand(cluster: str, file: Path, api: str, home: Path) -> tuple[int, str]:
    """`runbooks alarm raise` as a person runs it: exit code and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "alarm", "raise", cluster, "node-master1", "--serial", "4711"),
        *("--occurred", "2026-11-22T13:47:42"),
        env=_environment(file, api, home),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def _environment(file: Path, api: str, home: Path) -> dict[str, str]:
    own = {"RUNBOOKS_LEDGER_URL": f"sqlite:///{file}", "PREFECT_API_URL": api, "PREFECT_HOME": str(home)}
    return {**os.environ, "NO_PROXY": LOOPBACK, **own}


@pytest.mark.server
async def test_one_alarm_by_every_way_is_one_run(
    client: PrefectClient,
    deployed: None,
    prefect_server: str,
    settings: Settings,
    ledger: Ledger,
    ledger_file: Path,
    tmp_path: Path,
) -> None:
    """An alarm by UDP, TCP, webhook and command is four observations, one episode and one flow run."""
    cluster = a_cluster()
    await block_of(cluster).save(cluster.name)
    async with running(settings, ledger, prefect_server) as outside:
        await outside.datagram(line_of(cluster))
        await outside.line(line_of(cluster))
        answer = await outside.posted(cluster.source)
        code, said = await told_by_hand(cluster.name, ledger_file, prefect_server, tmp_path)

        async def four_observations() -> bool:
            return rows(ledger_file, "SELECT count(*) FROM observations") == [(4,)]

        async def has_its_run() -> bool:
            return rows(ledger_file, "SELECT count(*) FROM episodes WHERE run IS NOT NULL") == [(1,)]

        await eventually(four_observations)
        await eventually(has_its_run)
        await asyncio.sleep(1.5)  # a second run would be here by now
    [(episode, number, run)] = rows(ledger_file, "SELECT id, n, run FROM episodes")
    assert [str(each.id) for each in await runs_of(client, f"cluster:{cluster.name}")] == [run]
    assert (number, answer.status_code, answer.json()["alarms"][0]["episode"]) == (1, 200, episode)
    assert (code, said) == (0, f"duplicate: ALM-12110 on node-master1 of {cluster.name} is known\n")
    heard = rows(ledger_file, "SELECT source, duplicate FROM observations ORDER BY duplicate, source")
    assert sorted(source for source, _ in heard) == ["command", "syslog", "syslog", "webhook"]
    assert [duplicate for _, duplicate in heard] == [0, 1, 1, 1]


async def test_what_it_says_of_itself(settings: Settings, ledger: Ledger) -> None:
    """It answers, is ready, and shows all of its numbers by name."""
    await connect(ledger, a_cluster("block", "prod", "id-of-prod"))
    async with running(settings, ledger) as outside:
        assert set(outside.running.ports) == {"http", "udp", "tcp"}
        assert (await outside.posted("prod")).status_code == 200

        async def the_ledgers_too() -> bool:
            return "runbooks_waits_open" in (await outside.http.get("/metrics")).text

        await eventually(the_ledgers_too)
        health, ready, metrics = [await outside.http.get(path) for path in ("/health", "/ready", "/metrics")]
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()) == (200, {"ledger": "", "desk": ""})
    names = {line.split()[2] for line in metrics.text.splitlines() if line.startswith("# TYPE")}
    assert {name for name in names if not name.endswith("_created")} == {
        "runbooks_intake_accepted_total",
        "runbooks_intake_duplicates_total",
        "runbooks_intake_rejected_total",
        "runbooks_intake_commit_seconds",
        "runbooks_intake_untold_changes_total",
        "runbooks_intake_queue_age_seconds",
        "runbooks_intake_unstarted_episodes",
        "runbooks_intake_overdue_wait_seconds",
        "runbooks_breaker_open",
        "runbooks_brakes_on",
        "runbooks_approvals_open",
        "runbooks_tickets_open",
        "runbooks_tickets_undelivered_changes",
        "runbooks_tickets_undelivered_age_seconds",
        "runbooks_intake_dispatch_lag_seconds",
        "runbooks_intake_runs_started_total",
        "runbooks_intake_dispatch_errors_total",
        "runbooks_intake_source_last_seen_seconds",
        "runbooks_intake_polls_total",
        "runbooks_intake_poll_overdue_seconds",
        "runbooks_intake_datagrams_lost",
        "runbooks_intake_refused_connections",
        "runbooks_time_to_detect_seconds",
        "runbooks_time_to_act_seconds",
        "runbooks_time_to_verify_seconds",
        "runbooks_time_to_recover_seconds",
        "runbooks_episodes_closed_total",
        "runbooks_refusals_total",
        "runbooks_episodes_open",
        "runbooks_waits_open",
        "runbooks_waits_overdue",
        "runbooks_questions_open",
        "runbooks_questions_overdue",
    }
    assert 'runbooks_intake_accepted_total{source="webhook"} 1.0' in metrics.text.splitlines()


@pytest.mark.server
async def test_what_happens_is_told_as_events(
    client: PrefectClient, deployed: None, prefect_server: str, settings: Settings, ledger: Ledger, ledger_file: Path
) -> None:
    """An alarm, its clear, its episode and its run are one Prefect event each, however often they are reported."""
    cluster = a_cluster()
    await block_of(cluster).save(cluster.name)
    async with running(settings, ledger, prefect_server) as outside:
        for kind in ("raised", "raised", "cleared", "cleared"):
            assert (await outside.posted(cluster.source, kind=kind)).status_code == 200

        async def four_events() -> bool:
            return len(await events_of(client, cluster)) >= 4

        await eventually(four_events, seconds=60)
    ((episode,),) = rows(ledger_file, "SELECT id FROM episodes")
    ((occurrence,),) = rows(ledger_file, "SELECT id FROM occurrences")
    assert sorted(await events_of(client, cluster)) == sorted(
        [
            ("mrs.alarm.raised", str(event_id("mrs.alarm.raised", occurrence))),
            ("mrs.alarm.cleared", str(event_id("mrs.alarm.cleared", occurrence))),
            ("mrs.episode.opened", str(event_id("opened", episode, occurrence))),
            ("mrs.episode.started", str(event_id("started", episode, 1))),
        ]
    )


async def events_of(client: PrefectClient, cluster: Cluster) -> list[tuple[str, str]]:
    """Name and id of all events that Prefect has about a cluster."""
    about = {"resource": {"id": [f"mrs.cluster.{cluster.cluster_id}"]}}
    answer = await client.request("POST", "/events/filter", json={"filter": about, "limit": 50})
    return [(each["event"], each["id"]) for each in answer.json()["events"]]


async def test_a_ledger_that_cannot_be_written(settings: Settings, ledger_file: Path) -> None:
    """While the ledger cannot be written it lives, is not ready, and answers 503; then all goes on."""
    url = URL.create(DRIVERS["sqlite"], database=str(ledger_file), query={"timeout": "0.2"})
    async with open_ledger(url) as ledger:
        await connect(ledger, a_cluster("block", "prod", "id-of-prod"))
        async with running(settings, ledger) as outside:
            with locked(ledger_file):
                health, ready = [await outside.http.get(path) for path in ("/health", "/ready")]
                refused = await outside.posted("prod")
            assert health.status_code == 200
            assert (ready.status_code, ready.json()["desk"]) == (503, "")
            assert "does not answer (database is locked)" in ready.json()["ledger"]
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
            assert rows(ledger_file, "SELECT count(*) FROM episodes") == [(0,)]
            assert (await outside.posted("prod")).status_code == 200
            assert (await outside.http.get("/ready")).status_code == 200


async def test_a_part_that_fails_ends_all(settings: Settings, ledger: Ledger, ledger_file: Path) -> None:
    """A mistake that no retry mends ends the whole intake with it: it must not look alive."""
    await connect(ledger, a_cluster("block", "prod", "id-of-prod"))

    async def until_it_fails() -> None:
        async with running(settings, ledger) as outside:
            ports.update(outside.running.ports)
            rows(ledger_file, "DROP TABLE observations")
            await outside.line(line_of(a_cluster("block", "prod", "id-of-prod")))
            await asyncio.Event().wait()

    ports: dict[str, int] = {}
    with pytest.raises(OperationalError, match="no such table: observations"):
        await asyncio.wait_for(until_it_fails(), 30)
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's affair
        await asyncio.open_connection(LOOPBACK, ports["tcp"])


async def test_a_secret_that_is_missing_starts_nothing(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    """A file with a secret that cannot be read is told at the start, before anything listens."""
    missing = settings.model_copy(update={"webhook": Webhook(token_file=tmp_path / "missing")})
    with pytest.raises(ConfigurationError, match=r"the secret file .*missing cannot be read"):
        async with running(missing, ledger):
            pass


async def test_an_outage_of_ours_is_known(
    settings: Settings, ledger: Ledger, ledger_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An intake that begins long after the last one lived says so, and the ledger keeps the gap."""
    rows(
        ledger_file,
        "INSERT INTO intakes (id, started, alive) VALUES ('old', '2026-01-01 00:00:00', '2026-01-02 00:00:00')",
    )
    async with running(settings, ledger):
        pass
    words = "no intake was alive since 2026-01-02 00:00:00+00:00: alarms of that time are only diagnosed"
    assert words in caplog.messages
    assert rows(ledger_file, "SELECT count(*) FROM intakes WHERE gap_from IS NOT NULL") == [(1,)]


@pytest.mark.command
@pytest.mark.xdist_group("command")
async def test_sigterm_loses_nothing_that_was_answered(
    ledger: Ledger, ledger_file: Path, settings: Settings, tmp_path: Path
) -> None:
    """The command, told to end while alarms pour in, ends in time, and every alarm it answered is in the ledger."""
    await connect(ledger, a_cluster("block", "prod", "id-of-prod"))
    config = tmp_path / "intake.toml"
    config.write_text(
        f"[http]\nport = 0\n[syslog]\nport = 0\n[polling]\nenabled = false\n"
        f"[webhook]\ntoken_file = '{settings.webhook.token_file}'\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "intake", "--config", str(config)),
        env=_environment(ledger_file, NOBODY, tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    begun = (await process.stdout.readline()).decode()
    port = int(begun.partition(": http ")[2].partition(",")[0])
    answered: set[str] = set()
    url, headers = f"http://{LOOPBACK}:{port}/alarms", {"Authorization": f"Bearer {TOKEN}"}

    async def sender(number: int) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            for each in range(10_000):
                host = f"node-{number}-{each}"
                alarm = {"cluster": "prod", "alarm_id": "12110", "kind": "raised", "host": host, "serial": host}
                try:
                    answer = await http.post(url, json=alarm, headers=headers)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    answered.add(host)
                if len(answered) == 60:
                    process.send_signal(signal.SIGTERM)

    async with asyncio.timeout(60):
        await asyncio.gather(*(sender(number) for number in range(8)))
        out, err = await process.communicate()
    assert (process.returncode, out.decode()) == (0, "ending: what was accepted is on disk\n")
    assert "Traceback" not in err.decode()
    kept = {row[0] for row in rows(ledger_file, "SELECT host FROM occurrences")}
    assert len(answered) >= 60
    assert answered <= kept
