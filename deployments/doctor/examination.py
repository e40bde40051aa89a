"""One cluster examined: what was asked and kept, and what follows for each action."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field

from deployments.doctor.advice import advice
from deployments.doctor.checks import SPARED, ask_routes, at_manager
from deployments.doctor.clocks import Clocks, clock_of
from deployments.doctor.findings import Finding
from deployments.doctor.logins import logins_for_changes, tickets
from deployments.doctor.sources import sources, untold
from deployments.doctor.verdicts import Memory, Verdict, can_run, verdicts
from tasks import timing
from tasks.answering import calls_of
from tasks.blocks import Cluster
from tasks.brakes import stop_file
from tasks.connections import Connection, clients_of
from tasks.errors import ConfigurationError, LedgerUnavailable, NotOffered
from tasks.ledger.answering import Asked, answers_of, forget_answers, keep_answers
from tasks.ledger.braking import braked
from tasks.ledger.database import Ledger
from tasks.ledger.fleet_tables import RouteAnswer
from tasks.ledger.hearing import Heard
from tasks.models import Node

TRIED_AGAIN = ": it is tried again"  # what a LedgerUnavailable says for those who do; a command does not


@dataclass(frozen=True)
class Examined:
    """A cluster that was examined, or whose block cannot be used.

    Attributes:
        trouble: why it could not be examined; then there is nothing else.
        not_kept: why its result is not in the ledger; empty: it is.
    """

    cluster: str
    trouble: str = ""
    block: Cluster | None = None
    findings: Sequence[Finding] = ()
    actions: Mapping[str, Verdict] = field(default_factory=dict)
    not_kept: str = ""

    @property
    def can_run(self) -> bool:
        """Whether the runbook can find out anything there."""
        return can_run(self.findings)

    def to_settle(self) -> list[Finding]:
        """What a person must settle, what keeps runs from their work first."""
        return sorted((each for each in self.findings if each.settle), key=lambda each: (each.warns, each.fine is None))

    def plain(self) -> dict[str, object]:
        """For machines."""
        block = self.block
        return {
            "cluster": self.cluster,
            "can_run": self.can_run,
            "trouble": self.trouble or None,
            "mode": block.mode if block else None,
            "on_unbound": block.on_unbound if block else None,
            "agency": block.agency if block else None,
            "actions": {name: asdict(verdict) for name, verdict in self.actions.items()},
            "findings": [asdict(finding) for finding in self.findings],
            "not_kept": self.not_kept or None,
        }


class Doctor:
    """Examines clusters and keeps what was found; what many of them share is asked once.

    Args:
        ledger: None where it does not answer, `trouble` says why.
        heard: id of each cluster in the cloud -> what sources told of it.
        prefect: what was found about Prefect's API.
        forget: what did not answer before counts no more.
    """

    def __init__(
        self, ledger: Ledger | None, trouble: str, heard: Mapping[str, Heard], prefect: Finding, *, forget: bool = False
    ) -> None:
        self._ledger, self._trouble, self._forget = ledger, trouble, forget
        self._heard, self._prefect = heard, prefect
        self._tickets: dict[str, asyncio.Task[Finding]] = {}

    async def examine(self, name: str, cluster: Cluster) -> Examined:
        """Examine the cluster of that block; nothing is changed.

        Raises:
            ConfigurationError: its block is wrong.
        """
        async with AsyncExitStack() as stack:
            connection = await clients_of(cluster, stack, dry_run=True)
            nodes, clocks, calls = list[Node](), Clocks(), calls_of(connection)
            manager, cloud = await ask_routes(connection, nodes, clocks)
            asked = [*manager, *cloud]
            known, stopped, not_kept = await self._kept(name, asked)
            logins = await logins_for_changes(cluster, nodes)
        refused = _refused(known, calls["restart"])
        findings = [*manager, _restart(name, connection, refused), *cloud, *logins]
        findings += [clock_of(whose, clocks, cluster) for whose in ("Manager", "cloud")]
        findings.append(await self._asked_tickets(cluster))
        heard = self._heard.get(cluster.cluster_id)
        findings += sources(heard, timing.wall()) if heard else untold(self._trouble, timing.wall())
        findings.append(self._prefect)
        answered = {each.name for each in asked if each.answered}
        before = {row.name for row in known.values() if row.answered and row.call == calls.get(row.name)}
        said = f"{refused.said} ({refused.asked:%Y-%m-%d %H:%M} UTC)" if refused else ""
        memory = Memory(frozenset(answered | before), said, stopped, heard)
        return Examined(name, "", cluster, findings, verdicts(cluster, findings, memory), not_kept)

    async def _kept(self, name: str, asked: Sequence[Finding]) -> tuple[dict[str, RouteAnswer], str, str]:
        """Keep what was answered; returns what is known of the routes now, what stops changes, why it is not kept."""
        rows = [
            Asked(each.name, each.call, each.rating, each.answered, each.said.removeprefix(SPARED))
            for each in asked
            if each.answered is not None
        ]
        if self._ledger is None:
            return {}, f"without the ledger nothing is changed: {self._trouble}", self._trouble
        try:
            async with self._ledger.writing() as session:
                if self._forget:
                    await forget_answers(session, name)
                await keep_answers(session, name, rows, timing.wall())
                await session.flush()
                return await answers_of(session, name), stop_file() or await braked(session, name), ""
        except LedgerUnavailable as error:
            why = str(error).removesuffix(TRIED_AGAIN)
            return {}, f"without the ledger nothing is changed: {why}", why

    async def _asked_tickets(self, cluster: Cluster) -> Finding:
        task = self._tickets.get(cluster.tickets)
        if task is None:
            task = self._tickets[cluster.tickets] = asyncio.create_task(tickets(cluster.tickets))
        return await task


async def examined(doctor: Doctor, name: str, cluster: Cluster) -> Examined:
    """As `Doctor.examine`; a block that is wrong is what was found."""
    try:
        return await doctor.examine(name, cluster)
    except ConfigurationError as error:
        return Examined(name, str(error), cluster)


def _refused(known: Mapping[str, RouteAnswer], call: str) -> RouteAnswer | None:
    """What a run was told by a Manager that does not offer the restart; None: nothing of the kind."""
    row = known.get("restart")
    return row if row and row.call == call and row.answered is None else None


def _restart(name: str, connection: Connection, refused: RouteAnswer | None) -> Finding:
    route, call = connection.manager.routes["restart"], calls_of(connection)["restart"]
    means = f"step 3 is done {'by itself, if Manager offers this' if route.path else 'by a person'}"
    if refused is None:
        why = "it changes something" if route.path else "the block says: not offered"
        return Finding("restart", call, route.rating, None, why, means)
    told = advice(at_manager(connection.cluster.manager, "restart"), NotOffered(call, refused.said))
    again = f"; once it is offered: `runbooks doctor {name} --forget`"
    said = f"a run was answered {refused.said} at {refused.asked:%Y-%m-%d %H:%M} UTC"
    return Finding(
        "restart", call, route.rating, False, said, "NOT: step 3 is done by itself", told.settle + again, told.cause
    )
