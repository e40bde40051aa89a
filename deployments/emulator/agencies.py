"""IAM's agencies and the binding of nodes to them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments.emulator.clock import Clock
from deployments.emulator.inventory import Host, identifier

DEFAULT_AGENCY = "MRS_ECS_DEFAULT_AGENCY"
OTHER_AGENCY = "MRS_ECS_OTHER_AGENCY"
ECS_TRUST = "op_svc_ecs"
MADE_BEFORE = timedelta(days=200)  # the region's time began


@dataclass(slots=True, eq=False)
class Agency:
    """A delegation in IAM. What follows `description` are faults and can be taken back."""

    id: str
    name: str
    domain_id: str
    trusts: str
    """Name of the domain it trusts; `op_svc_ecs` for an ECS agency."""
    created: datetime
    description: str = ""
    deleted: bool = False
    untrusted: bool = False
    expired: bool = False
    expiring: bool = False
    without_obs: bool = False

    @property
    def trust_domain_name(self) -> str:
        """The trusted domain as IAM shows it now."""
        return "op_svc_other" if self.untrusted else self.trusts

    @property
    def expires(self) -> datetime | None:
        """When it ends; None is for ever."""
        if self.expired:
            return self.created + timedelta(days=1)
        return self.created + MADE_BEFORE + timedelta(days=7) if self.expiring else None


class Agencies:
    """The agencies of the account, by name."""

    def __init__(self, clock: Clock, domain_id: str) -> None:
        self._clock = clock
        self._domain_id = domain_id
        self._by_name: dict[str, Agency] = {}
        self.add(DEFAULT_AGENCY, description="The default agency of MRS")

    def add(self, name: str, trusts: str = ECS_TRUST, description: str = "") -> Agency:
        """Create an agency, as a person would in the IAM console; an existing one of that name is answered."""
        if name not in self._by_name:
            created = self._clock.start - MADE_BEFORE
            agency_id = identifier(self._domain_id, name).replace("-", "")
            self._by_name[name] = Agency(agency_id, name, self._domain_id, trusts, created, description)
        return self._by_name[name]

    def all(self) -> list[Agency]:
        """The agencies IAM shows."""
        return [agency for agency in self._by_name.values() if not agency.deleted]

    def named(self, name: str) -> Agency | None:
        """The agency of that name, if IAM has it."""
        agency = self._by_name.get(name)
        return agency if agency and not agency.deleted else None

    def known(self, name: str) -> Agency:
        """The agency of that name, deleted or not; ValueError if there never was one."""
        if name not in self._by_name:
            raise ValueError(f"no agency is called {name!r}; known: {', '.join(self._by_name)}")
        return self._by_name[name]

    def issues_keys(self, name: str) -> bool:
        """Whether an ECS bound to this agency gets temporary keys."""
        agency = self.named(name)
        return agency is not None and agency.trust_domain_name == ECS_TRUST and not agency.expired


def bind(host: Host, agency: str | None, elapsed: float) -> None:
    """Set a node's agency, or remove it (None). An equal name changes nothing, so keys are not renewed early."""
    if host.metadata.get("agency_name") == agency:
        return
    if agency is None:
        host.metadata.pop("agency_name", None)
    else:
        host.metadata["agency_name"] = agency
    host.bound_since = elapsed
