"""The processes of the crash matrix, each started again when it dies: PostgreSQL, Prefect on it, an intake."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from sqlalchemy import URL, make_url

from deployments.processes import free_port, last_words, python_process
from deployments.stack import POOL, PREFECT_YAML
from deployments.worker import NOTHING_TO_TEMPLATE, SegmentWorker
from tasks.blocks import Cluster
from tasks.errors import LedgerUnavailable
from tasks.ledger.database import DRIVERS, open_ledger, unchecked_ledger, upgrade_schema
from tests.bench.servers import database_files
from tests.crash.stand import LEASE, Kept, Stand
from tests.crash.wires import LOOPBACK

UP_WITHIN = 120.0


@asynccontextmanager
async def stand(folder: Path, lease: float = LEASE) -> AsyncIterator[Stand]:
    """Prefect on PostgreSQL, a ledger there, an intake; logs and tickets are in the folder.

    Args:
        lease: of the runs, in seconds.
    """
    async with _postgresql(folder) as (database, address):
        for name in ("prefect", "ledger"):
            async with unchecked_ledger(address) as server, server.engine.connect() as connection:
                outside = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await outside.exec_driver_sql(f"CREATE DATABASE {name}")
        ledger_url = address.set(database="ledger")
        async with _prefect(folder, address.set(database="prefect")) as (server_, api):
            async with unchecked_ledger(ledger_url) as fresh:
                await upgrade_schema(fresh)
            with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: folder / "prefect"}):
                async with get_client() as client, open_ledger(ledger_url) as ledger:
                    await client.create_work_pool(
                        WorkPoolCreate(name=POOL, type=SegmentWorker.type, base_job_template=NOTHING_TO_TEMPLATE)
                    )
                    await Cluster.register_type_and_schema(client=client)
                    deploy = ("-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_YAML))
                    async with python_process(deploy, folder, "deploy", api) as process:
                        if await process.wait():
                            raise RuntimeError(f"the deployments were not made: {last_words(folder, 'deploy')}")
                    deployment = (await client.read_deployment_by_name("alm-12110/from-alarms")).id
                    made = Stand(client, api, ledger, ledger_url, deployment, folder, free_port(), lease)
                    async with _intake(made) as intake:
                        made.processes |= {"postgresql": database, "prefect": server_, "intake": intake}
                        yield made


@asynccontextmanager
async def _postgresql(folder: Path) -> AsyncIterator[tuple[Kept, URL]]:
    """A server and the URL of its first database; without fsync, for the machine stays up. Its log is in the folder."""
    async with database_files() as (program, files, options):
        port = free_port()
        settings = (f"port={port}", f"listen_addresses={LOOPBACK}", f"unix_socket_directories={files}", "fsync=off")
        switches = [each for setting in settings for each in ("-c", setting)]
        command: list[str | Path] = [program, "-D", files / "db", *switches]
        address = make_url(f"{DRIVERS['postgresql']}://owner@{LOOPBACK}:{port}/postgres")
        async with Kept(command, {}, folder / "postgresql.log", **options) as server:
            await answering(address)
            yield server, address


async def answering(address: URL) -> None:
    """Return as soon as the database answers."""
    async with asyncio.timeout(UP_WITHIN), unchecked_ledger(address) as server:
        while True:
            try:
                async with server.reading() as session:
                    await session.connection()
                return
            except LedgerUnavailable:
                await asyncio.sleep(0.2)


@asynccontextmanager
async def _prefect(folder: Path, database: URL) -> AsyncIterator[tuple[Kept, str]]:
    """A Prefect server, and the URL of its API."""
    port = free_port()
    api = f"http://{LOOPBACK}:{port}/api"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.render_as_string(hide_password=False),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = ("-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port))
    async with Kept(command, environment, folder / "server.log") as server:
        await healthy(api)
        yield server, api


async def healthy(api: str) -> None:
    """Return as soon as the Prefect server answers."""
    async with asyncio.timeout(UP_WITHIN), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(f"{api}/health")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.3)


@asynccontextmanager
async def _intake(stand_: Stand) -> AsyncIterator[Kept]:
    """`runbooks intake` with syslog on the stand's port."""
    config = stand_.home / "intake.toml"
    config.write_text(f"[http]\nport = {free_port()}\n[syslog]\nport = {stand_.syslog}\n[polling]\nenabled = false\n")
    environment = stand_.environment(stand_.api, int(stand_.ledger_url.port or 0), "intake")
    command = ("-c", "from deployments.cli import main; main()", "intake", "--config", str(config))
    async with Kept(command, environment, stand_.home / "intake.log") as intake:
        yield intake
