"""The command line: what is wrong is said in one sentence, with the right exit code, and nothing is left behind."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.scenarios import SCENARIOS
from tasks.tickets import Ticket
from tests.deployments.conftest import COMMAND, Ended, Runbooks, environment, processes_of

pytestmark = [pytest.mark.anyio, pytest.mark.command, pytest.mark.xdist_group("command")]

FORM = "write 'KIND METHOD PATH-GLOB [TIMES]', e.g. '503 GET */alarms 3'"
IN_THE_BACKGROUND = "trap '' INT;"  # so a script's shell starts what it does not wait for
NO_SERVER = (
    "error: PREFECT_API_URL is not set: say where the Prefect server is, "
    "e.g. prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api\n"
)

UNREACHABLE = (
    "cluster's block: Prefect cannot be reached (All connection attempts failed): start its server, "
    "or correct PREFECT_API_URL"
)

BAD_INPUT = {
    "demo|--scenario|nope": f"--scenario nope: there is none: use all, {', '.join(SCENARIOS)}",
    "demo|--fault|crashed@[nohost]": (
        "--fault crashed@[nohost]: no host '[nohost]': use one of node-master1, node-core1, node-core2"
    ),
    "demo|--fault|masked@node-core1": "--fault masked@node-core1: masked is not a fault of a single host",
    "demo|--trouble|503": f"--trouble '503': {FORM}",
    "demo|--trouble|": f"--trouble '': {FORM}",
    "demo|--trouble|503 GET [/red] x": f"--trouble '503 GET [/red] x': {FORM}",
    "demo|--trouble|200 GET /x": f"--trouble '200 GET /x': {FORM}; an HTTP status is one from 400 to 599",
    "demo|--trouble|broken GET /x": (
        "--trouble 'broken GET /x': no trouble is called 'broken'; known: latency, status, reset, truncated, "
        "wrong-type, lost-session, answer-lost, or an HTTP status"
    ),
    "demo|--speed|0": 'Invalid value "0.0" for --speed. Must be > 0.',
    "demo|--speed|-1": 'Invalid value "-1.0" for --speed. Must be > 0.',
    "demo|--speed|nan": 'Invalid value "nan" for --speed. Must be <= 1000.',
    "demo|--speed|fast": 'Invalid value for --speed: unable to convert "fast" into float.',
    "emulator|--speed|0": 'Invalid value "0.0" for --speed. Must be > 0.',
    "emulator|--port|65536": 'Invalid value "65536" for --port. Must be <= 65535.',
    "emulator|--clusters|0": 'Invalid value "0" for --clusters. Must be >= 1.',
    "emulator|--syslog|[red]here": "--syslog '[red]here': write HOST:PORT",
    "emulator|--syslog|here:99999": "--syslog 'here:99999': write HOST:PORT",
    "intake|--config|nowhere/[it].toml": "nowhere/[it].toml: No such file or directory: name the intake's TOML file",
    "alarm|raise|prod": 'Command "alarm raise" parameter HOST requires an argument.',
    "alarm|clear|prod|node-1|--by|me": 'Invalid value "me" for --by. Choose from: "auto", "person".',
    "intake|rejected|--last|0": 'Invalid value "0" for --last. Must be >= 1.',
    "up|--port|65536": 'Invalid value "65536" for --port. Must be <= 65535.',
    "nope": 'Unknown command "nope". '
    "Available commands: intake, alarm, ledger, up, stop, resume, breaker, approvals, ...",
    "doctor": "name one cluster, or give --all, with --select if not all are meant",
    "doctor|prod|--all": "name one cluster, or give --all, with --select if not all are meant",
    "doctor|prod|--select|a=b": "name one cluster, or give --all, with --select if not all are meant",
}


@pytest.fixture
def taken() -> Iterator[str]:
    """A port that somebody else has, for UDP and TCP."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        yield str(port)


async def test_bad_input_is_one_sentence(runbooks: Runbooks, tmp_path: Path) -> None:
    """Bad input ends at once with exit code 2 and one unbroken line on stderr that says what is wrong."""
    at_once = asyncio.Semaphore(4)

    async def tried(arguments: str) -> Ended:
        async with at_once:
            return await runbooks(*arguments.split("|"))

    ended = await asyncio.gather(*(tried(arguments) for arguments in BAD_INPUT))
    assert dict(zip(BAD_INPUT, ended, strict=True)) == {
        arguments: Ended(2, "", f"error: {words}\n") for arguments, words in BAD_INPUT.items()
    }
    assert processes_of(tmp_path) == []


