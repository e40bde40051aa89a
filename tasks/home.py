"""Where this machine keeps what must outlive a process: tickets, claims, suspended logins."""

import os
from pathlib import Path


def home() -> Path:
    """The folder named by RUNBOOKS_HOME (default `~/.mrs-runbooks`), made when missing, for its owner only."""
    path = Path(os.environ.get("RUNBOOKS_HOME") or Path.home() / ".mrs-runbooks")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
