"""The `runbooks` command."""

import asyncio
import json
import logging
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cyclopts import App, Parameter
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from deployments.demo import Demo
from deployments.doctor import doctor as examine
from deployments.emulator.faults import FAULTS
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.intake.framing import Counters
from deployments.intake.listener import listen
from deployments.intake.receive import receiver
from deployments.intake.syslog import DEFAULT_TEMPLATE, Template
from deployments.scenarios import SCENARIOS, Profile
from tasks.errors import ConfigurationError, RunbookError
from tasks.tickets import ticket as one_ticket
from tasks.tickets import tickets as all_tickets

app = App(name="runbooks", help="Alarm remediation runbooks for MRS clusters.", version_flags=["--version"])
console = Console()


@app.command
def demo(
    *,
    scenario: str = "crashed+unbound",
    profile: Profile = "assumed",
    fault: tuple[str, ...] = (),
    trouble: tuple[str, ...] = (),
    speed: float = 60.0,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    keep: bool = False,
) -> int:
    """Break a pretend cluster, let its alarm arrive, watch the repair. Needs nothing but this machine.

    Exit code 0 when every scenario ended as it must, 1 when one did not.

    Parameters
    ----------
    scenario
        One of crashed, unbound, crashed+unbound, agency-broken, wedged, unbound+metadata-down, wedged+unbound; or all.
    profile
        assumed: Manager has the routes its pages let one assume. documented: published routes only, so no restart.
    fault
        One more fault, NAME or NAME@HOST; may be given several times. `runbooks emulator --faults` lists them.
    trouble
        HTTP trouble, "KIND METHOD PATH-GLOB [TIMES]", e.g. "503 GET */alarms 3" or "answer-lost POST */metadata".
    speed
        How many times faster the pretend region's time runs.
    as_json
        One JSON object per scenario on standard output, the last line for one scenario; progress goes to stderr.
    keep
        Leave everything running at the end, for a look at the Prefect UI.
    """
    names = list(SCENARIOS) if scenario == "all" else [scenario]
    progress = Console(stderr=True) if as_json else console
    played = Demo(names, profile=profile, speed=speed, faults=fault, trouble=trouble, console=progress)
    results = asyncio.run(played.play(keep=keep))
    if as_json:
        for result in results:
            sys.stdout.write(json.dumps(result) + "\n")
    return 0 if all(played.expected(result) for result in results) else 1


@app.command
def emulator(
    *,
    port: int = 8443,
    clusters: int = 1,
    hosts: int = 3,
    meta_hosts: int | None = None,
    speed: float = 1.0,
    profile: Profile = "assumed",
    syslog: str = "",
    syslog_protocol: Literal["udp", "tcp"] = "udp",
    faults: bool = False,
) -> None:
    """Run the pretend region on its own, until Ctrl-C.

    Parameters
    ----------
    port
        0 takes a free one.
    hosts
        Nodes per cluster; meta_hosts: on how many of them Meta runs (all).
    speed
        How many times faster its time runs; 60 makes five minutes five seconds.
    syslog
        HOST:PORT that gets the alarms.
    faults
        Only list the faults that can be switched on (POST /emulator/faults).
    """
    if faults:
        _list_faults()
        return
    target = _address(syslog) if syslog else None
    now = datetime.now(UTC)
    region = Region(clusters=clusters, hosts=hosts, meta_hosts=meta_hosts, profile=profile, start=now)

    def ready(bound: int) -> None:
        console.print(f"emulated region on http://127.0.0.1:{bound}, profile {profile}, speed {speed:g}x")
        console.print(
            f"routes: http://127.0.0.1:{bound}/emulator/routes   state: http://127.0.0.1:{bound}/emulator/state"
        )

    _until_interrupted(
        serve(region, port=port, speed=speed, syslog=target, syslog_protocol=syslog_protocol, ready=ready)
    )


@app.command
def intake(*, host: str = "127.0.0.1", port: int = 5140, template: str = DEFAULT_TEMPLATE, zone: str = "UTC") -> None:
    """Listen for the alarms MRS Manager sends as syslog (UDP and TCP) and start the runbook for each, until Ctrl-C.

    Parameters
    ----------
    template
        The report format as configured on Manager (System > Interconnection > Syslog).
    zone
        Manager's time zone, e.g. Europe/Berlin: its lines name none.
    """
    try:
        on_line = receiver(Template(template), ZoneInfo(zone))
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise ConfigurationError(f"--template or --zone: {error}") from error
    counters = Counters()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    logging.getLogger("httpx").setLevel(logging.WARNING)

    async def run() -> None:
        async with listen(host=host, port=port, protocols=["udp", "tcp"], on_line=on_line, counters=counters) as ports:
            console.print(f"listening for syslog on {host}, " + ", ".join(f"{p} {n}" for p, n in ports.items()))
            await asyncio.Event().wait()

    _until_interrupted(run())
    console.print(f"{counters}")


@app.command
def doctor(cluster: str) -> int:
    """Call every read route the runbook uses against a cluster; say what answered and what that means. Changes nothing.

    Exit code 0 when all of them answered, 1 when one did not, 2 when the cluster's block cannot be used.
    """
    return asyncio.run(examine(cluster, console))


@app.command
def tickets(id_: Annotated[str, Parameter(name="ID")] = "", /) -> None:
    """List the tickets of this machine, or show one."""
    if id_:
        console.print(one_ticket(id_).body, markup=False, highlight=False)
        return
    found = all_tickets()
    if not found:
        console.print("no tickets")
        return
    table = Table("ticket", "updated (UTC)", "title")
    for each in found:
        table.add_row(each.id, f"{each.updated:%Y-%m-%d %H:%M:%S}", each.title)
    console.print(table)


def _list_faults() -> None:
    table = Table("fault", "what it does")
    for name, meaning in FAULTS.items():
        table.add_row(name, meaning)
    console.print(table)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigurationError(f"--syslog {text!r}: write HOST:PORT")
    return host, int(port)


def _until_interrupted(run: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(run)
    except KeyboardInterrupt:
        console.print("stopped")


def main() -> None:
    """Run the command; every error of ours is one sentence on stderr and exit code 2."""
    errors = Console(stderr=True)
    try:
        sys.exit(app())
    except KeyboardInterrupt:
        errors.print("stopped; what was started is ended again")
        sys.exit(130)
    except (RunbookError, OSError) as error:
        errors.print(f"[red]error:[/] {error}", highlight=False)
        sys.exit(2)
