"""The checks of a sweep, in one table: what is asked, by which document, how bad a no is, and what to do then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tasks.errors import RunbookError
from tasks.sweep import agency_checks, cluster_checks, ledger_checks
from tasks.sweep.seen import Seen
from tasks.sweep.verdicts import Value, Verdict

Severity = Literal["Critical", "Major", "Minor", "Suggestion"]  # as Manager words those of alarms


@dataclass(frozen=True)
class Check:
    """One question of every cluster.

    Attributes:
        column: its name in a narrow table.
        reference: the page or document that asks for it.
        remedy: what a person does where the answer is no.
        observable: False: from outside only an alarm can answer it, so that "cannot tell" is no news.
    """

    id: str
    column: str
    title: str
    reference: str
    severity: Severity
    remedy: str
    judge: Callable[[Seen], Verdict]
    observable: bool = True


class Answer(NamedTuple):
    """What one check found in one cluster, and what was seen."""

    check: str
    value: Value
    seen: str


PAGE = "ALM-12110"
REBIND = (
    "Have the runbook bind it (`on_unbound`, `agency` in the cluster's block), or on the MRS console: the cluster's "
    "Dashboard, O&M management, Manage Agency"
)
IAM_PAGE = "IAM, Agencies; MRS, Configuring an agency for a cluster"
META = (
    "On Manager, Cluster > Services > Meta > Instance: look at its log, restart it where it was not stopped on purpose"
)
ALARM = "On Manager, O&M > Alarm > Alarms: open it and follow its page"


def _no_alarm(alarm_id: str, meaning: str, severity: Severity, remedy: str) -> Check:
    return Check(
        f"alarm-{alarm_id}",
        alarm_id,
        f"No active ALM-{alarm_id}: {meaning}",
        f"ALM-{alarm_id}",
        severity,
        remedy,
        cluster_checks.no_active(alarm_id),
    )


CHECKS: Sequence[Check] = (
    Check(
        "managed",
        "block",
        "It has a block that can be used",
        "README, Connect a real cluster",
        "Major",
        "Make its MRS Cluster block or correct it, by hand or with `runbooks clusters sync`",
        cluster_checks.managed,
    ),
    Check(
        "cloud",
        "cloud",
        "The cloud's APIs answer for it",
        "README, Rights; `runbooks doctor`",
        "Major",
        "`runbooks doctor CLUSTER` says which right or address is missing",
        cluster_checks.cloud_answers,
    ),
    Check(
        "manager",
        "Manager",
        "Its Manager answers",
        "README, Rights; `runbooks doctor`",
        "Major",
        "`runbooks doctor CLUSTER`; see whether port 28443 (9022 through an EIP) is open to the workers",
        cluster_checks.manager_answers,
    ),
    Check(
        "agency-record",
        "record",
        "The cluster's record names an agency",
        f"{PAGE}, steps 4 and 5; MRS API, Querying Cluster Details",
        "Major",
        f"{REBIND}. Nodes added later come unbound until the record names it",
        agency_checks.on_record,
    ),
    Check(
        "agency-nodes",
        "nodes",
        "Every node's ECS metadata names the same agency",
        f"{PAGE}, steps 4 and 5; ECS API, Querying Details About an ECS",
        "Critical",
        f"{REBIND}. Where only some nodes are bound, find out who changed them (CTS) first",
        agency_checks.on_nodes,
    ),
    Check(
        "agency-expected",
        "expected",
        "It is the agency that its block names",
        f"{PAGE}, step 6",
        "Major",
        "Find out who bound the other one (CTS), then correct the block or the binding",
        agency_checks.as_expected,
    ),
    Check(
        "agency-usable",
        "usable",
        "IAM has the agency, it trusts ECS and has not expired",
        IAM_PAGE,
        "Critical",
        "In IAM, Agencies: make it again, or correct what it trusts (cloud service ECS) or its validity",
        agency_checks.usable,
    ),
    Check(
        "agency-expiring",
        "expiring",
        f"The agency does not expire within {agency_checks.SOON.days} days",
        IAM_PAGE,
        "Minor",
        "In IAM, Agencies: extend its validity",
        agency_checks.lasting,
    ),
    Check(
        "agency-obs",
        "OBS right",
        "The agency may read and write OBS",
        "MRS, Configuring an agency for a cluster (OBS OperateAccess); IAM, permissions of an agency",
        "Major",
        "In IAM, Agencies > its permissions: give it OBS OperateAccess, unless policies of the buckets do",
        agency_checks.obs,
    ),
    Check(
        "instances",
        "Meta",
        "Every Meta instance is normal",
        f"{PAGE}, step 2",
        "Major",
        META,
        cluster_checks.instances_are_normal,
    ),
    _no_alarm("12110", "failed to get ECS temporary AK/SK", "Critical", "The runbook is at it: `runbooks why CLUSTER`"),
    _no_alarm("45192", "failed to obtain the IAM security token", "Major", ALARM),
    _no_alarm("45741", "Guardian failed to call the ECS securitykey API", "Major", f"{ALARM}; see the agency's checks"),
    _no_alarm("45742", "Guardian failed to call the ECS metadata API", "Major", f"{ALARM}: hand its log to O&M"),
    _no_alarm("45743", "Guardian failed to call the IAM API", "Major", f"{ALARM}: hand its log to O&M"),
    Check(
        "episode",
        "episode",
        "Each active ALM-12110 is followed by an episode",
        "README, Episodes",
        "Critical",
        "Where no source told of it see why: `runbooks intake rejected`, Manager's syslog settings; where no intake is "
        "at work start one: `runbooks intake`; where nothing follows it start the runbook by hand",
        cluster_checks.followed,
    ),
    Check(
        "temporary-keys",
        "keys",
        "Meta gets temporary keys",
        f"{PAGE}; ECS, Obtaining ECS details using metadata",
        "Critical",
        "See ALM-12110",
        cluster_checks.gets_keys,
        observable=False,
    ),
    Check(
        "obs-access",
        "OBS",
        "The cluster reaches OBS with them",
        "ALM-45175 to ALM-45182",
        "Major",
        f"{ALARM}; on a node: hdfs dfs -ls obs://BUCKET/",
        cluster_checks.reaches_obs,
        observable=False,
    ),
    Check(
        "episode-stuck",
        "stuck",
        "No episode of it is stuck",
        "README, Waiting, and dying",
        "Major",
        "See that a worker and an intake are up; `runbooks why CLUSTER`",
        ledger_checks.none_told(lambda told: told.stuck, "no episode is stuck"),
    ),
    Check(
        "wait-overdue",
        "overdue",
        "No wait of it is overdue",
        "README, Waiting, and dying",
        "Major",
        "See that a worker is up: `prefect worker start --pool mrs-runbooks`",
        ledger_checks.none_told(lambda told: told.overdue, "no wait is overdue"),
    ),
    Check(
        "ticket-stale",
        "ticket",
        "No open ticket of it is about an alarm that is cleared",
        "README, Tickets",
        "Minor",
        "See that an intake is up, which resolves it, and that the ticket system takes what it is told",
        ledger_checks.none_told(lambda told: told.tickets, "no open ticket is about a cleared alarm"),
    ),
    Check(
        "source-silent",
        "source",
        "Its alarm source is not silent",
        "README, Alarms in: the intake",
        "Major",
        "See that the intake polls it or that Manager sends syslog (periodic report and heartbeat on)",
        ledger_checks.source_speaks,
    ),
)
BY_ID = {check.id: check for check in CHECKS}
UNUSABLE = "its block cannot be used"


def answers_of(seen: Seen) -> Sequence[Answer]:
    """The answer to every check, in the order of the table."""
    return [Answer(check.id, *_verdict(check, seen)) for check in CHECKS]


def _verdict(check: Check, seen: Seen) -> Verdict:
    if check.id != "managed" and isinstance(seen.block, str):
        return "cannot tell", UNUSABLE
    return check.judge(seen)


def without_looking(seen: Seen, error: RunbookError) -> Sequence[Answer]:
    """The answers where nothing could be asked, but for whether it has a block."""
    first, *others = CHECKS
    return [
        Answer(first.id, *cluster_checks.managed(seen)),
        *(Answer(each.id, "cannot tell", str(error)) for each in others),
    ]
