"""The face of a cluster's Manager: sessions, and the few routes that are publicly known.

Source: `session/status` (Basic, then a cookie) of the vendor's manager-examples; `clusters` and
`services/{svc}/summary` as used by public clients of Manager 3.x. The body of an error is an assumption. The real
root is `https://<ip>:28443/web/api/v2/`.
"""

from collections.abc import Awaitable, Callable
from email.utils import format_datetime

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from deployments.emulator.inventory import Cluster, Host
from deployments.emulator.region import Region
from deployments.emulator.routes import BadRequest, Endpoint, ServedRoute
from deployments.emulator.sessions import COOKIE, Login, Sessions
from deployments.emulator.trouble import Dropped

ROOT = "/managers/{cluster_id}/web/api/v2"
REJECTED = "The credentials you provided cannot be determined to be authentic"
LOCKED = "The user is locked. Try again later."

ManagerHandler = Callable[[Cluster, Request], Awaitable[Response]]


class Manager:
    """Handlers over a region, and the door all routes of Manager go through."""

    def __init__(self, region: Region, sessions: Sessions) -> None:
        self._region = region
        self._sessions = sessions

    def routes(self) -> list[ServedRoute]:
        """What this face serves."""
        service = ROOT + "/clusters/{manager_id}/services/{service}/summary"
        return [
            ServedRoute("GET", ROOT + "/session/status", "manager", "CONFIRMED", self.reachable(self.open_session)),
            ServedRoute("GET", "/managers/{cluster_id}/cas/login", "manager", "CONFIRMED", self.reachable(_login_page)),
            ServedRoute("GET", ROOT + "/clusters", "manager", "CONFIRMED", self.session(self.list_clusters)),
            ServedRoute("GET", service, "manager", "CONFIRMED", self.session(self.summarize_service)),
        ]

    def reachable(self, handler: ManagerHandler) -> Endpoint:
        """Find the Manager, refuse during an OMS switchover, and stamp the answer with Manager's clock."""

        async def endpoint(request: Request) -> Response:
            cluster = self._region.clusters.get(request.path_params["cluster_id"])
            if cluster is None:
                return refuse(404, "there is no Manager of this cluster")
            if self._region.clock.elapsed < cluster.refuses_until:
                raise Dropped
            try:
                answer = await handler(cluster, request)
            except BadRequest as error:
                answer = refuse(400, str(error))
            answer.headers["Date"] = format_datetime(self._region.alarms.manager_time(cluster), usegmt=True)
            return answer

        return endpoint

    def session(self, handler: ManagerHandler) -> Endpoint:
        """Let a living session or Basic pass; 302 to the login page for no session, 401 for a wrong password.

        The viewer's changes are refused; the body of that refusal is an assumption.
        """

        async def guarded(cluster: Cluster, request: Request) -> Response:
            if not self._sessions.alive(cluster, request.cookies.get(COOKIE)):
                denial = self._denial(cluster, request)
                if denial is not None:
                    return denial
            user = self._sessions.user(cluster, request.cookies.get(COOKIE), request.headers.get("authorization", ""))
            self._region.calls[user, request.method] += 1
            if user == cluster.viewer_user and request.method != "GET":
                return refuse(403, "the user has no permission for this operation")
            if request.path_params.get("manager_id", str(cluster.manager_id)) != str(cluster.manager_id):
                return refuse(404, "there is no such cluster on this Manager")
            if request.path_params.get("service", "meta").lower() != "meta":
                return refuse(404, "there is no such service")
            return await handler(cluster, request)

        return self.reachable(guarded)

    async def open_session(self, cluster: Cluster, request: Request) -> Response:
        """200 and a cookie for a right password; the body is not documented, so it is empty."""
        if self._sessions.alive(cluster, request.cookies.get(COOKIE)):
            return JSONResponse({})
        denial = self._denial(cluster, request)
        if denial is not None:
            return denial
        answer = JSONResponse({})
        path = f"/managers/{cluster.id}"
        secure = request.url.scheme == "https"
        session = self._sessions.open(cluster, request.headers.get("authorization", ""))
        answer.set_cookie(COOKIE, session, path=path, httponly=True, secure=secure, samesite=None)
        return answer

    async def list_clusters(self, cluster: Cluster, request: Request) -> Response:
        """A bare array of the one cluster of this Manager."""
        bad = [host for host in cluster.hosts.values() if self._region.faults.find("host-down", *host.place)]
        shown = {
            "id": cluster.manager_id,
            "name": cluster.name,
            "hostsNum": len(cluster.hosts),
            "serviceNum": 1,
            "badHostsNum": len(bad),
            "badServiceNum": 0 if self._service_status(cluster) == "Normal" else 1,
            "packs": [{"type": "MRS", "version": "3.2.0-LTS.1"}],
        }
        return JSONResponse([shown])

    async def summarize_service(self, cluster: Cluster, request: Request) -> Response:
        """`properties[]{key, name, value, type}`; only the running status."""
        status = self._service_status(cluster)
        shown = {"key": "runningStatus", "name": "Running Status", "value": status, "type": "STATUS"}
        return JSONResponse({"properties": [shown]})

    def _service_status(self, cluster: Cluster) -> str:
        statuses = {self._region.meta.reported(host, "manager") for host in instances_of(cluster)}
        return "Normal" if statuses <= {"Normal"} else "Faulty"

    def _denial(self, cluster: Cluster, request: Request) -> Response | None:
        authorization = request.headers.get("authorization")
        if authorization is None:
            return RedirectResponse(f"/managers/{cluster.id}/cas/login?service={request.url.path}", status_code=302)
        login = self._sessions.login(cluster, authorization)
        if login is Login.ACCEPTED:
            return None
        text = LOCKED if login is Login.LOCKED else REJECTED
        return HTMLResponse(f"<html><body><div class='errors'>{text}</div></body></html>", 401)


def instances_of(cluster: Cluster) -> list[Host]:
    """The hosts that run a Meta instance."""
    return [host for host in cluster.hosts.values() if host.instance_id is not None]


def refuse(status: int, message: str) -> Response:
    """An error of Manager; its real shape is not published."""
    return JSONResponse({"errorCode": str(status), "errorMsg": message}, status)


async def _login_page(cluster: Cluster, request: Request) -> Response:
    form = "<form method='post'><input type='hidden' name='lt' value='LT-1'><input name='username'></form>"
    return HTMLResponse(f"<html><head><title>Login</title></head><body>{form}</body></html>")
