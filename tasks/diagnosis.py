"""How a cluster is that has no active alarm: what the page's questions would find. It only reads."""

from collections.abc import Awaitable, Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import timing
from tasks.bindings import agencies_of, bound, in_iam
from tasks.connections import Connection, connected
from tasks.errors import NotOffered, RemoteError
from tasks.health import NORMAL
from tasks.journal import once
from tasks.models import Answer, Case, Outcome


@once("diagnosis")
@task(task_run_name="no active alarm: look at {case.cluster}", retries=0, cache_policy=NO_CACHE)
async def look_at_cluster(case: Case) -> list[Answer]:
    """What steps 2 and 5 of the page find now, as two sentences; nothing follows from them.

    Source: ALM-12110, steps 2 and 5.
    """
    async with connected(case) as connection:
        return [await _said(connection, _instances), await _said(connection, _binding)]


async def _said(connection: Connection, look: Callable[[Connection], Awaitable[tuple[str, str]]]) -> Answer:
    try:
        verdict, words = await look(connection)
    except RemoteError as error:
        verdict, words = Outcome.CANNOT_TELL, f"it cannot be read: {error}"
    return Answer.model_validate({"host": "", "value": verdict, "seen": words, "at": timing.now()})


async def _instances(connection: Connection) -> tuple[str, str]:
    """The status of every Meta instance, from Manager where it offers that, else from the nodes API."""
    meta = connection.cluster.meta_service
    try:
        found = {row.host: row.status for row in await connection.manager.instances(meta)}
    except NotOffered:
        nodes = await connection.mrs.nodes(connection.cluster.cluster_id)
        parts: list[tuple[str, Any]] = [(node.host, part) for node in nodes for part in node.components]
        found = {host: part.status for host, part in parts if part.service.lower() == meta.lower()}
    if not found:
        return Outcome.CANNOT_TELL, f"no source lists a {meta} instance"
    words = ", ".join(f"{status!r} on {host}" for host, status in sorted(found.items()))
    normal = all(status.lower() in NORMAL for status in found.values())
    return "y" if normal else "n", f"{meta} instances: {words}"


async def _binding(connection: Connection) -> tuple[str, str]:
    """The agency on record and of every node."""
    record = await connection.mrs.cluster(connection.cluster.cluster_id)
    nodes = await connection.mrs.nodes(connection.cluster.cluster_id)
    verdict, words = bound(record, agencies := await agencies_of(connection, nodes))
    if verdict == "y":
        words += f"; {await in_iam(connection, next(iter(agencies.values())))}"
    return verdict, words
