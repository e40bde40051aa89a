"""What a person is asked, in words."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tasks import timing
from tasks.forms import AFTER_A_BIND, BY_HAND, CLAIMED, INTERRUPTS, ApprovalForm, counts_from, said, words
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import Decision

ASKED = datetime(2026, 11, 27, 4, 0, tzinfo=UTC)


def question(kind: str, *, action: str = "restart", four_eyes: bool = False) -> Approval:
    """About the restart of two hosts' instances, or another action, until a quarter past four."""
    return Approval(
        attempt="run@1",
        step="3",
        kind=kind,
        episode_id="e",
        run="run",
        link="",
        cluster="pay*ments",
        action=action,
        targets="node-1\nnode-2",
        why="the cluster's mode for a restart is 'approve'.\n\n- step 2, node-1: the nodes API says 'Faulty'",
        four_eyes=four_eyes,
        asked=ASKED,
        expires=ASKED.replace(minute=15),
    )


def test_an_approval_says_first_what_decides() -> None:
    """What, where, until when and why come before what it may interrupt, and what was seen comes last."""
    assert words(question("approve")).splitlines() == [
        "**Restart the Meta instance of these hosts, one after the other** "
        r"(pay\*ments, step 3 of the page): node-1, node-2",
        "",
        "Without an answer by 2026-11-27 04:15:00 UTC nothing is done, and a ticket is filed. "
        "Why a person is asked: the cluster's mode for a restart is 'approve'.",
        "",
        f"What it may interrupt: {INTERRUPTS['restart']}",
        "",
        "What was seen so far:",
        "",
        "- step 2, node-1: the nodes API says 'Faulty'",
    ]


def test_what_is_to_be_done_by_hand_says_what_to_click() -> None:
    """The clicks stand in the first paragraph, with the hosts that they are about."""
    first = words(question("by hand")).splitlines()[0]
    about = r"(pay\*ments, step 3 of the page), about node-1, node-2"
    assert first == f"**Please do this by hand** {about}: {BY_HAND['restart']}"


def test_four_eyes_name_the_command() -> None:
    """A form that cannot approve says what can."""
    told = "This cluster demands four eyes: approve with `runbooks approve run` and your key."
    assert [told in words(question("approve", four_eyes=eyes)) for eyes in (True, False)] == [True, False]


@pytest.mark.parametrize("kind", ["approve", "by hand"])
def test_what_a_bind_leaves_behind_is_said_once(kind: str) -> None:
    """Whoever approves a bind, and whoever makes it by hand, reads what the console shows then, and of later nodes."""
    assert AFTER_A_BIND == "The console may go on showing the old agency, and nodes added later come unbound."
    text = words(question(kind, action="rebind"))
    assert (text.count(AFTER_A_BIND), BY_HAND["rebind"] in text) == (1, kind == "by hand")
    assert BY_HAND["rebind"].endswith(AFTER_A_BIND)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (None, None),
        (ASKED, None),
        (ASKED - timedelta(days=30), None),
        (ASKED + timedelta(hours=1), ASKED + timedelta(hours=1)),
        ((ASKED + timedelta(hours=1)).replace(tzinfo=None), ASKED + timedelta(hours=1)),
        ((ASKED + timedelta(hours=1)).astimezone(timezone(timedelta(hours=2))), ASKED + timedelta(hours=1)),
        (ASKED + timedelta(days=7), ASKED + timedelta(days=7)),
    ],
)
def test_from_when_on_an_approval_counts(given: datetime | None, counts: datetime | None) -> None:
    """UTC unless it has an offset, and at once where the time is over."""
    found = counts_from(given, ASKED)
    assert (found, found and found.tzinfo) == (counts, counts and UTC)


def test_a_time_far_ahead_is_no_approval() -> None:
    """More than seven days ahead it is refused with what is wrong, and so is the form."""
    with pytest.raises(ValueError, match=r"^2026-12-04 04:01 UTC is more than 7 days ahead$"):
        counts_from(ASKED + timedelta(days=7, minutes=1), ASKED)
    with pytest.raises(ValueError, match="is more than 7 days ahead"):
        said(question("approve"), {"decision": "approve", "name": "Ada", "not_before": "2999-01-01T00:00:00Z"})


def test_the_form_says_how_its_time_is_read() -> None:
    """UTC without an offset, at most seven days, at once where it is over; filled in so it is the decision's time."""
    told = (
        "The change waits until then, at most seven days; UTC unless an offset is given. Empty, or a time that is over:"
    )
    assert f"{told} it is made at once." == ApprovalForm.model_fields["not_before"].description
    then = timing.wall().replace(microsecond=0) + timedelta(hours=3)
    filled = {"decision": "approve", "name": "Ada", "comment": "ok", "not_before": f"{then:%Y-%m-%dT%H:%M:%S}"}
    assert said(question("approve"), filled) == Decision("approved", "Ada", CLAIMED, "ok", then)
    over = {**filled, "not_before": "2020-01-01T00:00:00Z"}
    assert said(question("approve"), over) == Decision("approved", "Ada", CLAIMED, "ok", None)
