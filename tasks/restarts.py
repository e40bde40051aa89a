"""How a restart ended: read from Manager's command and the instance itself. It only reads."""

from datetime import datetime

from tasks import timing
from tasks.connections import Connection
from tasks.errors import CannotTell, NotOffered, RemoteError, ServerTrouble, StepFailed, Unreachable
from tasks.health import ABNORMAL, NORMAL
from tasks.models import Deed, Instance

LOOK_EVERY = 10.0  # seconds of the cluster's time, as everything below
RESTART_TAKES = 1800.0
NO_SIGN = 600.0  # so long a restart is looked for of which is not known whether it was sent


def state_of(instance: Instance) -> str:
    """How an instance is, and since when it runs by Manager's clock."""
    since = f"started {instance.started:%Y-%m-%d %H:%M:%S}" if instance.started else "start time unknown"
    return f"{instance.status!r}, {since}"


async def follow(connection: Connection, before: Instance, command: str, sent: datetime, *, sure: bool = True) -> Deed:
    """As `_end_of_restart`; where it cannot be followed it says that the restart was sent, or was to be."""
    try:
        return await _end_of_restart(connection, before, command, sent, sure=sure)
    except RemoteError as error:
        named = f"command {command}" if command else "its command is not known"
        what = "was sent" if sure or command else "was about to be sent"
        raise CannotTell(f"a restart {what} at {sent:%H:%M:%S} ({named}) and cannot be followed: {error}") from error


async def _end_of_restart(
    connection: Connection, before: Instance, command: str, sent: datetime, *, sure: bool
) -> Deed:
    """Read the world until the restart has ended; the instance's start time proves that it happened.

    Without a command (its answer was lost, or an OMS switchover forgot it) only the instance itself tells.
    """
    manager, cluster, host = connection.manager, connection.cluster, before.host
    who = connection.manager_for_changes.acts_as
    followed = command
    takes = RESTART_TAKES if sure or command else NO_SIGN
    until = timing.later(takes, since=timing.now(), speed=cluster.speed)
    seen = "nothing was seen of it"
    async for _ in timing.looks(until, every=LOOK_EVERY, speed=cluster.speed):
        complete = False
        try:
            if followed:
                state = await manager.command(followed)
                if state.state == "FAILED":
                    named = f"Manager's command {command} ({state.name}), by {who}"
                    raise StepFailed(f"{named}, failed: {list(state.failed)}")
                complete = state.state == "COMPLETE"
                if not complete:
                    seen = f"command {command} is {state.state}"
                    continue
            rows = [row for row in await manager.instances(cluster.meta_service) if row.host == host]
        except NotOffered:
            followed = ""  # Manager no longer knows the command: go on by the instance
            continue
        except (Unreachable, ServerTrouble) as error:
            seen = str(error)
            continue
        if len(rows) > 1:
            what = f"Manager lists {len(rows)} Meta instances on {host} since, not one"
            raise CannotTell(f"a restart was sent at {sent:%H:%M:%S}, and which one it was cannot be told: {what}")
        after = rows[0] if rows else before
        # Manager's clock may have jumped either way; a start time that was never told proves nothing by itself.
        moved = after.started is not None and after.started != before.started
        restarted = moved and (complete or before.started is not None)
        seen = f"the instance is {state_of(after)}"
        if restarted and after.status.lower() in NORMAL | ABNORMAL:
            was, is_ = state_of(before), state_of(after)
            did = f"restarted (command {command or 'unknown'}) by {who}: was {was}, is {is_}"
            return Deed(host=host, did=did, at=timing.now(), changed=True)
    if takes == NO_SIGN:
        never = "it is never sent twice, for it may come yet"
        raise CannotTell(
            f"a restart was about to be sent at {sent:%H:%M:%S}, and there is no sign of it ({seen}): {never}"
        )
    raise CannotTell(f"a restart was sent at {sent:%H:%M:%S} and how it ended cannot be seen: {seen}")
