"""One rejected password suspends that login, for every process of this machine, until the block changes.

Manager locks a user after five wrong passwords, and a locked user locks people out too.
"""

import hashlib
import hmac
import os
from pathlib import Path

from tasks.errors import LoginSuspended
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

    def check(self) -> None:
        """Let a login pass, unless this very password was rejected before.

        Raises:
            LoginSuspended: it was; no request was sent.
        """
        try:
            salt, digest = self._marker.read_bytes().split(b":")
        except FileNotFoundError:
            return
        if hmac.compare_digest(digest, self._digest(salt)):
            why = f"the password of user {self.user!r} was rejected by {self.url}: no further login until it is changed"
            raise LoginSuspended("Manager login", f"{why} in the Manager block (Manager locks a user after 5)")
        self._marker.unlink(missing_ok=True)

    def suspend(self) -> None:
        """Remember that this password was rejected."""
        marker = self._marker
        marker.parent.mkdir(mode=0o700, exist_ok=True)
        salt = os.urandom(16).hex().encode()
        written = marker.with_suffix(f".{os.getpid()}")
        written.write_bytes(salt + b":" + self._digest(salt))
        written.replace(marker)

    def _digest(self, salt: bytes) -> bytes:
        return hashlib.scrypt(self._password, salt=salt, n=2**14, r=8, p=1).hex().encode()
