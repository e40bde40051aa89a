"""The IAM cloud API: agencies."""

from tasks.clients.answers import understood
from tasks.clients.http import Api
from tasks.models import Agency, Frozen


class _Agencies(Frozen):
    agencies: tuple[Agency, ...]


class Iam(Api):
    """Agencies of one account (domain)."""

    domain_id: str = ""

    async def agency(self, name: str) -> Agency | None:
        """The agency of exactly this name, or None where the account has none.

        Source: "Querying Agencies", GET /v3.0/OS-AGENCY/agencies?domain_id=&name=.
        """
        path = "v3.0/OS-AGENCY/agencies"
        content = await self.read(path, params={"domain_id": self.domain_id, "name": name})
        found = understood(f"{self.name} GET {path}", _Agencies, content)
        return next((agency for agency in found.agencies if agency.name == name), None)
