"""The brake of last resort: a file that stops every mutation, without ledger and without Prefect."""

from tasks.home import home

NAME = "STOP"


def stop_file() -> str:
    """Why nothing is changed, if the stop file lies in `$RUNBOOKS_HOME`; empty: it does not.

    What the file says is the reason. One that cannot be read stops as well.
    """
    path = home() / NAME
    try:
        reason = " ".join(path.read_text(errors="replace").split())
    except FileNotFoundError:
        return ""
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}"
    return (
        f"the stop file {path} is there ({reason[:200] or 'it says no reason'}): nothing is changed until it is removed"
    )
