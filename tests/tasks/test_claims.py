"""One acting run per cluster on this machine: claims are locks, and locks end with their process."""

import signal
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.claims import claimed
from tasks.errors import ConfigurationError
from tasks.models import Case

CASE = Case(cluster="prod-1", alarm_id="12110", dry_run=False)
HOLDER = """
import time
from tasks.claims import claimed
from tasks.models import Case

with claimed(Case(cluster="prod-1", alarm_id="12110", dry_run=False), "run 17") as holder:
    print(repr(holder), flush=True)
    time.sleep(60)
"""


def test_the_second_sees_who_was_first() -> None:
    """While a run holds a cluster, any other learns who it is; afterwards the cluster is free for the next."""
    with claimed(CASE, "run 17") as first, claimed(CASE, "run 18") as second, claimed(CASE, "run 19") as third:
        assert (first, second, third) == ("", "run 17", "run 17")
    with claimed(CASE, "18") as next_one, claimed(CASE, "run 19") as after:
        assert (next_one, after) == ("", "18")


def test_a_killed_holder_holds_nothing() -> None:
    """A holder in another process is seen, and frees the claim when it is killed with SIGKILL."""
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "''\n"
            with claimed(CASE, "run 18") as held_by:
                assert held_by == "run 17"
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    with claimed(CASE, "run 18") as held_by:
        assert held_by == ""


def test_an_error_frees_the_claim() -> None:
    """A run that fails inside its claim passes its error on and frees the cluster, and so does one that joined."""
    with pytest.raises(ZeroDivisionError), claimed(CASE, "run 17"):
        raise ZeroDivisionError
    with claimed(CASE, "run 18") as free:
        assert free == ""
        with pytest.raises(ZeroDivisionError), claimed(CASE, "run 19"):
            raise ZeroDivisionError


@pytest.mark.parametrize("other", [{"cluster": "prod-2"}, {"alarm_id": "12111"}])
def test_another_cluster_or_alarm_is_free(other: dict[str, str]) -> None:
    """A claim is of one alarm of one cluster."""
    with claimed(CASE, "run 17"), claimed(CASE.model_copy(update=other), "run 18") as holder:
        assert holder == ""


@pytest.mark.parametrize("other", [{"host": "node-1"}, {"comment": "again"}, {"reported_host": "node-2"}])
def test_the_whole_cluster_is_claimed(other: dict[str, str]) -> None:
    """A run for one host, or one somebody else started, is on the same cluster."""
    with claimed(CASE, "run 17"), claimed(CASE.model_copy(update=other), "run 18") as holder:
        assert holder == "run 17"


def test_a_dry_run_claims_nothing(runbooks_home: Path) -> None:
    """A dry run neither waits for a claim nor holds or writes one."""
    dry = CASE.model_copy(update={"dry_run": True})
    with claimed(dry, "run 16") as nobody:
        assert (nobody, runbooks_home.exists()) == ("", False)
        with claimed(CASE, "run 17") as first, claimed(dry, "run 18") as second:
            assert (first, second) == ("", "")


def test_only_the_owner_reads_claims(runbooks_home: Path) -> None:
    """The folder of claims is its owner's alone."""
    with claimed(CASE, "run 17"):
        assert stat.S_IMODE((runbooks_home / "claims").stat().st_mode) == 0o700


@given(
    st.lists(
        st.one_of(st.text(max_size=20), st.sampled_from(["..", "../..", "/etc/x", "a/b", ".", "%2F"])), unique=True
    )
)
@settings(deadline=None, max_examples=50)
def test_no_name_leaves_the_folder_or_is_another_s(names: list[str]) -> None:
    """Whatever a person types as the cluster, its claim is a file of its own in the folder."""
    with ExitStack() as stack:
        for name in names:
            case = CASE.model_copy(update={"cluster": name})
            assert stack.enter_context(claimed(case, f"run on {name!r}")) == ""
            assert stack.enter_context(claimed(case, "late")) == f"run on {name!r}"


def test_a_name_that_cannot_be_claimed_is_an_error_of_ours(runbooks_home: Path) -> None:
    """A name too long for a file, or a home that is not a folder, is a sentence and no traceback."""
    with pytest.raises(ConfigurationError) as raised, claimed(CASE.model_copy(update={"cluster": "x" * 300}), "run 17"):
        pass
    where = runbooks_home / "claims"
    assert str(raised.value) == f"cluster {'x' * 300!r} cannot be claimed in {where}: File name too long"
    where.rmdir()
    where.write_text("")
    with pytest.raises(ConfigurationError, match="cannot be claimed in"), claimed(CASE, "run 17"):
        pass
