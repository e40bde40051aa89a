"""`runbooks run`: start the runbook for one cluster from a terminal, and watch it."""

import asyncio
from datetime import datetime
from typing import Annotated
from uuid import UUID

from cyclopts import Parameter
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.sorting import LogSort
from prefect.utilities.urls import url_for
from rich.console import Console
from rich.text import Text

from deployments.brake_commands import By, one_line, person
from deployments.ending import run_until_ended
from deployments.ordering import LOOK_EVERY, NO_WORKER, NOBODY_TAKES_IT, order_run
from deployments.terminal import console, say
from tasks.errors import ConfigurationError
from tasks.loading import approver_name, cluster_block
from tasks.models import Outcome
from tasks.record import NEEDS_A_PERSON

DEPLOYMENT = "alm-12110/by-hand"
PAGE, LATE = 200, 50  # lines that are read at once; so many may come out of their order
LAST_LINES = 5.0  # seconds that the last lines of a run that has ended are waited for
INFO = 20


def run(
    cluster: str,
    /,
    *,
    host: str = "",
    dry_run: bool = True,
    comment: str = "",
    by: By = "",
    detach: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Run ALM-12110's runbook for CLUSTER now, and watch it. Changes nothing unless --no-dry-run.

    Exit code 0 when nobody is needed, 1 when a person is, 130 when watching was interrupted: the run goes on.

    Parameters
    ----------
    cluster
        The name of its block.
    host
        Only this host, by its name on Manager; left out: every alarmed host.
    dry_run
        Change nothing, show what would be done. --no-dry-run: change what the cluster's block allows.
    comment
        For the record: why you start it.
    detach
        Do not watch; print the run's id and link.
    """
    who, note = person(by), one_line(comment, "--comment") if comment.strip() else ""
    parameters = {"cluster": cluster.strip(), "host": host.strip(), "dry_run": dry_run, "comment": note}
    if approver_name(who).startswith("alarm"):
        raise ConfigurationError("--by alarm is what alarms are called: name a person")
    return run_until_ended(_run(parameters, who, detach=detach))


async def _run(parameters: dict[str, object], by: str, *, detach: bool) -> int:
    out = console()
    async with get_client() as client:
        await cluster_block(str(parameters["cluster"]), client)  # before anything is started
        cluster = parameters["cluster"]
        started = await order_run(
            client, DEPLOYMENT, parameters, by, name=f"ALM-12110 {cluster}", tags=[f"cluster:{cluster}"]
        )
        how = "dry run, nothing is changed" if parameters["dry_run"] else "not a dry run"
        out.print(Text(f"run {started.id} of {cluster} ({how})"))
        if link := url_for(started):
            out.print(Text(link))
        return 0 if detach else await _watched(client, out, started.id)


async def _watched(client: PrefectClient, out: Console, run_: UUID) -> int:
    """Print its log and its states as they come, until it is over."""
    seen: set[UUID] = set()
    said: set[str] = set()
    shown, since, warned, patience = "", asyncio.get_running_loop().time(), False, LAST_LINES
    while True:
        found = await client.read_flow_run(run_)
        for log in await _logs(client, run_, offset=max(0, len(seen) - LATE)):
            if log.id not in seen and log.level >= INFO:
                _say(out, log.timestamp, log.message)
            seen.add(log.id)
            said.add(log.message)
        state = found.state
        name = state.name or "" if state else ""
        if state and name != shown:
            shown, since = name, asyncio.get_running_loop().time()
            _tell_state(out, found)
        if state and state.is_final() and (state.message in said or patience <= 0):
            out.print(Text(state.message or name))
            word = Outcome(name) if name in set(Outcome) else None
            return int(word is None or word in NEEDS_A_PERSON)
        if state and state.is_final():  # the log comes later than the state; its last line is the state's message
            patience -= LOOK_EVERY
        waits = state is not None and state.is_scheduled() and name not in ("AwaitingRetry", "Resuming")
        if waits and not warned and asyncio.get_running_loop().time() - since > NO_WORKER:
            out.print(NOBODY_TAKES_IT)
            warned = True
        await asyncio.sleep(LOOK_EVERY)


def _tell_state(out: Console, run_: FlowRun) -> None:
    state = run_.state
    if state is None:
        return
    if state.name == "Suspended":
        out.print(Text(f"a person is asked: `runbooks approvals {str(run_.id)[:8]}` shows what, or see the link above"))
    elif state.name == "AwaitingRetry":
        out.print(Text(state.message or "the run waits"))


async def _logs(client: PrefectClient, run_: UUID, *, offset: int) -> list[Log]:
    """The run's log from there on, the oldest first."""
    mine, found = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_])), list[Log]()
    while True:
        page = await client.read_logs(mine, limit=PAGE, offset=offset + len(found), sort=LogSort.TIMESTAMP_ASC)
        found += page
        if len(page) < PAGE:
            return found


def _say(out: Console, moment: datetime, text: str) -> None:
    say(out, f"{moment:%H:%M:%S}", Text(text))
