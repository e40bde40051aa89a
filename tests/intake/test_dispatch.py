"""Alarms as syslog lines against a real Prefect server: which flow runs there are afterwards, and what was said."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from string import Template as Format

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Completed, Running

from deployments.intake.dispatch import Dispatched
from deployments.intake.receive import receive, receiver
from deployments.intake.syslog import DEFAULT_TEMPLATE, Template
from tasks.blocks import Cloud, Cluster, Manager

pytestmark = [pytest.mark.server, pytest.mark.anyio]

ROOT = Path(__file__).parents[2]
JINJA = '{"__prefect_kind": "jinja", "template": "{{ 7 * 7 }}"}'
ADVICE = "name it in the source field of exactly one MRS Cluster block"
FIELDS = {
    "id": "12110",
    "name": "Failed to get ECS temporary AK/SK",
    "serialNo": "4711",
    "category": "0",
    "occurTime": "2026-11-22 13:47:42",
    "clearTime": "--",
    "isAutoClear": "1",
    "locationInfo": "Source=${dn};ServiceName=Meta;RoleName=Meta;HostName=node-master1",
    "clearType": "-1",
    "level": "2",
    "cause": "",
    "additionalInfo": "",
    "object": "",
}
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Known:
    """A cluster with a block of its own: the block's name, the name alarms report, its id."""

    block: str
    source: str
    cluster_id: str

    def line(self, **changes: str) -> bytes:
        """The line of its alarm, some fields changed."""
        return line(self.source, **changes)


def line(source: str, **changes: str) -> bytes:
    """The syslog line of a raised ALM-12110 of a cluster, some fields changed."""
    fields = Format(DEFAULT_TEMPLATE).substitute({"dn": source, **FIELDS, **changes})
    return f"<134>Nov 22 13:47:42 oms1 MRS Manager: {fields.replace('${dn}', source)}".encode()


def cluster_block(source: str, cluster_id: str) -> Cluster:
    """A cluster's block; nothing is ever called at its addresses."""
    nowhere = "http://127.0.0.1:9"
    cloud = Cloud(
        project_id="p",
        domain_id="d",
        mrs_url=nowhere,
        ecs_url=nowhere,
        iam_url=nowhere,
        access_key="AK",
        secret_key="secret-of-the-cloud",
    )
    manager = Manager(url=nowhere, user="runbooks", password="secret-of-the-manager")
    return Cluster(cluster_id=cluster_id, source=source, manager=manager, cloud=cloud)


@pytest.fixture
async def client(prefect_server: str) -> AsyncIterator[PrefectClient]:
    """A client of the server."""
    async with get_client() as opened:
        yield opened


@pytest.fixture(scope="module")
def deployed(prefect_server: str) -> None:
    """The deployments of prefect.yaml, made as its first lines say."""
    pool = ("work-pool", "create", "--type", "process", "mrs-runbooks", "--overwrite")
    deploy = ("--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(PREFECT_HOME.value())}
    for command in (pool, deploy):
        prefect = [sys.executable, "-m", "prefect", *command]
        subprocess.run(prefect, cwd=ROOT, env=environment, check=True, capture_output=True)


@pytest.fixture
async def known(client: PrefectClient, deployed: None) -> Known:
    """A cluster that no other test knows."""
    number = next(_numbers)
    found = Known(f"intake-{number}", f"prod {number}", f"00000000-0000-4000-8000-{number:012}")
    await cluster_block(found.source, found.cluster_id).save(found.block)
    return found


async def runs_of(client: PrefectClient, tag: str) -> list[FlowRun]:
    """All flow runs with this tag."""
    return await client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag])))


async def all_runs(client: PrefectClient) -> int:
    """How many flow runs there are at all."""
    response = await client.request("POST", "/flow_runs/count", json={})
    return int(response.json())


def said(dispatched: Dispatched) -> tuple[str, str]:
    """What became of a line, and why."""
    return dispatched.what, dispatched.why


async def test_a_raised_alarm_starts_one_run_of_the_runbook(client: PrefectClient, known: Known) -> None:
    """A raised alarm is one run of `alm-12110/from-alarms`: for its cluster, no dry run, tagged, named, keyed."""
    dispatched = await receive(client, known.line(), "10.0.0.1", Template())
    assert said(dispatched) == ("started", f"ALM-12110 {known.block} was started for node-master1")
    (run,) = await runs_of(client, f"cluster:{known.block}")
    deployment = await client.read_deployment_by_name("alm-12110/from-alarms")
    assert (run.deployment_id, run.parameters, set(run.tags), run.name, run.idempotency_key) == (
        deployment.id,
        {"cluster": known.block, "dry_run": False},
        {"mrs", "alarm:12110", f"cluster:{known.block}", "host:node-master1"},
        f"ALM-12110 {known.block}",
        f"{known.cluster_id}/12110/node-master1/4711/2026-11-22T13:47:42+00:00",
    )


