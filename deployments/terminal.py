"""What the commands say: wrapped between words for a terminal, in whole lines for a pipe or a file."""

from pathlib import Path

import httpx
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

UNBROKEN = 10_000


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; elsewhere so wide that no path or address is ever broken in two."""
    found = Console(stderr=stderr, highlight=False, emoji=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, emoji=False, width=UNBROKEN)


def say(out: Console, margin: str, text: str | Text) -> None:
    """One paragraph; where it must be wrapped its lines stay right of the margin. The text may hold rich's markup."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_row(margin, text)
    out.print(grid)


def show_markdown(out: Console, text: str) -> None:
    """Markdown, laid out for a terminal; for a pipe or a file as it is."""
    if out.is_terminal:
        out.print(Markdown(text))
    else:
        out.print(text, markup=False)


def sentence(error: Exception) -> str:
    """What went wrong, fit for a person. An httpx error that gets here is Prefect's: ours are RemoteErrors."""
    match error:
        case httpx.HTTPStatusError():
            return f"the Prefect server answers {error.response.status_code} to {_called(error)}: see PREFECT_API_URL"
        case httpx.RequestError():
            why = str(error) or type(error).__name__
            return f"Prefect cannot be reached ({_called(error)}: {why}): start its server, or correct PREFECT_API_URL"
        case OSError(strerror=str(why)):
            return f"{Path(error.filename)}: {why}" if error.filename else why
    return str(error)


def _called(error: httpx.HTTPStatusError | httpx.RequestError) -> str:
    """The request without user, password and query, which an address may hold."""
    url = error.request.url
    return f"{error.request.method} {url.scheme}://{url.netloc.decode()}{url.path}"
