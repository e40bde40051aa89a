"""How a check is answered: pass, fail, cannot tell, or not applicable, and what was seen."""

from typing import Literal

from tasks.errors import NotOffered, RunbookError, Unreachable, Untrusted

Value = Literal["pass", "fail", "cannot tell", "n/a"]
Verdict = tuple[Value, str]


def unread(what: str, error: RunbookError | None) -> Verdict:
    """It could not be read; or it was not asked, for there is no way to ask."""
    if error is None:
        return "n/a", f"{what} is not asked for: it has no block that says how"
    if isinstance(error, NotOffered):
        return "cannot tell", f"{what} is not offered here ({error})"
    return "cannot tell", f"{what} cannot be read: {error}"


def gives_no_answer(read: object) -> bool:
    """Whether who was asked could not be reached; one whose certificate is not trusted could."""
    return isinstance(read, Unreachable) and not isinstance(read, Untrusted)


def no_faults(faults: list[str], fine: str) -> Verdict:
    """`fail` with what is wrong, or `pass`."""
    return ("fail", "; ".join(faults)) if faults else ("pass", fine)
