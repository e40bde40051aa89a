"""`runbooks clusters sync`: the blocks become what the file says, every difference is shown, and once is enough."""

from collections.abc import Callable

import httpx
import pytest
from prefect.client.orchestration import get_client

from deployments.emulated_blocks import manager_block
from deployments.inventory.checking import read_blocks
from deployments.inventory.inventory import read_inventory
from deployments.inventory.syncing import drafts, write
from tasks.blocks import Cluster, Manager
from tasks.loading import cluster_block
from tests.deployments.inventory.conftest import Stand

pytestmark = [pytest.mark.server, pytest.mark.anyio]


async def test_blocks_are_made_of_the_file(stand: Stand) -> None:
    """A dry run shows the plan and writes nothing, the sync writes it, and after that there is nothing to do."""
    stand.write(
        {"a": stand.entry(0, mode="auto", labels={"stage": "lab"}), "b": stand.entry(1, login="view")},
        logins={"ops": {"read": "manager-read", "change": "manager-change"}, "view": {"read": "manager-read"}},
    )
    code, planned = await stand.sync(dry_run=True)
    first, second = stand.clusters[:2]
    managers = [f"{stand.url}/managers/{each.id}/web/api/v2" for each in (first, second)]
    assert (code, planned) == (
        0,
        [
            f"+ MRS Manager/a  url: {managers[0]}, user: read, password: (set)",
            f"+ MRS Manager/a-changing  url: {managers[0]}, user: change, password: (set)",
            f'+ MRS Cluster/a  cluster_id: {first.id}, source: mrs-001, labels: {{"stage": "lab"}}, mode: auto, '
            "manager: MRS Manager/a, cloud: MRS Cloud/cloud-read, changing_manager: MRS Manager/a-changing, "
            "changing_cloud: MRS Cloud/cloud-change",
            f"+ MRS Manager/b  url: {managers[1]}, user: read, password: (set)",
            f"+ MRS Cluster/b  cluster_id: {second.id}, source: mrs-002, manager: MRS Manager/b, "
            "cloud: MRS Cloud/cloud-read, changing_cloud: MRS Cloud/cloud-change",
            "dry run: 5 block(s) would be written",
        ],
    )
    assert await stand.blocks() == {"cluster": [], "manager": ["manager-change", "manager-read"]}
    assert await stand.sync() == (0, [*planned[:-1], "5 block(s) written"])
    assert await stand.sync() == (0, ["nothing to do"])
    made = await cluster_block("a", stand.client)
    assert (made.cluster_id, made.source, made.mode, made.labels) == (first.id, "mrs-001", "auto", {"stage": "lab"})
    assert made.changing_manager
    assert made.changing_cloud
    assert [
        (each.url, each.user, each.password.get_secret_value()) for each in (made.manager, made.changing_manager)
    ] == [(managers[0], "read", "s3cret-read"), (managers[0], "change", "s3cret-change")]
    keys = [each.access_key.get_secret_value() for each in (made.cloud, made.changing_cloud)]
    assert keys == [stand.region.reading_access_key, stand.region.access_key]
    other = await cluster_block("b", stand.client)
    assert (other.mode, other.on_unbound, other.changing_manager) == ("approve", "escalate", None)


async def test_every_difference_is_shown_and_taken_back(stand: Stand) -> None:
    """What the file says otherwise, what somebody changed in the UI, and a new password, which is not shown."""
    stand.write({"a": stand.entry(0, mode="auto", labels={"stage": "lab"}, windows=["daily 01:30-04:00"])})
    assert (await stand.sync())[0] == 0
    changed = await cluster_block("a", stand.client)
    changed.freezes = ["2026-12-20 to 2027-01-06"]
    await changed.save("a", client=stand.client, overwrite=True)
    await Manager(url="https://unused", user="read", password="s3cret-new").save(
        "manager-read", client=stand.client, overwrite=True
    )
    stand.write({"a": stand.entry(0, source="s", login="view")}, logins={"view": {"read": "manager-read"}})
    lines = [
        "~ MRS Manager/a  password changed",
        "~ MRS Cluster/a  source: mrs-001 -> s",
        '~ MRS Cluster/a  labels: {"stage": "lab"} -> {}',
        "~ MRS Cluster/a  mode: auto -> approve",
        '~ MRS Cluster/a  windows: ["daily 01:30-04:00"] -> []',
        '~ MRS Cluster/a  freezes: ["2026-12-20 to 2027-01-06"] -> []',
        "~ MRS Cluster/a  changing_manager: MRS Manager/a-changing -> none",
    ]
    unused = "no longer used, delete it in Prefect: MRS Manager/a-changing"
    assert await stand.sync() == (0, [*lines, unused, "2 block(s) written"])
    assert await stand.sync() == (0, [unused, "nothing to do"])
    made = await cluster_block("a", stand.client)
    assert (made.labels, made.freezes, made.changing_manager) == ({}, [], None)
    assert made.manager.password.get_secret_value() == "s3cret-new"


