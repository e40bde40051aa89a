"""Opening the ledger: a file of its own by default, PostgreSQL where that is said, and a sentence where it fails."""

import asyncio
import sqlite3
import stat
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, MetaData, Table, inspect, make_url, select, text
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tasks.errors import ConfigurationError, LedgerUnavailable
from tasks.ledger import approval_tables, evidence_tables, fleet_tables, ticket_tables
from tasks.ledger.columns import Table as Tables
from tasks.ledger.database import (
    DRIVERS,
    Ledger,
    check_schema,
    ledger_url,
    open_ledger,
    shared_ledger,
    unchecked_ledger,
    upgrade_schema,
)
from tasks.ledger.receiving import heard, sync_clusters
from tasks.ledger.schema import HEAD, MIGRATIONS, NEWER
from tasks.ledger.tables import Cluster, Episode, Occurrence, SourceRow
from tests.conftest import order
from tests.ledger.conftest import NOW, a_cluster, with_driver

TABLES = (approval_tables, evidence_tables, fleet_tables, ticket_tables)  # only what is imported is compared

pytestmark = pytest.mark.anyio
ADVICE = "write it like postgresql://user@host:5432/runbooks or sqlite:////var/lib/runbooks/ledger.db"
SECRET = "hunter2"


async def _fetch(ledger: Ledger, statement: str) -> object:
    async with ledger.reading() as session:
        return await session.scalar(text(statement))


async def _write(ledger: Ledger, peer: str = "") -> None:
    async with ledger.writing() as session:
        await heard(session, {("smn", peer)}, NOW)


