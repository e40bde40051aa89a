"""The desk where every source hands in what it heard: written to the ledger first, answered then."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, Protocol

from tasks.models import Observation

Source = Literal["syslog", "smn", "webhook", "poll", "command"]
Reason = Literal[
    "malformed",  # not what its format says; garbage
    "unauthenticated",  # no or a wrong token, signature or certificate
    "not-allowed",  # from a network or for a topic that the configuration does not name
    "stale",  # its timestamp is too far from our clock
    "replayed",  # its message id was accepted before
    "unknown-cluster",
    "ambiguous-cluster",  # two cluster blocks have this name
    "no-runbook",  # no runbook for this alarm id
    "no-host",  # an alarm whose host nobody names
    "event",  # a category 2 message: no alarm
]


@dataclass(frozen=True)
class Delivery:
    """One observation as it was handed in.

    Attributes:
        peer: who handed it in: an IP address, or a user name.
        digest: SHA-256 of what was received, in hex (`digest_of`).
        excerpt: the beginning of what was received, for the list of what was rejected; no secrets.
    """

    source: Source
    peer: str
    digest: str
    observation: Observation
    excerpt: str = ""


@dataclass(frozen=True)
class Receipt:
    """What became of one delivery: it is on disk, whatever it says here.

    Attributes:
        what: `accepted` is new; `duplicate` was known; `rejected` starts nothing and is listed with its reason.
        why: one sentence, for a person.
        episode: the id of the episode it belongs to; empty where it belongs to none.
    """

    what: Literal["accepted", "duplicate", "rejected"]
    why: str
    reason: Reason | None = None
    episode: str = ""


class Desk(Protocol):
    """What a source may ask of the intake. Every method returns after the commit.

    All raise LedgerUnavailable when the ledger cannot be written now: nothing was accepted, try again later.
    """

    async def accept(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        """Write these observations down; one receipt each, in order."""

    async def reject(self, source: Source, peer: str, reason: Reason, why: str, received: bytes) -> None:
        """Write down that something could not be used: `why` says what was wrong, where, what to do."""

    async def heard(self, source: Source, peer: str) -> None:
        """Note that a source is alive: a heartbeat, or anything else that proves it."""

    async def first_time(self, source: Source, message_id: str) -> bool:
        """Whether a message id is new; from now on it is not. Kept as long as a timestamp may be old, and longer."""


def digest_of(received: bytes) -> str:
    """SHA-256 in hex."""
    return sha256(received).hexdigest()


def excerpt_of(received: bytes, length: int = 200) -> str:
    """Its beginning, printable."""
    text = received[: 4 * length].decode("utf-8", "replace")
    if not text.isprintable():  # a tenth of the time where it is
        text = "".join(letter if letter.isprintable() else "·" for letter in text)
    return text[:length]
