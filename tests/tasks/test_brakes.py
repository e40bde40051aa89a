"""The stop file: it stops every change whatever is in it, and needs neither ledger nor Prefect."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.brakes import NAME, stop_file
from tasks.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
ALONE = """
import sys
from tasks.brakes import stop_file

print(stop_file())
print(sorted({"prefect", "sqlalchemy"}.intersection(sys.modules)))
"""


def words(home: Path, reason: str) -> str:
    """What a run is told."""
    return f"the stop file {home}/STOP is there ({reason}): nothing is changed until it is removed"


def test_without_a_stop_file_nothing_is_stopped(runbooks_home: Path) -> None:
    """Where no file of that very name lies in the home folder nothing is stopped, and once removed no more."""
    assert stop_file() == ""
    (runbooks_home / "stop").touch()
    assert stop_file() == ""
    (runbooks_home / NAME).touch()
    assert stop_file() != ""
    (runbooks_home / NAME).unlink()
    assert stop_file() == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"the region is down\n", "the region is down"),
        (b"", "it says no reason"),
        (b" \n\t\n", "it says no reason"),
        (b"x" * 200, "x" * 200),
        (b"x" * 201, "x" * 200),
        ("größer".encode(), "größer"),
        ("gro\N{LATIN SMALL LETTER SHARP S}".encode("latin-1"), "gro\N{REPLACEMENT CHARACTER}"),
        (b"two\n\n  lines\r\n", "two lines"),
    ],
)
def test_what_it_says_is_the_reason(runbooks_home: Path, content: bytes, reason: str) -> None:
    """What the file says is the reason, in one line and cut where it is long, and it stops also where it says none."""
    runbooks_home.mkdir()
    (runbooks_home / NAME).write_bytes(content)
    assert stop_file() == words(runbooks_home, reason)


def test_what_cannot_be_read_stops_as_well(runbooks_home: Path) -> None:
    """A stop file that cannot be read stops as one that can, with what the system says."""
    (runbooks_home / NAME).mkdir(parents=True)
    assert stop_file() == words(runbooks_home, "it cannot be read: Is a directory")


def test_a_home_that_is_none_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the home folder cannot be made the stop file cannot be looked for, which is an error and no answer."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("RUNBOOKS_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="cannot be made"):
        stop_file()


def test_it_needs_nobody(runbooks_home: Path) -> None:
    """The stop file is found by a process that has loaded neither Prefect nor the ledger."""
    runbooks_home.mkdir()
    (runbooks_home / NAME).write_text("now")
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{words(runbooks_home, 'now')}\n[]\n"
