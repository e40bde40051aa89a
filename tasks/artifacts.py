"""What a run publishes in the Prefect UI: its report, its traces, and which episodes are open."""

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from sqlalchemy.ext.asyncio import AsyncSession

from tasks import timing
from tasks.claims import holds, looked_up
from tasks.errors import LedgerUnavailable
from tasks.ledger.episodes import Holding
from tasks.ledger.openings import Open, how_many_open, open_episodes
from tasks.models import Case, few
from tasks.trail import Trail
from tasks.waits import AWAY

MOST_ROWS = 100  # each run publishes them anew, and Prefect keeps every version


async def publish(trail: Trail, text: str) -> None:
    """Publish the run's artifacts; where Prefect does not take them, the log says so and the outcome stays."""
    state = await publish_artifacts(trail, text, return_state=True)  # type: ignore[misc]  # Prefect's overload
    if not state.is_completed():
        get_run_logger().warning("the report could not be published (%s); it reads:\n%s", state.message, text)


@task(task_run_name="publish the evidence", retries=3, retry_delay_seconds=2, cache_policy=NO_CACHE)
async def publish_artifacts(trail: Trail, text: str) -> None:
    """The run's artifacts: the report, and its traces as a table. Their keys are the alarm's and the cluster's."""
    key = f"alm-{trail.case.alarm_id}-{trail.case.cluster}"
    await acreate_markdown_artifact(text, key=key, description=f"{trail.case.cluster}: {trail.outcome}")
    rows = [{"host": host, "trace": trace} for host, trace in trail.traces.items()]
    await acreate_table_artifact(rows, key=f"{key}-traces", description=f"{trail.case.cluster}: {trail.outcome}")


async def publish_open_episodes(case: Case) -> None:
    """The open episodes of all clusters as the artifact `open-episodes`, as the run leaves them; a dry run leaves none.

    Of runs that end or ask a person, not at every wait: a storm has hundreds at once. Where ledger or Prefect do not
    answer, the next run publishes them.
    """
    if not holds(case):
        return
    try:
        many, found = await looked_up(case, _open_now)
        first = f", the first {len(found)} of them" if len(found) < many else ""
        words = f"{many} open at {timing.wall():%Y-%m-%d %H:%M:%S} UTC{first}; `runbooks status` shows them now"
        rows = [row_of(each) for each in found]
        await acreate_table_artifact(rows, key="open-episodes", description=words)
    except (LedgerUnavailable, *AWAY) as error:
        get_run_logger().warning("the open episodes could not be published: %s", error)


async def _open_now(session: AsyncSession, _: Holding) -> tuple[int, list[Open]]:
    return await how_many_open(session), await open_episodes(session, MOST_ROWS)


def row_of(each: Open) -> dict[str, str]:
    """An open episode as a row, its run as a link."""
    episode = each.episode
    return {
        "cluster": episode.cluster,
        "state": each.state,
        "waits for": each.waits_for,
        "since (UTC)": f"{episode.opened:%Y-%m-%d %H:%M:%S}",
        "run": episode.link,
        "hosts": few(each.hosts),
    }
