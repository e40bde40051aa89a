"""Malicious or broken answers: one of our errors with one clear sentence, never a crash, never a loop."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clients.ecs import Ecs
from tasks.clients.http import Patience
from tasks.clients.iam import Iam
from tasks.clients.manager import Manager
from tasks.clients.mrs import Mrs
from tasks.errors import RunbookError
from tasks.models import Alarm
from tests.tasks.clients.conftest import error_of

pytestmark = pytest.mark.anyio
ONCE = Patience(timeout=10, attempts=1)
ALARM = Alarm(alarm_id="12110", serial="1")
Answer = Callable[[httpx.Request], httpx.Response]
READS: dict[str, Callable[[Answer], Awaitable[object]]] = {
    "cluster": lambda answer: _mrs(answer).cluster("c"),
    "clusters": lambda answer: _mrs(answer).clusters(),
    "nodes": lambda answer: _mrs(answer).nodes("c"),
    "agency_update_running": lambda answer: _mrs(answer).agency_update_running("c"),
    "ecs.agency": lambda answer: Ecs(
        "ECS", "http://localhost", patience=ONCE, transport=httpx.MockTransport(answer)
    ).agency("s"),
    "iam.agency": lambda answer: Iam(
        "IAM", "http://localhost", patience=ONCE, transport=httpx.MockTransport(answer)
    ).agency("a"),
    "alarms": lambda answer: _manager(answer).alarms("12110"),
    "occurrence": lambda answer: _manager(answer).occurrence(ALARM),
    "is_masked": lambda answer: _manager(answer).is_masked("12110"),
    "hosts": lambda answer: _manager(answer).hosts(),
    "instances": lambda answer: _manager(answer).instances("meta"),
    "running_commands": lambda answer: _manager(answer).running_commands(),
}
NEVER_RIGHT = [
    b"",
    b"null",
    b"[]",
    b"[1]",
    b'"x"',
    b"1",
    b"NaN",
    b"1e999",
    b"{}",
    b"{",
    b"\xff",
    b"[" * 100_000,
    b"9" * 9999,
]


@pytest.mark.parametrize("body", NEVER_RIGHT, ids=lambda body: repr(body[:9]))
@pytest.mark.parametrize("read", READS)
async def test_what_is_no_answer_at_all(read: str, body: bytes) -> None:
    """A bare list, a number, nothing, a thousand brackets: ServerTrouble naming the call, in one line."""
    error = await error_of(READS[read](lambda _: httpx.Response(200, content=body)))
    assert error.startswith("ServerTrouble: ")
    assert (
        error.partition(": ")[2]
        .partition(": ")[2]
        .startswith(("the answer is not as described: ", "the answer is not JSON"))
    )


def _list(key: str, value: str, total: object = 1) -> str:
    return f'{{"totalCount": {total}, "node_total": {total}, "{key}": {value}}}'


ROWS = {
    "nodes": "nodes",
    "alarms": "alarms",
    "hosts": "hosts",
    "instances": "instances",
    "running_commands": "commands",
}


@pytest.mark.parametrize(
    "value", ["5", "true", '"abc"', '{"a": 1}', "[null]", "[1]", '["x"]', "[[]]", "null", "[]", "[NaN]"]
)
@pytest.mark.parametrize("read", ROWS)
async def test_rows_that_are_none(read: str, value: str) -> None:
    """What is announced as a row and is none is ServerTrouble, not an empty list."""
    error = await error_of(READS[read](lambda _: httpx.Response(200, text=_list(ROWS[read], value))))
    assert error.startswith("ServerTrouble: ")


@pytest.mark.parametrize("total", ["-1", "null", '"many"', "1.5", "NaN", "Infinity", "[]"])
@pytest.mark.parametrize("read", ROWS)
async def test_totals_that_are_none(read: str, total: str) -> None:
    """Without a total nobody knows whether a list is complete."""
    error = await error_of(READS[read](lambda _: httpx.Response(200, text=_list(ROWS[read], "[]", total))))
    assert ": the answer is not as described: " in error


@pytest.mark.parametrize("total", [7, 10**9, f'"{10**9}"'])
@pytest.mark.parametrize("read", ROWS)
async def test_pages_that_end_too_early(read: str, total: object) -> None:
    """Empty pages under a huge total end at once, with both numbers."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, text=_list(ROWS[read], "[]", total))

    error = await error_of(READS[read](answer))
    number = str(total).strip('"')
    assert error.endswith(f": {number} rows announced, 0 listed") or error.endswith(
        f": {number} nodes announced, 0 listed"
    )
    assert len([path for path in asked if path != "/session/status"]) == 1


async def test_the_same_page_for_ever_is_not_a_list() -> None:
    """A Manager that does not know limit and offset would give the first rows twice: an error instead."""
    row = '[{"alarmId": 12110, "serialNo": 1}]'
    assert await error_of(READS["alarms"](lambda _: httpx.Response(200, text=_list("alarms", row, 2)))) == (
        "ServerTrouble: Manager GET alarms: every page holds the same rows: Manager does not know limit and offset"
    )
    nodes = '[{"node_name": "n1"}]'
    assert await error_of(READS["nodes"](lambda _: httpx.Response(200, text=_list("nodes", nodes, 2)))) == (
        "ServerTrouble: MRS GET v2//clusters/c/nodes: 2 nodes announced, 1 listed"
    )