async def test_the_same_line_twice_is_one_run(client: PrefectClient, known: Known) -> None:
    """A line that comes again joins the run while it is alive, and is only noted once that has ended."""
    first = await receive(client, known.line(), "10.0.0.1", Template())
    again = await receive(client, known.line(), "10.0.0.1", Template())
    assert said(again) == ("joined", f"ALM-12110 {known.block} is at work on {known.block} already")
    assert first.flow_run is not None
    assert again.flow_run is not None
    assert first.flow_run.id == again.flow_run.id
    await client.set_flow_run_state(first.flow_run.id, Completed(name="END"), force=True)
    late = await receive(client, known.line(), "10.0.0.1", Template())
    assert said(late) == ("noted", f"ALM-12110 {known.block} has ended (END) for this occurrence on node-master1")
    assert [run.id for run in await runs_of(client, f"cluster:{known.block}")] == [first.flow_run.id]


@pytest.mark.parametrize("name", ["JOINED", "Crashed"])
async def test_an_occurrence_whose_run_did_nothing_is_started_anew(
    client: PrefectClient, known: Known, name: str
) -> None:
    """A run that only joined another, or died, does not use its occurrence up: the next report starts a new one."""
    first = await receive(client, known.line(), "10.0.0.1", Template())
    assert first.flow_run is not None
    await client.set_flow_run_state(first.flow_run.id, Completed(name=name), force=True)
    again = await receive(client, known.line(), "10.0.0.1", Template())
    assert again.what == "started"
    assert len(await runs_of(client, f"cluster:{known.block}")) == 2


async def test_a_second_host_joins_the_run_that_is_alive(client: PrefectClient, known: Known) -> None:
    """The alarm of another host of the cluster joins the run at work on it; after that run it starts one of its own."""
    other = known.line(serialNo="4712", locationInfo="Source=x;ServiceName=Meta;RoleName=Meta;HostName=node-core1")
    first = (await receive(client, known.line(), "10.0.0.1", Template())).flow_run
    assert first is not None
    await client.set_flow_run_state(first.id, Running(), force=True)
    joined = await receive(client, other, "10.0.0.1", Template())
    assert (joined.what, joined.flow_run and joined.flow_run.id) == ("joined", first.id)
    await client.set_flow_run_state(first.id, Completed(name="END"), force=True)
    assert (await receive(client, other, "10.0.0.1", Template())).what == "started"
    assert len(await runs_of(client, f"cluster:{known.block}")) == 2


async def test_lines_that_arrive_at_the_same_time_are_one_run(client: PrefectClient, known: Known) -> None:
    """Ten hosts whose alarms arrive at once, each by a connection of its own, are one run."""
    on_line = receiver(Template(), UTC)
    lines = [
        known.line(serialNo=str(n), locationInfo=f"Source=x;ServiceName=Meta;RoleName=Meta;HostName=node-{n}")
        for n in range(10)
    ]
    await asyncio.gather(*(on_line(each, "10.0.0.1") for each in lines))
    assert len(await runs_of(client, f"cluster:{known.block}")) == 1


async def test_a_format_that_tells_no_occurrences_apart_still_starts_a_run_each_time(
    client: PrefectClient, known: Known
) -> None:
    """Without serial number and time in the line, the next alarm of a host is not taken for the one that ended."""
    template = Template("${dn}|${id}|${category}|${locationInfo}")
    location = "Source=x;ServiceName=Meta;RoleName=Meta;HostName=node-master1"
    short = f"<134>MRS Manager: {known.source}|12110|0|{location}".encode()
    first = await receive(client, short, "10.0.0.1", template)
    assert first.flow_run is not None
    await client.set_flow_run_state(first.flow_run.id, Completed(name="END"), force=True)
    second = await receive(client, short, "10.0.0.1", template)
    assert (first.what, second.what) == ("started", "started")
    assert len(await runs_of(client, f"cluster:{known.block}")) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"category": "1", "clearTime": "2026-11-22 14:00:00", "clearType": "0"}, "ALM-12110 cleared on node-master1"),
        ({"category": "2"}, "ALM-12110 event on node-master1"),
    ],
)
async def test_a_clear_or_an_event_is_noted(
    client: PrefectClient, known: Known, changes: Mapping[str, str], words: str
) -> None:
    """A cleared alarm and an event are noted and start nothing."""
    before = await all_runs(client)
    assert said(await receive(client, known.line(**changes), "10.0.0.1", Template())) == ("noted", words)
    assert await all_runs(client) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"dn": "nobody"},
            f"no cluster block has the name 'nobody' as its source: {ADVICE}",
        ),
        (
            {"id": "45192"},
            "there is no runbook for alarm 45192 of '${dn}', only for 12110: see its page, or do not send it here",
        ),
        (
            {"locationInfo": ""},
            "ALM-12110 of '${dn}' comes without a host: put ${locationInfo} in the format on Manager, or start the "
            "runbook by hand",
        ),
        (
            {"locationInfo": "Source=x;HostName="},
            "location without a host in field locationInfo: expected HostName=... among its parts, got "
            "'Source=x;HostName='",
        ),
        (
            {"category": "9"},
            "unknown code in field category: expected one of 0, 1, 2, got '9'",
        ),
    ],
    ids=["unknown cluster", "no runbook", "no location", "no host", "malformed"],
)
async def test_what_cannot_be_followed_is_rejected_in_one_sentence(
    client: PrefectClient, known: Known, changes: Mapping[str, str], words: str
) -> None:
    """A line that names no cluster, runbook or host of ours is rejected: what, where, what to do; nothing starts."""
    before = await all_runs(client)
    dispatched = await receive(client, known.line(**changes), "10.0.0.1", Template())
    assert said(dispatched) == ("rejected", words.replace("${dn}", known.source))
    assert await all_runs(client) == before