async def test_what_is_compiled_for_a_shared_ledger_is_kept_and_its_connections_are_not(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opens the shared ledger after it was closed gets its engine again, which has no connection meanwhile."""
    plain = url.set(drivername=url.get_backend_name())
    monkeypatch.setenv("RUNBOOKS_LEDGER_URL", plain.render_as_string(hide_password=False))
    engines: list[AsyncEngine] = []
    for source in ("first", "second"):
        async with shared_ledger() as ledger, shared_ledger() as other:
            assert other is ledger
            await _write(ledger, source)
            assert await _fetch(ledger, "SELECT count(*) FROM sources") == len(engines) + 1
            engines.append(ledger.engine)
        none = "Pool size: 5  Connections in pool: 0 Current Overflow: -5 Current Checked out connections: 0"
        assert ledger.engine.pool.status() == none
    assert engines[0] is engines[1]


async def test_the_default_is_a_file_at_home(runbooks_home: Path) -> None:
    """Without a setting the ledger is a file in the home folder, which is made and gets its schema when opened."""
    async with open_ledger() as ledger:
        assert str(ledger) == f"sqlite+aiosqlite:///{runbooks_home}/ledger.db"
        assert await _fetch(ledger, "SELECT version_num FROM alembic_version") == HEAD
    assert stat.S_ISREG((runbooks_home / "ledger.db").stat().st_mode)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("sqlite:////var/ledger.db", "sqlite+aiosqlite:////var/ledger.db"),
        ("sqlite+pysqlite:////var/ledger.db?timeout=3", "sqlite+aiosqlite:////var/ledger.db?timeout=3"),
        ("postgresql://user@host:5432/runbooks", "postgresql+asyncpg://user@host:5432/runbooks"),
        ("postgres://user@host/runbooks", "postgresql+asyncpg://user@host/runbooks"),
        ("postgresql+psycopg://user@host/runbooks", "postgresql+asyncpg://user@host/runbooks"),
        ("postgresql://host/runbooks?sslmode=require", "postgresql+asyncpg://host/runbooks?ssl=require"),
        ("  postgresql://host/runbooks?ssl=disable  ", "postgresql+asyncpg://host/runbooks?ssl=disable"),
    ],
)
def test_urls(monkeypatch: pytest.MonkeyPatch, given: str, url: str) -> None:
    """A URL is taken as people write it, and names the drivers that the ledger uses."""
    monkeypatch.setenv("RUNBOOKS_LEDGER_URL", given)
    assert ledger_url().render_as_string(hide_password=False) == url


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (SECRET, f" is no URL: {ADVICE}"),
        (f"postgresql://user:{SECRET}@host:port/runbooks", f" is no URL: {ADVICE}"),
        (f"mysql://user:{SECRET}@host/runbooks", f" names 'mysql': {ADVICE}"),
        ("sqlite://", f" names no file by its whole path, four slashes in all: {ADVICE}"),
        ("sqlite:///ledger.db", f" names no file by its whole path, four slashes in all: {ADVICE}"),
        ("sqlite:///:memory:", f" names no file by its whole path, four slashes in all: {ADVICE}"),
        ("sqlite:////var/ledger.db?timeout=soon", ": write its timeout in seconds, like timeout=30"),
        (
            f"postgresql://user:{SECRET}@host/runbooks?sslmode=perhaps",
            ": its sslmode is one of disable, allow, prefer, require, verify-ca, verify-full",
        ),
        (
            f"postgresql://user:{SECRET}@host/runbooks?options=-c",
            " has the option 'options', which is not known here, only host, port, ssl, sslmode: leave it out",
        ),
        (
            "sqlite:////var/ledger.db?cache=shared",
            " has the option 'cache', which is not known here, only timeout, mode, uri: leave it out",
        ),
    ],
)
async def test_bad_urls(monkeypatch: pytest.MonkeyPatch, given: str, said: str) -> None:
    """A URL that cannot be used is refused in a sentence that says what to write, and never shows what was written."""
    monkeypatch.setenv("RUNBOOKS_LEDGER_URL", given)
    with pytest.raises(ConfigurationError) as refused:
        async with open_ledger():
            pass
    assert str(refused.value) == f"RUNBOOKS_LEDGER_URL{said}"
    assert SECRET not in str(refused.value)


async def test_commits_wait_for_the_disk(tmp_path: Path) -> None:
    """What SQLite has committed is on the disk, whatever happens to the machine, and readers do not block writers."""
    async with open_ledger(make_url(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")) as ledger:
        pragmas = [await _fetch(ledger, f"PRAGMA {name}") for name in ("journal_mode", "synchronous", "foreign_keys")]
        async with ledger.writing() as session:
            written = await session.scalar(text("PRAGMA synchronous"))
    assert (pragmas, written) == (["wal", 2, 1], 2)


def _differences(connection: Connection) -> list[object]:
    """What the tables say otherwise than the schema."""
    return list(compare_metadata(MigrationContext.configure(connection), Tables.metadata))


async def test_the_migrations_make_what_the_tables_say(ledger: Ledger) -> None:
    """The schema that the migrations make is the one of the tables, in every column and index, on both databases."""
    async with ledger.reading() as session:
        assert await (await session.connection()).run_sync(_differences) == []


def test_the_last_migration_is_the_one_that_is_checked() -> None:
    """The revision that this version asks for is the last one of its migrations, and there is one line of them."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    found = [each.revision for each in scripts.walk_revisions()]
    assert found == sorted(found, reverse=True)
    assert (scripts.get_heads(), found[0], found[-1]) == ([HEAD], HEAD, "0001")


OF_0001: dict[str, list[dict[str, object]]] = {
    "clusters": [
        {"name": "alpha", "cluster_id": "c-1", "source": "prod", "speed": 1.0, "connected": NOW, "gone": None},
        {"name": "beta", "cluster_id": "c-2", "source": "test", "speed": 50.0, "connected": NOW, "gone": NOW},
    ],
    "episodes": [
        {
            "id": "e-1",
            "cluster_id": "c-1",
            "cluster": "alpha",
            "alarm_id": "12110",
            "state": "running",
            "opened": NOW,
            "opened_by": "syslog",
            "backlog": "",
            "raised": NOW,
            "n": 1,
            "run": "run-1",
            "runs": 1,
            "holder": "run-1",
            "link": "a link",
            "token": 7,
            "lease": NOW,
            "claimed": NOW,
            "acted": True,
            "outcome": "",
            "ticket": "",
            "verify_until": None,
            "closed": None,
            "wake": True,
        }
    ],
    "occurrences": [
        {
            "id": "o-1",
            "cluster_id": "c-1",
            "alarm_id": "12110",
            "host": "node-1",
            "serial": "17",
            "occurred": NOW,
            "first_seen": NOW,
            "last_seen": NOW,
            "cleared": None,
            "cleared_seen": None,
            "cleared_by": "",
            "episode_id": "e-1",
            "ended": "",
            "trace": "",
            "place": "c-1/node-1",
        }
    ],
}


def _make_0001(connection: Connection) -> None:
    """The first schema, with rows in its tables."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")
    for name, rows in OF_0001.items():
        connection.execute(Table(name, MetaData(), autoload_with=connection).insert(), rows)


def _names(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def _upgraded(url: URL) -> None:
    """The ledger at this URL has the last schema, and what the first one held is in it as it was."""
    async with open_ledger(url) as ledger:
        async with ledger.reading() as session:
            connection = await session.connection()
            assert await connection.run_sync(_differences) == []
            clusters = (await session.scalars(select(Cluster).order_by(Cluster.name))).all()
            episodes = (await session.scalars(select(Episode))).all()
            occurrences = (await session.scalars(select(Occurrence))).all()
        shared: dict[str, object] = {"account": "", "agency": "", "tickets": ""}
        found = {"clusters": clusters, "episodes": episodes, "occurrences": occurrences}
        assert {
            name: [{column.key: getattr(row, column.key) for column in row.__table__.columns} for row in rows]
            for name, rows in found.items()
        } == {**OF_0001, "clusters": [row | shared for row in OF_0001["clusters"]]}
        async with ledger.writing() as session:
            session.add(a_cluster("gamma"))
        assert await upgrade_schema(ledger) == (HEAD, HEAD)


async def test_a_file_of_the_first_schema_is_upgraded_when_opened(tmp_path: Path) -> None:
    """A SQLite file that an older version has filled gets the last schema when it is opened, and keeps its rows."""
    url = URL.create(DRIVERS["sqlite"], database=str(tmp_path / "ledger.db"))
    async with unchecked_ledger(url) as ledger, ledger.writing() as session:
        await (await session.connection()).run_sync(_make_0001)
    await _upgraded(url)


async def test_a_postgresql_of_the_first_schema_is_upgraded_by_a_person(postgresql_database: str) -> None:
    """A filled PostgreSQL of an older version is left alone when opened, says what to run, and then keeps its rows."""
    url = with_driver(postgresql_database)
    async with unchecked_ledger(url) as ledger:
        async with ledger.writing() as session:
            await (await session.connection()).run_sync(_make_0001)
        with pytest.raises(ConfigurationError) as refused:
            await check_schema(ledger)
        assert str(refused.value) == (
            f"the ledger {ledger} has the schema 0001, this version needs {HEAD}: run `runbooks ledger upgrade`"
        )
        async with ledger.reading() as session:
            assert await (await session.connection()).run_sync(_names) & {"intents", "breakers"} == set()
        assert await upgrade_schema(ledger) == ("0001", HEAD)
    await _upgraded(url)


async def test_postgresql_is_upgraded_by_a_person(postgresql_database: str) -> None:
    """A PostgreSQL without a schema is not touched when opened, says what to run, and that may be run twice."""
    url = with_driver(postgresql_database)
    with pytest.raises(ConfigurationError) as refused:
        async with open_ledger(url):
            pass
    shown = url.render_as_string()
    assert str(refused.value) == (
        f"the ledger {shown} has no schema yet, this version needs {HEAD}: run `runbooks ledger upgrade`"
    )
    async with unchecked_ledger(url) as ledger, unchecked_ledger(url) as other:
        done = await asyncio.gather(upgrade_schema(ledger), upgrade_schema(other))
        assert sorted(done) == [("", HEAD), (HEAD, HEAD)]
        assert await upgrade_schema(ledger) == (HEAD, HEAD)
    async with open_ledger(url) as ledger:
        assert not ledger.embedded


async def test_a_newer_schema_is_left_alone(url: URL) -> None:
    """A schema of a version that is not known here is neither used nor upgraded."""
    try:
        async with open_ledger(url) as ledger:
            async with ledger.writing() as session:
                await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            with pytest.raises(ConfigurationError) as upgraded:
                await upgrade_schema(ledger)
            with pytest.raises(ConfigurationError) as checked:
                await check_schema(ledger)
        with pytest.raises(ConfigurationError):
            async with open_ledger(url):
                pass
        assert str(upgraded.value) == f"the ledger's schema 9999 {NEWER}"
        assert str(checked.value).endswith(
            f"9999 {NEWER}" if ledger.embedded else f"9999 of the ledger {ledger} {NEWER}"
        )
    finally:
        async with unchecked_ledger(url) as ledger, ledger.writing() as session:
            await session.execute(text(f"UPDATE alembic_version SET version_num = '{HEAD}'"))  # noqa: S608


async def _why_not(url: URL) -> str:
    with pytest.raises(LedgerUnavailable) as unavailable:
        async with open_ledger(url):
            pass
    said = str(unavailable.value)
    assert SECRET not in said
    assert "\n" not in said
    return said


async def test_a_server_that_is_down() -> None:
    """A PostgreSQL that is not there is a ledger that does not answer, named without its password."""
    said = await _why_not(make_url(f"postgresql+asyncpg://user:{SECRET}@127.0.0.1:1/runbooks"))
    assert said.startswith("the ledger postgresql+asyncpg://user:***@127.0.0.1:1/runbooks does not answer (")


async def test_a_database_that_is_missing(postgresql: str) -> None:
    """A database or user that the server does not know is a ledger that does not answer, in the server's words."""
    url = with_driver(postgresql).set(password=SECRET)
    assert '"nowhere" does not exist' in await _why_not(url.set(database="nowhere"))
    assert '"nobody" does not exist' in await _why_not(url.set(username="nobody"))


async def test_a_connection_that_breaks(postgresql_database: str) -> None:
    """A connection that the server ends within a block is a ledger that does not answer, and the next block works."""
    async with unchecked_ledger(with_driver(postgresql_database)) as ledger:
        await upgrade_schema(ledger)

        async def broken() -> None:
            async with ledger.writing() as session:
                mine = await session.scalar(text("SELECT pg_backend_pid()"))
                await asyncio.to_thread(order, postgresql_database, f"SELECT pg_terminate_backend({mine})")
                session.add(a_cluster())

        with pytest.raises(LedgerUnavailable):
            await broken()
        async with ledger.writing() as session:
            assert await session.get(Cluster, "alpha") is None


async def test_a_file_that_is_locked(tmp_path: Path) -> None:
    """A SQLite file that another program keeps locked is a ledger that does not answer."""
    path = tmp_path / "ledger.db"
    async with open_ledger(make_url(f"sqlite+aiosqlite:///{path}?timeout=0.2")) as ledger:
        other = sqlite3.connect(path)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerUnavailable) as unavailable:
            await _write(ledger)
        other.close()
        assert str(unavailable.value) == (
            f"the ledger sqlite+aiosqlite:///{path} does not answer (database is locked): it is tried again"
        )
        await _write(ledger)


