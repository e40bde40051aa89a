"""The checks, each by a table: what was read, and the answer to it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.region import Region
from tasks.errors import LedgerUnavailable, NotAuthorized, NotOffered, RunbookError, Unreachable, Untrusted
from tasks.ledger.knowledge import Told
from tasks.models import Agency, Alarm, ClusterRecord, Component, Instance, Node
from tasks.permissions import Permission, Policy, Statement
from tasks.sweep.checks import BY_ID, CHECKS, UNUSABLE, answers_of, without_looking
from tasks.sweep.cluster_checks import NO_INTAKE, NOT_OBSERVABLE
from tasks.sweep.seen import Followed, Permissions, Seen

NOW = datetime(2026, 11, 27, 5, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
A, B = "MRS_ECS_DEFAULT_AGENCY", "OTHER"
REGION = Region(clusters=1, hosts=2)
URL = "http://127.0.0.1:1"
BLOCK = cluster_block(
    next(iter(REGION.clusters.values())),
    manager_block(next(iter(REGION.clusters.values())), URL),
    cloud_block(REGION, URL),
)
UNBOUND_ON_PURPOSE = BLOCK.model_copy(update={"agency": "", "on_unbound": "escalate"})
HOSTS = ("n1", "n2")
GONE = Unreachable("Manager GET alarms", "no answer within 10 s")
STRANGE = Untrusted("Manager GET alarms", "self-signed")
AWAY = Unreachable("MRS GET cluster_infos", "no answer within 10 s")
DENIED = NotAuthorized("ECS GET cloudservers", "HTTP 403: no", status=403)
MISSING = NotOffered("Manager GET alarms", "HTTP 404: no", status=404)
UNSENT = NotOffered("Manager alarms", "the Manager block says that this Manager does not offer it")


def record(agency: str | None = A, nodes: int = 2) -> ClusterRecord:
    """The cluster's record."""
    return ClusterRecord(id="id", name="prod", state="running", nodes=nodes, agency=agency)


def nodes(*statuses: str) -> tuple[Node, ...]:
    """Nodes with a Meta instance each, in this status."""
    return tuple(
        Node(host=host, server_id=host, components=(Component(service="meta", role="meta", status=status),))
        for host, status in zip(HOSTS, statuses, strict=False)
    )


def instances(*statuses: str) -> tuple[Instance, ...]:
    """Manager's list of Meta instances."""
    return tuple(Instance(id="1", role="meta", host=h, status=s) for h, s in zip(HOSTS, statuses, strict=False))


def alarm(alarm_id: str = "12110", host: str = "n1", age: timedelta = HOUR) -> Alarm:
    """An active alarm."""
    return Alarm(alarm_id=alarm_id, location=f"HostName={host}", occurred=NOW - age, status="Uncleared")


def agency(**more: Any) -> tuple[Agency, ...]:
    """What IAM has of the agency."""
    return (Agency(**{"id": "1", "name": A, "trusts": "op_svc_ecs", **more}),)


def may(*names: str, effect: str = "Allow", actions: tuple[str, ...] = ()) -> Permissions:
    """Permissions with these names in the console; with actions they are policies."""
    policy = Policy(statements=(Statement(effect=effect, actions=actions),)) if actions else None
    return Permissions(tuple(Permission(name=f"system_{name}", shown=name, policy=policy) for name in names))


HEALTHY = Seen(
    name="prod",
    cluster_id="id",
    block=BLOCK,
    at=NOW,
    now=NOW,
    record=record(),
    nodes=nodes("Normal", "Normal"),
    agencies={"n1": A, "n2": A},
    in_question=A,
    agency=agency(),
    permissions=may("OBS OperateAccess"),
    alarms=(),
    masked=frozenset(),
    clock=NOW,
    instances=instances("Normal", "Normal"),
    told=Told(heard=NOW - HOUR),
)


