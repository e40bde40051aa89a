"""What the intake shows of the ledger: the same for every intake and after every start, and for the dashboard."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from deployments.intake.measures import OVERLAP, Measures
from deployments.intake.metrics import Metrics
from deployments.intake.settings import read_settings
from tasks import timing
from tasks.ledger.approval_tables import Approval
from tasks.ledger.database import Ledger
from tasks.ledger.tables import Episode, Intent, Occurrence, Wait

pytestmark = pytest.mark.anyio

DASHBOARD = Path(__file__).parents[2] / "deployments" / "grafana" / "mrs-runbooks.json"
SECOND = timedelta(seconds=1)
ENDINGS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


async def handled(ledger: Ledger, *names: str, outcome: str = "END", ago: timedelta = SECOND) -> None:
    """In each of these clusters an alarm was seen after 10 s, and repaired; its episode is closed since then."""
    closed = timing.wall() - ago
    opened = closed - timedelta(hours=1)
    async with ledger.writing() as session:
        for name in names:
            id_ = f"{name} {closed}"
            about: dict[str, Any] = {"cluster_id": f"id-of-{name}", "alarm_id": "12110"}
            session.add(
                Episode(
                    id=id_,
                    cluster=name,
                    state="closed",
                    opened=opened,
                    opened_by="syslog",
                    raised=opened,
                    closed=closed,
                    outcome=outcome,
                    **about,
                )
            )
            await session.flush()
            session.add(
                Occurrence(
                    id=id_,
                    host="node-1",
                    serial="7",
                    occurred=opened - 10 * SECOND,
                    first_seen=opened,
                    last_seen=opened,
                    cleared_seen=closed,
                    episode_id=id_,
                    ended=outcome,
                    **about,
                )
            )
            at: dict[str, Any] = {"attempt": id_, "step": "3", "episode_id": id_}
            intent = Intent(target="node-1", cluster_id=about["cluster_id"], at=opened + 60 * SECOND, **at)
            session.add_all([intent, Wait(deadline=closed, ended=opened + 400 * SECOND, **at)])


async def waits(ledger: Ledger, name: str, *, overdue: timedelta) -> None:
    """A run of this cluster waits, and should have gone on so long ago."""
    now = timing.wall()
    async with ledger.writing() as session:
        session.add(
            Episode(
                id=name,
                cluster_id=f"id-of-{name}",
                cluster=name,
                alarm_id="12110",
                state="waiting",
                opened=now,
                opened_by="syslog",
                raised=now,
            )
        )
        await session.flush()
        session.add(Wait(attempt=name, step="3", episode_id=name, deadline=now - overdue))


def shown(registry: CollectorRegistry) -> dict[str, float]:
    """What `/metrics` shows: sample, with its labels in the order of their names -> value; no buckets."""
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def of_one(cluster: str, episodes: int = 1) -> dict[str, float]:
    """What is shown of a cluster of which so many episodes are closed, and nothing is open."""
    seconds = {"detect": 10.0, "act": 60.0, "verify": 340.0, "recover": 3610.0}
    place = f"12110,{cluster}"
    closed = f"runbooks_episodes_closed_total{{12110,auto,{cluster},END}}"
    sums = {f"runbooks_time_to_{name}_seconds_sum{{{place}}}": each * episodes for name, each in seconds.items()}
    counts = {f"runbooks_time_to_{name}_seconds_count{{{place}}}": float(episodes) for name in seconds}
    return sums | counts | {closed: float(episodes)}


async def refreshed(ledger: Ledger, **options: Any) -> tuple[Measures, CollectorRegistry]:
    """The numbers of an intake that has just been started."""
    registry = CollectorRegistry()
    made = Measures(registry, **options)
    assert shown(registry) == {}
    await made.refresh(ledger)
    return made, registry


async def test_a_start_changes_no_number(ledger: Ledger) -> None:
    """Nothing is shown before the ledger was read; then every intake shows the same, whenever it was started."""
    await handled(ledger, "alpha", ago=timedelta(days=100))
    first, one = await refreshed(ledger)
    assert shown(one) == of_one("alpha")
    await handled(ledger, "alpha", "beta")
    await first.refresh(ledger)
    _, other = await refreshed(ledger)
    assert shown(one) == shown(other) == of_one("alpha", 2) | of_one("beta")


async def test_nothing_is_counted_twice_or_forgotten(ledger: Ledger) -> None:
    """Read again and again nothing grows; what is committed later than its time says is counted all the same."""
    await handled(ledger, "alpha")
    measures, registry = await refreshed(ledger)
    await handled(ledger, "beta", ago=OVERLAP - 10 * SECOND)
    for _ in range(3):
        await measures.refresh(ledger)
    assert shown(registry) == of_one("alpha") | of_one("beta")


async def test_clusters_can_be_left_out(ledger: Ledger, tmp_path: Path) -> None:
    """With per_cluster = false all clusters are one without a name, in what is closed and in what is open."""
    config = tmp_path / "intake.toml"
    config.write_text("[metrics]\nper_cluster = false\n")
    assert (read_settings(None).metrics.per_cluster, read_settings(config).metrics.per_cluster) == (True, False)
    await handled(ledger, "alpha", "beta")
    for name in ("gamma", "delta"):
        await waits(ledger, name, overdue=timedelta(minutes=2))
    _, registry = await refreshed(ledger, per_cluster=False)
    open_ = {
        "runbooks_episodes_open{12110,,waiting}": 2.0,
        "runbooks_waits_open{12110,}": 2.0,
        "runbooks_waits_overdue{12110,}": 2.0,
    }
    assert shown(registry) == of_one("", 2) | open_


async def test_what_is_over_is_shown_no_longer(ledger: Ledger) -> None:
    """A wait that has ended leaves no sample behind."""
    await waits(ledger, "alpha", overdue=-SECOND)
    measures, registry = await refreshed(ledger)
    assert shown(registry) == {
        "runbooks_episodes_open{12110,alpha,waiting}": 1.0,
        "runbooks_waits_open{12110,alpha}": 1.0,
        "runbooks_waits_overdue{12110,alpha}": 0.0,
    }
    async with ledger.writing() as session:
        episode = await session.get_one(Episode, "alpha")
        episode.state = "verifying"
    await measures.refresh(ledger)
    assert shown(registry) == {"runbooks_episodes_open{12110,alpha,verifying}": 1.0}


async def test_repairs_are_told_apart_by_who_made_them(ledger: Ledger) -> None:
    """What a person did by hand, or agreed to, is not counted as what the program did by itself."""
    await handled(ledger, "alpha", "beta", "gamma")
    async with ledger.writing() as session:
        for name, kind, decision in (("alpha", "by hand", "done"), ("beta", "approve", "approved")):
            mine = (await session.scalars(select(Episode).where(Episode.cluster == name))).one()
            at: dict[str, Any] = {"attempt": mine.id, "step": "3", "episode_id": mine.id, "run": "r", "link": ""}
            what: dict[str, Any] = {"cluster": name, "action": "restart", "targets": "node-1", "why": ""}
            when: dict[str, Any] = {"asked": mine.opened, "expires": mine.closed}
            session.add(Approval(kind=kind, decision=decision, **at, **what, **when))
    _, registry = await refreshed(ledger)
    found = {name: count for name, count in shown(registry).items() if name.startswith("runbooks_episodes_closed")}
    assert found == {
        f"runbooks_episodes_closed_total{{12110,{by},{cluster},END}}": 1.0
        for cluster, by in (("alpha", "hand"), ("beta", "approved"), ("gamma", "auto"))
    }


# The dashboard


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    """Those of the dashboard."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions(panels: list[dict[str, Any]]) -> Iterator[str]:
    """Everything that the dashboard asks Prometheus."""
    dashboard = json.loads(DASHBOARD.read_text())
    yield from (variable["query"]["query"] for variable in dashboard["templating"]["list"])
    yield from (target["expr"] for panel in panels for target in panel.get("targets", ()))


