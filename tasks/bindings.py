"""To which agency a cluster is bound, whether that one can serve it, and who changed it. It only reads."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks import timing
from tasks.answering import have_answered
from tasks.connections import Connection
from tasks.errors import Refused, RemoteError
from tasks.models import Agency, Case, ClusterRecord, Node, Outcome

ECS_TRUST_DOMAIN = "op_svc_ecs"
NODES_AT_ONCE = 8
CTS_KEEPS = timedelta(days=7)


def bound(record: ClusterRecord, agencies: dict[str, str], *, rebound: bool = False) -> tuple[str, str]:
    """Judge whether the cluster is bound to an agency.

    Args:
        rebound: this run has bound it, so the record, which MRS keeps for itself, is no evidence any more.
        record: MRS's record; its agency is None where the field is absent, which is no evidence.
        agencies: host name -> agency in its ECS metadata, empty where none; of every node that MRS lists.

    Returns:
        `y`, `n` or an Outcome, and the evidence in words.

    Source: ALM-12110, step 5; MRS record field `mrsEcsDefaultAgency`, ECS metadata key `agency_name`.
    """
    names = sorted(set(agencies.values()))
    count = len(agencies)
    on_nodes = ", ".join(f"{name or 'none'} on {list(agencies.values()).count(name)}" for name in names)
    on_record = "has no agency field" if record.agency is None else f"names {record.agency or 'none'}"
    words = f"agency in the ECS metadata of {count} nodes: {on_nodes or 'none read'}; the cluster's record {on_record}"
    if not count or record.nodes != count:
        return Outcome.CANNOT_TELL, f"{words}; the record counts {record.nodes} nodes"
    if len(names) > 1:
        listed = ", ".join(f"{host}: {name or 'none'}" for host, name in sorted(agencies.items()))
        return Outcome.CANNOT_TELL, f"{words}; partly bound or to different agencies, never written over: {listed}"
    if names == [""]:
        if rebound:
            return Outcome.CANNOT_TELL, f"{words}; this run has bound it, and it is unbound again: never bound twice"
        if record.agency == "":
            return "n", words
        return Outcome.CANNOT_TELL, f"{words}; only both together say unbound"
    if record.agency in (None, names[0]) or rebound:
        return "y", words
    return Outcome.CANNOT_TELL, f"{words}; they disagree"


async def agencies_of(connection: Connection, nodes: Sequence[Node]) -> dict[str, str]:
    """Host name -> the agency in its ECS metadata, empty where none; of all these nodes.

    Raises:
        RemoteError: one of them cannot be read.

    Source: GET cloudservers/{id} of every node, metadata key `agency_name`.
    """
    at_once = asyncio.Semaphore(NODES_AT_ONCE)

    async def read(node: Node) -> str:
        async with at_once:
            return await connection.ecs.agency(node.server_id)

    return dict(zip((node.host for node in nodes), await asyncio.gather(*map(read, nodes)), strict=True))


async def in_iam(connection: Connection, name: str) -> str:
    """What IAM says of an agency, for the evidence: it does not change whether the cluster is bound."""
    try:
        return await unusable(connection, name) or f"{name} exists in IAM and trusts ECS"
    except RemoteError as error:
        return f"IAM could not be asked about it ({error})"


async def unusable(connection: Connection, name: str) -> str:
    """Why this agency cannot serve ECS, or empty text where it can. Source: IAM "Querying Agencies"."""
    return flaw_of(await connection.iam.agency(name), name, timing.now())


async def must_be_usable(case: Case, connection: Connection, name: str) -> None:
    """The gate of the agency that is to be bound.

    Raises:
        Refused: it cannot serve ECS, or IAM does not say so; where IAM never did, a person can do it by hand.
        LedgerUnavailable: whether IAM ever did cannot be read.
    """
    try:
        why = await unusable(connection, name)
    except RemoteError as error:
        await have_answered(case, connection, "rebind")
        raise Refused(f"IAM does not say whether agency {name!r} is usable: {error}") from error
    if why:
        raise Refused(why)


def flaw_of(agency: Agency | None, name: str, now: datetime) -> str:
    """Why what IAM has under this name cannot serve ECS, or empty text where it can."""
    if agency is None:
        return f"IAM has no agency {name!r}"
    if agency.trusts != ECS_TRUST_DOMAIN:
        return f"agency {name!r} trusts {agency.trusts!r}, not ECS ({ECS_TRUST_DOMAIN})"
    if agency.expires and agency.expires <= now:
        return f"agency {name!r} expired at {agency.expires:%Y-%m-%d %H:%M}"
    return ""


async def somebody_s_change(connection: Connection, nodes: Sequence[Node]) -> str:
    """Who may have removed the agency, as CTS tells of the last seven days; empty: nobody did.

    Source: CTS "Querying a Trace List"; ECS "Key Operations Supported by CTS".
    """
    if connection.cts is None:
        return "the cloud block names no CTS (cts_url), so who changed the agency cannot be seen"
    now = timing.now()
    clocks = (now, connection.manager.clock or now)
    servers = [node.server_id for node in nodes]
    try:
        changes = await connection.cts.agency_changes(
            connection.cluster.cluster_id, min(clocks) - CTS_KEEPS, max(clocks) + timedelta(hours=1), servers=servers
        )
    except RemoteError as error:
        return f"CTS cannot be read, so who changed the agency cannot be seen ({error})"
    if not changes:
        return ""
    last = changes[-1]
    return f"{last.user or 'somebody'} changed it ({last.name} at {last.time:%Y-%m-%d %H:%M:%S} UTC, says CTS)"
