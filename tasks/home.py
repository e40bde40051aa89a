"""Where this machine keeps what must outlive a process: tickets, claims, suspended logins."""

import os
from pathlib import Path

from tasks.errors import ConfigurationError


def home() -> Path:
    """The folder named by RUNBOOKS_HOME (default `~/.mrs-runbooks`), made when missing, for its owner only.

    Raises:
        ConfigurationError: it cannot be made.
    """
    path = Path(os.environ.get("RUNBOOKS_HOME") or Path.home() / ".mrs-runbooks")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the folder {path} cannot be made ({error}): set RUNBOOKS_HOME") from error
    return path