async def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    """A SQLite file that may only be read can be read, and is a ledger that does not answer to who writes."""
    path = tmp_path / "ledger.db"
    async with open_ledger(make_url(f"sqlite+aiosqlite:///{path}")) as ledger:
        await _write(ledger)
        async with open_ledger(make_url(f"sqlite+aiosqlite:///file:{path}?mode=ro&uri=true")) as read_only:
            assert await _fetch(read_only, "SELECT count(*) FROM sources") == 1
            with pytest.raises(LedgerUnavailable, match="attempt to write a readonly database"):
                await _write(read_only, "192.0.2.1")


@pytest.mark.parametrize("how", ["folder", "no database"])
async def test_a_file_that_is_none(tmp_path: Path, how: str) -> None:
    """A path that is a folder or another file is a ledger that does not answer, and the file is left as it is."""
    path = tmp_path / "ledger.db"
    path.mkdir() if how == "folder" else path.write_text("notes " * 400)
    await _why_not(make_url(f"sqlite+aiosqlite:///{path}"))
    assert path.is_dir() or path.read_text() == "notes " * 400


async def test_what_no_database_takes_is_not_unavailable(ledger: Ledger) -> None:
    """Text that PostgreSQL cannot keep is an error of its own, which is not to be tried again for ever."""
    if ledger.embedded:
        await _write(ledger, "a\0b")
        async with ledger.reading() as session:
            assert await session.get(SourceRow, ("smn", "a\0b")) is not None
        return
    with pytest.raises(DBAPIError, match="0x00"):
        await _write(ledger, "a\0b")
    await _write(ledger, "ab")


