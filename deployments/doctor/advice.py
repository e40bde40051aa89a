"""What a person must settle where a route does not answer, and how: by the kind of failure."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from tasks.clients.manager import REJECTED
from tasks.errors import (
    ConfigurationError,
    LoginSuspended,
    NotAuthorized,
    NotOffered,
    Rejected,
    RemoteError,
    ServerTrouble,
    SessionLost,
    Throttled,
    Unreachable,
    Untrusted,
)

MANAGER_PORTS = "TCP 28443, or 9022 through an EIP"


@dataclass(frozen=True)
class Advice:
    """What is wrong in few words, the same for all clusters where it is the same, and what a person does about it."""

    cause: str
    settle: str


@dataclass(frozen=True)
class Place:
    """What was asked: which service at which address, by which login.

    Attributes:
        block: the block that holds address and login, as a person finds it.
        right: what the login needs for it: a policy action, or a role on Manager.
        route: name of Manager's route in the block's `routes`; empty: it has none.
        instead: what happens where this is never offered.
    """

    service: str
    url: str
    block: str
    login: str
    right: str
    route: str = ""
    instead: str = "the run hands the step to a person"


def advice(at: Place, error: RemoteError | ConfigurationError) -> Advice:
    """What to do about a call that ended so."""
    match error:
        case ConfigurationError():
            return Advice(f"wrong block: {at.service}", f"correct {at.block}")
        case Untrusted():
            return _certificate(at, error)
        case Unreachable() if isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout):
            return _closed(at)
        case Unreachable():
            what = f"it takes connections and does not answer ({at.url}): it may be busy or switching over"
            return Advice(f"no answer: {at.service}", f"{what}; ask again in a while, then look at the address")
        case LoginSuspended() | NotAuthorized():
            return _login_or_right(at, error)
        case SessionLost():
            return Advice(f"no session: {at.service}", f"{at.block}: is its url Manager's REST root (/web/api/v2)?")
        case NotOffered() if at.route:
            look = "look it up in the browser's developer tools while Manager's own page shows it"
            write = f'write it into `routes` of {at.block}, like {{"alarms": "GET path/of/yours"}}'
            return Advice(f"route not offered: {at.route}", f"{look}, and {write}; or leave it: {at.instead}")
        case NotOffered():
            what = f"is {at.url} the right address, and the id in the block right? Else this cloud lacks it"
            return Advice(f"route not offered: {at.service} {at.route}".strip(), f"{what}: {at.instead}")
        case Throttled():
            return Advice(f"throttled: {at.service}", "ask again in a while; others use up this project's quota")
        case ServerTrouble() if "not as described" in error.why:
            fields = f"the field it names is absent or another kind of thing at {at.url}"
            own = f": if that is another route, name the right one in `routes` of {at.block}" if at.route else ""
            return Advice(f"answer not understood: {at.service} {at.route}".strip(), fields + own)
        case ServerTrouble():
            return Advice(f"trouble at {at.service}", f"not ours: ask again in a while, then ask who runs {at.service}")
        case Rejected():
            ids = "cluster_id of the cluster's block and project_id of its cloud block"
            return Advice(f"request refused: {at.service}", f"check {ids if at.service != 'Manager' else at.block}")
    return Advice(f"trouble at {at.service}", "ask again in a while")


def _certificate(at: Place, error: Untrusted) -> Advice:
    if "ca_pem" not in error.why:  # it is about the name
        how = "write the address in it by a name that the certificate holds"
    else:
        how = "write the PEM of the CA that signed it into ca_pem (Manager's own CA, unless somebody replaced it)"
    return Advice(f"certificate not trusted: {at.service}", f"{at.block}: {how}")


def _closed(at: Place) -> Advice:
    address = urlsplit(at.url)
    port = address.port or {"http": 80}.get(address.scheme, 443)
    masters = f"the security group of the cluster's masters ({MANAGER_PORTS})"
    between = masters if at.service == "Manager" else "security group, proxy and routes"
    let_in = f"let the workers reach TCP {port} of {address.hostname}: look at {between}"
    return Advice(f"port closed: {at.service}", f"{let_in}; or correct the address in {at.block}")


def _login_or_right(at: Place, error: RemoteError) -> Advice:
    if isinstance(error, LoginSuspended) or REJECTED in error.why:
        once = "no login is tried until that block changes"
        return Advice(f"login rejected: {at.service}", f"put the right password of {at.login} into {at.block}; {once}")
    if error.status == 403:
        return Advice(f"permission missing: {at.right}", f"give {at.login} {at.right} (README, Rights)")
    if at.service == "Manager":
        return Advice(f"login refused: {at.service}", error.why)
    wrong = f"{at.login} is wrong, expired or disabled, or our clock is off by 15 minutes: renew it"
    return Advice(f"login rejected: {at.service}", wrong)
