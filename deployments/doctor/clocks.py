"""How far the clocks of Manager and of the cloud are from ours."""

from datetime import datetime, timedelta
from functools import partial

from deployments.doctor.findings import Finding
from tasks import timing
from tasks.blocks import Cluster

MOST_SKEW, SIGNED = timedelta(seconds=60), timedelta(minutes=15)  # a signed request is refused beyond


class Clocks:
    """How far the clocks of those who answered are ahead of ours."""

    def __init__(self) -> None:
        self.ahead: dict[str, timedelta] = {}

    def read(self, service: str, clock: datetime | None) -> None:
        """Note what time the service says it is now."""
        ahead = clock - timing.wall() if clock else timedelta(0)
        if clock and abs(ahead) >= abs(self.ahead.get(service, timedelta(0))):
            self.ahead[service] = ahead


def clock_of(whose: str, clocks: Clocks, cluster: Cluster) -> Finding:
    """What is found about the clock of `Manager` or of the `cloud`."""
    means = "the age of its alarms is right" if whose == "Manager" else "signed requests are taken (15 minutes at most)"
    told = partial(Finding, f"clock of {whose}", f"{whose}'s clock", "")
    if whose == "Manager" and cluster.speed != 1:
        return told(None, "an emulator's time runs away from ours", means)
    if whose not in clocks.ahead:
        return told(None, "no answer named a time", means)
    ahead = clocks.ahead[whose]
    seconds = round(abs(ahead).total_seconds())
    said = f"{seconds} s {'ahead of' if ahead > timedelta(0) else 'behind'} ours" if seconds > 1 else "as ours"
    if abs(ahead) <= MOST_SKEW:
        return told(True, said, means)
    who = "the cluster's masters and of this machine" if whose == "Manager" else "this machine"
    warns = whose == "Manager" or abs(ahead) < SIGNED
    return told(False, said, f"NOT: {means}", f"set NTP of {who} right", f"clock skew: {whose}", warns=warns)
