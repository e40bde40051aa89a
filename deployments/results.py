"""What became of the demo's scenarios, as data and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from rich.console import Console
from rich.markup import escape

from deployments.scenarios import SCENARIOS, Profile
from deployments.terminal import say, show_markdown
from tasks.evidence import MEANING
from tasks.graph import read_graph
from tasks.models import Outcome
from tasks.tickets import Ticket

STEPS = read_graph(files("flows").joinpath("procedures/ALM-12110.json")).steps
ANSWERS = {"": "", "y": " yes", "n": " no"}


@dataclass(frozen=True)
class Change:
    """One thing the run changed in the pretend region: what, and on which host or cluster."""

    action: str
    target: str


@dataclass(frozen=True)
class Result:
    """One scenario played to its end.

    Attributes:
        outcome: the run's word; that of the state (say `Crashed`) where the run ended without one.
        traces: host -> the page's steps with their answers, `1 2n 3y END`.
        ticket: its id, or None.
    """

    scenario: str
    profile: Profile
    outcome: str
    traces: Mapping[str, str]
    mutations: tuple[Change, ...]
    ticket: str | None
    flow_run_id: str

    def as_expected(self, *, as_told: bool) -> bool:
        """Whether it ended as it must: as the scenario says, or (not `as_told`: more was broken) with a word at all."""
        trace = SCENARIOS[self.scenario].trace(self.profile)
        if not as_told:
            return self.outcome in set(Outcome)
        return self.outcome == trace.split()[-1] and list(self.traces.values()) == [trace]


def show(out: Console, results: Sequence[Result], tickets: Sequence[Ticket], *, as_told: bool) -> None:
    """Tell what happened; of a single scenario every step, and its ticket."""
    out.print()
    for result in results:
        meaning = MEANING.get(Outcome(result.outcome), "") if result.outcome in set(Outcome) else ""
        verdict = "as expected" if result.as_expected(as_told=as_told) else "[red]NOT as expected[/]"
        out.print(f"[bold]{escape(result.scenario)}: {result.outcome}[/], {verdict}. {meaning}")
        for host, trace in result.traces.items():
            say(out, "  trace  ", f"{host}: [bold]{trace}[/]")
            for step in trace.split()[:-1] if len(results) == 1 else ():
                say(out, f"         {step:2}", f"{STEPS[step.rstrip('yn')]}[bold]{ANSWERS[step.lstrip('1234567')]}[/]")
        say(out, "  changed", ", ".join(f"{m.action} {m.target}" for m in result.mutations) or "nothing")
        say(out, "  ticket ", result.ticket or "none")
    for ticket in tickets if len(results) == 1 else ():
        out.print(f"\nTicket {ticket.id}:\n")
        show_markdown(out, ticket.body)
