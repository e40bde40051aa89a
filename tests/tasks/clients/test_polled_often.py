"""What lets a thousand Managers be read every minute: shared trust, closed connections, and their clocks."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import trustme

from deployments.emulator.alarms import ECS_KEYS
from tasks.clients.http import Api, trusting
from tests.tasks.clients.conftest import World

pytestmark = pytest.mark.anyio


def test_the_same_ca_is_read_once(tmp_path: Path) -> None:
    """As text, as a file or the system's: who names the same shares it, and a file that was replaced is read anew."""
    ours, other, file = trustme.CA().cert_pem, trustme.CA().cert_pem, tmp_path / "ca.pem"
    ours.write_to_path(str(file))
    texts = [trusting("", each.bytes().decode()) for each in (ours, ours, other)]
    files = [trusting(str(file)), trusting(str(file))]
    file.unlink()
    other.write_to_path(str(file))
    files.append(trusting(str(file)))
    for first, second, third in (texts, files):
        assert first is second
        assert first.get_ca_certs() != third.get_ca_certs()
    assert trusting("") is trusting("")


@pytest.mark.parametrize(
    ("date", "clock"),
    [
        ("Mon, 05 Jan 2026 03:04:05 GMT", datetime(2026, 1, 5, 3, 4, 5, tzinfo=UTC)),
        ("Mon, 05 Jan 2026 03:04:05 +0200", datetime(2026, 1, 5, 1, 4, 5, tzinfo=UTC)),
        ("Mon, 05 Jan 2026 03:04:05 -0000", datetime(2026, 1, 5, 3, 4, 5, tzinfo=UTC)),
        ("yesterday", None),
        ("Mon, 99 Jan 2026 03:04:05 GMT", None),
        (None, None),
    ],
)
async def test_the_clock_is_the_date_of_the_last_answer(date: str | None, clock: datetime | None) -> None:
    """In UTC; an answer without a date that can be read leaves none, whatever the one before said."""
    dates = iter(["Sun, 04 Jan 2026 00:00:00 GMT", date])

    def answer(request: httpx.Request) -> httpx.Response:
        said = next(dates)
        return httpx.Response(200, headers={"Date": said} if said else {}, json={})

    async with Api("ECS", "http://127.0.0.1", transport=httpx.MockTransport(answer)) as api:
        assert api.clock is None
        await api.read("servers")
        assert api.clock == datetime(2026, 1, 4, tzinfo=UTC)
        await api.read("servers")
        assert api.clock == clock


async def test_managers_clock_is_its_own(world: World) -> None:
    """What the emulated Manager's wrong clock shows."""
    world.region.set_fault("clock-skew", world.cluster, seconds=7200)
    manager = await world.manager()
    await manager.clusters()
    assert manager.clock == datetime(2026, 1, 5, 2, tzinfo=UTC)


@pytest.mark.parametrize(("keep_alive", "connections"), [(True, 1), (False, 2)])
async def test_a_client_that_asks_rarely_keeps_no_connection(keep_alive: bool, connections: int) -> None:
    """Two reads take one connection where it is kept, and one each where it is not."""
    opened: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Api("ECS", f"http://127.0.0.1:{port}", keep_alive=keep_alive) as api:
            assert [await api.read("servers"), await api.read("servers")] == [{}, {}]
    assert len(opened) == connections


async def test_one_serial_number_is_asked_for(world: World) -> None:
    """Only the occurrences with it come, active or cleared."""
    hosts = list(world.cluster.hosts.values())
    for host in hosts:
        world.region.alarms.raise_alarm(host, ECS_KEYS)
    manager = await world.manager()
    found = await manager.alarms(ECS_KEYS, status="all", serial="1002")
    assert [(alarm.host, alarm.serial) for alarm in found] == [(hosts[1].name, "1002")]
    assert await manager.alarms(ECS_KEYS, status="all", serial="9") == ()
