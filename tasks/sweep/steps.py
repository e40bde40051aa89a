"""The task runs of a sweep, as Prefect shows them: choose, look (one for each few hundred clusters), publish."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

import httpx
from prefect import task
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger

from tasks import timing
from tasks.blocks import Cloud
from tasks.errors import RunbookError
from tasks.ledger.fleet_tables import Sweep
from tasks.ledger.sweeping import end_sweep, names_swept, planned
from tasks.models import ClusterRecord, few
from tasks.sweep.cluster_checks import NO_INTAKE
from tasks.sweep.keeping import look_and_keep
from tasks.sweep.looking import asked
from tasks.sweep.reports import as_markdown, as_rows, report_of
from tasks.sweep.targets import Chosen, Target, chosen
from tasks.sweep.work import Order, Work, at_work

logger = logging.getLogger("runbooks")


@task(task_run_name="choose the clusters", retries=0, cache_policy=NO_CACHE)
async def choose_clusters(order: Order) -> int:
    """Find out which clusters the sweep is about; returns how many there are, with those it has looked at already.

    Raises:
        ConfigurationError: the selection is malformed, or names a label that no cluster has.
        Unreachable: the Prefect server cannot be asked.
    """
    async with at_work(order) as work:
        async with get_client() as client:
            found = await chosen(client, order.selection)
        work.notes += found.notes
        targets = {target.name: target for target in (*found.targets, *await _unmanaged(work, found))}
        for note in work.notes:
            get_run_logger().warning(note)
        async with work.ledger.writing() as session:
            await planned(session, order.run, len(targets))
            seen = await names_swept(session, order.run)
        work.left = {name: target for name, target in targets.items() if name not in seen}
        work.all, work.done = len(targets), len(targets) - len(work.left)
        if seen:
            get_run_logger().info("%d of %d clusters were looked at before", work.done, work.all)
        return work.all


async def _unmanaged(work: Work, found: Chosen) -> Sequence[Target]:
    """The clusters of these clouds that no block names; the clouds are asked at the same time."""
    targets = []
    lists = await asyncio.gather(*(_listed(work, cloud) for cloud in found.clouds.values()))
    for (name, cloud), listed in zip(found.clouds.items(), lists, strict=True):
        if isinstance(listed, RunbookError):
            work.notes.append(f"Which clusters of cloud {name} have no block cannot be told: {listed}")
            continue
        targets += [Target(each.id, each.id, None, cloud) for each in listed if each.id not in found.known]
    return targets


async def _listed(work: Work, cloud: Cloud) -> Sequence[ClusterRecord] | RunbookError:
    clients = await asked(lambda: work.looker.clients(cloud))
    return clients if isinstance(clients, RunbookError) else await asked(clients.mrs.clusters)


@task(task_run_name="look at {count} clusters ({first} ...)", retries=0, cache_policy=NO_CACHE)
async def look_at_clusters(order: Order, names: Sequence[str], first: str, count: int) -> int:
    """Look at these clusters and write down what was seen; returns how many there were.

    Whatever is wrong with one of them is a finding, and delays no other. Whether another process goes on with the sweep
    meanwhile, its work tells (`lost`).

    Raises:
        LedgerUnavailable: for a minute it took nothing.
    """
    async with at_work(order) as work:
        await look_and_keep(work, names, lambda: _tell_progress(work))
    return len(names)


async def summed_up(order: Order) -> tuple[str, bool]:
    """What came of the sweep, in a sentence or two, and whether there are findings. Shown in Prefect, too.

    Where Prefect does not take it, the log says so: the ledger has it all.
    """
    async with at_work(order) as work:
        async with work.ledger.reading() as session:
            sweep = await session.get_one(Sweep, order.run)
            report = await report_of(session, sweep)
        get_run_logger().info("%d requests, %d at a time at most", sum(work.pace.sent.values()), work.pace.most)
        if idle := [row.cluster for row in report.rows if NO_INTAKE in row.answers.get("episode", ("", ""))[1]]:
            work.notes.append(f"No intake is at work: the runs of {few(idle)} start when one is")
        report = replace(report, notes=tuple(work.notes))
        state = await publish_sweep(  # type: ignore[misc]  # Prefect's overload
            as_markdown(report), as_rows(report), report.summary, return_state=True
        )
        if not state.is_completed():
            get_run_logger().warning("the summary could not be published (%s)", state.message)
        async with work.ledger.writing() as session:
            await end_sweep(session, order.run, report.summary, timing.wall())
        return report.summary, bool(report.findings)


@task(task_run_name="publish the summary", retries=3, retry_delay_seconds=2, cache_policy=NO_CACHE)
async def publish_sweep(text: str, rows: list[dict[str, str]], summary: str) -> None:
    """The sweep's artifacts: the summary, and its findings as a table."""
    await acreate_markdown_artifact(text, key="sweep", description=summary)
    await acreate_table_artifact(rows, key="sweep-findings", description=summary)


async def _tell_progress(work: Work) -> None:
    """Show how far it is; that nobody can see it keeps no sweep from going on."""
    share, words = 100 * work.done / max(work.all, 1), f"{work.done} of {work.all} clusters"
    try:
        if work.progress is None:
            work.progress = await acreate_progress_artifact(share, key="sweep-progress", description=words)
        else:
            await aupdate_progress_artifact(work.progress, share, description=words)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        logger.warning("Prefect does not take how far the sweep is: %s", error)