async def test_what_a_person_has_connected_is_taken_over(stand: Stand) -> None:
    """A cluster whose Manager's block is its own login keeps it, and a Manager written into the block gets its own."""
    cluster = stand.clusters[0]
    inline = manager_block(cluster, stand.url)
    await Manager(url="https://old", user="read", password="s3cret-read").save("a", client=stand.client)
    cloud = (await read_blocks(stand.client)).clouds["cloud-read"]
    await Cluster(cluster_id=cluster.id, source=cluster.name, manager=inline, cloud=cloud).save(
        "a", client=stand.client
    )
    stand.write({"a": stand.entry(0)}, logins={"ops": {"read": "a"}}, clouds={"here": {"read": "cloud-read"}})
    assert await stand.sync() == (
        0,
        [
            f"~ MRS Manager/a  url: https://old -> {inline.url}",
            "~ MRS Cluster/a  manager: written into the block -> MRS Manager/a",
            "~ MRS Cluster/a  cloud: written into the block -> MRS Cloud/cloud-read",
            "2 block(s) written",
        ],
    )
    assert await stand.sync() == (0, ["nothing to do"])


async def test_a_name_is_looked_up_in_the_cloud(stand: Stand) -> None:
    """One that is there once tells the id; missing and ambiguous ones are told, and the rest is written."""
    stand.region.add_cluster("mrs-002")
    entries = {name: {"manager": {"url": f"https://{name}"}} for name in ("mrs-001", "b", "c")}
    stand.write(
        {**entries, "b": {**entries["b"], "name_in_cloud": "mrs-002"}}, logins={"ops": {"read": "manager-read"}}
    )
    ids = ", ".join(each.id for each in stand.clusters if each.name == "mrs-002")
    code, lines = await stand.sync()
    assert (code, lines[2:]) == (
        1,
        [
            f"! {stand.path}:6: clusters.b.name_in_cloud: 2 clusters are called mrs-002: give one's cluster_id ({ids})",
            f"! {stand.path}:7: clusters.c.name_in_cloud: cloud here has no cluster called c, "
            "there is mrs-001, mrs-002, mrs-002, mrs-003",
            "2 block(s) written",
        ],
    )
    assert (await cluster_block("mrs-001", stand.client)).cluster_id == stand.clusters[0].id


async def test_a_name_that_means_another_cluster_now_changes_nothing(stand: Stand) -> None:
    """A cluster that was deleted and made again is another one: connecting it takes its id, written by a person."""
    entry = {"manager": {"url": "https://a"}}
    stand.write({"mrs-001": entry})
    assert (await stand.sync())[0] == 0
    old = stand.clusters[0].id
    del stand.region.clusters[old]
    new = stand.region.add_cluster("mrs-001").id
    what = f"the cloud has another cluster of that name now: write cluster_id: {new} to connect that one"
    assert await stand.sync() == (
        1,
        [f"! {stand.path}:5: clusters.mrs-001.name_in_cloud: {what}", "nothing else to do"],
    )
    stand.write({"mrs-001": {**entry, "cluster_id": new}})
    assert await stand.sync() == (0, [f"~ MRS Cluster/mrs-001  cluster_id: {old} -> {new}", "1 block(s) written"])


async def test_an_id_that_no_cluster_has_is_not_written(stand: Stand) -> None:
    """The cloud is asked for it by itself, and the entry's line is told."""
    stand.write({"a": stand.entry(0, cluster_id="deleted")})
    what = "cloud here has no cluster of this id"
    assert await stand.sync() == (1, [f"! {stand.path}:5: clusters.a.cluster_id: {what}", "nothing else to do"])
    assert (await stand.blocks())["cluster"] == []


async def test_a_cloud_that_cannot_be_asked_holds_up_names_only(stand: Stand) -> None:
    """Entries with an id are written all the same, and the cloud's trouble is told."""
    stand.region.trouble.add("GET", "*/cluster_infos", "status", times=None, status=403)
    stand.write({"a": stand.entry(0), "b": {"manager": {"url": "https://b"}}}, logins={"ops": {"read": "manager-read"}})
    code, lines = await stand.sync()
    call = f"MRS GET v1.1/{stand.region.project_id}/cluster_infos: HTTP 403: 403 403"
    assert (code, lines[2:]) == (
        1,
        [
            f"! {stand.path}:1: clouds.here.read: its clusters cannot be listed: {call}",
            f"! {stand.path}:6: clusters.b.name_in_cloud: its id cannot be looked up: "
            "give its cluster_id, or try again",
            "2 block(s) written",
        ],
    )


