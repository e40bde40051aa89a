"""The ledger's schema and its migrations, by alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from tasks.errors import ConfigurationError

HEAD = "0005"
MIGRATIONS = Path(__file__).with_name("migrations")
NEWER = "is of a newer version of this program, or of another one: update the program, or name another ledger"


def current_revision(connection: Connection) -> str:
    """The schema's revision; empty where there is none."""
    once = connection.execution_options(compiled_cache=None)  # Alembic makes a new statement each time
    return MigrationContext.configure(once).get_current_revision() or ""


def is_known(revision: str) -> bool:
    """Whether this version has a migration of that name."""
    return revision in {each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions()}


def upgrade(connection: Connection) -> tuple[str, str]:
    """Run the migrations that are missing, in the connection's transaction; returns the revisions before and after.

    Raises:
        ConfigurationError: the schema is of a version unknown here.
    """
    before = current_revision(connection)
    if before and not is_known(before):
        raise ConfigurationError(f"the ledger's schema {before} {NEWER}")
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return before, HEAD


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
