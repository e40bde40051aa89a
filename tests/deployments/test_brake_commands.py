"""`runbooks stop`, `resume` and `breaker`: what they say is what the gates then read, also while the ledger is away."""

import asyncio
import json
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import URL

from tasks import timing
from tasks.brakes import stop_file
from tasks.ledger.braking import braked, trip_if_shared
from tasks.ledger.database import DRIVERS, open_ledger
from tasks.ledger.schema import NEWER
from tasks.tickets import incident, tell
from tests.deployments.conftest import COMMAND, Ended, Runbooks, environment
from tests.intake.standing import a_cluster, connect, eventually, locked, rows, seen, told

pytestmark = [pytest.mark.anyio, pytest.mark.command, pytest.mark.xdist_group("command")]

MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{8,}\+00:00")
GONE = "postgresql://me:hush@127.0.0.1:1/runbooks"
AWAY = (
    "the ledger postgresql+asyncpg://me:***@127.0.0.1:1/runbooks does not answer "
    "([Errno 111] Connect call failed ('127.0.0.1', 1))"
)
STOPPED = "stopped: {}; a command that was sent already is not called back\nstopped now:\n"
NOTHING = "nothing is stopped\n"
WHY = "2 of 2 clusters alarmed within 15 minutes: their cause may be a shared one"


class Fleet:
    """The home that the commands share, and a ledger in it that knows two clusters."""

    def __init__(self, home: Path, run: Runbooks) -> None:
        self.home, self._run = home / "runbooks", run
        self.stop_file, self.file = self.home / "STOP", self.home / "ledger.db"
        self._url = URL.create(DRIVERS["sqlite"], database=str(self.file))

    async def connected(self, *names: str) -> None:
        """The ledger is made, and knows these clusters."""
        self.home.mkdir()
        async with open_ledger(self._url) as ledger:
            await connect(ledger, *(a_cluster(name) for name in names))

    async def __call__(self, *arguments: str, **more: str) -> Ended:
        """Run a command to its end; moments in what it says are replaced by as many letters."""
        ended = await self._run(*arguments, **more)
        return replace(ended, out=timeless(ended.out), err=timeless(ended.err))

    async def gates(self) -> list[str]:
        """What the gates of the ledger say of each cluster; empty: they let a change pass."""
        async with open_ledger(self._url) as ledger, ledger.reading() as session:
            return [timeless(await braked(session, name)) for name in ("alpha", "beta")]

    async def trip(self, *names: str) -> str:
        """All these clusters alarm, so the breaker trips; returns its id."""
        async with open_ledger(self._url) as ledger:
            clusters = [a_cluster(name) for name in names]
            await connect(ledger, *clusters)
            for cluster in clusters:
                await seen(ledger, cluster, told(occurred=None))  # now
            async with ledger.writing() as session:
                assert await trip_if_shared(session, clusters[0].cluster_id, timing.wall(), 1)
        [(id_,)] = rows(self.file, "SELECT id FROM breakers WHERE reset IS NULL")
        return str(id_)

    def words(self, words: str) -> str:
        """What everybody says of the stop file, as long as it is there."""
        return f"the stop file {self.stop_file} is there ({words}): nothing is changed until it is removed"

    @property
    def here_only(self) -> str:
        """The warning that belongs to the stop file."""
        sees = f"only what runs with RUNBOOKS_HOME={self.home} sees this file"
        return f"warning: {sees}: see to every other machine of yours too\n"


def timeless(said: str) -> str:
    """What was said, with YYYY for the moments in it."""
    return MOMENT.sub(lambda found: "YYYY-MM-DD hh:mm:ss"[: len(found[0])], said)


