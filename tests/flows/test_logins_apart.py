"""Reading and changing by separate logins: who sent what, and that a login without rights is enough to diagnose."""

from typing import Any

import pytest

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from tasks.loading import cluster_block as cluster_named
from tests.flows.conftest import Result, World, Worlds

pytestmark = [pytest.mark.server, pytest.mark.anyio]
AUTO = {"mode": "auto", "on_unbound": "rebind"}


async def apart(cluster: World, *, changing: bool, **settings: Any) -> None:
    """From now on the block reads as Manager's viewer and by the key that may only read.

    Args:
        changing: it has the logins that may change something, too.
    """
    region, it = cluster.region, cluster.cluster
    url = (await cluster_named(cluster.block)).cloud.ecs_url
    manager = manager_block(it, url, user=it.viewer_user, password=it.viewer_password)
    keys = {"access_key": region.reading_access_key, "secret_key": region.reading_secret_key}
    own = {"changing_manager": manager_block(it, url), "changing_cloud": cloud_block(region, url)} if changing else {}
    await cluster_block(it, manager, cloud_block(region, url, **keys), **AUTO | own | settings).save(
        cluster.block, overwrite=True
    )


def callers(cluster: World) -> dict[str, set[str]]:
    """Who called Manager and the cloud, and by which methods."""
    found: dict[str, set[str]] = {}
    names = {f"ak:{cluster.region.access_key}": "key", f"ak:{cluster.region.reading_access_key}": "reading key"}
    for who, method in cluster.region.calls:
        found.setdefault(names.get(who, who), set()).add(method)
    return found


async def test_each_login_does_its_own_part(world: Worlds) -> None:
    """Restart and bind are sent by the logins for changes, which read nothing; everything is read by the others."""
    async with world() as cluster:
        cluster.breaks("crashed", "unbound")
        cluster.raises_the_alarm()
        await apart(cluster, changing=True)
        result = await cluster.run()
        done = [*cluster.restarts(), *cluster.binds()]
        assert result == Result("END", {cluster.host: "1 2n 3n 4 5n 6y END"}, done, [], "")
        assert callers(cluster) == {
            "viewer": {"GET"},
            "reading key": {"GET"},
            "runbooks": {"POST"},
            "key": {"POST"},
        }
        assert {entry.who for entry in cluster.region.log} == {"runbooks", f"ak:{cluster.region.access_key}"}


@pytest.mark.parametrize(
    ("faults", "trace"),
    [(("crashed",), "1 2n DRY-RUN"), (("unbound",), "1 2y 4 5n DRY-RUN"), (("agency-broken",), "1 2y 4 5y 7 DRY-RUN")],
)
async def test_a_login_without_rights_is_enough_to_diagnose(world: Worlds, faults: tuple[str, ...], trace: str) -> None:
    """A dry run reads the same as ever by logins that may only read, and no other login is used."""
    async with world() as cluster:
        cluster.breaks(*faults)
        cluster.raises_the_alarm()
        await apart(cluster, changing=True)
        result = await cluster.run(dry_run=True)
        assert result == Result("DRY-RUN", {cluster.host: trace}, [], [], "")
        assert callers(cluster) == {"viewer": {"GET"}, "reading key": {"GET"}}


async def test_an_observed_cluster_has_no_login_that_changes(world: Worlds) -> None:
    """In `observe` a run that is no dry one uses the reading logins alone, and says what to do by hand."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        await apart(cluster, changing=True, mode="observe")
        result = await cluster.run()
        assert (result.outcome, result.traces, result.mutations) == ("REFUSED", {cluster.host: "1 2n REFUSED"}, [])
        assert callers(cluster) == {"viewer": {"GET"}, "reading key": {"GET"}}


async def test_a_login_that_may_not_change_is_refused(world: Worlds) -> None:
    """Without logins for changes the reading one tries, Manager refuses it, and the ticket says so."""
    async with world() as cluster:
        cluster.breaks("crashed")
        cluster.raises_the_alarm()
        await apart(cluster, changing=False)
        result = await cluster.run()
        assert (result.outcome, result.traces, result.mutations) == ("ERROR", {cluster.host: "1 2n ERROR"}, [])
        assert "HTTP 403 403: the user has no permission for this operation" in result.tickets[0].body