async def test_a_name_that_two_clusters_have_is_rejected(client: PrefectClient, known: Known) -> None:
    """Where two blocks have one source, neither is guessed."""
    await cluster_block(known.source, "another").save(f"{known.block}-twin")
    before = await all_runs(client)
    words = f"2 cluster blocks have the name {known.source!r} as its source: {ADVICE}"
    assert said(await receive(client, known.line(), "10.0.0.1", Template())) == ("rejected", words)
    assert await all_runs(client) == before


@pytest.mark.parametrize("text", [JINJA, "{{ 7 * 7 }}", "$(id)", "'; drop table flow_run; --"])
async def test_an_alarm_s_text_stays_text(client: PrefectClient, known: Known, text: str) -> None:
    """Text that looks like a template or a command is carried as it is and starts nothing but the one run."""
    before = await all_runs(client)
    host = text.replace(",", "").replace(";", "")
    location = f"Source=x;ServiceName=Meta;RoleName=Meta;HostName={host}"
    changes = {"name": text, "serialNo": text, "locationInfo": location, "cause": text, "object": text}
    assert (await receive(client, known.line(**changes), "10.0.0.1", Template())).what == "started"
    (run,) = await runs_of(client, f"cluster:{known.block}")
    assert (run.parameters, set(run.tags), run.idempotency_key) == (
        {"cluster": known.block, "dry_run": False},
        {"mrs", "alarm:12110", f"cluster:{known.block}", f"host:{host}"},
        f"{known.cluster_id}/12110/{host}/{text}/2026-11-22T13:47:42+00:00",
    )
    assert await all_runs(client) == before + 1


@pytest.mark.parametrize("text", [JINJA, "{{ 7 * 7 }}"])
async def test_a_cluster_s_name_that_is_a_template_names_no_cluster(
    client: PrefectClient, known: Known, text: str
) -> None:
    """A template as the cluster's name is looked up as it is, and rejected."""
    words = f"no cluster block has the name {text!r} as its source: {ADVICE}"
    location = "ServiceName=Meta;RoleName=Meta;HostName=node-master1"
    assert said(await receive(client, line(text, locationInfo=location), "10.0.0.1", Template())) == ("rejected", words)


async def test_a_prefect_that_is_down_is_waited_for(
    client: PrefectClient, known: Known, prefect_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A line that comes while no server answers starts its run once one does; the log says so; no secret is read."""
    warning = "Prefect does not take it (All connection attempts failed): what was received waits and is tried again"
    asked = bytearray()
    upstream = int(prefect_server.removesuffix("/api").rpartition(":")[2])

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", upstream)
        asked.extend(first := await reader.read(65536))
        up_writer.write(first)
        await asyncio.gather(forward(reader, up_writer), forward(up_reader, writer))

    closed = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        waiting = asyncio.ensure_future(receiver(Template(), UTC)(known.line(), "10.0.0.1"))
        for _ in range(200):
            if warning in caplog.messages:
                break
            await asyncio.sleep(0.1)
        assert not waiting.done()
        assert await runs_of(client, f"cluster:{known.block}") == []
        async with await asyncio.start_server(connected, "127.0.0.1", port):
            await asyncio.wait_for(waiting, 30)
    assert len(await runs_of(client, f"cluster:{known.block}")) == 1
    warnings = [record for record in caplog.records if record.levelname == "WARNING" and record.name != "stamina"]
    assert {record.message for record in warnings} == {warning}
    assert b"include_secrets=false" in asked


async def test_a_missing_deployment_is_rejected_and_said(client: PrefectClient, known: Known) -> None:
    """Where nothing is deployed, the line is rejected with what to do, and the intake goes on."""
    deployment = await client.read_deployment_by_name("alm-12110/from-alarms")
    await client.delete_deployment(deployment.id)
    words = (
        f"there is no deployment 'alm-12110/from-alarms', so nothing was started for node-master1 of {known.block}: "
        "deploy deployments/prefect.yaml and start the runbook by hand"
    )
    assert said(await receive(client, known.line(), "10.0.0.1", Template())) == ("rejected", words)