@pytest.fixture
async def fleet(tmp_path: Path, runbooks: Runbooks, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """The clusters alpha and beta; the test itself has the same home as the commands."""
    monkeypatch.setenv("RUNBOOKS_HOME", str(tmp_path / "runbooks"))
    made = Fleet(tmp_path, runbooks)
    await made.connected("alpha", "beta")
    return made


async def until_stopped() -> None:
    """Wait until the gates of this machine see the stop file."""

    async def seen() -> str:
        return stop_file()

    await eventually(seen, seconds=60)


async def test_everything_is_stopped_and_resumed(fleet: Fleet) -> None:
    """Without a cluster all are stopped, by whom and why is what every gate says, and resumed nothing is stopped."""
    table = """\
┏━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┳━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃ stopped    ┃ since (UTC)         ┃ by   ┃ why             ┃ what ends it                  ┃
┡━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━╇━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
│ everything │ YYYY-MM-DD hh:mm:ss │ anna │ region [b]moves │ runbooks resume --reason TEXT │
└────────────┴─────────────────────┴──────┴─────────────────┴───────────────────────────────┘
"""
    stopped = await fleet("stop", "--reason", " region\n[b]moves ", LOGNAME="anna")
    assert stopped == Ended(0, STOPPED.format("all changes") + table, "")
    why = "anna has stopped all changes since YYYY-MM-DD hh:mm UTC (region [b]moves); `runbooks resume` ends it"
    assert await fleet.gates() == [why, why]
    assert await fleet("breaker") == Ended(0, "the breaker has not tripped\nstopped now:\n" + table, "")
    resumed = await fleet("resume", "--reason", "it has moved", "--by", "ben")
    assert resumed == Ended(0, "taken back: the brake on all clusters\n" + NOTHING, "")
    assert await fleet.gates() == ["", ""]
    assert rows(fleet.file, "SELECT released_by, released_reason FROM brakes") == [("ben", "it has moved")]


async def test_one_cluster_is_stopped(fleet: Fleet) -> None:
    """A brake on one cluster leaves the others alone, and only what is named is resumed; what remains is said."""
    heads = """\
┏━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┳━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃ stopped ┃ since (UTC)         ┃ by   ┃ why     ┃ what ends it                        ┃
┡━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━╇━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
"""
    alpha = "│ alpha   │ YYYY-MM-DD hh:mm:ss │ anna │ upgrade │ runbooks resume alpha --reason TEXT │\n"
    end = "└─────────┴─────────────────────┴──────┴─────────┴─────────────────────────────────────┘\n"
    once = await fleet("stop", "alpha", "--reason", "upgrade", "--by", "anna")
    twice = await fleet("stop", "alpha", "--reason", "upgrade", "--by", "anna")
    said = STOPPED.format("changes of alpha") + heads
    assert (once, twice) == (Ended(0, said + alpha + end, ""), Ended(0, said + alpha + alpha + end, ""))
    why = "anna has stopped changes of alpha since YYYY-MM-DD hh:mm UTC (upgrade); `runbooks resume alpha` ends it"
    assert await fleet.gates() == [why, ""]
    still = "still stopped:\n" + heads + alpha + alpha + end
    assert await fleet("resume", "beta", "--reason", "over") == Ended(0, f"beta: no brake was on\n{still}", "")
    all_ = "all clusters: no brake was on, and no stop file is here\n"
    assert await fleet("resume", "--reason", "over") == Ended(0, all_ + still, "")
    assert await fleet.gates() == [why, ""]
    resumed = await fleet("resume", "alpha", "--reason", "over")
    assert resumed == Ended(0, "taken back: 2 brakes on alpha\n" + NOTHING, "")
    assert await fleet.gates() == ["", ""]


UNKNOWN = (
    "the ledger knows no cluster '[b]gamma', nothing is stopped: name one of alpha, beta, or none to stop everything"
)
NAMELESS = "the cluster's name is empty: write it, or leave it out if you mean all clusters"
EMPTY = "is empty: say why, for everybody who meets it"
BAD_INPUT = {
    "stop|[b]gamma|--reason|why": UNKNOWN,
    "stop||--reason|why": NAMELESS,
    "stop": 'Command "stop" parameter --reason requires an argument.',
    "stop|--reason| ": f"--reason {EMPTY}",
    "stop|alpha|--file|--reason|why": "the stop file stops everything: leave 'alpha' out, or leave --file out",
    "resume||--reason|why": NAMELESS,
    "breaker|reset|--reason|": f"--reason {EMPTY}",
}


async def test_bad_input_changes_nothing(fleet: Fleet) -> None:
    """An unknown cluster, an empty name and an empty reason are one sentence with exit code 2; nothing is changed."""
    await fleet("stop", "beta", "--reason", "upgrade", "--by", "anna")
    before = await fleet.gates()
    at_once = asyncio.Semaphore(4)

    async def tried(arguments: str) -> Ended:
        async with at_once:
            return await fleet(*arguments.split("|"))

    ended = await asyncio.gather(*(tried(arguments) for arguments in BAD_INPUT))
    assert dict(zip(BAD_INPUT, ended, strict=True)) == {
        arguments: Ended(2, "", f"error: {words}\n") for arguments, words in BAD_INPUT.items()
    }
    assert (await fleet.gates(), fleet.stop_file.exists()) == (before, False)


async def test_a_ledger_that_knows_no_cluster_is_doubted(fleet: Fleet) -> None:
    """Where the ledger knows no cluster any name is taken, with the warning that it may be the wrong ledger."""
    async with open_ledger(URL.create(DRIVERS["sqlite"], database=str(fleet.file))) as ledger:
        await connect(ledger)
    warning = (
        f"warning: the ledger sqlite+aiosqlite:///{fleet.file} knows no cluster, so no intake has used it yet: "
        "make sure that RUNBOOKS_LEDGER_URL and RUNBOOKS_HOME here are those of the workers\n"
    )
    ended = await fleet("stop", "alpha", "--reason", "upgrade", "--by", "anna")
    assert (ended.code, ended.err, ended.out.splitlines()[0]) == (
        0,
        warning,
        "stopped: changes of alpha; a command that was sent already is not called back",
    )
    assert [bool(why) for why in await fleet.gates()] == [True, False]


def away(file: Path) -> str:
    """Nothing happens to it: the test names another, which is away."""
    return AWAY


def newer(file: Path) -> str:
    """The ledger was made by a later version."""
    rows(file, "UPDATE alembic_version SET version_num = '9999'")
    return f"the ledger's schema 9999 {NEWER}"


def maimed(file: Path) -> str:
    """A table of the ledger is missing."""
    rows(file, "DROP TABLE brakes")
    return "the ledger cannot be used (no such table: brakes)"


@pytest.mark.parametrize(("breaks", "url"), [(away, GONE), (newer, ""), (maimed, "")])
async def test_without_a_ledger_a_file_stops_everything(fleet: Fleet, breaks: Callable[[Path], str], url: str) -> None:
    """Whatever is wrong with the ledger, everything is stopped by a file that the gates of this machine see."""
    trouble = breaks(fleet.file)
    ended = await fleet("stop", "--reason", "region moves", "--by", "anna", RUNBOOKS_LEDGER_URL=url)
    words = fleet.words("anna, YYYY-MM-DD hh:mm UTC: region moves")
    assert ended == Ended(0, f"{trouble}; so everything is stopped by a file\n{words}\n", fleet.here_only)
    assert timeless(stop_file()) == words


async def test_without_a_ledger_the_rest_is_an_error(fleet: Fleet) -> None:
    """Without a ledger no single cluster is stopped and nothing is taken back, and that is said in one sentence."""
    advice = "`runbooks stop --reason TEXT` without a cluster stops everything, if need be by a file"
    stopped = await fleet("stop", "alpha", "--reason", "upgrade", RUNBOOKS_LEDGER_URL=GONE)
    assert stopped == Ended(2, "", f"error: alpha is not stopped: {AWAY}; {advice}\n")
    assert not fleet.stop_file.exists()
    fleet.stop_file.write_text("by hand\n")
    for command, failed, said in (
        (("resume",), "nothing is resumed: ", ""),
        (("breaker", "reset"), "nothing is reset: ", ""),
        (("breaker",), "", fleet.words("by hand") + "\n"),
        (("breaker", "--json"), "", ""),
    ):
        reason = ("--reason", "over") if failed else ()
        ended = await fleet(*command, *reason, RUNBOOKS_LEDGER_URL=GONE)
        assert ended == Ended(2, said, f"error: {failed}{AWAY}\n")
    assert fleet.stop_file.read_text() == "by hand\n"


async def test_the_stop_file_on_purpose(fleet: Fleet) -> None:
    """With `--file` the file stops everything and the ledger is left alone; who was first stays in it until resumed."""
    words = fleet.words("anna, YYYY-MM-DD hh:mm UTC: region moves")
    by_file = "everything is stopped by a file"
    first = await fleet("stop", "--file", "--reason", "region moves", "--by", "anna")
    assert first == Ended(0, f"{by_file}\n{words}\n", fleet.here_only)
    second = await fleet("stop", "--file", "--reason", "me too", "--by", "ben")
    assert second == Ended(0, f"{by_file} that was there before\n{words}\n", fleet.here_only)
    assert (await fleet.gates(), timeless(stop_file())) == (["", ""], words)
    one = await fleet("resume", "alpha", "--reason", "over")
    end = "; `runbooks resume --reason TEXT` removes it\n"
    assert one == Ended(0, f"alpha: no brake was on\n{words}{end}", "")
    resumed = await fleet("resume", "--reason", "it has moved")
    assert resumed == Ended(0, f"removed: the stop file {fleet.stop_file}\n{NOTHING}", "")
    assert stop_file() == ""


async def test_a_stop_file_that_cannot_be_written_is_no_stop(fleet: Fleet) -> None:
    """Where the stop file cannot be written the command fails and does not say that anything is stopped."""
    fleet.stop_file.symlink_to(fleet.home / "nowhere")
    ended = await fleet("stop", "--file", "--reason", "region moves")
    why = f"the stop file {fleet.stop_file} cannot be read back: nothing is stopped"
    assert ended == Ended(2, "", f"error: {why}\n")
    nowhere = await fleet("stop", "--file", "--reason", "region moves", RUNBOOKS_HOME=str(fleet.file))
    assert (nowhere.code, nowhere.out) == (2, "")
    assert nowhere.err.startswith(f"error: the folder {fleet.file} cannot be made (")


async def test_a_slow_ledger_is_not_waited_for(fleet: Fleet) -> None:
    """After five seconds without the ledger the file stops everything, and the brake is on too once it answers."""
    with locked(fleet.file):
        stopping = asyncio.create_task(fleet("stop", "--reason", "region moves", "--by", "anna"))
        await until_stopped()
        assert not stopping.done()
    ended = await stopping
    words = fleet.words("anna, YYYY-MM-DD hh:mm UTC: region moves")
    slow = "the ledger has not answered for 5 seconds, and is tried on; meanwhile everything is stopped by a file"
    assert (ended.code, ended.err, ended.out.splitlines()[:3]) == (
        0,
        fleet.here_only,
        [slow, words, "stopped: all changes; a command that was sent already is not called back"],
    )
    assert ended.out.endswith(f"┘\n{words}; `runbooks resume --reason TEXT` removes it\n")
    assert [bool(why) for why in await fleet.gates()] == [True, True]
    both = f"taken back: the brake on all clusters\nremoved: the stop file {fleet.stop_file}\n"
    assert await fleet("resume", "--reason", "over") == Ended(0, both + NOTHING, "")
    assert (await fleet.gates(), stop_file()) == (["", ""], "")


async def test_a_ledger_that_stays_away_leaves_the_file(fleet: Fleet, tmp_path: Path) -> None:
    """A ledger that is slow, and then fails, leaves everything stopped by the file, and so does a Ctrl-C meanwhile."""
    url = f"sqlite:///{fleet.file}?timeout=7"
    with locked(fleet.file):
        ended = await fleet("stop", "--reason", "region moves", "--by", "anna", RUNBOOKS_LEDGER_URL=url)
        away = f"the ledger sqlite+aiosqlite:///{fleet.file} does not answer (database is locked)"
        assert (ended.code, ended.err) == (0, fleet.here_only)
        assert ended.out.splitlines()[1:] == [
            fleet.words("anna, YYYY-MM-DD hh:mm UTC: region moves"),
            f"{away}: the stop file alone holds",
        ]
        fleet.stop_file.unlink()
        process = await asyncio.create_subprocess_exec(
            *(COMMAND, "stop", "--reason", "region moves"),
            env=environment(tmp_path, RUNBOOKS_LEDGER_URL=url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await until_stopped()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    interrupted = "interrupted; see with `runbooks breaker status` what is stopped and what is not\n"
    assert (process.returncode, err.decode()) == (130, fleet.here_only + interrupted)
    assert (fleet.stop_file.exists(), await fleet.gates()) == (True, ["", ""])


def cells(said: str) -> list[list[str]]:
    """What is in the rows of the table."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in said.splitlines() if line[:1] == "│"]


TRIPPED = f"""\
the breaker has tripped: nothing is changed in any cluster, diagnosis goes on
since     YYYY-MM-DD hh:mm:ss UTC
why       {WHY}
clusters  alpha, beta
ticket    """
ROWS = [
    ["alpha", "YYYY-MM-DD hh:mm:ss", "anna", "upgrade", "runbooks resume alpha --reason TEXT"],
    ["everything", "YYYY-MM-DD hh:mm:ss", "the breaker", WHY, "runbooks breaker reset --reason TEXT"],
]


async def test_a_breaker_that_tripped_is_shown_and_reset(fleet: Fleet) -> None:
    """A breaker that has tripped is shown with what else is stopped, and reset it alone is: the brakes stay."""
    id_ = await fleet.trip("beta", "alpha")
    stopped = await fleet("stop", "alpha", "--reason", "upgrade", "--by", "anna")
    assert cells(stopped.out) == ROWS
    shown = await fleet("breaker", "status")
    none = "none yet: an intake files it\nstopped now:\n"
    assert (shown.code, shown.err, cells(shown.out)) == (0, "", ROWS)
    assert shown.out.startswith(TRIPPED + none)
    ticket = await tell(incident(id_, "words"))
    assert (await fleet("breaker")).out.startswith(f"{TRIPPED}{ticket.id}\nstopped now:\n")
    reset = await fleet("breaker", "reset", "--reason", "mended", "--by", "ben")
    assert (reset.code, reset.err, reset.out.splitlines()[:3], cells(reset.out)) == (
        0,
        "",
        [
            f"reset: the breaker that tripped at YYYY-MM-DD hh:mm:ss UTC ({WHY})",
            "runs that it has refused are over: start the runbook for those that still alarm of alpha, beta",
            "still stopped:",
        ],
        ROWS[:1],
    )
    assert [bool(why) for why in await fleet.gates()] == [True, False]
    assert rows(fleet.file, "SELECT id, reset_by, reset_reason FROM breakers") == [(id_, "ben", "mended")]
    again = await fleet("breaker", "reset", "--reason", "mended")
    assert again.out.startswith("the breaker had not tripped\nstill stopped:\n")


async def test_machines_read_what_is_stopped(fleet: Fleet) -> None:
    """With `--json` the status is one object, of the same keys whether anything is stopped or nothing."""
    nothing = await fleet("breaker", "status", "--json")
    free = {"tripped": False, "id": "", "since": None, "why": "", "clusters": [], "ticket": "", "brakes": []}
    assert (nothing.code, nothing.err, json.loads(nothing.out)) == (0, "", {**free, "stop_file": ""})
    id_ = await fleet.trip("beta", "alpha")
    ticket = await tell(incident(id_, "words"))
    await fleet("stop", "alpha", "--reason", "upgrade", "--by", "anna")
    fleet.stop_file.write_text("by hand")
    found = await fleet("breaker", "--json")
    since = "YYYY-MM-DDThh:mm:ss"
    assert (found.code, found.err, json.loads(INSTANT.sub(since, found.out))) == (
        0,
        "",
        {
            "tripped": True,
            "id": id_,
            "since": since,
            "why": WHY,
            "clusters": ["alpha", "beta"],
            "ticket": ticket.id,
            "brakes": [{"cluster": "alpha", "since": since, "by": "anna", "reason": "upgrade"}],
            "stop_file": fleet.words("by hand"),
        },
    )
