"""The lines of a run's record, and the words in which they are told."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tasks.models import Outcome

NO_HOST = "(no host)"
WHOLE_CLUSTER = "(the cluster)"

# A run of several hosts is named after the part that most needs a person.
WORST_FIRST = (
    Outcome.ERROR,
    Outcome.CANNOT_TELL,
    Outcome.REFUSED,
    Outcome.DECLINED,
    Outcome.CANCELLED,
    Outcome.ESCALATE,
    Outcome.DRY_RUN,
    Outcome.END,
    Outcome.CLEARED_BY_PERSON,
    Outcome.CLEARED,
    Outcome.JOINED,
)
NEEDS_A_PERSON = frozenset(
    {Outcome.ERROR, Outcome.CANNOT_TELL, Outcome.REFUSED, Outcome.DECLINED, Outcome.CANCELLED, Outcome.ESCALATE}
)

Kind = Literal["asked", "did", "ended"]


@dataclass(frozen=True)
class Entry:
    """One line of the record: when, at which step of the page, about which host, in words.

    Attributes:
        answer: to the step's question, in a word or two; empty: the line answers none.
    """

    at: datetime
    step: str
    host: str
    kind: Kind
    text: str
    answer: str = ""


@dataclass(frozen=True)
class End:
    """How one host's part ended, and at which step of the page (empty: at none in particular)."""

    outcome: Outcome
    step: str
