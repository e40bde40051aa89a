"""No secret in anything that a whole demo leaves behind: logs, artifacts, parameters, tickets, evidence, databases."""

import asyncio
import base64
import json
import re
import signal
import sqlite3
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import prefect
import pytest
from sqlalchemy import URL, select

from deployments.emulator.inventory import secret as emulated
from tasks.ledger.database import DRIVERS, open_ledger
from tasks.ledger.tables import Episode
from tests.deployments.conftest import COMMAND, Runbooks, environment
from tests.deployments.scanning import dumps_below, files_below, forms, found_in

pytestmark = [pytest.mark.anyio]

SECRET = "Emu.0123456789AB"
UP_WITHIN = 420.0
PAGE = 200
# Beside what every run does: a session that is lost, and an answer that breaks off, so that errors are told as well.
TROUBLE = ("lost-session GET */alarms", "truncated GET */instances")
# They tell of every statement of a database that is searched itself, and of every frame: the server cannot keep up.
QUIET = "".join(f"  {name}:\n    level: INFO\n" for name in ("aiosqlite", "websockets"))
# What Prefect keeps, by the route that lists it.
LISTS = ("flow_runs", "task_runs", "artifacts", "logs", "deployments", "block_documents", "automations", "variables")


@dataclass(frozen=True)
class Demo:
    """A demo that has played its scenario and stays up: where everything of it is.

    Attributes:
        folder: of its processes' logs, databases and home.
        region, ui, intake: addresses.
    """

    folder: Path
    region: str
    ui: str
    intake: str
    process: Process


