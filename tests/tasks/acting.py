"""What tests of runs that act stand on: a ledger at home, a cluster's block, and a run that holds its episode."""

import shutil
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tasks.blocks import Cloud, Cluster, Manager
from tasks.claims import claimed
from tasks.ledger.episodes import Asking
from tasks.models import Case

NOWHERE = "http://127.0.0.1:9"
PROD = "uuid-of-prod-1"


@pytest.fixture
def ledger_at_home(runbooks_home: Path, sqlite_with_schema: Path) -> Path:
    """A ledger with nothing in it in the home folder; the migrations would take longer than most tests."""
    runbooks_home.mkdir(parents=True)
    return Path(shutil.copy(sqlite_with_schema, runbooks_home / "ledger.db"))


def a_block(cluster_id: str = PROD, *, speed: float = 1) -> Cluster:
    """The block of a cluster; nothing is ever called at its addresses."""
    manager = Manager(url=NOWHERE, user="u", password="p")
    cloud = Cloud(project_id="p", domain_id="d", mrs_url=NOWHERE, ecs_url=NOWHERE, iam_url=NOWHERE, token="t")
    return Cluster(cluster_id=cluster_id, source="prod", manager=manager, cloud=cloud, speed=speed)


def a_case(run: str, **more: Any) -> Case:
    """What a run is about."""
    return Case.model_validate({"cluster": "prod-1", "alarm_id": "12110", "dry_run": False, "run": run, **more})


def asking(run: str, *, automated: bool = True, episode: str = "") -> Asking:
    """A run that an alarm started, unless told otherwise."""
    return Asking(f"run-{run}", f"the run {run}", automated, episode)


def holding(
    run: str, cluster_id: str = PROD, *, automated: bool = True, renew_every: float = 10, **about: Any
) -> AbstractAsyncContextManager[Any]:
    """The claim of this run."""
    case = a_case(f"run-{run}", **about)
    return claimed(case, asking(run, automated=automated), cluster_id=cluster_id, renew_every=renew_every)
