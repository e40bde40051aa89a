"""What persons are asked, and the forms in the Prefect UI by which they answer."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from prefect.input import RunInput
from pydantic import Field, field_validator

from tasks import timing
from tasks.evidence import quoted
from tasks.gates import Action
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import Decision

CLAIMED = "claimed, unauthenticated: the Prefect UI has one shared login"
AFTER_A_BIND = "The console may go on showing the old agency, and nodes added later come unbound."
MOST_AHEAD = timedelta(days=7)  # a change that is put off for longer is another change

# What a person does by hand, with the clicks. Source: ALM-12110, steps 3 and 6.
BY_HAND: dict[Action, str] = {
    "restart": "On Manager, first see whether a restart of this host's Meta instance has run already; if not, "
    "Cluster > Services > Meta > Instance: select the instance of this host, More > Restart Instance, wait ten minutes "
    "and see whether the alarm is cleared.",
    "rebind": "On the MRS console, Clusters > Active Clusters > this cluster, O&M management: Manage Agency, bind the "
    "agency again (first make sure nobody removed it on purpose), wait fifteen minutes and see whether the alarm "
    f"is cleared. {AFTER_A_BIND}",
}
WHAT: dict[Action, str] = {
    "restart": "Restart the Meta instance of these hosts, one after the other",
    "rebind": "Bind every node of the cluster to its agency again, node by node",
}
INTERRUPTS: dict[Action, str] = {
    "restart": "Each Meta instance is away for about a minute. Jobs on its host that ask for OBS keys in that minute "
    "fail; other services of the cluster are not restarted.",
    "rebind": "Nothing is restarted. Binding grants the nodes the agency's rights: not if it was removed on purpose.",
}


class ApprovalForm(RunInput):
    """May it be done? One form per action."""

    decision: Literal["approve", "reject"] = Field(
        title="Decision", description="approve: the change is made, if its gates still let it pass. reject: a ticket."
    )
    name: str = Field(min_length=2, max_length=100, title="Your name", description=f"Recorded as {CLAIMED}.")
    comment: str = Field("", max_length=2000, title="Comment", description="For the record and the ticket.")
    not_before: datetime | None = Field(
        None,
        title="Not before",
        description="The change waits until then, at most seven days; UTC unless an offset is given. Empty, or a time "
        "that is over: it is made at once.",
    )

    @field_validator("not_before")
    @classmethod
    def _counts_from(cls, then: datetime | None) -> datetime | None:
        return counts_from(then, timing.wall())


class RejectionForm(RunInput):
    """The same for a cluster that demands four eyes: this form cannot approve."""

    decision: Literal["reject"] = Field(
        title="Decision", description="To approve use `runbooks approve` with your key: this cluster demands four eyes."
    )
    name: str = Field(min_length=2, max_length=100, title="Your name", description=f"Recorded as {CLAIMED}.")
    comment: str = Field("", max_length=2000, title="Comment", description="For the record and the ticket.")


class HandOffForm(RunInput):
    """Has a person done it? The run goes on by reading the world."""

    answer: Literal["done", "could not"] = Field(
        title="Have you done it?", description="done: the run looks whether it shows. could not: a ticket."
    )
    name: str = Field(min_length=2, max_length=100, title="Your name", description=f"Recorded as {CLAIMED}.")
    comment: str = Field("", max_length=2000, title="Comment", description="What you saw; for the record.")


def counts_from(then: datetime | None, now: datetime) -> datetime | None:
    """From when on an approval counts that was given with this time, in UTC; None: at once, as where that is over.

    Raises:
        ValueError: it is more than seven days ahead.
    """
    if then is None:
        return None
    then = then.replace(tzinfo=UTC) if then.tzinfo is None else then.astimezone(UTC)
    if then > now + MOST_AHEAD:
        raise ValueError(f"{then:%Y-%m-%d %H:%M} UTC is more than {MOST_AHEAD.days} days ahead")
    return then if then > now else None


def said(asked: Approval, filled: dict[str, Any]) -> Decision:
    """What somebody has filled in. Prefect has checked it against the form's schema.

    Raises:
        ValidationError: it says what no schema can forbid, a time too far ahead.
    """
    form = form_of(asked)(**filled)
    match form:
        case HandOffForm():
            return Decision(form.answer, form.name, CLAIMED, form.comment)
        case ApprovalForm(decision="approve"):
            return Decision("approved", form.name, CLAIMED, form.comment, form.not_before)
        case ApprovalForm() | RejectionForm():
            return Decision("rejected", form.name, CLAIMED, form.comment)
    raise TypeError(f"{type(form).__name__} is no form of ours")


def action_of(asked: Approval) -> Action:
    """The change that it is about."""
    return "restart" if asked.action == "restart" else "rebind"


def form_of(asked: Approval) -> type[RunInput]:
    """The form by which it is answered in the Prefect UI."""
    if asked.kind == "by hand":
        return HandOffForm
    return RejectionForm if asked.four_eyes else ApprovalForm


def words(asked: Approval) -> str:
    """The question for a person, as markdown: what, where, until when, why, and what it may interrupt.

    What decides comes first: one of Prefect's two UIs shows nine lines, the rest must be scrolled to.
    """
    action = action_of(asked)
    where = f"({quoted(asked.cluster)}, step {asked.step} of the page)"
    targets = ", ".join(map(quoted, asked.targets.splitlines()))
    why, *seen = asked.why.splitlines()
    evidence = [f"- {quoted(line.removeprefix('- '))}" for line in seen if line]
    until = f"Without an answer by {asked.expires:%Y-%m-%d %H:%M:%S} UTC nothing is done, and a ticket is filed."
    what = f"**{WHAT[action]}** {where}: {targets}"
    if asked.kind == "by hand":
        what = f"**Please do this by hand** {where}, about {targets}: {BY_HAND[action]}"
    lines = [what, "", f"{until} Why a person is asked: {quoted(why)}", ""]
    after = f" {AFTER_A_BIND}" if action == "rebind" and asked.kind == "approve" else ""  # by hand the clicks say so
    lines += [f"What it may interrupt: {INTERRUPTS[action]}{after}", ""]
    if asked.four_eyes and asked.kind == "approve":
        lines += [f"This cluster demands four eyes: approve with `runbooks approve {asked.run}` and your key.", ""]
    lines += ["What was seen so far:", "", *evidence] if evidence else []
    return "\n".join(lines).rstrip()
