"""Is a Meta instance normal? Judged from what cloud and Manager say, without asking them. Step 2 of the page."""

from collections.abc import Sequence

from tasks.models import Instance, ManagedHost, Node, Outcome

# Running status, as Manager's instance page words it. Source: Manager 3.x, "Managing Instances".
NORMAL = frozenset({"normal"})
ABNORMAL = frozenset({"faulty", "failed to start"})
IN_TRANSITION = frozenset({"starting", "restoring", "recommissioning", "stopping"})
STOPPED_ON_PURPOSE = frozenset({"not started", "decommissioning", "decommissioned"})


def health(
    host: str,
    meta: str,
    nodes: Sequence[Node] | None,
    managed: Sequence[ManagedHost] | None,
    instances: Sequence[Instance] | None,
) -> tuple[str, str]:
    """Judge the Meta instance of one host from what the sources say.

    Args:
        meta: name of the Meta service; compared in any case.
        nodes: what the cloud lists, or None where it could not be asked; so with `managed` and `instances` of Manager.

    Returns:
        `y`, `n`, `wait` (in transition) or an Outcome, and the evidence in words.

    Source: ALM-12110, step 2; the words are those of Manager's instance page.
    """
    said: dict[str, str] = {}
    if managed is not None:
        known = [entry.status for entry in managed if entry.name == host]
        if len(known) != 1:
            return Outcome.CANNOT_TELL, f"Manager knows {len(known)} hosts named {host}, not one"
        if known[0].lower() in ("", "unknown"):
            return Outcome.CANNOT_TELL, f"Manager does not say how host {host} itself is ({known[0]!r})"
        if known[0].lower() not in NORMAL:
            return Outcome.REFUSED, f"host {host} itself is {known[0]!r}: restarting its instance is no help"
    if nodes is not None:
        named = [node for node in nodes if node.host == host]
        if len(named) != 1:
            return Outcome.CANNOT_TELL, f"the cloud lists {len(named)} nodes named {host} in this cluster, not one"
        found = [part.status for part in named[0].components if part.service.lower() == meta.lower()]
        if len(found) > 1:
            return Outcome.CANNOT_TELL, f"the cloud lists {len(found)} {meta} instances on {host}, not one"
        if found:
            said["the nodes API"] = found[0]
    if instances is not None:
        mine = [instance.status for instance in instances if instance.host == host]
        if len(mine) != 1:
            return Outcome.CANNOT_TELL, f"Manager lists {len(mine)} {meta} instances on {host}, not one"
        said["Manager"] = mine[0]
    words = "; ".join(f"{source} says {status!r}" for source, status in said.items())
    if not said:
        return Outcome.CANNOT_TELL, f"no source says how the {meta} instance of {host} is"
    return _verdict({status.lower() for status in said.values()}), f"{meta} instance of {host}: {words}"


def _verdict(statuses: set[str]) -> str:
    if statuses <= NORMAL:
        return "y"
    if statuses <= ABNORMAL:
        return "n"
    if statuses & IN_TRANSITION and statuses <= IN_TRANSITION | NORMAL | ABNORMAL:
        return "wait"
    return Outcome.REFUSED if statuses <= STOPPED_ON_PURPOSE else Outcome.CANNOT_TELL
