"""What one run asked, saw and did, in order, and the trace of page steps each alarmed host left."""

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from prefect.logging import get_run_logger

from tasks import timing
from tasks.ledger.episodes import Holding, Part
from tasks.ledger.keeping import Line
from tasks.ledger.matching import the_one
from tasks.models import NOT_LISTED, Alarm, Answer, Case, Deed, Outcome
from tasks.record import NEEDS_A_PERSON, NO_HOST, WHOLE_CLUSTER, WORST_FIRST, End, Entry, Kind

RECURRED = "(recurred)"

# An alarm that was over when the run looked for it.
OVER = {
    "auto": (Outcome.CLEARED, "Meta has cleared the alarm already"),
    "manual": (Outcome.CLEARED_BY_PERSON, "a person has cleared the alarm; that says nothing of its cause"),
}
CHANGES = ("3", "6")
LATEST = datetime.max.replace(tzinfo=UTC)

# The step that a host was at when its run stopped after this answer.
NEXT = {"1": "2", "2n": "3", "2y": "5", "3n": "5", "4": "5", "5n": "6", "5y": "7", "6n": "7"}


class Trail:
    """The record of one run. Steps are those of the page; answers are written as `2y`, `5n`.

    Attributes:
        entries: every line, in the order it was learned.
        alarms: host name -> the alarm this run follows.
        ends: host name -> how its part ended.
        earlier: what earlier runs left of this episode; None: nothing is known of that.
        token: the fence by which this segment of the run holds the episode; None: it holds none.
        began: when the run first took its episode, begun anew or not.
        incidents: host name (or that of the cluster) -> id of the tripped breaker that ended its part.
        done_at: mutating step -> when the last thing it did was seen to be done.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.earlier: Holding | None = None
        self.token: int | None = None
        self.began = self._this_segment = timing.now()
        self.incidents: dict[str, str] = {}
        self.entries: list[Entry] = []
        self.alarms: dict[str, Alarm] = {}
        self.ends: dict[str, End] = {}
        self.done_at: dict[str, datetime] = {}
        self._steps: dict[str, list[str]] = {}
        self._changed: dict[str, set[str]] = {step: set() for step in CHANGES}
        self._log = get_run_logger()

    @property
    def traces(self) -> dict[str, str]:
        """Host name -> its trace, for example `1 2n 3y END`."""
        ends: Mapping[str, list[str]] = {host: [end.outcome] for host, end in self.ends.items()}
        return {host: " ".join([*steps, *ends.get(host, [])]) for host, steps in self._steps.items()}

    @property
    def steps(self) -> dict[str, list[str]]:
        """Host name -> the page's steps so far, `1 2n 3n 4`, without what says that one recurred."""
        return {host: [step.removesuffix(f" {RECURRED}") for step in steps] for host, steps in self._steps.items()}

    @property
    def outcome(self) -> Outcome:
        """One word for the run: that of the part that most needs a person."""
        words = {end.outcome for end in self.ends.values()}
        return next((word for word in WORST_FIRST if word in words), Outcome.CLEARED)

    @property
    def needs_a_person(self) -> bool:
        """Whether any part ended so that somebody must look."""
        return any(end.outcome in NEEDS_A_PERSON for end in self.ends.values())

    @property
    def lines(self) -> list[Line]:
        """The entries, as the ledger keeps them."""
        return [Line(e.at, e.step, e.host, e.kind, e.text) for e in self.entries]

    @property
    def so_far(self) -> str:
        """What was asked, seen and done, a line each, for a person who must decide."""
        return "\n".join(f"- step {e.step}, {e.host}: {e.text}" for e in self.entries)

    @property
    def only_incident(self) -> tuple[str, str] | None:
        """The tripped breaker and its words, where nothing else needs a person; None: something does."""
        needed = [host for host, end in self.ends.items() if end.outcome in NEEDS_A_PERSON]
        found = {self.incidents.get(host, "") for host in needed}
        if len(found) != 1 or "" in found:
            return None
        words = [entry.text for entry in self.entries if entry.kind == "did"]
        return found.pop(), words[-1]

    @property
    def subject(self) -> str:
        """What this run is about, the ticket's correlation: its oldest occurrence, else its episode, else the run."""
        told = [(alarm.occurred or LATEST, alarm.serial, host) for host, alarm in self.alarms.items()]
        told = [known for known in told if known[0] != LATEST or known[1]]
        occurred, serial, host = min(told, default=(LATEST, "", ""))
        when = "" if occurred == LATEST else f"{occurred:%Y-%m-%dT%H:%M:%SZ}"
        itself = f"episode/{self.earlier.episode}" if self.earlier else f"run/{self.case.run}"
        which = f"{host}/{serial}/{when}" if told else itself
        return f"{self.case.cluster}/{self.case.alarm_id}/{which}"

    @property
    def parts(self) -> list[Part]:
        """How the page ended for each alarm that was followed; what was handed over before is not among them."""
        traces = self.traces
        return [
            Part(alarm, self.ends[host].outcome, traces[host])
            for host, alarm in self.alarms.items()
            if host in self.ends and alarm.host and self.ends[host].outcome is not Outcome.JOINED
        ]

    def found(self, alarms: Sequence[Alarm]) -> list[Alarm]:
        """Step 1 found these alarms; one that cannot be followed, or that a person has already, ends here."""
        for alarm in alarms:
            host = alarm.host or NO_HOST
            self.alarms[host] = alarm
            self._steps[host] = ["1"]
            if alarm.status.lower() in OVER:
                self._end("1", host, *OVER[alarm.status.lower()])
                continue
            if alarm.status == NOT_LISTED:
                why = (
                    f"a source reported ALM-{alarm.alarm_id}, and Manager does not list it: that does not mean cleared"
                )
                self._end("1", host, Outcome.CANNOT_TELL, why)
                continue
            source = "reported by the alarm source" if alarm.reported else "active on Manager"
            self._write("1", host, "asked", f"{alarm} is {source}", answer="found")
            if not alarm.host:
                why = f"the alarm's location has no host ({alarm.location or 'it is empty'}): find it on Manager"
                self._end("1", host, Outcome.CANNOT_TELL, why)
            elif ended := self._handed_over(alarm):
                self._end(
                    "1", host, Outcome.JOINED, f"the page has ended for this alarm before ({ended}): see its ticket"
                )
        return [alarm for host, alarm in self.alarms.items() if host not in self.ends]

    def looked(self, why: str, answers: Iterable[Answer]) -> None:
        """Record what was looked at without the page asking for it."""
        for answer in answers:
            self._write("", answer.host or WHOLE_CLUSTER, "asked", f"{why}: {answer.seen}", answer.at)

    def relapsed(self, alarms: Sequence[Alarm]) -> tuple[list[Alarm], list[Alarm], list[Alarm]]:
        """Alarms to begin the page with; those that came back after step 3 had repaired them; those after step 6.

        A relapse goes on where its repair has failed, with the trace of the run that repaired it.
        """
        back: dict[str, list[Alarm]] = {"": [], "3": [], "6": []}
        repaired = self.earlier.repaired if self.earlier else {}
        for alarm in alarms:
            steps = repaired.get(alarm.host, "").split()[:-1]
            step = steps[-1].rstrip("y") if steps else ""
            back[step].append(alarm)
            if step:
                self._steps[alarm.host] = [*steps[:-1], f"{step}n {RECURRED}"]
                why = "it came back within the time in which a repair is verified"
                text = f"{why}: step {step} has not repaired it"
                self._write(step, alarm.host, "asked", text, answer=f"no {RECURRED}")
        return back[""], back["3"], back["6"]

    def _handed_over(self, alarm: Alarm) -> str:
        """The word with which the page ended for this very alarm in an earlier run; empty: it did not."""
        mine = [each for each in self.earlier.handed_over if each.host == alarm.host] if self.earlier else []
        known = the_one(alarm, mine)
        return known.ended if known else ""

    def answered(
        self, step: str, answers: Iterable[Answer], alarms: Sequence[Alarm]
    ) -> tuple[list[Alarm], list[Alarm]]:
        """Record a question's answers; returns the alarms answered yes and those answered no.

        An answer whose host is empty is the whole cluster's. A host whose answer is a word ends here with it. "Is the
        alarm cleared?" after a step that changed nothing for a host is no answer of the page: cleared ends it as such;
        not cleared, its instance had become normal by itself, so it goes on as one that was normal at step 2.
        """
        by_host = {answer.host: answer for answer in answers}
        yes: list[Alarm] = []
        no: list[Alarm] = []
        for alarm in alarms:
            answer = by_host.get(alarm.host) or by_host[""]
            if isinstance(answer.value, Outcome):
                self._end(step, alarm.host, answer.value, answer.seen, answer.at)
                continue
            said = "yes" if answer.value == "y" else "no"
            unchanged = step in CHANGES and not self._changed[step] & {alarm.host, WHOLE_CLUSTER}
            if unchanged and answer.value == "y":
                why = f"{answer.seen}; this run had changed nothing"
                self._end(step, alarm.host, Outcome.CLEARED, why, answer.at)
                continue
            if unchanged and step == "3":
                self._steps[alarm.host][-1] = "2y"
                said = "no (nothing changed)"
            else:
                self._steps[alarm.host].append(f"{step}{answer.value}")
            self._write(step, alarm.host, "asked", answer.seen, answer.at, answer=said)
            (yes if answer.value == "y" else no).append(alarm)
        return yes, no

    def acted(self, step: str, deeds: Iterable[Deed], alarms: Sequence[Alarm]) -> list[Alarm]:
        """Record what a mutating step did; returns the alarms for which the page goes on.

        A deed that ended ends its host's part; where it is on no alarmed host (a node, the cluster), all parts.
        """
        going = {alarm.host: alarm for alarm in alarms}
        for deed in deeds:
            kind: Kind = "asked" if deed.looked else "did"
            self._write(step, deed.host or WHOLE_CLUSTER, kind, deed.did, deed.at, answer=deed.ended or "")
            if deed.looked:
                continue
            if deed.changed:
                self._changed[step].add(deed.host if step == "3" else WHOLE_CLUSTER)
            if not deed.ended:
                self.done_at[step] = deed.at
                continue
            for host in [deed.host] if step == "3" else list(going):
                self.ends[host] = End(deed.ended, step)
                if deed.incident:
                    self.incidents[host] = deed.incident
                going.pop(host)
        return list(going.values())

    async def follow(self, step: str, deeds: AsyncIterable[Deed], alarms: Sequence[Alarm]) -> list[Alarm]:
        """As `acted`, each deed recorded at the moment it is done: a run that breaks off has said what it did."""
        going = list(alarms)
        async for deed in deeds:
            going = self.acted(step, [deed], going)
        return going

    def remaining(self, step: str, gone: Sequence[Answer], alarms: Sequence[Alarm]) -> list[Alarm]:
        """End the hosts whose alarms went away meanwhile; returns the alarms of the others."""
        hosts = {answer.host for answer in gone}
        self.answered(step, gone, [alarm for alarm in alarms if alarm.host in hosts])
        return [alarm for alarm in alarms if alarm.host not in hosts]

    def reached(self, step: str, alarms: Sequence[Alarm]) -> None:
        """These hosts come to a step that asks nothing."""
        for alarm in alarms:
            self._steps[alarm.host].append(step)

    def end(self, alarms: Iterable[Alarm], outcome: Outcome, step: str) -> None:
        """These hosts' part ends at one of the page's ends."""
        for alarm in alarms:
            self.ends[alarm.host] = End(outcome, step)

    def stop(self, outcome: Outcome, why: str) -> None:
        """The run is over: every part that has not ended ends so, or the run itself where there is none."""
        for host in [host for host in self._steps if host not in self.ends] or [WHOLE_CLUSTER]:
            last = self._steps.get(host, [""])[-1].removesuffix(f" {RECURRED}")
            self._end(NEXT.get(last, last.rstrip("yn")), host, outcome, why, timing.now())

    def _end(self, step: str, host: str, outcome: Outcome, why: str, at: datetime | None = None) -> None:
        self.ends[host] = End(outcome, step)
        self._write(step, host, "ended", f"{outcome}: {why}", at, answer=outcome)

    def _write(
        self, step: str, host: str, kind: Kind, text: str, at: datetime | None = None, *, answer: str = ""
    ) -> None:
        entry = Entry(at or self.began, step, host, kind, text, answer)
        self.entries.append(entry)
        if entry.at >= self._this_segment:  # else the log has it already
            self._log.info("%s%s: %s", f"step {step}, " if step else "", host, text)
