"""The demo's scenarios: what is broken, and the trace the runbook must leave."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Profile = Literal["assumed", "documented"]


@dataclass(frozen=True)
class Scenario:
    """Faults on a cluster of three nodes whose Meta runs on one, and the trace to be left, per profile.

    On `documented` nothing can be changed: Manager publishes neither a route to restart nor one that says whether the
    alarm is still active, so the run says what to click and hands over.
    """

    faults: tuple[str, ...]
    assumed: str
    documented: str

    def trace(self, profile: Profile) -> str:
        """The trace to be left on this profile."""
        return self.assumed if profile == "assumed" else self.documented


SCENARIOS: Mapping[str, Scenario] = {
    "crashed": Scenario(("crashed",), "1 2n 3y END", "1 2n REFUSED"),
    "unbound": Scenario(("unbound",), "1 2y 4 5n 6y END", "1 2y 4 5n REFUSED"),
    "crashed+unbound": Scenario(("crashed", "unbound"), "1 2n 3n 4 5n 6y END", "1 2n REFUSED"),
    "agency-broken": Scenario(("agency-broken",), "1 2y 4 5y 7 ESCALATE", "1 2y 4 5y 7 ESCALATE"),
    "wedged": Scenario(("wedged",), "1 2n 3n 4 5y 7 ESCALATE", "1 2n REFUSED"),
    "unbound+metadata-down": Scenario(("unbound", "metadata-down"), "1 2y 4 5n 6n 7 ESCALATE", "1 2y 4 5n REFUSED"),
    "wedged+unbound": Scenario(("wedged", "unbound"), "1 2n 3n 4 5n 6n 7 ESCALATE", "1 2n REFUSED"),
}
