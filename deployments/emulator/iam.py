"""The face of IAM: agencies, what they may do, and temporary keys by an agency.

Source: IAM API reference (agency management, "Obtaining a temporary access key and security token through an agency")
and huaweicloudsdkiam v3. Errors have the shape `{"error": {"message", "code", "title"}}`.
"""

import json
from datetime import UTC, datetime, timedelta

from starlette.responses import JSONResponse, Response

from deployments.emulator.agencies import Agency
from deployments.emulator.inventory import identifier, secret
from deployments.emulator.region import Region
from deployments.emulator.routes import BadRequest, CloudCall, CloudHandler, ServedRoute, authenticated, integer
from deployments.emulator.signatures import Denied, Keys

TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 503: "Service Unavailable"}
INHERITED = "/v3.0/OS-INHERIT/domains/{domain_id}/agencies/{agency_id}/roles/inherited_to_projects"
DOMAIN_ROLES = (("OBS OperateAccess", "AX"),)
PROJECT_ROLES = (("CES FullAccess", "XA"), ("KMS Administrator", "XA"))


class Iam:
    """Handlers over a region; `iam-down` for the whole region makes each of them answer 503."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def routes(self) -> list[ServedRoute]:
        """What this face serves."""
        table: list[tuple[str, str, CloudHandler]] = [
            ("GET", "/v3.0/OS-AGENCY/agencies", self.list_agencies),
            ("GET", "/v3.0/OS-AGENCY/agencies/{agency_id}", self.show_agency),
            ("GET", "/v3.0/OS-AGENCY/domains/{domain_id}/agencies/{agency_id}/roles", self.list_domain_roles),
            ("GET", "/v3.0/OS-AGENCY/projects/{project_id}/agencies/{agency_id}/roles", self.list_project_roles),
            ("GET", INHERITED, self.list_inherited_roles),
            ("POST", "/v3.0/OS-CREDENTIAL/securitytokens", self.assume_agency),
        ]
        return [
            ServedRoute(
                method,
                path,
                "iam",
                "CONFIRMED",
                authenticated(self._region, self._unless_down(handler), _refuse, _denied),
            )
            for method, path, handler in table
        ]

    def list_agencies(self, call: CloudCall) -> Response:
        """Source: ListAgencies: `domain_id` is required; `page` (from 1) and `per_page` (1 to 500) only together."""
        query = call.request.query_params
        if not query.get("domain_id"):
            raise BadRequest("domain_id is required")
        if query["domain_id"] != self._region.domain_id:
            return _refuse(403, "", "You are not authorized to perform the requested action.")
        if ("page" in query) != ("per_page" in query):
            raise BadRequest("page and per_page go together")
        agencies = [
            agency
            for agency in self._region.agencies.all()
            if query.get("name", agency.name) == agency.name
            and query.get("trust_domain_id", _trust_id(agency)) == _trust_id(agency)
        ]
        size, page = integer(query, "per_page", 500, 1), integer(query, "page", 1, 1)
        return JSONResponse({"agencies": [_shown(agency) for agency in agencies[(page - 1) * size : page * size]]})

    def show_agency(self, call: CloudCall) -> Response:
        """Source: ShowAgency."""
        agency = self._found(call)
        return JSONResponse({"agency": _shown(agency)}) if agency else _missing(call)

    def list_domain_roles(self, call: CloudCall) -> Response:
        """Source: ListDomainPermissionsForAgency."""
        agency = self._found(call)
        return self._roles(call, () if agency and agency.without_obs else DOMAIN_ROLES)

    def list_project_roles(self, call: CloudCall) -> Response:
        """Source: ListProjectPermissionsForAgency."""
        return self._roles(call, PROJECT_ROLES)

    def list_inherited_roles(self, call: CloudCall) -> Response:
        """Source: ListAllProjectsPermissionsForAgency. None is granted so."""
        return self._roles(call, ())

    def assume_agency(self, call: CloudCall) -> Response:
        """Source: CreateTemporaryAccessKeyByAgency: 201 and `{"credential": {...}}`.

        403 for an agency that trusts another domain than the caller's, as an ECS agency does.
        """
        role, seconds = _role_of(call.body)
        agency = self._region.agencies.named(str(role.get("agency_name", "")))
        owner = role.get("domain_id", role.get("domain_name"))
        if agency is None or owner != self._region.domain_id:
            return _refuse(404, "", f"Could not find agency: {role.get('agency_name')}.")
        if agency.trust_domain_name != self._region.domain_id:
            return _refuse(403, "", "You have no right to do this action: the agency trusts another domain.")
        number = len(self._region.temporary_keys)
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        keys = Keys("STS" + secret(17, agency.id, number), secret(40, agency.id, number), secret(64, number), expires)
        self._region.temporary_keys[keys.ak] = keys
        shown = {"access": keys.ak, "secret": keys.sk, "securitytoken": keys.token}
        return JSONResponse({"credential": shown | {"expires_at": f"{expires:%Y-%m-%dT%H:%M:%S.%fZ}"}}, 201)

    def _roles(self, call: CloudCall, roles: tuple[tuple[str, str], ...]) -> Response:
        agency = self._found(call)
        if agency is None:
            return _missing(call)
        shown = [
            {
                "id": identifier("role", name).replace("-", ""),
                "name": name,
                "display_name": name,
                "type": kind,
                "description": name,
            }
            for name, kind in roles
        ]
        return JSONResponse({"roles": shown})

    def _found(self, call: CloudCall) -> Agency | None:
        wanted = call.parameter("agency_id")
        return next((agency for agency in self._region.agencies.all() if agency.id == wanted), None)

    def _unless_down(self, handler: CloudHandler) -> CloudHandler:
        def guarded(call: CloudCall) -> Response:
            if self._region.faults.find("iam-down"):
                return _refuse(503, "", "The service is currently unavailable.")
            return handler(call)

        return guarded


def _role_of(body: bytes) -> tuple[dict[str, object], int]:
    try:
        identity = json.loads(body)["auth"]["identity"]
        role = dict(identity["assume_role"])
        seconds = int(role.get("duration_seconds", 900))
    except (ValueError, TypeError, KeyError):
        raise BadRequest("the body must hold auth.identity.assume_role") from None
    if identity.get("methods") != ["assume_role"] or not 900 <= seconds <= 86400:
        raise BadRequest("methods must be assume_role and duration_seconds 900 to 86400")
    return role, seconds


def _shown(agency: Agency) -> dict[str, object]:
    return {
        "id": agency.id,
        "name": agency.name,
        "domain_id": agency.domain_id,
        "trust_domain_id": _trust_id(agency),
        "trust_domain_name": agency.trust_domain_name,
        "description": agency.description,
        "create_time": _time(agency.created),
        "expire_time": _time(agency.expires) if agency.expires else None,
        "duration": "24" if agency.expires else "FOREVER",
    }


def _trust_id(agency: Agency) -> str:
    return secret(32, "domain", agency.trust_domain_name).lower()


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}"


def _missing(call: CloudCall) -> Response:
    return _refuse(404, "", f"Could not find agency: {call.parameter('agency_id')}.")


def _refuse(status: int, _code: str, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": status, "title": TITLES[status]}}, status)


def _denied(error: Denied) -> Response:
    return _refuse(403 if error.reason == "project" else 401, "", error.message)
