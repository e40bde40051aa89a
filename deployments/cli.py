"""The `runbooks` command."""

import json
import logging
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import httpx
from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from rich.table import Table
from rich.text import Text

from deployments.approval_commands import approvals, approve, approvers
from deployments.brake_commands import breaker, resume, stop
from deployments.cluster_commands import clusters
from deployments.demo import Demo
from deployments.doctor.command import doctor as examine
from deployments.doctor.command import doctor_of_all as examine_all
from deployments.emulator.faults import FAULTS
from deployments.emulator.region import Region
from deployments.emulator.serve import serve
from deployments.ending import run_until_ended, serve_until_told
from deployments.evidence_commands import evidence
from deployments.fleet_demo import SMALLEST, FleetDemo
from deployments.intake_commands import alarm, intake, ledger, prefect_is_known
from deployments.run_command import run
from deployments.scenarios import SCENARIOS, Profile
from deployments.status_commands import status
from deployments.sweep_commands import sweep
from deployments.terminal import console, sentence
from deployments.ticket_commands import tickets
from deployments.up import up
from deployments.why_command import why
from tasks.errors import ConfigurationError, RunbookError

app = App(
    name="runbooks",
    help="Alarm remediation runbooks for MRS clusters.",
    version=version("mrs-runbooks"),
    suppress_keyboard_interrupt=False,
    print_error=False,
    exit_on_error=False,
)

for each in (
    intake,
    alarm,
    ledger,
    up,
    stop,
    resume,
    breaker,
    approvals,
    approve,
    approvers,
    run,
    status,
    why,
    evidence,
    sweep,
    clusters,
):
    app.command(each)

NOISY = ("httpx", "stamina", "EventsWorker")  # they report what is no trouble, or what we report better

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]
Count = Annotated[int, Parameter(validator=Number(gte=1, lte=1000))]
Speed = Annotated[float, Parameter(validator=Number(gt=0, lte=1000))]


@app.command
def demo(
    *,
    scenario: str = "crashed+unbound",
    profile: Profile = "assumed",
    fault: tuple[str, ...] = (),
    trouble: tuple[str, ...] = (),
    speed: Speed = 60.0,
    fleet: Annotated[int | None, Parameter(validator=Number(gte=SMALLEST, lte=500))] = None,
    report: Path = Path("fleet-report.html"),
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    keep: bool = False,
) -> int:
    """Break a pretend cluster, let its alarm arrive, watch the repair. Needs nothing but this machine.

    Exit code 0 when everything ended as it must, 1 when it did not.

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
        How many times faster the pretend region's time runs, at most 1000.
    fleet
        Instead of scenarios: so many clusters, some broken in different ways; a sweep, its report, the repair.
    report
        Where the fleet's report is written to.
    as_json
        One JSON object per scenario on standard output, the last line for one scenario; progress goes to stderr.
    keep
        Leave everything running at the end, for a look at the Prefect UI.
    """
    if fleet is not None:
        if fault or trouble or as_json or profile != "assumed" or scenario != "crashed+unbound":
            raise ConfigurationError("--fleet breaks its clusters itself: add --speed, --report or --keep only")
        fleet_demo = FleetDemo(fleet, speed=speed, report=report, console=console())
        return 0 if run_until_ended(fleet_demo.play(keep=keep)) else 1
    names = list(SCENARIOS) if scenario == "all" else [scenario]
    out = console(stderr=as_json)
    played = Demo(names, profile=profile, speed=speed, faults=fault, trouble=trouble, console=out)
    results = run_until_ended(played.play(keep=keep))
    if as_json:
        for result in results:
            sys.stdout.write(json.dumps(asdict(result)) + "\n")
    return 0 if all(played.expected(result) for result in results) else 1


@app.command
def emulator(
    *,
    port: Port = 8443,
    clusters: Count = 1,
    hosts: Count = 3,
    meta_hosts: Count | None = None,
    speed: Speed = 1.0,
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
        url = f"http://127.0.0.1:{bound}"
        out = console()
        out.print(f"emulated region on {url}, profile {profile}, speed {speed:g}x; Ctrl-C ends it")
        out.print(f"routes: {url}/emulator/routes   state: {url}/emulator/state")

    serve_until_told(serve(region, port=port, speed=speed, syslog=target, syslog_protocol=syslog_protocol, ready=ready))


@app.command
def doctor(
    cluster: str = "",
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    select: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    forget: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Ask every read route the runbook uses; say what answered, what to settle, and what runs will do. Changes nothing.

    What answered is kept: where a route that a change needs never did, runs hand that change to a person.
    Exit code 0 when the runbook can run (it sees the alarms, or the nodes at least), 1 when it cannot on one of the
    clusters, 2 when the cluster's block cannot be used.

    Parameters
    ----------
    cluster
        The name of its block; or --all.
    all_
        Every cluster, one line each, and what is to be settled by its cause.
    select
        With --all: only clusters with LABEL=VALUE; also region=, cloud=, mode=, name=GLOB. All given must match.
    as_json
        One JSON object on standard output; with --all a list of them.
    forget
        Forget what never answered before, e.g. after an upgrade of Manager: the next run tries a restart again.
    """
    if all_ == bool(cluster) or (select and not all_):
        raise ConfigurationError("name one cluster, or give --all, with --select if not all are meant")
    prefect_is_known()
    if all_:
        return run_until_ended(examine_all(select, as_json=as_json, forget=forget))
    return run_until_ended(examine(cluster, as_json=as_json, forget=forget))


app.command(tickets)


def _list_faults() -> None:
    table = Table("fault", "what it does")
    for name, meaning in FAULTS.items():
        table.add_row(name, meaning)
    console().print(table)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal() and int(port) <= 65535):
        raise ConfigurationError(f"--syslog {text!r}: write HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def main() -> None:
    """Run the command. What goes wrong is one sentence on stderr and exit code 2; interrupted in its work: 130."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        sys.exit(app())
    except KeyboardInterrupt:
        console(stderr=True).print("stopped; what was started is ended again")
        sys.exit(130)
    except (CycloptsError, RunbookError, OSError, httpx.HTTPError) as error:
        console(stderr=True).print("[red]error:[/]", Text(sentence(error)))
        sys.exit(2)