@asynccontextmanager
async def kept_demo(home: Path, *arguments: str) -> AsyncIterator[Demo]:
    """`runbooks demo --keep` with every logger of every process at DEBUG; what it says goes to files below the home."""
    here = home / "here"
    here.mkdir()
    own = Path(str(prefect.__file__)).with_name("logging") / "logging.yml"
    told_all, times = re.subn(r"(?m)^(root:\n(?:  .*\n)*?  level: )WARNING$", r"\1DEBUG", own.read_text())
    assert times == 1, "Prefect's logging.yml has no root logger any more"
    (here / "logging.yml").write_text(told_all.replace("\nloggers:\n", f"\nloggers:\n{QUIET}", 1))
    (here / "prefect.toml").write_text(f'[logging]\nlevel = "DEBUG"\nconfig_path = "{here / "logging.yml"}"\n')
    with (home / "demo.out").open("wb") as out, (home / "demo.err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *(COMMAND, "demo", "--json", "--keep", *arguments),
            env=environment(home),
            cwd=here,
            stdout=out,
            stderr=err,
        )
    try:
        said = await _until_kept(process, home / "demo.err")
        region = _told(r"the emulated region .* is up on (\S+)", said)
        ui = _told(r"the Prefect server and its UI are up on (\S+)", said)
        port = _told(r"the intake takes alarms in: http (\d+)", said)
        yield Demo(_only(home, "mrs-runbooks-demo-*"), region, ui, f"http://127.0.0.1:{port}", process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # which ends what it has started
        async with asyncio.timeout(60):
            await process.wait()


async def _until_kept(process: Process, err: Path) -> str:
    async with asyncio.timeout(UP_WITHIN):
        while "Everything stays up" not in (said := _text(err)):
            assert process.returncode is None, f"the demo has ended:\n{said[-2000:]}"
            await asyncio.sleep(0.5)
    return said


def _text(file: Path) -> str:
    return file.read_text(errors="replace")


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def _told(pattern: str, said: str) -> str:
    found = re.search(pattern, said)
    assert found, f"the demo does not say {pattern!r}"
    return found[1]


async def secrets_of(http: httpx.AsyncClient, region: str) -> dict[str, str]:
    """Everything of the emulated region that proves who one is, by what it is; also sessions that have ended."""
    state = (await http.get(f"{region}/emulator/state")).json()
    found = {"AK": state["access_key"], "SK": state["secret_key"], "IAM token": state["token"]}
    for cluster in state["clusters"]:
        name, password = cluster["name"], cluster["manager_password"]
        found[f"Manager's password of {name}"] = password
        login = httpx.BasicAuth(cluster["manager_user"], password)
        answer = await http.get(f"{region}{cluster['manager_root']}session/status", auth=login)
        cookie = answer.cookies["JSESSIONID"]
        issued = {f"session {n} of {name}": emulated(32, cluster["id"], "session", n) for n in range(1, PAGE)}
        number = list(issued.values()).index(cookie)
        assert number > 2, "the runbook has opened fewer sessions than a run needs"
        found |= dict(list(issued.items())[:number])
        for host in cluster["hosts"]:
            found |= {f"{kind} of the keys of {host['name']}": key for kind, key in (host["keys"] or {}).items()}
    return found


async def listed(http: httpx.AsyncClient, api: str, what: str, **asked: Any) -> bytes:
    """Everything of a kind that Prefect's API lists, as it answers."""
    pages = b""
    for offset in range(0, 100_000, PAGE):
        answer = await http.post(f"{api}/{what}/filter", json={"limit": PAGE, "offset": offset, **asked})
        assert answer.is_success, f"{what}: {answer.text[:500]}"
        pages += answer.content + b"\n"
        if len(answer.json()) < PAGE:
            return pages
    raise AssertionError(f"{what}: there is no end of it")


async def all_listed(http: httpx.AsyncClient, api: str) -> dict[str, bytes]:
    """Everything that Prefect's API gives who asks for no secrets: runs, their logs, states, parameters, blocks."""
    found = {f"API: {what}": await listed(http, api, what) for what in LISTS}
    for run in json.loads(found["API: flow_runs"]):
        answer = await http.get(f"{api}/flow_run_states/", params={"flow_run_id": run["id"]})
        found[f"API: states of {run['name']}"] = answer.content
    events = await http.post(f"{api}/events/filter", json={"limit": 50})
    while (following := events.json().get("next_page")) and len(found) < PAGE:
        found[f"API: events {len(found)}"] = events.content
        events = await http.get(following)
    return found | {"API: events": events.content}


async def said_by_commands(runbooks: Runbooks, demo: Demo) -> dict[str, bytes]:
    """What the commands say of the demo's cluster, its evidence and its tickets."""
    home = demo.folder / "runbooks"
    url = URL.create(DRIVERS["sqlite"], database=str(home / "ledger.db"))
    async with open_ledger(url) as ledger, ledger.reading() as session:
        (episode,) = (await session.scalars(select(Episode))).all()
    own = {"RUNBOOKS_HOME": str(home), "PREFECT_API_URL": f"{demo.ui}/api"}
    commands = [
        ("evidence", "export", episode.id),
        ("evidence", "show", episode.id),
        ("why", episode.cluster),
        ("status",),
        ("status", "--json"),
        ("tickets",),
        ("tickets", episode.ticket),
        ("doctor", episode.cluster),
    ]
    found = {}
    for command in commands:
        ended = await runbooks(*command, **own)
        assert (ended.code in (0, 1), bool(ended.out)) == (True, True), f"{command}: {ended.err}"
        found[f"runbooks {' '.join(command)}"] = (ended.out + ended.err).encode()
    return found


@pytest.mark.server
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("demo")
async def test_a_whole_demo_leaves_no_secret(runbooks: Runbooks, tmp_path: Path) -> None:
    """Played with all loggers at DEBUG, a demo with restart, bind and ticket leaves no secret in anything it leaves."""
    trouble = [each for rule in TROUBLE for each in ("--trouble", rule)]
    async with (
        kept_demo(tmp_path, "--scenario", "wedged+unbound", *trouble) as demo,
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        api = f"{demo.ui}/api"
        sources = await all_listed(http, api) | await said_by_commands(runbooks, demo)
        sources["/metrics"] = (await http.get(f"{demo.intake}/metrics")).content
        secrets = await secrets_of(http, demo.region)
        shown = await listed(http, api, "block_documents", include_secrets=True)
        sources |= files_below(demo.folder) | dumps_below(demo.folder)
    sources |= {name: (tmp_path / name).read_bytes() for name in ("demo.out", "demo.err")}
    assert demo.process.returncode == 0
    assert found_in(sources, secrets) == []
    # It was looked at the right things: they speak of what happened, and who asks for secrets is shown them.
    _speaks(sources)
    kinds = ("AK", "SK", "Manager's password of mrs-001")
    assert found_in({"": shown}, secrets) == [f"{kind} (utf-8) in " for kind in kinds]


def _speaks(sources: Mapping[str, bytes]) -> None:
    spoken = {
        "worker.log": b"DEBUG",
        "server.log": b"DEBUG",
        "demo.err": b"DEBUG",
        "API: logs": b"step 6, ",
        "API: flow_runs": b'"parameters"',
        "API: artifacts": b"## What happened",
        "API: block_documents": b"emulated-region",
        "prefect/prefect.db, dumped": b"emulated-region",
        "runbooks/ledger.db, dumped": b"node-master1",
        "runbooks evidence": b"restarted",
        "runbooks/tickets": b"ESCALATE",
    }
    for where, words in spoken.items():
        mine = [content for name, content in sources.items() if name.startswith(where)]
        assert any(words in content for content in mine), f"{where} does not say {words!r}"


@pytest.mark.parametrize("form", forms(SECRET))
def test_a_secret_is_found_in_every_form(form: str) -> None:
    """What is planted is found, in each form, in the middle of other bytes."""
    planted = b"\x00\xffsomething before" + forms(SECRET)[form] + b"and after\x00"
    assert found_in({"here": planted, "there": b"nothing"}, {"it": SECRET}) == [f"it ({form}) in here"]


@pytest.mark.parametrize("user", ["", "u", "us"])
def test_a_password_is_found_in_a_login(user: str) -> None:
    """Wherever it begins in what an `Authorization: Basic` header holds."""
    header = b"Authorization: Basic " + base64.b64encode(f"{user}:{SECRET}".encode())
    bytes_in = (len(user) + 1) % 3
    assert found_in({"": header}, {"it": SECRET}) == [f"it (base64 of utf-8, {bytes_in} bytes in) in "]


def test_a_secret_is_found_in_a_database(tmp_path: Path) -> None:
    """As a text and as a blob, in the database's file and in its dump."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE kept (it)")
        database.executemany("INSERT INTO kept VALUES (?)", [(SECRET,), (SECRET.encode("utf-16-le"),)])
        database.commit()
    assert found_in(files_below(tmp_path) | dumps_below(tmp_path), {"it": SECRET}) == [
        "it (utf-8) in a.db",
        "it (utf-16-le) in a.db",
        "it (utf-8) in a.db, dumped",
        "it (HEX of utf-16-le) in a.db, dumped",
    ]