async def test_an_unknown_fault_is_answered_with_the_known_ones(runbooks: Runbooks) -> None:
    """An unknown fault is named, with every fault there is, in one line."""
    ended = await runbooks("demo", "--fault", "[red]nope[/]")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("error: --fault [red]nope[/]: no fault is called '[red]nope[/]'; known: agency-broken,")


async def test_a_port_in_use_is_named(runbooks: Runbooks, taken: str) -> None:
    """A port that another program holds is exit code 2 and one line that names it."""
    ended = await runbooks("emulator", "--port", taken)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"cannot listen on 127.0.0.1:{taken}" in ended.err


@pytest.mark.parametrize("listener", ["http", "syslog"])
async def test_a_port_of_the_intake_in_use_is_named(
    runbooks: Runbooks, taken: str, listener: str, tmp_path: Path
) -> None:
    """A port of the intake that another program holds is exit code 2; the last line names it and where to change it."""
    ports = {"http": "0", "syslog": "0", listener: taken}
    config = tmp_path / "intake.toml"
    config.write_text("".join(f"[{name}]\nport = {port}\n" for name, port in ports.items()))
    ended = await runbooks("intake", "--config", str(config))
    assert (ended.code, ended.out) == (2, "")
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"error: cannot listen on 127.0.0.1:{taken}"), last
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", [("doctor", "prod"), ("intake",)])
async def test_without_a_prefect_server_s_address(runbooks: Runbooks, command: tuple[str, ...]) -> None:
    """Without the address of a Prefect server the doctor and the intake say how to set it, and do nothing else."""
    assert await runbooks(*command, PREFECT_API_URL="") == Ended(2, "", NO_SERVER)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/api", UNREACHABLE),
        ("http://me:hush@127.0.0.1:9/api", UNREACHABLE),
    ],
)
async def test_an_unreachable_prefect_is_one_sentence(runbooks: Runbooks, address: str, words: str) -> None:
    """Without a Prefect server the doctor says so in one line, without what the address holds of a password."""
    ended = await runbooks("doctor", "prod", PREFECT_API_URL=address)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"error: {words}")
    assert "hush" not in ended.err


async def test_tickets_are_listed_and_shown(runbooks: Runbooks, tmp_path: Path) -> None:
    """Tickets are listed and shown as they are, brackets and long lines included; an unknown one is exit code 2."""
    folder = tmp_path / "runbooks" / "tickets"
    assert await runbooks("tickets") == Ended(0, "no tickets\n", "")
    at = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
    body = f"# [red]prod[/]\n\nhttps://127.0.0.1/{'long/' * 60}end :warning:\n"
    ticket = Ticket(id="T-00000001", correlation="c", title="[bold]prod: END", body=body, created=at, updated=at)
    (folder / "T-00000001.json").write_text(ticket.model_dump_json())
    listed = await runbooks("tickets")
    assert (listed.code, listed.err) == (0, "")
    assert [cell.strip() for cell in listed.out.splitlines()[3].strip("│").split("│")] == [
        "T-00000001",
        "open",
        "2026-11-22 14:00:00",
        "[bold]prod: END",
        "this machine only",
    ]
    assert await runbooks("tickets", "T-00000001") == Ended(0, body + "\n", "")
    words = f"error: there is no ticket '[red]x' in {folder}: `runbooks tickets` lists them\n"
    assert await runbooks("tickets", "[red]x") == Ended(2, "", words)


@pytest.mark.parametrize(("command", "said"), [("emulator", ""), ("intake", "ending: what was accepted is on disk\n")])
@pytest.mark.parametrize(("sent", "shell"), [(signal.SIGINT, ""), (signal.SIGTERM, IN_THE_BACKGROUND)])
async def test_what_listens_ends_when_told(
    tmp_path: Path, command: str, said: str, sent: signal.Signals, shell: str
) -> None:
    """Ctrl-C ends the emulator and the intake well, with exit code 0; so does SIGTERM in the background."""
    config = tmp_path / "intake.toml"
    config.write_text("[http]\nport = 0\n[syslog]\nport = 0\n")
    ports = {"emulator": "--port=0", "intake": f"--config={config}"}
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"{shell} exec {COMMAND} {command} {ports[command]}"),
        env=environment(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).endswith(b"Ctrl-C ends it\n")
    process.send_signal(sent)
    out, err = await process.communicate()
    assert (process.returncode, "Traceback" in err.decode()) == (0, False)
    assert out.decode().endswith(said)


async def test_the_faults_are_listed(runbooks: Runbooks) -> None:
    """`runbooks emulator --faults` lists what can be switched on and starts nothing."""
    ended = await runbooks("emulator", "--faults")
    assert (ended.code, ended.err) == (0, "")
    assert "wedged" in ended.out
