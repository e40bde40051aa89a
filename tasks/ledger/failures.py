"""Which errors of a database pass when it is tried again, or when an operator has seen to the database. Pure."""

import sqlite3

from asyncpg import PostgresError  # type: ignore[import-untyped]  # it carries no types
from sqlalchemy.exc import DBAPIError

# By PostgreSQL's classes and codes. Left out: what is wrong with a statement or its data, which no retry mends.
POSTGRESQL = (
    "08",  # the connection
    "25006",  # read-only: a standby
    "28",  # a role or password that is refused
    "3D",  # no such database
    "40",  # rolled back: a deadlock
    "42501",  # a right that is missing
    "53",  # no more disk, memory or connections
    "55",  # a lock that was not given in time
    "57",  # being shut down or started
    "58",  # the system's input and output
)
SQLITE = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)


def is_unavailable(error: DBAPIError | PostgresError) -> bool:
    """Whether the database is what is wrong, and not what was asked of it.

    Args:
        error: SQLAlchemy's, or the driver's own: so it comes while it connects.
    """
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        # The code's low byte; the others say more precisely what it was. An error of Python's module has none.
        return getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in SQLITE
    return str(getattr(cause, "sqlstate", None) or "").startswith(POSTGRESQL)
