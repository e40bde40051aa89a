"""`runbooks doctor`: ask every read route, and say what that means, what to settle, and what runs will do."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from prefect.client.orchestration import get_client
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from deployments.doctor.examination import TRIED_AGAIN, Doctor, Examined, examined
from deployments.doctor.sources import prefect_login
from deployments.doctor.words import show_fleet, show_one
from deployments.terminal import console
from tasks.blocks import Cluster
from tasks.errors import ConfigurationError, LedgerUnavailable
from tasks.fleet import read_fleet, selected
from tasks.ledger.database import open_ledger
from tasks.ledger.hearing import heard_of
from tasks.loading import cluster_block
from tasks.models import few

AT_ONCE = 20  # clusters; one that hangs holds one place and delays nobody else


async def doctor(cluster: str, *, as_json: bool = False, forget: bool = False) -> int:
    """Examine one cluster and say what was found; returns the exit code: 0 the runbook can run, 1 it cannot.

    Raises:
        UnknownCluster, ConfigurationError: the cluster's block is missing or wrong.
    """
    block = await cluster_block(cluster)
    async with _doctor({cluster: block}, forget=forget) as at_work:
        found = await at_work.examine(cluster, block)
    if as_json:
        _write(found.plain())
    else:
        show_one(console(), found)
    return int(not found.can_run)


async def doctor_of_all(selection: Sequence[str], *, as_json: bool = False, forget: bool = False) -> int:
    """The same for all clusters, or those selected; exit code 0 when the runbook can run on all of them, else 1.

    Raises:
        ConfigurationError: the selection is malformed, or selects nothing.
    """
    async with get_client() as client:
        fleet = await read_fleet(client)
    chosen = selected(fleet, selection)
    broken = [Examined(name, why) for name, why in fleet.broken.items()] if not selection else []
    if not chosen and not broken:
        what = f"no cluster is selected by {' '.join(selection)}" if selection else "there is no MRS Cluster block"
        raise ConfigurationError(f"{what}: nothing is examined")
    async with _doctor(chosen, forget=forget) as at_work:
        found = [*await _all(at_work, chosen), *broken]
    found.sort(key=lambda each: each.cluster)
    if as_json:
        _write([each.plain() for each in found])
    else:
        show_fleet(console(), found)
        if selection and fleet.broken:
            console().print(Text(f"Not selected, for their blocks cannot be used: {few(sorted(fleet.broken))}"))
    return int(not all(each.can_run for each in found))


async def _all(at_work: Doctor, clusters: Mapping[str, Cluster]) -> list[Examined]:
    places, out = asyncio.Semaphore(AT_ONCE), console(stderr=True)
    going: dict[str, None] = {}
    columns = (TextColumn("examined"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[going]}"))
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        bar = progress.add_task("", total=len(clusters), going="")

        async def one(name: str, cluster: Cluster) -> Examined:
            async with places:
                going[name] = None
                progress.update(bar, going=few(list(going)))
                found = await examined(at_work, name, cluster)
                del going[name]
                progress.update(bar, advance=1, going=few(list(going)))
                return found

        return list(await asyncio.gather(*(one(name, cluster) for name, cluster in clusters.items())))


@asynccontextmanager
async def _doctor(clusters: Mapping[str, Cluster], *, forget: bool) -> AsyncIterator[Doctor]:
    prefect, ids = await prefect_login(), [cluster.cluster_id for cluster in clusters.values()]
    async with AsyncExitStack() as stack:
        try:
            ledger = await stack.enter_async_context(open_ledger())
            async with ledger.reading() as session:
                heard = await heard_of(session, ids)
        except (LedgerUnavailable, ConfigurationError) as error:
            found = Doctor(None, str(error).removesuffix(TRIED_AGAIN), {}, prefect)
        else:
            found = Doctor(ledger, "", heard, prefect, forget=forget)
        yield found


def _write(found: object) -> None:
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
