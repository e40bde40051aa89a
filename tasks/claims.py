"""One acting run per cluster: the run that holds the claim acts, any other joins it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from tasks.errors import ConfigurationError
from tasks.home import home
from tasks.models import Case


@contextmanager
def claimed(case: Case, who: str, *, cluster_id: str = "") -> Iterator[str]:
    """Hold the cluster for as long as the block runs, if it is free.

    The claim is a lock on a file of this machine: it ends with its process, however that ends.

    Args:
        who: the run that asks, for the others to find it.
        cluster_id: the cluster's id in the cloud: two blocks of one cluster are one claim. Empty: the block's name.

    Yields:
        Empty text where the claim is ours, else who holds it. Dry runs change nothing and claim nothing.

    Raises:
        ConfigurationError: no claim can be kept for this name, or in this home.
    """
    if case.dry_run:
        yield ""
        return
    folder = home() / "claims"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        name = quote(f"{cluster_id or case.cluster}-{case.alarm_id}", safe="")  # leads out of no folder
        opened = (folder / name).open("a+", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cluster {case.cluster!r} cannot be claimed in {folder}: {error.strerror}") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            yield file.read() or "another run"
            return
        file.truncate(0)
        file.write(who)
        file.flush()
        yield ""
