"""What a person is asked, in words."""

from datetime import UTC, datetime

from tasks.forms import BY_HAND, INTERRUPTS, words
from tasks.ledger.approval_tables import Approval

ASKED = datetime(2026, 11, 27, 4, 0, tzinfo=UTC)


def question(kind: str, *, four_eyes: bool = False) -> Approval:
    """About the restart of two hosts' instances, until a quarter past four."""
    return Approval(
        attempt="run@1",
        step="3",
        kind=kind,
        episode_id="e",
        run="run",
        link="",
        cluster="pay*ments",
        action="restart",
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