def seen(**more: Any) -> Seen:
    """A healthy cluster but for this."""
    return replace(HEALTHY, **more)


def unmanaged(**more: Any) -> Seen:
    """A cluster without a block."""
    return seen(block=None, alarms=None, masked=None, instances=None, told=None, **more)


TABLE: dict[str, list[tuple[Seen, str, str]]] = {
    "managed": [
        (seen(), "pass", "it has a block, mode auto"),
        (unmanaged(), "fail", "unmanaged: the cloud has it as 'prod', running, and no MRS Cluster block names it"),
        (seen(block="speed: wrong"), "fail", "speed: wrong"),
    ],
    "cloud": [
        (seen(), "pass", "record, 2 nodes and their metadata read"),
        (seen(agencies=DENIED), "fail", "their ECS metadata cannot be read: ECS GET cloudservers: HTTP 403: no"),
    ],
    "manager": [
        (seen(), "pass", "alarms, masking and instances read"),
        (seen(alarms=GONE), "fail", "Manager GET alarms: no answer within 10 s"),
        (seen(alarms=GONE, record=DENIED), "fail", "Manager GET alarms: no answer within 10 s"),
        (
            seen(alarms=GONE, record=AWAY, nodes=AWAY, agencies=AWAY),
            "cannot tell",
            "the cloud cannot be reached either, see `cloud`; Manager GET alarms: no answer within 10 s",
        ),
        (seen(alarms=STRANGE, record=AWAY, nodes=AWAY, agencies=AWAY), "fail", "Manager GET alarms: self-signed"),
        (seen(alarms=MISSING, masked=MISSING), "pass", "not offered: alarms, masking"),
        (
            seen(alarms=UNSENT, masked=UNSENT, instances=UNSENT),
            "cannot tell",
            "nothing was asked, its block says so; not offered: alarms, masking, instances",
        ),
        (unmanaged(), "n/a", "its Manager is not asked for: it has no block that says how"),
    ],
    "agency-record": [
        (seen(), "pass", f"the record names {A}"),
        (seen(record=record("")), "fail", "the record names none"),
        (seen(record=record(None)), "cannot tell", "the record has no agency field"),
        (seen(record=GONE), "cannot tell", f"the cluster's record cannot be read: {GONE}"),
        (
            seen(block=UNBOUND_ON_PURPOSE, record=record("")),
            "n/a",
            "its block names no agency and does not tell to bind one; the record names none",
        ),
        (unmanaged(record=record("")), "fail", "the record names none"),
    ],
    "agency-nodes": [
        (seen(), "pass", f"agency in the ECS metadata of 2 nodes: {A} on 2; the cluster's record names {A}"),
        (
            seen(agencies={"n1": "", "n2": ""}, record=record("")),
            "fail",
            "agency in the ECS metadata of 2 nodes: none on 2; the cluster's record names none",
        ),
        (
            seen(agencies={"n1": A, "n2": ""}),
            "fail",
            f"agency in the ECS metadata of 2 nodes: none on 1, {A} on 1; the cluster's record names {A}; partly bound "
            f"or to different agencies, never written over: n1: {A}, n2: none",
        ),
        (
            seen(record=record("")),
            "pass",
            f"agency in the ECS metadata of 2 nodes: {A} on 2; the cluster's record names none; they disagree",
        ),
        (
            seen(record=record(B)),
            "fail",
            f"agency in the ECS metadata of 2 nodes: {A} on 2; the cluster's record names {B}; they disagree",
        ),
        (
            seen(record=record(nodes=3)),
            "cannot tell",
            f"agency in the ECS metadata of 2 nodes: {A} on 2; the cluster's record names {A}; the record counts "
            "3 nodes",
        ),
        (seen(agencies=DENIED), "cannot tell", f"the nodes' ECS metadata cannot be read: {DENIED}"),
        (
            seen(block=UNBOUND_ON_PURPOSE, agencies={"n1": "", "n2": ""}, record=record("")),
            "n/a",
            "its block names no agency and does not tell to bind one; agency in the ECS metadata of 2 nodes: none on "
            "2; the cluster's record names none",
        ),
    ],
    "agency-expected": [
        (seen(), "pass", f"all 2 nodes name {A}"),
        (seen(agencies={"n1": A, "n2": B}), "fail", f"1 of 2 nodes do not name {A}: n2: {B}"),
        (seen(record=record(nodes=3)), "cannot tell", "2 nodes were read, which are not all"),
        (seen(agencies=DENIED), "cannot tell", f"the nodes' ECS metadata cannot be read: {DENIED}"),
        (seen(block=UNBOUND_ON_PURPOSE), "n/a", "no agency is expected: its block names none"),
        (unmanaged(), "n/a", "it has no block that names one"),
    ],
    "agency-usable": [
        (seen(), "pass", f"{A} exists in IAM and trusts ECS"),
        (seen(agency=()), "fail", f"IAM has no agency '{A}'"),
        (seen(agency=agency(trusts="other")), "fail", f"agency '{A}' trusts 'other', not ECS (op_svc_ecs)"),
        (seen(agency=agency(expires=NOW - DAY)), "fail", f"agency '{A}' expired at 2026-11-26 05:00"),
        (seen(agency=DENIED), "cannot tell", f"agency '{A}' in IAM cannot be read: {DENIED}"),
        (seen(in_question=""), "n/a", "no agency is bound or expected"),
        (
            seen(in_question="", agencies=DENIED),
            "cannot tell",
            f"which agency is bound cannot be told: the nodes' ECS metadata cannot be read: {DENIED}",
        ),
    ],
    "agency-expiring": [
        (seen(), "pass", f"{A} does not expire"),
        (seen(agency=agency(expires=NOW + 40 * DAY)), "pass", f"{A} expires at 2027-01-06 05:00"),
        (seen(agency=agency(expires=NOW + 3 * DAY)), "fail", f"{A} expires at 2026-11-30 05:00"),
        (seen(agency=agency(expires=NOW - DAY)), "n/a", f"{A} is there no longer, or has expired"),
        (seen(agency=()), "n/a", f"{A} is there no longer, or has expired"),
        (seen(agency=DENIED), "cannot tell", f"agency '{A}' in IAM cannot be read: {DENIED}"),
    ],
    "agency-obs": [
        (seen(), "pass", f"{A} has OBS OperateAccess"),
        (seen(permissions=may("CES FullAccess")), "fail", f"{A} has no right to OBS; it has CES FullAccess"),
        (seen(permissions=may()), "fail", f"{A} has no right to OBS; it has none for global services"),
        (seen(permissions=may("OBS ReadOnlyAccess")), "fail", f"{A} may only read OBS: OBS ReadOnlyAccess"),
        (seen(permissions=may("own", actions=("obs:object:*",))), "pass", f"{A} may read and write OBS by own"),
        (
            seen(permissions=may("own", actions=("obs:object:GetObject",))),
            "cannot tell",
            f"what own lets {A} do with OBS takes a person to judge",
        ),
        (
            seen(permissions=may("own", effect="Deny", actions=("obs:*:*",))),
            "cannot tell",
            f"what own lets {A} do with OBS takes a person to judge",
        ),
        (
            seen(permissions=Permissions((), (Permission(name="te_admin"),))),
            "pass",
            f"{A} has te_admin",
        ),
        (
            seen(permissions=Permissions((), (Permission(name="system_all_154"),))),
            "cannot tell",
            f"{A} has permissions for all projects, which IAM lists by internal names only",
        ),
        (seen(permissions=DENIED), "cannot tell", f"what {A} may do cannot be read: {DENIED}"),
        (seen(agency=DENIED, permissions=None), "cannot tell", f"what {A} may do cannot be read: {DENIED}"),
        (seen(agency=(), permissions=None), "n/a", f"IAM has no agency '{A}'"),
    ],
    "instances": [
        (seen(), "pass", "2 meta instances are normal"),
        (
            seen(nodes=nodes("Normal", "Faulty"), instances=instances("Normal", "Faulty")),
            "fail",
            "meta instance of n2: the nodes API says 'Faulty'; Manager says 'Faulty'",
        ),
        (
            seen(nodes=nodes("Normal", "Not started"), instances=instances("Normal", "Not started")),
            "fail",
            "meta instance of n2: the nodes API says 'Not started'; Manager says 'Not started'",
        ),
        (
            seen(instances=instances("Normal", "Faulty")),
            "cannot tell",
            "meta instance of n2: the nodes API says 'Normal'; Manager says 'Faulty'",
        ),
        (seen(instances=MISSING), "pass", "2 meta instances are normal"),
        (seen(instances=GONE), "cannot tell", f"Manager's list of instances cannot be read: {GONE}"),
        (seen(nodes=(), instances=()), "cannot tell", "no source lists a meta instance"),
        (unmanaged(), "pass", "2 meta instances are normal"),
    ],
    "alarm-12110": [
        (seen(), "pass", "not active"),
        (seen(alarms=(alarm("12110"), alarm("45192"))), "fail", "active on n1, since 2026-11-27 04:00 UTC"),
        (seen(masked=frozenset({"12110"})), "cannot tell", "not listed, and masked on Manager: that says nothing"),
        (
            seen(masked=MISSING),
            "cannot tell",
            f"not listed; whether it is masked is not offered here ({MISSING})",
        ),
        (seen(alarms=GONE), "cannot tell", f"Manager's list of alarms cannot be read: {GONE}"),
        (seen(alarms=MISSING), "cannot tell", f"Manager lists no alarms ({MISSING}), and no source told of one"),
        (
            seen(alarms=MISSING, told=Told(active={"12110": ["n1"]})),
            "fail",
            "a source told of it on n1, and of no clear since; Manager lists no alarms",
        ),
        (unmanaged(), "n/a", "its Manager is not asked for: it has no block that says how"),
    ],
    "alarm-45192": [(seen(alarms=(alarm("45192"),)), "fail", "active on n1, since 2026-11-27 04:00 UTC")],
    "alarm-45741": [(seen(alarms=(alarm("45741"),)), "fail", "active on n1, since 2026-11-27 04:00 UTC")],
    "alarm-45742": [(seen(alarms=(alarm("45742"),)), "fail", "active on n1, since 2026-11-27 04:00 UTC")],
    "alarm-45743": [(seen(alarms=(alarm("45743"),)), "fail", "active on n1, since 2026-11-27 04:00 UTC")],
    "episode": [
        (seen(), "n/a", "Manager lists no active ALM-12110"),
        (seen(alarms=(alarm(),), followed={"n1": Followed("E1")}), "pass", "episode E1"),
        (
            seen(alarms=(alarm(),), followed={"n1": Followed("E1", found=True)}),
            "fail",
            "no source had told of it on n1: the sweep did, now episode E1 follows it",
        ),
        (
            seen(alarms=(alarm(age=timedelta(minutes=2)),), followed={"n1": Followed("E1", found=True)}),
            "pass",
            "episode E1",
        ),
        (seen(alarms=(alarm(),)), "fail", "nothing follows it on n1: start the runbook by hand"),
        (seen(alarms=GONE), "cannot tell", f"Manager's list of alarms cannot be read: {GONE}"),
        (
            seen(alarms=(alarm(),), followed={"n1": Followed("E1", found=True, waits=True)}, told=Told(intake=False)),
            "fail",
            f"no source had told of it on n1: the sweep did, now episode E1 follows it; {NO_INTAKE}",
        ),
        (
            seen(alarms=(alarm(),), followed={"n1": Followed("E1", waits=True)}, told=Told(intake=False)),
            "fail",
            f"episode E1 waits; {NO_INTAKE}",
        ),
        (seen(alarms=(alarm(),), followed={"n1": Followed("E1", waits=True)}), "pass", "episode E1"),
        (seen(alarms=(alarm(),), followed={"n1": Followed("E1")}, told=Told(intake=False)), "pass", "episode E1"),
        (seen(alarms=MISSING), "cannot tell", f"Manager lists no alarms ({MISSING}), and no source told of one"),
        (
            seen(alarms=MISSING, told=Told(active={"12110": ["n1"]}, episodes={"12110": ["E1"]})),
            "pass",
            "episode E1",
        ),
        (
            seen(
                alarms=MISSING,
                told=Told(
                    active={"12110": ["n1"]},
                    episodes={"12110": ["E1"]},
                    waiting=frozenset({"12110"}),
                    intake=False,
                ),
            ),
            "fail",
            f"episode E1 waits; {NO_INTAKE}",
        ),
        (
            seen(alarms=MISSING, told=Told(active={"12110": ["n1"]})),
            "fail",
            "a source told of it on n1, nothing follows it: start the runbook by hand",
        ),
        (unmanaged(), "n/a", "its Manager is not asked for: it has no block that says how"),
    ],
    "temporary-keys": [
        (seen(), "cannot tell", NOT_OBSERVABLE),
        (seen(alarms=(alarm(),)), "fail", "Meta says that it does not, by ALM-12110 on n1"),
        (
            seen(alarms=MISSING, told=Told(active={"12110": ["n1"]})),
            "fail",
            "Meta said that it does not, by ALM-12110 on n1",
        ),
    ],
    "obs-access": [
        (seen(), "cannot tell", NOT_OBSERVABLE),
        (seen(alarms=(alarm("45176"),)), "fail", "ALM-45176 active on n1"),
    ],
    "episode-stuck": [
        (seen(), "pass", "no episode is stuck"),
        (seen(told=Told(stuck=["episode E1 waits", "episode E2 waits"])), "fail", "episode E1 waits; episode E2 waits"),
        (seen(told=LedgerUnavailable("away")), "cannot tell", "the ledger cannot be read: away"),
        (unmanaged(), "n/a", "it has no block, so no run is ever about it"),
    ],
    "wait-overdue": [
        (seen(), "pass", "no wait is overdue"),
        (seen(told=Told(overdue=["the wait at step 3"])), "fail", "the wait at step 3"),
        (seen(told=LedgerUnavailable("away")), "cannot tell", "the ledger cannot be read: away"),
        (unmanaged(), "n/a", "it has no block, so no run is ever about it"),
    ],
    "ticket-stale": [
        (seen(), "pass", "no open ticket is about a cleared alarm"),
        (seen(told=Told(tickets=["ticket T1 is open"])), "fail", "ticket T1 is open"),
        (seen(told=LedgerUnavailable("away")), "cannot tell", "the ledger cannot be read: away"),
        (unmanaged(), "n/a", "it has no block, so no run is ever about it"),
    ],
    "source-silent": [
        (seen(), "pass", "heard at 2026-11-27 04:00 UTC"),
        (seen(told=Told(heard=NOW - 2 * DAY)), "fail", "nothing was heard of it since 2026-11-25 05:00 UTC"),
        (
            seen(told=Told(trouble="no answer", intake=False)),
            "fail",
            "nothing was heard of it within the last month; reading its alarms: no answer; no intake is at work",
        ),
        (
            seen(alarms=GONE, told=Told(heard=NOW - 2 * DAY)),
            "cannot tell",
            "nothing was heard of it since 2026-11-25 05:00 UTC; its Manager cannot be reached now, see `manager`",
        ),
        (
            seen(alarms=STRANGE, told=Told(heard=NOW - 2 * DAY)),
            "fail",
            "nothing was heard of it since 2026-11-25 05:00 UTC",
        ),
        (seen(told=Told(connected=NOW - HOUR / 2)), "n/a", "it was connected at 2026-11-27 04:30 UTC"),
        (seen(told=LedgerUnavailable("away")), "cannot tell", "the ledger cannot be read: away"),
        (unmanaged(), "n/a", "it has no block, so no run is ever about it"),
    ],
}


