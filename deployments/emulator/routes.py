"""What a route of the emulator is, and what the cloud routes have in common."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Literal

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.emulator.region import Region
from deployments.emulator.signatures import Denied, caller, cloud_time

Endpoint = Callable[[Request], Awaitable[Response]]
Rating = Literal["CONFIRMED", "ASSUMED"]


@dataclass(frozen=True)
class ServedRoute:
    """One route: ASSUMED ones are served in the profile `assumed` only."""

    method: str
    path: str
    face: str
    rating: Rating
    endpoint: Endpoint


@dataclass(frozen=True)
class CloudCall:
    """An authenticated call: the request, its body, and who sent it."""

    request: Request
    body: bytes
    who: str

    def parameter(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])


class BadRequest(Exception):
    """The call itself is wrong; answered with 400 in the shape of the face."""


CloudHandler = Callable[[CloudCall], Response]
Refusal = Callable[[int, str, str], Response]
"""(status, code, message) -> an error in the shape of the face."""

_request_numbers = itertools.count(1)


def authenticated(
    region: Region, handler: CloudHandler, refuse: Refusal, denied: Callable[[Denied], Response]
) -> Endpoint:
    """Check the caller and the project before `handler`; `denied` and `refuse` give errors the shape of the face.

    The key that may only read is refused whatever is no GET; the words follow OpenStack's, the code is an assumption.
    """

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        try:
            who = caller(region, request, body)
            if request.path_params.get("project_id", region.project_id) != region.project_id:
                raise Denied("project", "the project in the path is not one of the caller's")
            region.calls[who, request.method] += 1
            if request.method != "GET" and who == f"ak:{region.reading_access_key}":
                answer = refuse(403, "403", "Policy doesn't allow this action to be performed.")
            else:
                answer = handler(CloudCall(request, body, who))
        except Denied as error:
            answer = denied(error)
        except BadRequest as error:
            answer = refuse(400, "400", str(error))
        answer.headers["Date"] = format_datetime(cloud_time(region), usegmt=True)
        answer.headers["X-Request-Id"] = f"{next(_request_numbers):032x}"
        return answer

    return endpoint


def gateway_denial(error: Denied) -> Response:
    """What the API gateway in front of MRS and ECS answers; the codes are those of APIG, not of the service."""
    status, code = (403, "APIG.0302") if error.reason == "project" else (401, "APIG.0301")
    return JSONResponse({"error_code": code, "error_msg": error.message}, status)


def integer(query: QueryParams, name: str, default: int, least: int = 0) -> int:
    """A number from the query.

    Raises:
        BadRequest: it is not a number, or smaller than `least`.
    """
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise BadRequest(f"invalid {name}: {text}")
    return int(text)


def flag(query: QueryParams, name: str) -> bool:
    """A boolean from the query: only `true` in any case is true."""
    return query.get(name, "").lower() == "true"