@pytest.mark.parametrize(("read", "name", "pages"), [("nodes", "node_name", 200), ("alarms", "serialNo", 400)])
async def test_a_list_that_grows_while_it_is_read_ends(read: str, name: str, pages: int) -> None:
    """One new row per page under a total that runs ahead is given up after a fixed number of pages."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/session/status":
            asked.append(request.url.path)
        row = f'[{{"alarmId": 12110, "{name}": "{len(asked)}"}}]'
        return httpx.Response(200, text=_list(ROWS[read], row, len(asked) + 1000))

    error = await error_of(READS[read](answer))
    assert (error.rpartition(": ")[2].split()[3:], len(asked)) == ([str(pages), "listed"], pages)


@pytest.mark.parametrize(
    ("read", "body"),
    [
        ("nodes", '{"node_total": 1, "nodes": [{"node_name": "n", "server_info": "s"}]}'),
        ("nodes", '{"node_total": 1, "nodes": [{"node_name": "n", "node_detail": [1]}]}'),
        ("nodes", '{"node_total": 1, "nodes": [{"node_name": "n", "component_infos": {"a": 1}}]}'),
        ("nodes", '{"node_total": 1, "nodes": [{"node_name": "n", "component_infos": [null]}]}'),
        ("nodes", '{"node_total": 1, "nodes": [{}]}'),
        ("cluster", '{"cluster": null}'),
        ("cluster", '{"cluster": []}'),
        ("cluster", '{"cluster": {"mrsEcsDefaultAgency": 5}}'),
        ("cluster", '{"cluster": {"mrsEcsDefaultAgency": {"name": "x"}}}'),
        ("ecs.agency", '{"server": {}}'),
        ("ecs.agency", '{"server": {"metadata": null}}'),
        ("ecs.agency", '{"server": {"metadata": []}}'),
        ("ecs.agency", '{"server": {"metadata": {"agency_name": ["x"]}}}'),
        ("ecs.agency", '{"server": {"metadata": {"agency_name": {}}}}'),
        ("ecs.agency", '{"server": {"metadata": {"agency_name": false}}}'),
        ("ecs.agency", '{"server": {"metadata": {"agency_name": 0}}}'),
        ("iam.agency", '{"agencies": null}'),
        ("iam.agency", '{"agencies": ["a"]}'),
        ("iam.agency", '{"agencies": [{"name": "a", "expire_time": "soon"}]}'),
        ("is_masked", '{"maskedAlarms": null}'),
        ("is_masked", '{"maskedAlarms": "12110"}'),
        ("agency_update_running", '{"Status": null}'),
        ("agency_update_running", '{"Status": ["running"]}'),
        ("agency_update_running", '{"status": "running"}'),
        ("alarms", '{"totalCount": 1, "alarms": [{"alarmId": 1, "occurTime": 1e400}]}'),
        ("alarms", '{"totalCount": 1, "alarms": [{"alarmId": 1, "occurTime": 999999999999999999999999999999}]}'),
        ("alarms", '{"totalCount": 1, "alarms": [{"alarmId": 1, "occurTime": "yesterday"}]}'),
        ("alarms", '{"totalCount": 1, "alarms": [{"serialNo": 1}]}'),
    ],
)
async def test_a_field_of_another_kind(read: str, body: str) -> None:
    """A field that would have to be guessed makes the whole answer unreadable; the sentence names the field."""
    error = await error_of(READS[read](lambda _: httpx.Response(200, text=body)))
    assert (error.split(":")[0], ": the answer is not as described: " in error) == ("ServerTrouble", True)


@pytest.mark.parametrize("status", ["failed", "SUCCESS", "", "x" * 1000])
async def test_a_task_status_nobody_documents(status: str) -> None:
    """Only running and success are known; anything else is no answer, and is shown in short."""
    shown = status if len(status) < 120 else status[:117] + "..."
    assert await error_of(READS["agency_update_running"](lambda _: httpx.Response(200, json={"Status": status}))) == (
        f"ServerTrouble: MRS GET v1//clusters/c/async_task_status/update_ecs_agency: unknown status {shown!r}"
    )


async def test_an_answer_that_cannot_be_decompressed() -> None:
    """A gzip that is none is an answer that cannot be read."""
    headers = {"Content-Encoding": "gzip"}
    assert await error_of(READS["cluster"](_streamed(b"no gzip", headers))) == (
        "ServerTrouble: MRS GET v1.1//cluster_infos/c: the answer cannot be decompressed"
    )


FIELDS = (
    "cluster server metadata agency_name agencies name expire_time node_total nodes node_name server_info totalCount "
    "alarms alarmId occurTime maskedAlarms Status hosts instances commands maintenanceMode failedEntities startTime"
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS.split()), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("read", READS)
@settings(max_examples=40, deadline=None)
@given(content=JSON)
async def test_any_json_is_an_answer_or_an_error_of_ours(read: str, content: Any) -> None:
    """Whatever the fields hold, nothing but our errors comes out."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=_json(content))

    with suppress(RunbookError):
        await READS[read](answer)


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()


def _streamed(body: bytes, headers: dict[str, str]) -> Answer:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    return lambda _: httpx.Response(200, headers=headers, content=stream())


def _mrs(answer: Answer) -> Mrs:
    return Mrs("MRS", "http://localhost", patience=ONCE, transport=httpx.MockTransport(answer))


def _manager(answer: Answer) -> Manager:
    return Manager("http://localhost", user="u", password="p", patience=ONCE, transport=httpx.MockTransport(answer))
