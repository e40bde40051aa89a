"""The cluster's agency: is one bound, and binding it. Steps 4, 5 and 6 of the page."""

from collections.abc import AsyncIterator, Sequence
from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks import timing
from tasks.approvals import agreement, by_hand, deeds_of
from tasks.bindings import agencies_of, bound, in_iam, must_be_usable, somebody_s_change
from tasks.blocks import Cluster
from tasks.connections import Connection, connected
from tasks.errors import (
    DryRun,
    EndNotSeen,
    OutcomeUnknown,
    Refused,
    RemoteError,
    ServerTrouble,
    StepFailed,
    Throttled,
    Unreachable,
)
from tasks.gates import agreed, intend, kept_from, may_change, may_go_on, still_at_once
from tasks.intents import begun_before, seen_to_its_end
from tasks.journal import once
from tasks.loading import cluster_block
from tasks.models import Alarm, Answer, Case, Deed, Node, Outcome
from tasks.readback import READ_BACK_EVERY, named, read_back, request_is
from tasks.retrying import DELAYS, RETRIES, may_pass

THROTTLED_TRIES = 5
LONGEST_PAUSE = 600.0
UPDATE_TAKES = 600.0  # seconds of the cluster's time


@once("5 {alarms}")
@task(
    task_run_name="5 is {case.cluster} bound to an agency?",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
async def agency_is_bound(case: Case, alarms: Sequence[Alarm], *, rebound: bool) -> Answer:
    """Whether the cluster is bound to an agency; one answer for the whole cluster.

    Args:
        alarms: those for whose sake it is asked now.
        rebound: this very run has bound it before, for other hosts.

    Source: ALM-12110, steps 4 and 5; GET cluster_infos/{id}, GET nodes, GET cloudservers/{id} of every node.
    """
    async with connected(case) as connection:
        record = await connection.mrs.cluster(connection.cluster.cluster_id)
        nodes = await connection.mrs.nodes(connection.cluster.cluster_id)
        verdict, words = bound(record, agencies := await agencies_of(connection, nodes), rebound=rebound)
        if verdict == "y":
            words += f"; {await in_iam(connection, next(iter(agencies.values())))}"
    return Answer.model_validate({"host": "", "value": verdict, "seen": words, "at": timing.now()})


async def bind_agency(case: Case, alarms: Sequence[Alarm], *, so_far: str = "") -> AsyncIterator[Deed]:
    """Bind every node of the cluster to the agency its block names, node by node, each read back and said when done.

    Nothing is written over: a node that names another agency stops the step. Once a node is bound the others follow,
    also where Meta clears the alarm in between. It ends when MRS reports no update. A person is asked first, where one
    must agree; and asked to do it by hand, where no API does; nobody where there is nothing that could be bound.

    Args:
        so_far: the evidence, for a person who is asked.

    Raises:
        Pause: a person is asked.

    Source: ALM-12110, step 6 (Manage Agency); done through POST cloudservers/{id}/metadata of every node.
    """
    if refused := await nothing_to_bind(case, alarms):
        yield refused
        return
    agreed_ = await agreement(case, "rebind", alarms, so_far)
    async for deed in deeds_of(agreed_, partial(bound_by_hand, case)):
        yield deed
    if not agreed_.go:
        return
    bound_: list[str] = []
    try:
        nodes = await nodes_to_bind(case, alarms)
        if isinstance(nodes, Deed):
            if nodes.by_hand and not case.dry_run:
                handed = await by_hand(case, "rebind", alarms, nodes.did, so_far)
                async for deed in deeds_of(handed, partial(bound_by_hand, case)):
                    yield deed
            else:
                yield nodes
            return
        for node in nodes:
            deed = await bind_node(case, node, alarms, begun=bool(bound_))
            if deed.ended and deed.ended is not Outcome.DRY_RUN:
                yield deed.model_copy(update={"did": deed.did + _in_part(bound_)})
                return
            bound_ += [node.host] if deed.ended is None else []
            yield deed
        if bound_:
            yield await agency_update_ended(case)
    except (RemoteError, StepFailed) as error:
        yield Deed(host="", did=f"binding stopped ({error}){_in_part(bound_)}", at=timing.now(), ended=Outcome.ERROR)


def _in_part(hosts: Sequence[str]) -> str:
    """What to add where binding stops between two nodes."""
    return f"; nodes bound before that, and left so: {', '.join(hosts) or 'none'}"


@once("6 {alarms}")
async def nothing_to_bind(case: Case, alarms: Sequence[Alarm]) -> Deed | None:
    """Why nobody need be asked: the block does not say rebind, or its agency is not usable. None: a person may be.

    It is asked once, before anything is bound; whoever binds looks again. Where IAM never answered `runbooks doctor`
    a person is asked to do it by hand.
    """
    if case.dry_run:
        return None
    try:
        async with connected(case) as connection:
            cluster = await cluster_block(case.cluster)
            _tells_to_bind(cluster)
            await must_be_usable(case, connection, cluster.agency)
    except RemoteError as error:
        return kept_from(case, "", "not bound", Refused(f"a gate cannot be read, so it stays shut: {error}"))
    except Refused as error:
        return None if error.by_hand else kept_from(case, "", "not bound", error)
    return None


@once("6 by hand")
async def bound_by_hand(case: Case, who: str) -> list[Deed]:
    """What the world shows of a binding that a person says to have made in the console.

    Source: ALM-12110, step 6; read as in step 5. Binding in the console is not seen to write ECS metadata at once.
    """
    try:
        async with connected(case) as connection:
            nodes = await connection.mrs.nodes(connection.cluster.cluster_id)
            record = await connection.mrs.cluster(connection.cluster.cluster_id)
            verdict, words = bound(record, await agencies_of(connection, nodes), rebound=True)
    except RemoteError as error:
        verdict, words = Outcome.CANNOT_TELL, f"it cannot be read: {error}"
    if verdict == "y":
        return [Deed(host="", did=f"bound by hand by {who}: {words}", at=timing.now(), changed=True)]
    why = f"{who} says that it was bound, and it does not show: {words}"
    return [Deed(host="", did=why, at=timing.now(), ended=Outcome.CANNOT_TELL)]


@once("6 {alarms}")
@task(task_run_name="6 may {case.cluster} be bound?", retries=0, cache_policy=NO_CACHE)
async def nodes_to_bind(case: Case, alarms: Sequence[Alarm]) -> tuple[Node, ...] | Deed:
    """The nodes to bind, once everything that speaks against it has been looked at; else what speaks against it:

    the block does not say rebind, the agency is not usable, the cluster is not clearly unbound any more, a gate.
    """
    async with connected(case) as connection:
        try:
            return await _unbound_nodes(case, connection, alarms)
        except Refused as error:
            return kept_from(case, "", "not bound", error)


async def _unbound_nodes(case: Case, connection: Connection, alarms: Sequence[Alarm]) -> tuple[Node, ...]:
    cluster = await _may_bind(case, connection, alarms)
    await must_be_usable(case, connection, cluster.agency)
    record = await connection.mrs.cluster(cluster.cluster_id)
    nodes = await connection.mrs.nodes(cluster.cluster_id)
    verdict, words = bound(record, await agencies_of(connection, nodes))
    if verdict != "n":
        raise Refused(f"the cluster is no longer clearly unbound: {words}")
    if (somebody := await somebody_s_change(connection, nodes)) and not await agreed(case, "rebind"):
        raise Refused(
            f"{somebody}: the agency may be gone on purpose, so a person must agree; do it as described below"
        )
    return nodes


async def _may_bind(case: Case, connection: Connection, alarms: Sequence[Alarm], *, begun: bool = False) -> Cluster:
    """The gates of every change, and that the cluster's block, as it is now, tells to bind."""
    cluster = await may_change(case, connection, alarms, "rebind", begun=begun)
    _tells_to_bind(cluster)
    return cluster


def _tells_to_bind(cluster: Cluster) -> None:
    if cluster.on_unbound != "rebind" or not cluster.agency:
        why = "on_unbound is 'escalate'" if cluster.on_unbound != "rebind" else "agency is empty"
        raise Refused(f"the cluster's block does not tell to rebind ({why}): the agency may be gone on purpose")


@once("6 {node.host}")
@task(task_run_name="6 bind {node.host}", retries=0, cache_policy=NO_CACHE)
async def bind_node(case: Case, node: Node, alarms: Sequence[Alarm], *, begun: bool) -> Deed:
    """Bind one node, unless it is bound already, and read it back. The gates are asked again for every node.

    Args:
        begun: another node has been bound, so this one follows although the alarm may be cleared by now.

    Raises:
        StepFailed: it names another agency meanwhile; EndNotSeen: the new one cannot be read back.
        RemoteError: ECS refused it or cannot be reached: it is not bound.

    Source: ECS "Updating ECS Metadata", POST /v1/{project_id}/cloudservers/{server_id}/metadata.
    """
    async with connected(case) as connection:
        try:
            deed = await _bound(case, connection, node, alarms, begun=begun)
        except EndNotSeen:  # the intent stays open: nobody else is to bind it meanwhile
            raise
        except (StepFailed, RemoteError) as error:
            await seen_to_its_end(case, "6", node.host, str(error))
            raise
        await seen_to_its_end(case, "6", node.host, deed.did)
        return deed


async def _bound(case: Case, connection: Connection, node: Node, alarms: Sequence[Alarm], *, begun: bool) -> Deed:
    host = node.host
    try:
        if before := await begun_before(case, "6", host):
            agency, how = before.before or connection.cluster.agency, f"begun at {before.at:%H:%M:%S} UTC, "
            return await read_back(connection, node, agency, how + named(before.command))
        return await _bind(case, connection, node, alarms, begun=begun)
    except (Refused, DryRun) as error:
        return kept_from(case, host, "not bound", error)


async def _bind(case: Case, connection: Connection, node: Node, alarms: Sequence[Alarm], *, begun: bool) -> Deed:
    ecs, intended = connection.ecs, False
    for tries_left in reversed(range(THROTTLED_TRIES)):
        since = timing.wall()
        cluster = await _may_bind(case, connection, alarms, begun=begun)
        now = await ecs.agency(node.server_id)
        if now == cluster.agency:
            return Deed(host=node.host, did=f"is bound to {now} already", at=timing.now())
        if now:
            raise StepFailed(f"{node.host} names another agency now, {now!r}, which is never written over")
        if intended:
            await may_go_on(case)
        else:
            await intend(case, cluster, "rebind", node.host, alarms[0].host, before=cluster.agency)
            intended = True
            await still_at_once(case, connection, () if begun else alarms, since)
        try:
            would = f"bind {node.host} to agency {cluster.agency}"
            request = await connection.ecs_for_changes.set_agency(node.server_id, cluster.agency, would=would)
            how = named(request)
            await request_is(case, node, request)
            break
        except OutcomeUnknown as error:
            how = f"the answer was lost: {error.why}"
            break
        except (Throttled, Unreachable) as error:  # it is certain that nothing was done
            if not tries_left:
                raise
            asked = error.retry_after if isinstance(error, Throttled) else None
            await timing.pause(min(asked or READ_BACK_EVERY, LONGEST_PAUSE))
    return await read_back(connection, node, cluster.agency, how)


@once("6")
@task(task_run_name="6 wait for the agency update of {case.cluster}", retries=0, cache_policy=NO_CACHE)
async def agency_update_ended(case: Case) -> Deed:
    """Wait until MRS reports no agency update in progress.

    Raises:
        StepFailed: after ten minutes it still does, or cannot be read.
        RemoteError: MRS refuses to say.

    Source: MRS "Querying the Agency Task Status".
    """
    async with connected(case) as connection:
        cluster = connection.cluster
        until = timing.later(UPDATE_TAKES, since=timing.now(), speed=cluster.speed)
        async for _ in timing.looks(until, every=READ_BACK_EVERY, speed=cluster.speed):
            try:
                if not await connection.mrs.agency_update_running(cluster.cluster_id):
                    done = "every node is bound and MRS reports no update in progress"
                    return Deed(host="", did=done, at=timing.now())
                seen = "MRS still reports an agency update in progress"
            except (Unreachable, ServerTrouble) as error:
                seen = str(error)
        raise StepFailed(f"every node is bound, and ten minutes later the agency update has not ended: {seen}")
