"""What `runbooks doctor` can tell of the ways alarms come in, and of the login of Prefect's API."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_CLIENT_CUSTOM_HEADERS,
    temporary_settings,
)

from deployments.doctor.findings import Finding
from tasks.ledger.hearing import Heard

LATE = timedelta(minutes=10)
LONGEST_HEARTBEAT = timedelta(minutes=60)  # Source: Manager 3.x, "Configuring Syslog Northbound Parameters"
ON_MANAGER = "on Manager, System > Interconnection > Syslog"
BEAT = "the heartbeat (its text is `heartbeat` under [syslog] of the intake)"
AGAIN = "the periodic report of uncleared alarms"
NOT_HEARD = "cannot be told: no alarm of this cluster came by syslog within the last month"
SWITCH_ON = f"{ON_MANAGER}, name the intake, and switch {BEAT} and {AGAIN} on, each every 15 minutes"


def sources(heard: Heard, now: datetime) -> list[Finding]:
    """Who tells of this cluster's alarms, and whether syslog's two switches that are off by default are on."""
    return [_polling(heard, now), _heartbeat(heard, now), _re_report(heard, now)]


def untold(why: str, now: datetime) -> list[Finding]:
    """The same without a ledger: nothing can be told, `why` is the reason."""
    found = sources(Heard(), now)
    said = f"cannot be told: {why}"
    return [
        replace(each, fine=None, said=said, means=each.means.removeprefix("NOT: "), settle="", cause="")
        for each in found
    ]


def _polling(heard: Heard, now: datetime) -> Finding:
    told = partial(Finding, "polling", "intake: Manager's alarm list", "", warns=True)
    means = "an alarm or a clear that nobody delivers is found"
    start = "start the intake (`runbooks intake`, or `runbooks up`), on the same ledger"
    if heard.polled is None:
        return told(False, "never read by an intake", f"NOT: {means}", start, "no intake polls")
    said = f"last read {_ago(heard.polled, now)}"
    if now - heard.polled > LATE:
        return told(False, said, f"NOT: {means}", start, "no intake polls")
    if not heard.offered:
        other = f"let syslog tell: {ON_MANAGER}, name the intake; or SMN or the webhook (README, Alarms in)"
        offered = any(source in heard.told for source in ("syslog", "smn", "webhook"))
        settle = ("", "") if offered else (other, "no alarm source: Manager has no alarm list")
        return told(False, "Manager offers no alarm list", f"NOT: {means}", *settle)
    return told(True, said, means)


def _heartbeat(heard: Heard, now: datetime) -> Finding:
    told = partial(Finding, "heartbeat", "syslog: heartbeat", "", warns=True)
    means = "a syslog that went silent is noticed"
    switch = f"{ON_MANAGER}, switch {BEAT} on, every 15 minutes"
    if heard.syslog is None:
        return told(None, NOT_HEARD, means, SWITCH_ON, "syslog not heard yet")
    said = f"its sender was last heard {_ago(heard.syslog, now)}"
    if now - heard.syslog > LONGEST_HEARTBEAT:
        return told(False, said, f"NOT: {means}", switch, "heartbeat off, or syslog interrupted")
    return told(True, said, means)


def _re_report(heard: Heard, now: datetime) -> Finding:
    told = partial(Finding, "re-report", "syslog: re-report", "", warns=True)
    means = "a raise that was lost comes again, also where Manager has no alarm list"
    switch = f"{ON_MANAGER}, switch {AGAIN} on, every 15 minutes"
    if heard.repeated is not None:
        return told(True, f"an active alarm was last told again {_ago(heard.repeated, now)}", means)
    if "syslog" not in heard.told:
        return told(None, NOT_HEARD, means, SWITCH_ON, "syslog not heard yet")
    said = f"last alarm {_ago(heard.told['syslog'], now)}, and none was told twice while it was active"
    return told(None, said, means, switch, "re-report may be off")


def _ago(then: datetime, now: datetime) -> str:
    seconds = max(0, round((now - then).total_seconds()))
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


async def prefect_login() -> Finding:
    """Whether Prefect's API asks who comes: it is called as somebody who has no login."""
    told = partial(Finding, "Prefect's login", "Prefect GET admin/version", "", warns=True)
    means = "only who has its login can start runs and approve changes"
    nobody: dict[Any, Any] = {PREFECT_API_AUTH_STRING: None, PREFECT_API_KEY: None, PREFECT_CLIENT_CUSTOM_HEADERS: {}}
    try:
        with temporary_settings(nobody):
            async with get_client() as client:
                await client.api_version()
    except (PrefectHTTPStatusError, httpx.HTTPStatusError) as error:
        if (status := error.response.status_code) in (401, 403):
            return told(True, f"HTTP {status} to whoever has none", means)
        return told(None, f"cannot be told: HTTP {status}", means)
    except (httpx.HTTPError, OSError, ValueError) as error:
        return told(None, f"cannot be told: {str(error) or type(error).__name__}", means)
    how = (
        "set PREFECT_SERVER_API_AUTH_STRING on the server, and PREFECT_API_AUTH_STRING for workers, intake and persons"
    )
    return told(False, "it lets in whoever reaches it", f"NOT: {means}", how, "Prefect's API has no login")