async def test_the_dashboard_asks_for_what_there_is(panels: list[dict[str, Any]], ledger: Ledger) -> None:
    """Every metric that a panel names is in `/metrics` by that name, and every metric there is in a panel."""
    metrics = Metrics()
    await Measures(metrics.registry).refresh(ledger)
    there: Mapping[str, list[str]] = {
        family.name: [f"{family.name}{ending}" for ending in ENDINGS[family.type]]
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        if not family.name.endswith("_created")
    }
    asked = {name for each in expressions(panels) for name in re.findall(r"\brunbooks_\w+", each)}
    assert asked - {name for names in there.values() for name in names} == set()
    assert [family for family, names in there.items() if asked.isdisjoint(names)] == []


def test_the_dashboard_can_be_imported(panels: list[dict[str, Any]]) -> None:
    """Its panels have ids of their own, do not overlap, and ask the Prometheus that is chosen at the import."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert [each["name"] for each in dashboard["__inputs"]] == ["DS_PROMETHEUS"]
    assert (dashboard["id"], dashboard["schemaVersion"] >= 38) == (None, True)
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    asked = [part["datasource"]["uid"] for panel in panels if "targets" in panel for part in (panel, *panel["targets"])]
    assert set(asked) == {"${DS_PROMETHEUS}"}
