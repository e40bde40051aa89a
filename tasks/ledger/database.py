"""Opening the ledger, and the two ways to use it: reading, and writing alone."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from asyncpg import PostgresError  # type: ignore[import-untyped]  # it carries no types
from sqlalchemy import URL, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from tasks.errors import ConfigurationError, LedgerUnavailable
from tasks.home import home
from tasks.ledger.failures import is_unavailable
from tasks.ledger.schema import HEAD, NEWER, current_revision, is_known, upgrade
from tasks.sharing import shared

URL_VARIABLE = "RUNBOOKS_LEDGER_URL"
WRITERS = 8_117_212_110  # key of the PostgreSQL advisory lock that a writer holds until its commit
PATIENCE = 30.0  # seconds to wait for another writer, or for a connection
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
ADVICE = "write it like postgresql://user@host:5432/runbooks or sqlite:////var/lib/runbooks/ledger.db"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
OPTIONS = {"sqlite": ("timeout", "mode", "uri"), "postgresql": ("host", "port", "ssl", "sslmode")}

_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[URL, AsyncEngine]] = WeakKeyDictionary()  # of shared ones


def ledger_url() -> URL:
    """Where the ledger is: RUNBOOKS_LEDGER_URL, else a file in the home folder.

    Raises:
        ConfigurationError: it is no URL, or not of SQLite or PostgreSQL, or has options that these do not know.
    """
    given = os.environ.get(URL_VARIABLE, "").strip()
    if not given:
        return URL.create(DRIVERS["sqlite"], database=str(home().absolute() / "ledger.db"))
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"{URL_VARIABLE} is no URL: {ADVICE}") from None
    name = url.drivername.partition("+")[0]
    if name not in DRIVERS:
        raise ConfigurationError(f"{URL_VARIABLE} names {name!r}: {ADVICE}")
    url = url.set(drivername=DRIVERS[name])
    return _checked_sqlite(url) if name == "sqlite" else _checked_postgresql(url)


def _checked_sqlite(url: URL) -> URL:
    _check_options(url, OPTIONS["sqlite"])
    if not (url.database or "").startswith(("/", "file:/")):  # else each process would have one of its own
        raise ConfigurationError(f"{URL_VARIABLE} names no file by its whole path, four slashes in all: {ADVICE}")
    try:
        float(str(url.query.get("timeout", "0")))
    except ValueError:
        raise ConfigurationError(f"{URL_VARIABLE}: write its timeout in seconds, like timeout=30") from None
    return url


def _checked_postgresql(url: URL) -> URL:
    """With `sslmode`, as libpq calls it, under the name that the driver has for it."""
    _check_options(url, OPTIONS["postgresql"])
    modes = [mode for name in ("ssl", "sslmode") if (mode := url.query.get(name))]
    if not all(mode in SSL_MODES for mode in modes):
        raise ConfigurationError(f"{URL_VARIABLE}: its sslmode is one of {', '.join(SSL_MODES)}")
    url = url.difference_update_query(("ssl", "sslmode"))
    return url.update_query_pairs([("ssl", str(mode)) for mode in modes[:1]])


def _check_options(url: URL, known: tuple[str, ...]) -> None:
    if unknown := sorted(set(url.query) - set(known)):
        what = f"the option {unknown[0]!r}, which is not known here, only {', '.join(known)}"
        raise ConfigurationError(f"{URL_VARIABLE} has {what}: leave it out")


class Ledger:
    """An open ledger. Made by `open_ledger`; belongs to the event loop it was opened in."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._writers = engine.execution_options(writing=True)
        # SQLite's readers have one state anyway; PostgreSQL's have only by this.
        self._readers = engine if self.embedded else engine.execution_options(isolation_level="REPEATABLE READ")
        self._turn = asyncio.Lock()

    @property
    def embedded(self) -> bool:
        """Whether it is a file of this machine."""
        return self.engine.dialect.name == "sqlite"

    def __str__(self) -> str:
        return self.engine.url.set(query={}).render_as_string(hide_password=True)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that sees one state of the ledger.

        Raises:
            LedgerUnavailable: it does not answer.
        """
        async with self._answering(), AsyncSession(self._readers, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A session that writes, the only one at this time; left without an error it is committed, to the disk.

        Raises:
            LedgerUnavailable: it does not answer, or cannot write; nothing was written, unless the connection broke
                within the commit.
        """
        async with (
            self._answering(),
            self._turn,  # those of this process wait in order, and without a connection each
            AsyncSession(self._writers, expire_on_commit=False) as session,
            session.begin(),
        ):
            if self.embedded:
                await session.connection()  # which says BEGIN IMMEDIATE
            else:
                await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITERS})
            yield session

    async def close(self) -> None:
        """Close its connections."""
        await self.engine.dispose()

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            yield
        except (DBAPIError, PostgresError, PoolTimeout, OSError) as error:
            if isinstance(error, DBAPIError | PostgresError) and not is_unavailable(error):
                raise  # a mistake of ours, or data that no database takes: it would be tried again for ever
            cause = error.orig if isinstance(error, DBAPIError) else error
            why = " ".join(str(cause).split()) or type(cause).__name__
            if self.embedded:  # the driver's thread of a connection that failed has a last word for this event loop
                await asyncio.sleep(0.01)
            raise LedgerUnavailable(f"the ledger {self} does not answer ({why}): it is tried again") from error


