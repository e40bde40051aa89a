"""One rejected password suspends the login, for everybody on this machine, until the block changes."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tasks.clients.http import Patience
from tasks.clients.manager import Manager
from tests.tasks.clients.conftest import World, error_of

pytestmark = pytest.mark.anyio
LOGIN = "GET session/status"
REJECTED = (
    "NotAuthorized: Manager GET session/status: "
    "the user or password in the Manager block was rejected: correct the block"
)
LOCKED = (
    "NotAuthorized: Manager GET session/status: the user is locked on Manager, not rejected: wait, or unlock it there"
)
SUSPENDED = (
    "LoginSuspended: Manager login: the password of user 'runbooks' was rejected by {}: no further login until it is "
    "changed in the Manager block (Manager locks a user after 5)"
)
ANOTHER_PROCESS = """
import asyncio, sys
from tasks.clients.manager import Manager
from tasks.errors import RunbookError

async def main():
    async with Manager(sys.argv[1], user="runbooks", password="wrong") as manager:
        try:
            await manager.clusters()
        except RunbookError as error:
            print(f"{type(error).__name__}: {error}")

asyncio.run(main())
"""


async def test_a_wrong_password_is_sent_once(served_world: World, runbooks_home: Path) -> None:
    """Of eight reads one is sent; the others, a second client and another process send nothing at all."""
    world = served_world
    manager, second = await world.manager(password="wrong"), await world.manager(password="wrong")
    suspended = SUSPENDED.format(manager.http.base_url)
    errors = await asyncio.gather(*(world.error_of(manager.clusters()) for _ in range(8)))
    assert sorted(errors) == sorted([REJECTED, *[suspended] * 7])
    assert await world.error_of(second.clusters()) == suspended
    assert (world.wire.sent, world.cluster.wrong_passwords) == ([LOGIN], 1)
    command = [sys.executable, "-c", ANOTHER_PROCESS, str(manager.http.base_url)]
    told = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert (told.stdout, world.cluster.wrong_passwords) == (suspended + "\n", 1)
    kept = b"".join(path.read_bytes() for path in (runbooks_home / "suspended-logins").iterdir())
    assert b"wrong" not in kept


async def test_clients_that_start_together_try_one_password_once(world: World) -> None:
    """Eight clients with a wrong password at the same moment are one attempt, so they lock nobody out."""
    managers = [await world.manager(password="wrong") for _ in range(8)]
    errors = await asyncio.gather(*(world.error_of(manager.clusters()) for manager in managers))
    assert sorted(errors) == sorted([REJECTED, *[SUSPENDED.format(managers[0].http.base_url)] * 7])
    assert (world.wire.sent, world.cluster.wrong_passwords) == ([LOGIN], 1)


async def test_a_changed_password_frees_the_login(world: World) -> None:
    """The right password logs in, and the suspension of the old one is forgotten."""
    wrong = await world.manager(password="wrong")
    await world.error_of(wrong.clusters())
    right = await world.manager()
    assert len(await right.clusters()) == 1
    assert await world.error_of(wrong.clusters()) == REJECTED


async def test_another_user_is_not_suspended(world: World) -> None:
    """A suspension is for one user at one Manager."""
    await world.error_of((await world.manager(user="somebody", password="wrong")).clusters())
    assert len(await (await world.manager()).clusters()) == 1


async def test_a_locked_user_is_not_a_wrong_password(world: World) -> None:
    """The lock is named, is not tried again, suspends nothing, and the login works when the lock has ended."""
    world.cluster.locked_until = world.region.clock.elapsed + 300
    manager = await world.manager()
    assert await world.error_of(manager.clusters()) == (LOCKED)
    world.region.advance(301)
    assert len(await manager.clusters()) == 1
    assert world.wire.sent == [LOGIN, LOGIN, "GET clusters"]


@pytest.mark.parametrize(
    ("status", "page", "sentence"),
    [
        (200, "<p>The credentials you provided cannot be determined to be authentic.</p>", REJECTED),
        (403, "<p>The credentials you provided cannot be determined to be authentic.</p>", REJECTED),
        (401, f"<style>{'x' * 5000}</style>", REJECTED),
        (401, "Wrong password. The user will be locked after 4 more.", REJECTED),
        (
            401,
            f"<style>{'x' * 5000}</style>This account HAS BEEN LOCKED",
            LOCKED,
        ),
        (
            200,
            "<script>location = '/web/modify_password.html'</script>",
            "NotAuthorized: Manager GET session/status: the user must set a password of its own first: "
            "log in to Manager by hand once",
        ),
        (403, "<p>no</p>", "NotAuthorized: Manager GET session/status: HTTP 403: no"),
        (404, "", "NotOffered: Manager GET session/status: HTTP 404: Not Found"),
    ],
)
async def test_what_a_login_page_says(status: int, page: str, sentence: str) -> None:
    """The words of the page count whatever its status; each is said once and nothing is tried again."""
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        return httpx.Response(status, html=page)

    async with _manager(answer) as manager:
        assert (await error_of(manager.clusters()), sent) == (sentence, ["/session/status"])
        again = await error_of(manager.clusters())
    assert (again.partition(":")[0] == "LoginSuspended") == (sentence == REJECTED)


async def test_a_login_may_answer_anything_with_200() -> None:
    """What a right password is answered is not published: words are as good as JSON."""
    answers = {"/session/status": httpx.Response(200, text="welcome"), "/clusters": httpx.Response(200, json=[])}
    async with _manager(lambda request: answers[request.url.path]) as manager:
        assert await manager.clusters() == []


async def test_a_broken_mark_is_no_obstacle(world: World, runbooks_home: Path) -> None:
    """A mark that a full disk cut short is forgotten, not an error."""
    wrong = await world.manager(password="wrong")
    await world.error_of(wrong.clusters())
    (mark,) = [path for path in (runbooks_home / "suspended-logins").iterdir() if not path.suffix]
    mark.write_bytes(b"")
    assert len(await (await world.manager()).clusters()) == 1


async def test_where_a_rejection_cannot_be_kept_no_password_is_sent(world: World, no_folder: Path) -> None:
    """A file in the way of the folder is an error of the configuration, before the login."""
    error = await world.error_of((await world.manager()).clusters())
    assert error.startswith(f"ConfigurationError: the folder {no_folder} cannot be made (")
    assert world.wire.sent == []


async def test_a_login_that_hangs_does_not_hold_others_for_ever(world: World) -> None:
    """Whoever waits for another's login gives up when its own time is up."""
    world.region.trouble.add("GET", "*/session/status", "latency", times=None, seconds=2)
    patient = await world.manager(patience=Patience(timeout=0.3, attempts=1))
    hasty = await world.manager(patience=Patience(timeout=0.1, attempts=1))
    first = asyncio.create_task(world.error_of(patient.clusters()))
    await asyncio.sleep(0.05)
    assert await world.error_of(hasty.clusters()) == (
        "Unreachable: Manager login: another login of 'runbooks' is not answered yet"
    )
    assert (await first).startswith("Unreachable: Manager GET session/status: no answer within 0.3 s")


@pytest.fixture
def no_folder(runbooks_home: Path) -> Path:
    """A file where the folder should be."""
    runbooks_home.write_text("not a folder")
    return runbooks_home


def _manager(answer: Callable[[httpx.Request], httpx.Response]) -> Manager:
    return Manager("http://localhost", user="u", password="p", transport=httpx.MockTransport(answer))
