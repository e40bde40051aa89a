"""Step 5 of the page as a pure function, and the end of step 6."""

from itertools import product

import pytest

from tasks.agencies import agency_update_ended
from tasks.bindings import bound
from tasks.errors import StepFailed
from tasks.models import Case, ClusterRecord, Deed, Outcome
from tests.flows.conftest import Worlds, no_pauses, world

__all__ = ["no_pauses", "world"]  # fixtures: a served region, its block saved, whose reads pause for nothing

A, B = "MRS_ECS_DEFAULT_AGENCY", "another"


def on_nodes(*agencies: str) -> dict[str, str]:
    """Host name -> agency, for as many hosts."""
    return {f"node-{number}": agency for number, agency in enumerate(agencies, 1)}


@pytest.mark.parametrize("rebound", [False, True])
@pytest.mark.parametrize("count", range(4))
def test_bound_over_every_combination(count: int, rebound: bool) -> None:
    """`n`: all nodes read, they and the record name none, nothing bound by us; `y`: all name one, undisputed."""
    for agencies in product(("", A, B), repeat=count):
        for on_record, nodes in product((None, "", A, B), (None, 0, count - 1, count, count + 1)):
            verdict, words = bound(ClusterRecord(agency=on_record, nodes=nodes), on_nodes(*agencies), rebound=rebound)
            all_read = count > 0 and nodes == count
            unbound = all_read and not any(agencies) and on_record == "" and not rebound
            one = len(set(agencies)) == 1 and agencies[0] != ""
            is_bound = all_read and one and (rebound or on_record in (None, agencies[0]))
            expected = "n" if unbound else "y" if is_bound else Outcome.CANNOT_TELL
            assert (verdict, agencies, on_record, nodes) == (expected, agencies, on_record, nodes)
            if all_read and len(set(agencies)) > 1:
                listed = ", ".join(f"node-{n}: {agency or 'none'}" for n, agency in enumerate(agencies, 1))
                assert words.endswith(f"never written over: {listed}")


@pytest.mark.parametrize(
    ("record", "agencies", "rebound", "verdict", "words"),
    [
        (
            ClusterRecord(agency="", nodes=2),
            on_nodes("", ""),
            False,
            "n",
            "agency in the ECS metadata of 2 nodes: none on 2; the cluster's record names none",
        ),
        (
            ClusterRecord(agency=None, nodes=1),
            on_nodes(A),
            False,
            "y",
            f"agency in the ECS metadata of 1 nodes: {A} on 1; the cluster's record has no agency field",
        ),
        (
            ClusterRecord(agency="", nodes=2),
            on_nodes(A, A),
            True,
            "y",
            f"agency in the ECS metadata of 2 nodes: {A} on 2; the cluster's record names none",
        ),
        (
            ClusterRecord(agency="", nodes=2),
            on_nodes(A, A),
            False,
            Outcome.CANNOT_TELL,
            f"agency in the ECS metadata of 2 nodes: {A} on 2; the cluster's record names none; they disagree",
        ),
        (
            ClusterRecord(agency=None, nodes=1),
            on_nodes(""),
            False,
            Outcome.CANNOT_TELL,
            "agency in the ECS metadata of 1 nodes: none on 1; the cluster's record has no agency field; "
            "only both together say unbound",
        ),
        (
            ClusterRecord(agency=A, nodes=3),
            on_nodes(A, ""),
            False,
            Outcome.CANNOT_TELL,
            f"agency in the ECS metadata of 2 nodes: none on 1, {A} on 1; the cluster's record names {A}; "
            "the record counts 3 nodes",
        ),
        (
            ClusterRecord(agency="", nodes=0),
            {},
            False,
            Outcome.CANNOT_TELL,
            "agency in the ECS metadata of 0 nodes: none read; the cluster's record names none; "
            "the record counts 0 nodes",
        ),
    ],
)
def test_the_evidence_says_what_was_read(
    record: ClusterRecord, agencies: dict[str, str], rebound: bool, verdict: str, words: str
) -> None:
    """The words name every agency found, on how many nodes, what the record says, and what is wrong with that."""
    assert bound(record, agencies, rebound=rebound) == (verdict, words)


@pytest.mark.server
@pytest.mark.anyio
async def test_the_end_of_an_update_is_waited_for_through_trouble(world: Worlds) -> None:
    """A server in trouble for several looks does not make an update that ended a failure; one that never ends does."""
    async with world() as cluster:
        case = Case(cluster=cluster.block, alarm_id="12110", dry_run=False)
        cluster.region.trouble.add("GET", "*/update_ecs_agency", "status", status=503, times=9)
        deed = await agency_update_ended.fn(case)
        done = "every node is bound and MRS reports no update in progress"
        assert deed == Deed(host="", did=done, at=cluster.region.now)
        cluster.breaks("agency-updating")
        began = cluster.region.now
        with pytest.raises(StepFailed, match="MRS still reports an agency update in progress"):
            await agency_update_ended.fn(case)
        assert (cluster.region.now - began).total_seconds() == 600
