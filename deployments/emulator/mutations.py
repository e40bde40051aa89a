"""What happened: the mutating calls the region accepted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Mutation:
    """A mutating call that was accepted: when (emulated), by whom, what, on what, in which cluster (UUID)."""

    at: datetime
    who: str
    action: str
    target: str
    cluster: str
    detail: Mapping[str, object] = field(default_factory=dict)