async def test_a_block_that_is_not_there_stops_it_all(stand: Stand) -> None:
    """Every name of a block that Prefect does not have is told at once, and nothing is written."""
    stand.write(
        {
            "a": stand.entry(0, tickets="desk", notifications=["slack-webhook/on-call", "nonsense"]),
            "b": stand.entry(1, login="mine"),
        },
        clouds={"here": {"read": "cloud-raed", "change": "cloud-change"}},
        logins={"ops": {"read": "manager-read", "change": "manager-chang"}, "mine": {"read": "a"}},
    )
    code, lines = await stand.sync()
    told = [line.partition("clusters.yaml:")[2] for line in lines]
    slug = "write SLUG/NAME, for example slack-webhook/on-call"
    assert (code, told) == (
        2,
        [
            "1: clouds.here.read: Prefect has no block 'MRS Cloud/cloud-raed', did you mean cloud-read?",
            "2: logins.mine.read: Prefect has no block 'MRS Manager/a', there is manager-change, manager-read",
            "2: logins.mine.read: a takes its user from manager-read itself: name that one",
            "2: logins.ops.change: Prefect has no block 'MRS Manager/manager-chang', did you mean manager-change?",
            f"5: clusters.a.notifications.0: Prefect has no block 'slack-webhook/on-call': {slug}",
            f"5: clusters.a.notifications.1: Prefect has no block 'nonsense': {slug}",
            "5: clusters.a.tickets: Prefect has no block 'MRS Ticket System/desk', there is none",
        ],
    )
    assert (await stand.blocks())["cluster"] == []


async def test_two_projects_are_not_one_cloud(stand: Stand) -> None:
    """A key for changes of another project than the one that reads is refused."""
    other = (await read_blocks(stand.client)).clouds["cloud-change"].model_copy(update={"project_id": "other"})
    await other.save("cloud-other", client=stand.client)
    stand.write({"a": stand.entry(0)}, clouds={"here": {"read": "cloud-read", "change": "cloud-other"}})
    what = "cloud-read and cloud-other are of two projects: name a key of the same one"
    assert await stand.sync() == (2, [f"{stand.path}:1: clouds.here.change: {what}"])


async def test_blocks_that_are_not_in_the_file_are_left_alone(stand: Stand) -> None:
    """They are listed, and one that is the same cluster under another name is refused."""
    stand.write({"a": stand.entry(0), "b": stand.entry(1)})
    assert (await stand.sync())[0] == 0
    stand.write({"a": stand.entry(0)})
    assert await stand.sync() == (0, ["not in the file, left as they are: b", "nothing to do"])
    stand.write({"a": stand.entry(0), "again": stand.entry(1), "third": stand.entry(2, source="mrs-002x")})
    same = "is the same as of the block 'MRS Cluster/b': call the entry so, or delete that block"
    assert await stand.sync() == (2, [f"{stand.path}:6: clusters.again.cluster_id: {same}"])
    stand.write({"a": stand.entry(0), "third": stand.entry(2, source="mrs-002")})
    same = "is the same as of the block 'MRS Cluster/b', so that alarms would mean two clusters"
    assert await stand.sync() == (2, [f"{stand.path}:6: clusters.third.source: {same}"])


class Refusing(httpx.AsyncBaseTransport):
    """The way to Prefect, on which some requests are answered with a 500 that repeats what was sent."""

    def __init__(self, refused: Callable[[httpx.Request], bool]) -> None:
        self._carrier, self._refused = httpx.AsyncHTTPTransport(), refused

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Refuse it or pass it on."""
        if self._refused(request):
            return httpx.Response(500, content=await request.aread(), request=request)
        return await self._carrier.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._carrier.aclose()


async def test_a_block_that_fails_does_not_stop_the_others(stand: Stand) -> None:
    """What needs it is not tried, other clusters are written, and nothing of what was sent is shown."""
    stand.write({"a": stand.entry(0), "b": stand.entry(1)}, logins={"ops": {"read": "manager-read"}})
    way = Refusing(lambda request: request.method == "POST" and b'"name":"a"' in request.content.replace(b" ", b""))
    inventory = read_inventory(stand.path)
    async with get_client(httpx_settings={"transport": way}) as client:
        blocks = await read_blocks(client)
        planned, problems = drafts(inventory, blocks, {"a": stand.clusters[0].id, "b": stand.clusters[1].id})
        written = [(each.draft.title, each.trouble) async for each in write(client, planned, blocks)]
    assert (problems, written) == (
        [],
        [
            ("MRS Manager/a", "Prefect answers 500"),
            ("MRS Cluster/a", "not tried: MRS Manager/a was not written"),
            ("MRS Manager/b", ""),
            ("MRS Cluster/b", ""),
        ],
    )
    assert "s3cret" not in repr(planned)
    assert (await stand.sync())[1][-1] == "2 block(s) written"


async def test_what_no_block_takes_is_told(stand: Stand) -> None:
    """Settings that fit one by one and not together are a problem of the entry, and it is not written."""
    stand.write({"a": stand.entry(0, speed=60, manager={"url": "https://10.0.0.1/x"}), "b": stand.entry(1, speed=60)})
    code, lines = await stand.sync()
    what = "speed is for the emulator on this machine only, not for '10.0.0.1': leave it at 1"
    assert (code, lines[-2:]) == (
        1,
        [f"! {stand.path}:5: clusters.a: block: Value error, {what}", "3 block(s) written"],
    )
