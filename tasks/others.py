"""Which other run is at a cluster right now, for a run that changes nothing and claims nothing."""

import asyncio
import logging
from pathlib import Path

from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from tasks.errors import ConfigurationError, LedgerUnavailable
from tasks.ledger.database import ledger_url, unchecked_ledger
from tasks.ledger.episodes import HELD
from tasks.ledger.openings import Open, open_episodes
from tasks.models import Case

WITHIN = 5.0  # seconds: it is worth no more

logger = logging.getLogger("runbooks")


async def other_run(case: Case, cluster_id: str) -> str:
    """Which run holds the cluster's episode, since when, and what it waits for; empty: none, or nobody knows.

    The ledger is read as it is, and neither made nor upgraded.
    """
    try:
        url = ledger_url()
        if not _is_there(url):
            return ""
        async with asyncio.timeout(WITHIN), unchecked_ledger(url) as ledger, ledger.reading() as session:
            found = await open_episodes(session, cluster_id=cluster_id)
    except (LedgerUnavailable, ConfigurationError, SQLAlchemyError, TimeoutError) as error:
        logger.debug("whether another run is at this cluster cannot be read: %s", error)
        return ""
    mine = [each for each in found if each.episode.alarm_id == case.alarm_id and each.episode.state in HELD]
    return _words(mine[0]) if mine else ""


def _is_there(url: URL) -> bool:
    """Whether there is a ledger to ask; a file that is not there would be made."""
    return not url.drivername.startswith("sqlite") or Path((url.database or "").removeprefix("file:")).exists()


def _words(other: Open) -> str:
    episode = other.episode
    since = f" since {episode.claimed:%Y-%m-%d %H:%M:%S} UTC" if episode.claimed else ""
    does = f"waits for {other.waits_for}" if other.waits_for else "is at work"
    return f"run {episode.link or episode.holder} is at this cluster{since}, and {does}"
