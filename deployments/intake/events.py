"""What happened, told as Prefect events: information for whoever listens, never the path an alarm takes."""

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID, uuid5

from prefect.events import emit_event

from deployments.intake.desk import News
from deployments.intake.metrics import Metrics
from tasks.ledger.tables import Episode

NAMESPACE = UUID("6f0d5c5e-1d0b-4f0f-9b3a-12110a45192c")
MOST_UNTOLD = 2_000
PAUSE = 0.02  # seconds after each: at most 50 a second, for telling one costs more than taking one in


class Teller:
    """Tells what is new in the background, so that no alarm waits for it; call it with what is new.

    What would make more than `MOST_UNTOLD` wait is not told at all: it is on disk, and events are information.

    Args:
        tell: gets them one by one.
    """

    def __init__(self, tell: Callable[[Sequence[News]], None], metrics: Metrics) -> None:
        self._tell, self._metrics = tell, metrics
        self._untold: asyncio.Queue[News] = asyncio.Queue(MOST_UNTOLD)

    def __call__(self, changes: Sequence[News]) -> None:
        """Take note of what is to be told; returns at once."""
        for change in changes:
            try:
                self._untold.put_nowait(change)
            except asyncio.QueueFull:
                self._metrics.untold.inc()

    async def run(self) -> None:
        """Tell until cancelled, and then what is left."""
        try:
            while True:
                self._tell([await self._untold.get()])
                await asyncio.sleep(PAUSE)
        finally:
            while not self._untold.empty():
                self._tell([self._untold.get_nowait()])


def event_id(*parts: object) -> UUID:
    """The id of an event: the same whenever and by whomever it is told, so that Prefect keeps one."""
    return uuid5(NAMESPACE, "/".join(map(str, parts)))


def tell_changes(changes: Sequence[News]) -> None:
    """`mrs.alarm.raised`, `mrs.alarm.cleared` and `mrs.episode.opened` for what has been written down."""
    for change in changes:
        told, seen, cluster = change.sighting.observation, change.seen, change.sighting.cluster
        if told.kind not in ("raised", "cleared"):
            continue
        resource = {"prefect.resource.id": f"mrs.cluster.{cluster.cluster_id}", "prefect.resource.name": cluster.name}
        payload = {
            "cluster": cluster.name,
            "alarm_id": told.alarm_id,
            "host": told.host,
            "serial": told.serial,
            "source": change.sighting.source,
            "episode": seen.episode,
        }
        event = f"mrs.alarm.{told.kind}"
        emit_event(event, resource, payload=payload, id=event_id(event, seen.occurrence))
        if seen.opened:
            emit_event(
                "mrs.episode.opened", resource, payload=payload, id=event_id("opened", seen.episode, seen.occurrence)
            )


def tell_episode(what: str, episode: Episode) -> None:
    """`mrs.episode.<what>`: started (it has a run), closed."""
    emit_event(
        f"mrs.episode.{what}",
        {"prefect.resource.id": f"mrs.cluster.{episode.cluster_id}", "prefect.resource.name": episode.cluster},
        payload={
            "cluster": episode.cluster,
            "alarm_id": episode.alarm_id,
            "episode": episode.id,
            "n": episode.n,
            "outcome": episode.outcome,
            "ticket": episode.ticket,
        },
        id=event_id(what, episode.id, episode.n),
    )
