"""The ticket store: one whole file per correlation, whoever files it, however often, whatever crashes."""

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import timing
from tasks.errors import ConfigurationError
from tasks.tickets import Ticket, store, ticket, tickets

# Eight processes that were forked from one (which has loaded everything) file the same ticket at the same moment.
EIGHT_AT_ONCE = """
import os
from tasks.tickets import store

ready, go = os.pipe()
children = []
for number in range(8):
    if not (child := os.fork()):
        os.close(go)
        os.read(ready, 1)
        for _ in range(20):
            store("prod-1/12110/17", f"title {number}", "body " * 1000)
        os._exit(0)
    children.append(child)
os.close(go)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""

# Files a ticket and, for every call to the operating system that Python reports on the way, dies just before it.
DYING = """
import json, os, sys
from tasks.tickets import store, tickets

WATCHED = ("open", "os.link", "os.rename", "os.remove", "os.mkdir")


def filed(body, fatal=None):
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        if fatal is not None and event in WATCHED:
            seen += 1
            if seen == fatal:
                os._exit(9)

    if not (child := os.fork()):
        sys.addaudithook(hook)
        store("prod-1/12110/17", "title", body)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


left = []
for before in ([], ["old"]):
    codes = [9]
    while codes[-1] == 9:
        for path in os.scandir(os.path.join(os.environ["RUNBOOKS_HOME"], "tickets")):
            os.remove(path)
        for body in before:
            filed(body)
        codes.append(filed("new", fatal=len(codes)))
        bodies = [ticket.body for ticket in tickets()]
        filed("last")
        left.append((before, bodies, [ticket.body for ticket in tickets()]))
print(json.dumps(left))
"""


class HandClock:
    """Time that is moved by hand."""

    def __init__(self) -> None:
        self.time = datetime(2026, 7, 1, 8, tzinfo=UTC)

    def now(self) -> datetime:
        """The time."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Move at once."""
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Iterator[HandClock]:
    """A clock by hand, for this test."""
    mine = HandClock()
    token = timing.clock.set(mine)
    yield mine
    timing.clock.reset(token)