@asynccontextmanager
async def open_ledger(url: URL | None = None) -> AsyncIterator[Ledger]:
    """Open the ledger while the block runs. A SQLite file is made, and its schema brought up to date.

    Raises:
        ConfigurationError: the URL cannot be used, or the schema of a PostgreSQL ledger is not this version's.
        LedgerUnavailable: it does not answer.
    """
    async with _opened(_engine(url or ledger_url())) as ledger:
        yield ledger


@asynccontextmanager
async def shared_ledger() -> AsyncIterator[Ledger]:
    """The ledger, opened by the first of a process who needs it and closed by the last: many runs, few connections.

    What is closed are the connections. The engine is kept, for the mappers hold on to the statements that they compiled
    for each one: 60 KB apiece, hundreds of them.

    Raises:
        ConfigurationError, LedgerUnavailable: as in `open_ledger`.
    """
    url = ledger_url()
    engines = _engines.setdefault(asyncio.get_running_loop(), {})
    if url not in engines:
        engines[url] = _engine(url)
    async with shared(("ledger", url), lambda stack: stack.enter_async_context(_opened(engines[url]))) as ledger:
        yield ledger


@asynccontextmanager
async def _opened(engine: AsyncEngine) -> AsyncIterator[Ledger]:
    ledger = Ledger(engine)
    try:
        await check_schema(ledger)
        yield ledger
    finally:
        await ledger.close()


async def check_schema(ledger: Ledger) -> None:
    """Make sure that the schema is this version's; that of an embedded ledger is upgraded.

    Raises:
        ConfigurationError: it is another one; says what to do.
    """
    async with ledger.reading() as session:
        found = await (await session.connection()).run_sync(current_revision)
    if found == HEAD:
        return
    if ledger.embedded:
        await upgrade_schema(ledger)
        return
    if found and not is_known(found):
        raise ConfigurationError(f"the schema {found} of the ledger {ledger} {NEWER}")
    was = f"has the schema {found}" if found else "has no schema yet"
    raise ConfigurationError(f"the ledger {ledger} {was}, this version needs {HEAD}: run `runbooks ledger upgrade`")


async def upgrade_schema(ledger: Ledger) -> tuple[str, str]:
    """Bring the schema up to date; returns the revision before (empty: none) and after.

    Raises:
        ConfigurationError: the schema is one this version does not know, made by a newer one.
    """
    async with ledger.writing() as session:
        return await (await session.connection()).run_sync(upgrade)


@asynccontextmanager
async def unchecked_ledger(url: URL | None = None) -> AsyncIterator[Ledger]:
    """The ledger whatever its schema, for `runbooks ledger`."""
    ledger = Ledger(_engine(url or ledger_url()))
    try:
        yield ledger
    finally:
        await ledger.close()


def _engine(url: URL) -> AsyncEngine:
    try:
        if url.drivername.startswith("sqlite"):
            patience = {} if "timeout" in url.query else {"timeout": PATIENCE}
            engine = create_async_engine(url, connect_args=patience, pool_timeout=PATIENCE)
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
            return engine
        settings = {
            "application_name": "runbooks",
            "lock_timeout": f"{PATIENCE:.0f}s",
            # A machine that vanishes in the middle of writing must not keep all others waiting.
            "idle_in_transaction_session_timeout": f"{PATIENCE:.0f}s",
        }
        arguments = {"timeout": PATIENCE, "command_timeout": 2 * PATIENCE, "server_settings": settings}
        return create_async_engine(url, pool_pre_ping=True, pool_timeout=PATIENCE, connect_args=arguments)
    except (NoSuchModuleError, ArgumentError) as error:
        raise ConfigurationError(f"{URL_VARIABLE} cannot be used ({error})") from error


def _prepare_sqlite(connection: DBAPIConnection, _: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    # FULL: in WAL mode only that makes a commit wait for the disk. The cache, in KiB: with the usual 2 MiB each commit
    # reads the pages of its indexes anew once the ledger has grown.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "cache_size = -32768"):
        try:
            cursor.execute(f"PRAGMA {pragma}")
        except sqlite3.OperationalError:
            if not pragma.startswith("journal_mode"):  # another process is switching it right now
                raise
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
