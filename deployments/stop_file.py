"""The stop file in a person's hands: what `runbooks stop` writes where the ledger cannot hold, and `resume` removes."""

import os
from pathlib import Path

from rich.console import Console
from rich.text import Text

from deployments.terminal import console
from tasks import timing
from tasks.brakes import NAME, stop_file
from tasks.errors import ConfigurationError
from tasks.home import home


def stop_by_file(reason: str, by: str, why: str = "") -> None:
    """Write the stop file and say so; one that is there already says who was first.

    Raises:
        ConfigurationError, OSError: it cannot be written: nothing is stopped.
    """
    path = home() / NAME
    try:
        first = _write(path, f"{by}, {timing.wall():%Y-%m-%d %H:%M} UTC: {reason}\n")
    except OSError:
        if not stop_file():  # the disk may be full: an empty one stops as well
            raise
        first = True
    said = stop_file()
    if not said:
        raise ConfigurationError(f"the stop file {path} cannot be read back: nothing is stopped")
    console().print(Text(f"{why} everything is stopped by a file{'' if first else ' that was there before'}".strip()))
    console().print(Text(said))
    warn(f"only what runs with RUNBOOKS_HOME={path.parent} sees this file: see to every other machine of yours too")


def _write(path: Path, words: str) -> bool:
    """False: there is one already, and it stays as it is."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(words)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def remove_stop_file(out: Console) -> bool:
    """Take it away; False: there is none."""
    path = home() / NAME
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    out.print(Text(f"removed: the stop file {path}"))
    return True


def warn(words: str) -> None:
    """A warning, beside what a command answers."""
    console(stderr=True).print("[yellow]warning:[/]", Text(words))
