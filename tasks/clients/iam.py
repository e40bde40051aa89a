"""The IAM cloud API: agencies."""

from tasks.clients.answers import excerpt, understood
from tasks.clients.http import Api
from tasks.errors import ServerTrouble
from tasks.models import Agency, Frozen
from tasks.permissions import Permission


class _Agencies(Frozen):
    agencies: tuple[Agency, ...]


class _Permissions(Frozen):
    roles: tuple[Permission, ...]


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

    async def permissions(self, agency_id: str) -> tuple[Permission, ...]:
        """What the agency may do with global services, OBS among them.

        Source: "Querying Permissions of an Agency for a Global Service Project", GET
        /v3.0/OS-AGENCY/domains/{domain_id}/agencies/{agency_id}/roles; `iam:permissions:listRolesForAgencyOnDomain`.
        """
        return await self._permissions(f"v3.0/OS-AGENCY/domains/{self.domain_id}/agencies/{_id(agency_id)}/roles")

    async def permissions_everywhere(self, agency_id: str) -> tuple[Permission, ...]:
        """What the agency may do in all projects, that of global services too; listed by internal names.

        Source: "Querying All Project Permissions of an Agency", GET
        /v3.0/OS-INHERIT/domains/{domain_id}/agencies/{agency_id}/roles/inherited_to_projects;
        `iam:permissions:listRolesForAgency`.
        """
        agency = f"v3.0/OS-INHERIT/domains/{self.domain_id}/agencies/{_id(agency_id)}"
        return await self._permissions(f"{agency}/roles/inherited_to_projects")

    async def _permissions(self, path: str) -> tuple[Permission, ...]:
        return understood(f"{self.name} GET {path}", _Permissions, await self.read(path)).roles


def _id(agency_id: str) -> str:
    # It is from an answer: it must not lead to another route.
    if not (agency_id.isascii() and agency_id.isalnum()):
        raise ServerTrouble("IAM agencies", f"an agency's id is {excerpt(agency_id)!r}: nothing sent")
    return agency_id
