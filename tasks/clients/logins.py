"""One rejected password suspends that login, for every process of this machine, until the block changes.

Manager locks a user after five wrong passwords, and a locked user locks people out too.
"""

import asyncio
import fcntl
import hashlib
import hmac
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from tasks.errors import ConfigurationError, LoginSuspended, Unreachable
from tasks.home import home


class Login:
    """A user at a Manager. What is kept of a rejected password is a salted scrypt digest."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url, self.user = url, user
        self._password = password.encode()

    @property
    def _marker(self) -> Path:
        name = hashlib.sha256(f"{self.url}\n{self.user}".encode()).hexdigest()[:32]
        return home() / "suspended-logins" / name

    @asynccontextmanager
    async def alone(self, *, within: float) -> AsyncIterator[None]:
        """Hold this machine's only right to log the user in, so that one wrong password is not tried by many at once.

        Raises:
            Unreachable: somebody else held it for all of `within` seconds.
            ConfigurationError: the folder for it cannot be written, so a rejection could not be kept either.
        """
        until = time.monotonic() + within
        with self._lock_file() as file:
            while not _locked(file):
                if time.monotonic() > until:
                    raise Unreachable("Manager login", f"another login of {self.user!r} is not answered yet")
                await asyncio.sleep(0.02)
            yield

    def check(self) -> None:
        """Let a login pass, unless this very password was rejected before.

        Raises:
            LoginSuspended: it was; no request was sent.
        """
        try:
            salt, _, digest = self._marker.read_bytes().partition(b":")
        except FileNotFoundError:
            return
        if hmac.compare_digest(digest, self._digest(salt)):
            why = f"the password of user {self.user!r} was rejected by {self.url}: no further login until it is changed"
            raise LoginSuspended("Manager login", f"{why} in the Manager block (Manager locks a user after 5)")
        self._marker.unlink(missing_ok=True)

    def suspend(self) -> None:
        """Remember that this password was rejected."""
        marker = self._marker
        salt = os.urandom(16).hex().encode()
        written = marker.with_suffix(f".{os.getpid()}")
        written.write_bytes(salt + b":" + self._digest(salt))
        written.replace(marker)

    def _lock_file(self) -> IO[bytes]:
        path = self._marker.with_suffix(".lock")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            return path.open("wb")
        except OSError as error:
            raise ConfigurationError(f"{path.parent} cannot be written ({error}): see RUNBOOKS_HOME") from error

    def _digest(self, salt: bytes) -> bytes:
        return hashlib.scrypt(self._password, salt=salt, n=2**14, r=8, p=1).hex().encode()


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with its process, however that ends
    except BlockingIOError:
        return False
    return True
