"""An episode is opened, needs a run, and is closed."""

from datetime import datetime
from secrets import token_hex

from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.tables import Episode

OPEN = ("raised", "running", "waiting", "verifying")


def open_episode(
    session: AsyncSession, cluster_id: str, cluster: str, alarm_id: str, opened_by: str, now: datetime
) -> Episode:
    """A new episode of the cluster, which has no number yet."""
    episode = Episode(
        id=f"{now:%Y%m%d}-{token_hex(4)}",
        cluster_id=cluster_id,
        cluster=cluster,
        alarm_id=alarm_id,
        opened=now,
        opened_by=opened_by,
        state="raised",
        raised=now,
    )
    session.add(episode)
    return episode


def needs_a_run(episode: Episode, now: datetime) -> None:
    """The episode waits for a run that does not exist yet: the next number."""
    episode.state, episode.raised, episode.n = "raised", now, episode.n + 1
    episode.run, episode.runs, episode.holder, episode.lease, episode.verify_until = None, 0, None, None, None
    episode.claimed, episode.wake = None, False  # it looks at the clears so far itself


def close(episode: Episode, now: datetime, outcome: str = "") -> None:
    """The episode is over; a new alarm opens another."""
    episode.state, episode.closed, episode.outcome = "closed", now, outcome or episode.outcome
    episode.holder = episode.lease = episode.verify_until = None
    episode.wake = False