def told(script: str) -> str:
    """What a Python process of its own prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(home: Path) -> list[str]:
    """Names of all files in the store."""
    return sorted(path.name for path in (home / "tickets").iterdir())


def test_a_ticket_is_read_back_whole(clock: HandClock, runbooks_home: Path) -> None:
    """A filed ticket is listed and found by its id, which depends on its correlation only."""
    filed = store("prod-1/12110/17", "Überschrift", "body\n| a | ✓ |\n")
    id_ = f"T-{hashlib.sha256(b'prod-1/12110/17').hexdigest()[:12]}"
    assert filed == Ticket(
        id=id_,
        correlation="prod-1/12110/17",
        title="Überschrift",
        body="body\n| a | ✓ |\n",
        created=clock.time,
        updated=clock.time,
    )
    assert (tickets(), ticket(id_), files(runbooks_home)) == ([filed], filed, [f"{id_}.json"])


def test_an_update_keeps_when_it_was_created(clock: HandClock, runbooks_home: Path) -> None:
    """Filed again, a ticket has the new title, body and update time, and the old creation time and id."""
    first = store("a", "old", "old")
    clock.time += timedelta(hours=1)
    second = store("a", "new", "new")
    assert second == first.model_copy(update={"title": "new", "body": "new", "updated": clock.time})
    assert (tickets(), len(files(runbooks_home))) == ([second], 1)


def test_the_newest_ticket_is_listed_first(clock: HandClock) -> None:
    """Tickets are listed by when they were last written, the newest first."""
    filed = []
    for correlation in ("b", "c", "a"):
        filed.append(store(correlation, "", ""))
        clock.time += timedelta(seconds=1)
    store("b", "updated", "")
    assert [each.correlation for each in tickets()] == ["b", "a", "c"]


def test_there_are_no_tickets_at_first() -> None:
    """A home without tickets lists none."""
    assert tickets() == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_reads_tickets(umask: int, runbooks_home: Path) -> None:
    """Folders are 0700 and files 0600 whatever the umask, also after an update."""
    before = os.umask(umask)
    try:
        store("a", "", "")
        store("a", "", "")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (runbooks_home, *runbooks_home.rglob("*"))}
    (name,) = files(runbooks_home)
    assert modes == {"home": 0o700, "tickets": 0o700, name: 0o600}


def test_eight_processes_file_one_ticket(runbooks_home: Path) -> None:
    """Eight processes that file the same correlation at once, again and again, leave one whole file."""
    assert told(EIGHT_AT_ONCE) == f"{[0] * 8}\n"
    (filed,) = tickets()
    assert (filed.correlation, filed.body, files(runbooks_home)) == (
        "prod-1/12110/17",
        "body " * 1000,
        [f"{filed.id}.json"],
    )


def test_a_crash_at_any_point_leaves_a_whole_ticket_or_none(runbooks_home: Path) -> None:
    """A process that dies anywhere in filing leaves the old ticket or the new one, and the next filing is as ever."""
    (runbooks_home / "tickets").mkdir(parents=True, mode=0o700)
    left = json.loads(told(DYING))
    fresh = [bodies for before, bodies, _ in left if not before]
    updated = [bodies for before, bodies, _ in left if before]
    assert (fresh[0], fresh[-1], updated[0], updated[-1]) == ([], ["new"], ["old"], ["new"])
    assert all(bodies in ([], ["new"]) for bodies in fresh)
    assert all(bodies in (["old"], ["new"]) for bodies in updated)
    assert min(len(fresh), len(updated)) >= 4
    assert {tuple(bodies) for _, _, bodies in left} == {("last",)}


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe", b"[]", b'{"id": "T-1"}'])
def test_a_file_that_is_no_ticket_is_named(content: bytes, runbooks_home: Path) -> None:
    """A corrupt ticket file is an error of ours that names the file, in reading and in filing anew."""
    id_ = store("a", "", "").id
    path = runbooks_home / "tickets" / f"{id_}.json"
    path.write_bytes(content)
    why = f"the ticket file {path} cannot be read (it does not hold a ticket): repair it or move it away"
    for call in (tickets, lambda: ticket(id_), lambda: store("a", "", "")):
        with pytest.raises(ConfigurationError) as raised:
            call()
        assert str(raised.value) == why
    assert files(runbooks_home) == [path.name]


def test_a_file_that_cannot_be_read_is_named(runbooks_home: Path) -> None:
    """A ticket file that the system does not let us read is an error of ours with the system's reason."""
    path = runbooks_home / "tickets" / f"{store('a', '', '').id}.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError) as raised:
        tickets()
    assert str(raised.value).startswith(f"the ticket file {path} cannot be read (Is a directory): ")


@pytest.mark.parametrize(
    "id_",
    ["", ".", "..", "/", "T-0", "../tickets/{}", "{}.json", "../../secret", "T-\0", "T-" + "x" * 5000, "*", "T-*"],
)
def test_an_id_never_leads_out_of_the_folder(id_: str, runbooks_home: Path) -> None:
    """Only the very id of a listed ticket is found; anything else is an error of ours that says where to look."""
    filed = store("a", "", "")
    (runbooks_home.parent / "secret.json").write_text(filed.model_dump_json())
    asked = id_.format(filed.id)
    with pytest.raises(ConfigurationError) as raised:
        ticket(asked)
    where = runbooks_home / "tickets"
    assert str(raised.value) == f"there is no ticket {asked!r} in {where}: `runbooks tickets` lists them"


@given(st.text())
@settings(deadline=None, max_examples=25)
def test_any_correlation_has_its_ticket_in_the_folder(correlation: str) -> None:
    """Whatever a correlation is made of, its ticket is found again by its id."""
    filed = store(correlation, "title", "body")
    assert ticket(filed.id) == filed


def test_what_an_earlier_run_wrote_stays_below(clock: HandClock) -> None:
    """A run brings its own part of a ticket up to date; what another run wrote before is kept under it."""
    for run, body in (("1", "first"), ("1", "first, more"), ("2", "second"), ("2", "second, more")):
        written = store("a", "", body, run)
    assert written.body == "second, more\n\n---\n\nEarlier:\n\nfirst, more"
    assert tickets() == [written]