@pytest.mark.parametrize(
    "statement",
    ["SELEC 1", "SELECT * FROM nowhere", "INSERT INTO sources (source) VALUES ('smn')"],
    ids=["no SQL", "no such table", "a column that may not be empty"],
)
async def test_a_mistake_of_ours_is_not_unavailable(ledger: Ledger, statement: str) -> None:
    """A statement that no database takes is an error of its own for readers and writers, on both databases."""
    for using in (ledger.reading, ledger.writing):

        async def execute(using: Callable[[], AbstractAsyncContextManager[AsyncSession]] = using) -> None:
            async with using() as session:
                await session.execute(text(statement))

        with pytest.raises(DBAPIError):
            await execute()
    await _write(ledger)


async def test_times_are_aware(ledger: Ledger) -> None:
    """A naive time is refused, and an aware one comes back as the same moment in UTC."""
    async with ledger.writing() as session:
        await sync_clusters(session, [a_cluster(connected=NOW.astimezone())], NOW)
    async with ledger.reading() as session:
        row = await session.get(Cluster, "alpha")
        assert row is not None
        assert (row.connected, row.connected.tzinfo) == (NOW, NOW.tzinfo)
    async with ledger.writing() as session:
        session.add(a_cluster("beta", connected=NOW.replace(tzinfo=None)))
        with pytest.raises(StatementError, match="aware times only"):
            await session.flush()
        await session.rollback()