def test_every_check_has_a_table() -> None:
    """No check is without a table, and ids and columns are each used once."""
    assert set(TABLE) == set(BY_ID)
    assert len({check.id for check in CHECKS}) == len({check.column for check in CHECKS}) == len(CHECKS)


def test_every_check_says_who_asks_and_what_to_do() -> None:
    """Every check has a title, a reference, a severity and a remedy, none of which ends in a full stop."""
    assert [
        c.id
        for c in CHECKS
        if not (c.title and c.reference and c.severity and c.remedy) or c.remedy.endswith(".") or c.title.endswith(".")
    ] == []


@pytest.mark.parametrize(
    ("check", "what", "value", "words"),
    [(check, *row) for check, rows in TABLE.items() for row in rows],
    ids=[f"{check}-{n}-{row[1]}" for check, rows in TABLE.items() for n, row in enumerate(rows)],
)
def test_a_check(check: str, what: Seen, value: str, words: str) -> None:
    """What was read leads to this answer, with what was seen."""
    assert BY_ID[check].judge(what) == (value, words)


def test_a_healthy_cluster_passes() -> None:
    """Of a healthy cluster no check fails, and nothing that can be observed is untold."""
    found = {answer.check: answer.value for answer in answers_of(seen())}
    assert found == {c.id: "pass" if c.observable else "cannot tell" for c in CHECKS} | {"episode": "n/a"}


