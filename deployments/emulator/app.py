"""The HTTP application of a region: all faces on one port, control routes, trouble, a loud 501 for anything else."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.emulator.control import Control
from deployments.emulator.cts import Cts
from deployments.emulator.ecs import Ecs
from deployments.emulator.iam import Iam
from deployments.emulator.manager import Manager
from deployments.emulator.manager_assumed import AssumedManager
from deployments.emulator.mrs import Mrs
from deployments.emulator.region import Region
from deployments.emulator.routes import ServedRoute
from deployments.emulator.sessions import Sessions
from deployments.emulator.smn import Smn
from deployments.emulator.trouble import TroubleMiddleware

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def served_by(region: Region) -> list[ServedRoute]:
    """Every route of every face, whether the region's profile serves it or not."""
    manager = Manager(region, Sessions(region.clock))
    cloud = (Mrs(region), Ecs(region), Iam(region), Cts(region), Smn(region))
    faces = (manager, AssumedManager(region, manager), *cloud)
    return [route for face in faces for route in face.routes()]


def app_of(region: Region) -> Starlette:
    """The application; use it with `httpx.ASGITransport` or with `serve`."""
    served = served_by(region)
    assumed = region.profile == "assumed"
    routes = [Route(path, endpoint, methods=[method]) for method, path, endpoint in Control(region, served).routes()]
    routes += [
        Route(route.path, route.endpoint, methods=[route.method])
        for route in served
        if assumed or route.rating == "CONFIRMED"
    ]
    routes.append(Route("/{path:path}", _not_emulated, methods=METHODS))
    return Starlette(routes=routes, middleware=[Middleware(TroubleMiddleware, region=region)])


async def _not_emulated(request: Request) -> Response:
    text = f"the emulator does not serve {request.method} {request.url.path}; GET /emulator/routes lists what it serves"
    return JSONResponse({"error_code": "EMULATOR.501", "error_msg": text}, 501)
