"""The intake process: sources, desk, dispatcher, reconciler and poller, begun and ended in the right order."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from deployments.ending import give_back
from deployments.intake.app import app_of
from deployments.intake.desk import LedgerDesk, News
from deployments.intake.directory import Directory
from deployments.intake.dispatch import RUNBOOKS, Dispatcher
from deployments.intake.events import Teller, tell_changes
from deployments.intake.framing import Counters
from deployments.intake.group import task_group
from deployments.intake.http_server import serving
from deployments.intake.measures import Measures
from deployments.intake.metrics import Metrics
from deployments.intake.polling import Poller
from deployments.intake.reconcile import Reconciler
from deployments.intake.settings import Settings
from deployments.intake.smn_listener import routes as smn_routes
from deployments.intake.sweep_keeper import SweepKeeper
from deployments.intake.syslog_listener import listening
from deployments.intake.ticket_desk import TicketDesk
from deployments.intake.webhook_listener import credentials_of
from tasks import timing
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import Ledger
from tasks.ledger.receiving import intake_started

MEASURE_EVERY = 2.0
TIDY_EVERY = 60.0
STUCK = 30.0  # seconds that a delivery may wait for the disk before the intake calls itself not ready

logger = logging.getLogger("runbooks.intake")


@dataclass(frozen=True)
class Running:
    """An intake at work: its ports (`http`, and those of syslog by protocol), and its parts."""

    ports: Mapping[str, int]
    desk: LedgerDesk
    directory: Directory
    dispatcher: Dispatcher
    metrics: Metrics
    counters: Counters


@asynccontextmanager
async def intake(
    settings: Settings, ledger: Ledger, tell: Callable[[Sequence[News]], None] = tell_changes
) -> AsyncIterator[Running]:
    """Take alarms in while the block runs.

    Left, it first stops listening, answers what it has taken, writes down what waits, and then ends the rest: nothing
    that was answered with "accepted" is lost.

    Args:
        tell: gets what is new, after it is on disk.

    Raises:
        ConfigurationError: a setting cannot be used.
        OSError: a port cannot be had.
        LedgerUnavailable: the ledger does not answer at the start.
        Exception: a part failed, which ends all of them: an intake that does half its work must not look alive.
    """
    metrics, counters, directory = Metrics(), Counters(), Directory(ledger)
    dispatcher, teller = Dispatcher(ledger, metrics), Teller(tell, metrics)

    def changed(changes: Sequence[News]) -> None:
        teller(changes)
        dispatcher.look()

    desk = LedgerDesk(ledger, directory, runbooks=RUNBOOKS, metrics=metrics, changed=changed)
    name = f"{socket.gethostname()}:{os.getpid()}:{timing.now():%Y%m%dT%H%M%S.%f}"
    credentials = credentials_of(settings.webhook)

    async def ready() -> dict[str, str]:
        stuck = desk.queue_age() > STUCK
        return {"ledger": await _trouble_of(ledger), "desk": "what comes in is not written down" if stuck else ""}

    async with ledger.writing() as session:
        if gap := await intake_started(session, name, timing.now()):
            logger.warning("no intake was alive since %s: alarms of that time are only diagnosed", gap)
    await directory.refresh()
    async with task_group() as group, AsyncExitStack() as stack:
        _begin(stack, group, teller.run())
        _begin(stack, group, desk.run())
        _begin(stack, group, directory.keep_fresh())
        _begin(stack, group, dispatcher.run())
        _begin(stack, group, Reconciler(ledger, dispatcher, metrics, name).run())
        _begin(stack, group, TicketDesk(ledger, metrics).run())
        _begin(stack, group, SweepKeeper(ledger).run())
        _begin(stack, group, _measure(metrics, desk, counters))
        _begin(stack, group, _tidy())
        _begin(stack, group, Measures(metrics.registry, per_cluster=settings.metrics.per_cluster).keep(ledger))
        if settings.polling.enabled:
            poller = Poller(ledger, desk, settings.polling, metrics, runbooks=RUNBOOKS)
            _begin(stack, group, poller.run())
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, follow_redirects=False))
        smn = smn_routes(settings.smn, desk, runbooks=RUNBOOKS, now=timing.now, http=http)
        app = app_of(
            settings,
            desk,
            now=timing.now,
            credentials=credentials,
            ready=ready,
            registry=metrics.registry,
            routes=smn,
        )
        ports: dict[str, int] = {"http": await stack.enter_async_context(serving(app, settings.http))}
        if settings.syslog.enabled:
            heard_on = await stack.enter_async_context(listening(settings.syslog, desk, counters))
            ports |= {str(protocol): port for protocol, port in heard_on.items()}
        yield Running(ports, desk, directory, dispatcher, metrics, counters)


def _begin(stack: AsyncExitStack, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
    """Let a part work in the background until the stack is unwound to here."""
    task = group.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    stack.push_async_callback(end)


async def _measure(metrics: Metrics, desk: LedgerDesk, counters: Counters) -> None:
    while True:
        metrics.queue_age.set(desk.queue_age())
        metrics.datagrams_lost.set(counters.dropped + counters.lost)
        metrics.refused_connections.labels("limit").set(counters.refused)
        metrics.refused_connections.labels("network").set(counters.not_allowed)
        metrics.refused_connections.labels("handshake").set(counters.handshakes_failed)
        await asyncio.sleep(MEASURE_EVERY)


async def _tidy() -> None:
    """What was read for many clusters is not needed between two looks, and leaves holes that only grow."""
    while True:
        await asyncio.sleep(TIDY_EVERY)
        give_back()


async def _trouble_of(ledger: Ledger) -> str:
    """What is wrong with writing to the ledger; empty: nothing."""
    try:
        async with ledger.writing():
            return ""
    except LedgerUnavailable as error:
        return str(error)