def test_a_block_that_cannot_be_used_is_one_finding() -> None:
    """Of a cluster whose block cannot be used one check fails, and all others refer to it."""
    found = [(answer.value, answer.seen) for answer in answers_of(Seen(name="prod", block="wrong", at=NOW, now=NOW))]
    assert found == [("fail", "wrong"), *[("cannot tell", UNUSABLE)] * (len(CHECKS) - 1)]


SILENT_MANAGER = {"alarms": GONE, "masked": GONE, "instances": GONE, "clock": None, "told": Told(heard=NOW - 2 * DAY)}


@pytest.mark.parametrize(
    ("away", "fails", "untold"),
    [
        (SILENT_MANAGER, "manager", ["instances", "episode", "source-silent"]),
        (
            {
                **SILENT_MANAGER,
                **dict.fromkeys(("record", "nodes", "agencies", "agency"), AWAY),
                "permissions": None,
            },
            "cloud",
            ["manager", "instances", "episode", "source-silent", *(c.id for c in CHECKS if c.id.startswith("agency"))],
        ),
    ],
    ids=["its Manager", "its cloud too"],
)
def test_who_cannot_be_reached_is_one_finding(away: dict[str, Any], fails: str, untold: list[str]) -> None:
    """Of a cluster whose Manager, or cloud and Manager, give no answer one check fails, others cannot be told."""
    found = {a.check: a.value for a in answers_of(seen(**away))}
    alarms = [check.id for check in CHECKS if check.id.startswith("alarm-")]
    expected = {c.id: "pass" if c.observable else "cannot tell" for c in CHECKS}
    assert found == expected | dict.fromkeys([*alarms, *untold], "cannot tell") | {fails: "fail"}


def test_a_fault_of_ours_is_one_answer_for_all() -> None:
    """Where looking broke off in a fault of this program every check that needs a look cannot be told."""
    found = [(a.value, a.seen) for a in without_looking(seen(), RunbookError("a fault"))]
    assert found == [("pass", "it has a block, mode auto"), *[("cannot tell", "a fault")] * (len(CHECKS) - 1)]
