"""Who is logged in on a Manager: passwords, the lock after five wrong ones, and sessions that end when idle.

Source: MRS Manager guides (a user is locked for 5 minutes after 5 wrong passwords); the idle time of 20 minutes is
that of the older Manager.
"""

import base64
import binascii
import hmac
from enum import Enum

from deployments.emulator.clock import Clock
from deployments.emulator.inventory import Cluster, secret

COOKIE = "JSESSIONID"
IDLE_SECONDS = 20 * 60
WRONG_PASSWORDS = 5
LOCKED_SECONDS = 5 * 60


class Login(Enum):
    """What Manager says to a user and password."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    LOCKED = "locked"


class Sessions:
    """The logins of every Manager of the region."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def login(self, cluster: Cluster, authorization: str) -> Login:
        """Check an `Authorization: Basic` header; wrong passwords of the user count, a right one resets the count."""
        user, _, password = _decoded(authorization).partition(":")
        if user == cluster.viewer_user and password == cluster.viewer_password:
            return Login.ACCEPTED
        if user != cluster.manager_user:
            return Login.REJECTED
        if self._clock.elapsed < cluster.locked_until:
            return Login.LOCKED
        if hmac.compare_digest(password.encode(), cluster.manager_password.encode()):
            cluster.wrong_passwords = 0
            return Login.ACCEPTED
        cluster.wrong_passwords += 1
        if cluster.wrong_passwords >= WRONG_PASSWORDS:
            cluster.wrong_passwords = 0
            cluster.locked_until = self._clock.elapsed + LOCKED_SECONDS
        return Login.REJECTED

    def open(self, cluster: Cluster, authorization: str = "") -> str:
        """A new session of whoever logs in so; answers its id."""
        session = secret(32, cluster.id, "session", cluster.next_session)
        cluster.next_session += 1
        cluster.sessions[session] = self._clock.elapsed
        if _decoded(authorization).partition(":")[0] == cluster.viewer_user:
            cluster.viewing.add(session)
        return session

    def user(self, cluster: Cluster, session: str | None, authorization: str) -> str:
        """Who calls: the session's user where there is one, else the one that logs in with the call."""
        if session in cluster.sessions:
            return cluster.viewer_user if session in cluster.viewing else cluster.manager_user
        return _decoded(authorization).partition(":")[0]

    def alive(self, cluster: Cluster, session: str | None) -> bool:
        """Whether the session lives; using it keeps it alive."""
        if session is None or session not in cluster.sessions:
            return False
        if self._clock.elapsed - cluster.sessions[session] > IDLE_SECONDS:
            del cluster.sessions[session]
            return False
        cluster.sessions[session] = self._clock.elapsed
        return True


def _decoded(authorization: str) -> str:
    scheme, _, encoded = authorization.partition(" ")
    try:
        return base64.b64decode(encoded, validate=True).decode() if scheme.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        return ""
