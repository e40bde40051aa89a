"""Whether what IAM lists of an agency lets it read and write OBS."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from tasks.permissions import Permission
from tasks.sweep.seen import Permissions
from tasks.sweep.verdicts import Verdict

# Source: "OBS permissions" of Huawei Cloud and Open Telekom Cloud; by the console's names, the role also by IAM's.
ENOUGH = frozenset(
    {"OBS OperateAccess", "OBS Administrator", "OBS FullAccess", "Tenant Administrator", "te_admin", "FullAccess"}
)
READ_ONLY = frozenset({"OBS ReadOnlyAccess", "OBS Buckets Viewer", "Tenant Guest", "readonly"})
NEEDED = ("obs:object:GetObject", "obs:object:PutObject")


def obs_right(agency: str, found: Permissions) -> Verdict:
    """Whether it may read and write OBS by what IAM lists. Policies of buckets are not looked at.

    Source: MRS, "Configuring an agency for a cluster": OBS OperateAccess; IAM, permissions of an agency.
    """
    names = [each.shown or each.name for each in found.here]
    if enough := [name for name in _all_names(found) if name in ENOUGH]:
        return "pass", f"{agency} has {enough[0]}"
    own = [each for each in found.here if each.policy and _concerns_obs(each)]
    allowing = [each for each in own if all(_allows(each, action) for action in NEEDED)]
    if allowing and not any(_denies(each) for each in own):
        return "pass", f"{agency} may read and write OBS by {allowing[0].shown or allowing[0].name}"
    if custom := [each.shown or each.name for each in own if (each.shown or each.name) not in READ_ONLY]:
        return "cannot tell", f"what {', '.join(custom)} lets {agency} do with OBS takes a person to judge"
    if found.everywhere:
        return "cannot tell", f"{agency} has permissions for all projects, which IAM lists by internal names only"
    if reading := [name for name in names if name in READ_ONLY]:
        return "fail", f"{agency} may only read OBS: {', '.join(reading)}"
    return "fail", f"{agency} has no right to OBS; it has {', '.join(sorted(names)) or 'none for global services'}"


def _all_names(found: Permissions) -> Sequence[str]:
    return [name for each in (*found.here, *found.everywhere) for name in (each.shown, each.name) if name]


def _concerns_obs(permission: Permission) -> bool:
    statements = permission.policy.statements if permission.policy else ()
    return any(action.lower().startswith(("obs:", "*")) for each in statements for action in each.actions)


def _allows(permission: Permission, action: str) -> bool:
    statements = permission.policy.statements if permission.policy else ()
    patterns = [pattern for each in statements if each.effect == "Allow" for pattern in each.actions]
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def _denies(permission: Permission) -> bool:
    return any(each.effect == "Deny" for each in (permission.policy.statements if permission.policy else ()))
