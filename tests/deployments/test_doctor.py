"""`runbooks doctor` against the emulated region: what it prints, its exit code, and that it changes nothing."""

import itertools
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import URL

from deployments.emulated_blocks import cloud_block, cluster_block, manager_block
from deployments.emulator.inventory import Cluster as EmulatedCluster
from deployments.emulator.region import Region
from tasks.ledger.answering import Asked, answers_of, keep_answers
from tasks.ledger.database import DRIVERS, open_ledger
from tests.conftest import serving
from tests.deployments.conftest import Ended, Runbooks

pytestmark = [pytest.mark.server, pytest.mark.anyio]

AGENCY = "MRS_ECS_DEFAULT_AGENCY"
RESTART = "Manager POST clusters/{cluster}/services/{service}/instances/restart"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Examined:
    """A region with one cluster, and `doctor()` of it."""

    region: Region
    cluster: EmulatedCluster
    name: str
    doctor: Callable[..., Any]


Examine = Callable[..., AbstractAsyncContextManager[Examined]]


@pytest.fixture
def examined(prefect_server: str, runbooks: Runbooks) -> Examine:
    """`async with examined(profile, manager={...}, **block) as it`: a region, served, its block saved.

    `own_logins`: there are logins for changes, `changes` right ones, `wrong` of Manager with a wrong password.
    """

    @asynccontextmanager
    async def make(
        profile: Any = "assumed",
        manager: dict[str, Any] | None = None,
        tls: dict[str, str] | None = None,
        cts_url: str | None = None,
        own_logins: tuple[str, ...] = (),
        **block: Any,
    ) -> AsyncIterator[Examined]:
        region = Region(meta_hosts=1, profile=profile, start=datetime.now(UTC))
        cluster = next(iter(region.clusters.values()))
        async with serving(region, **tls or {}) as url:
            name, reached = f"examined-{next(_numbers)}", dict(manager or {})
            cts = url if cts_url is None else cts_url
            cloud = cloud_block(region, url, ca_pem=reached.pop("cloud_ca", ""), cts_url=cts)
            rights = {"source": name, "mode": "approve", "on_unbound": "escalate", "agency": AGENCY, **block}
            if own_logins:
                password = cluster.manager_password if "changes" in own_logins else "hush-hush"
                reached |= {"user": cluster.viewer_user, "password": cluster.viewer_password}
                rights["changing_manager"] = manager_block(cluster, url, password=password)
                rights["changing_cloud"] = cloud_block(region, url)
            saved = cluster_block(cluster, manager_block(cluster, url, **reached), cloud, **rights)
            await saved.save(name)

            async def doctor(*options: str, **environment: str) -> Ended:
                region.advance(max(0.0, (datetime.now(UTC) - region.now).total_seconds()))
                return await runbooks("doctor", name, *options, PREFECT_API_URL=prefect_server, **environment)

            yield Examined(region, cluster, name, doctor)
            assert region.log == []

    return make


def rows(ended: Ended) -> dict[str, list[str]]:
    """Route -> rating, fine, what it said and what that means."""
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in ended.out.splitlines() if line[:1] == "│"
    ]
    return {re.sub(r"clusters/1/|services/meta/", "", row[0]): row[1:] for row in cells}


def will(ended: Ended) -> dict[str, tuple[str, str]]:
    """Action -> what it will be, and because of what."""
    found = {asked: cells for asked, cells in rows(ended).items() if len(cells) == 2}
    return {asked.split()[0]: (cells[0], cells[1]) for asked, cells in found.items()}


def answers(ended: Ended) -> dict[str, str]:
    """What was asked -> whether that is fine."""
    return {asked: cells[1] for asked, cells in rows(ended).items() if len(cells) == 4}


def to_settle(ended: Ended) -> list[str]:
    """What is to be settled, in its order."""
    listed = ended.out.partition("To settle:\n")[2].partition("\n\n")[0]
    return [re.sub(r"^ *\d+ +", "", line).rstrip() for line in listed.splitlines()]


def kept_by(runbooks_home: Path) -> URL:
    """The ledger of the commands."""
    return URL.create(DRIVERS["sqlite"], database=str(runbooks_home / "ledger.db"))


NEEDS = "the mode for it is auto, and all it needs answers"
SOURCES = ("intake: Manager's alarm list", "syslog: heartbeat", "syslog: re-report")
READ = ("automatic", "it is read from Manager's alarm list")


@pytest.mark.parametrize(
    ("block", "restart", "bind"),
    [
        (
            {"mode": "observe", "on_unbound": "rebind"},
            ("not done", "the mode is observe: a ticket says what to do by hand"),
            ("not done", "the mode is observe: a ticket says what to do by hand"),
        ),
        (
            {"mode": "approve", "on_unbound": "rebind"},
            ("approved by a person", "the mode for it is approve"),
            ("approved by a person", "the mode for it is approve"),
        ),
        (
            {"mode": "auto", "on_unbound": "escalate"},
            ("automatic", NEEDS),
            ("not done", "on_unbound is escalate: a ticket says what to do by hand"),
        ),
        (
            {"mode": "auto", "on_unbound": "rebind", "rebind_mode": "approve", "windows": ["daily 01:00-02:00"]},
            ("automatic", f"{NEEDS}, within its windows only"),
            ("approved by a person", "the mode for it is approve, within its windows only"),
        ),
    ],
    ids=["observe", "approve", "auto-escalate", "auto-rebind"],
)
async def test_where_all_answers_the_mode_decides(
    examined: Examine, block: dict[str, Any], restart: tuple[str, str], bind: tuple[str, str]
) -> None:
    """On `assumed` every read route answers, the exit code is 0, and what will be done is what the block allows."""
    async with examined(**block) as it:
        ended = await it.doctor()
    assert (ended.code, ended.err) == (0, "")
    fine = list(answers(ended).values())
    assert fine == ["yes"] * 6 + ["-"] + ["yes"] * 6 + ["-"] * 2 + ["yes"] * 2 + ["-", "warning", "-", "-", "warning"]
    ratings = [cells[0] for cells in rows(ended).values() if len(cells) == 4]
    assert ratings == ["CONFIRMED"] + ["ASSUMED"] * 6 + ["CONFIRMED"] * 6 + [""] * 9
    assert will(ended) == {"restart": restart, "bind": bind, "see": READ}
    assert ended.out.splitlines()[-1] == "The runbook can run: it sees alarms and nodes."
    assert [line.split(". ")[0] for line in to_settle(ended)] == [
        "no intake polls",
        "Prefect's API has no login",
        "syslog not heard yet",
    ]


@pytest.mark.parametrize("mode", ["approve", "auto"])
async def test_on_documented_manager_offers_nothing(examined: Examine, mode: str) -> None:
    """On `documented` Manager's routes do not answer: the runbook can run, and every change is handed off."""
    async with examined("documented", mode=mode, on_unbound="rebind") as it:
        ended = await it.doctor()
    assert (ended.code, ended.err) == (0, "")
    fine = list(answers(ended).values())
    assert (fine[:7], fine[7:13]) == (["yes"] + ["no"] * 5 + ["-"], ["yes"] * 6)
    hosts, instances = (f"clusters/{{cluster}}/{each}" for each in ("hosts", "services/{service}/instances"))
    never = [f"Manager GET {each}" for each in ("alarms", hosts, instances, "commands")]
    untold = "Manager's alarm list does not answer, and no source has told of its alarms yet"
    assert will(ended) == {
        "restart": ("handed off", f"never answered: {', '.join(never)}"),
        "bind": ("handed off", f"never answered: {', '.join(never[:2] + never[3:])}"),
        "see": ("handed off", untold),
    }
    assert to_settle(ended)[0] == (
        "route not offered (alarms, masking, hosts, instances, commands). Look it up in the browser's developer tools "
        "while Manager's own page shows it, and write it into `routes` of the cluster's MRS Manager block, like "
        '{"alarms": "GET path/of/yours"}; or leave it: the run hands the step to a person.'
    )
    assert ended.out.splitlines()[-1] == "The runbook can run: it sees nodes."


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("agency-deleted", f"IAM has no agency '{AGENCY}'"),
        ("agency-untrusted", f"agency '{AGENCY}' trusts 'op_svc_other', not ECS (op_svc_ecs)"),
    ],
)
async def test_an_agency_that_cannot_be_bound_is_a_finding(examined: Examine, fault: str, words: str) -> None:
    """An agency that is missing or does not trust ECS is a finding, and no bind is promised."""
    async with examined(mode="auto", on_unbound="rebind") as it:
        it.region.set_fault(fault, cluster=it.cluster)
        ended = await it.doctor()
    assert (ended.code, rows(ended)["IAM GET OS-AGENCY/agencies"]) == (
        0,
        ["CONFIRMED", "no", words, "NOT: step 6 binds only a usable agency"],
    )
    assert will(ended) == {"restart": ("automatic", NEEDS), "bind": ("not done", words), "see": READ}
    assert to_settle(ended)[0].startswith(f"agency not usable ({AGENCY}). Correct the agency in IAM")


async def test_a_cts_that_refuses_is_a_missing_permission(examined: Examine) -> None:
    """A CTS that refuses says which permission is missing, and an unbound cluster needs a person's approval then."""
    async with examined(mode="auto", on_unbound="rebind") as it:
        it.region.set_fault("cts-denied")
        ended = await it.doctor()
    said = "HTTP 403 CTS.0013: No permission, Please check roles."
    means = "NOT: step 6 knows who changed the agency"
    assert (ended.code, rows(ended)["CTS GET traces"]) == (0, ["CONFIRMED", "no", said, means])
    assert will(ended)["bind"] == ("approved by a person", f"who removed the agency cannot be seen: {said}")
    assert to_settle(ended)[0] == (
        "permission missing (the policy action cts:trace:list). Give the key of the cluster's MRS Cloud block the "
        "policy action cts:trace:list (README, Rights)."
    )


async def test_a_cts_the_block_does_not_name_is_not_called(examined: Examine) -> None:
    """Without an address of CTS nothing is called there, and who removed the agency is for a person to know."""
    async with examined(cts_url="", mode="auto", on_unbound="rebind") as it:
        ended = await it.doctor()
    why = "the cloud's block names no CTS"
    assert (ended.code, rows(ended)["CTS GET traces"][1:3]) == (0, ["-", why])
    assert will(ended)["bind"] == ("approved by a person", f"who removed the agency cannot be seen: {why}")


async def test_clocks_and_an_absent_field_are_findings(examined: Examine) -> None:
    """Clocks that are off by more than a minute and a record without an agency field say what they are good for."""
    async with examined(mode="auto", on_unbound="rebind") as it:
        it.region.set_fault("clock-skew", it.cluster, seconds=-400)
        it.region.set_fault("cloud-clock-skew", seconds=120)
        it.region.set_fault("record-absent", it.cluster)
        ended = await it.doctor()
    found = rows(ended)
    assert (ended.code, answers(ended)["Manager's clock"], answers(ended)["cloud's clock"]) == (0, "warning", "warning")
    assert re.fullmatch(r"(39\d|40\d|41\d) s behind ours", found["Manager's clock"][2])
    assert re.fullmatch(r"1[12]\d s ahead of ours", found["cloud's clock"][2])
    assert found["MRS GET cluster_infos/{id}"][1:3] == ["no", "mrs-001, running, 3 nodes, without an agency field"]
    assert will(ended)["bind"] == ("not done", "mrs-001, running, 3 nodes, without an agency field")
    assert will(ended)["restart"] == ("automatic", NEEDS)
    assert [line.split(". ")[0] for line in to_settle(ended)][:3] == [
        "field absent (agency of the cluster's record)",
        "clock skew (Manager)",
        "clock skew (cloud)",
    ]


async def test_an_unreachable_manager_is_called_once(examined: Examine) -> None:
    """A Manager that refuses connections is named once; its other routes are not tried, the cloud's are."""
    async with examined(manager={"url": "http://127.0.0.1:9/web/api/v2"}) as it:
        ended = await it.doctor()
    found = rows(ended)
    assert (ended.code, ended.err) == (0, "")
    assert found["Manager GET clusters"][1:3] == [
        "no",
        "http://127.0.0.1:9/web/api/v2/ cannot be reached (All connection attempts failed)",
    ]
    manager = [cells[2] for asked, cells in found.items() if asked.startswith("Manager GET")]
    assert manager[1:] == ["not asked: Manager cannot be reached"] * 5
    assert list(answers(ended).values())[7:13] == ["yes"] * 6
    assert to_settle(ended)[0] == (
        "port closed (Manager). Let the workers reach TCP 9 of 127.0.0.1: look at the security group of the cluster's "
        "masters (TCP 28443, or 9022 through an EIP); or correct the address in the cluster's MRS Manager block."
    )


async def test_where_nothing_can_be_read_the_runbook_cannot_run(examined: Examine) -> None:
    """Neither Manager nor the cloud lets us in: exit code 1, and that is the last line."""
    async with examined(manager={"url": "http://127.0.0.1:9/web/api/v2"}) as it:
        it.region.access_key = "another"
        ended = await it.doctor()
    assert (ended.code, ended.out.splitlines()[-1]) == (
        1,
        "The runbook cannot run: neither alarms nor nodes can be read.",
    )
    assert to_settle(ended)[1] == (
        "login rejected (MRS, IAM, CTS). The key of the cluster's MRS Cloud block is wrong, expired or disabled, "
        "or our clock is off by 15 minutes: renew it."
    )


async def test_a_certificate_of_another_ca_is_not_trusted(examined: Examine, tmp_path: Path) -> None:
    """A Manager whose certificate another CA signed is not trusted, and the block's right CA is asked for."""
    ours, other = trustme.CA(), trustme.CA()
    certificate = ours.issue_cert("127.0.0.1")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    tls = {"ssl_certfile": str(chain), "ssl_keyfile": str(key)}
    right, wrong = ours.cert_pem.bytes().decode(), other.cert_pem.bytes().decode()
    async with examined(manager={"ca_pem": wrong, "cloud_ca": right}, tls=tls) as it:
        ended = await it.doctor()
    found = rows(ended)
    assert (ended.code, ended.err) == (0, "")
    assert "is not trusted" in found["Manager GET clusters"][2]
    assert list(answers(ended).values())[7:13] == ["yes"] * 6
    assert to_settle(ended)[0] == (
        "certificate not trusted (Manager). The cluster's MRS Manager block: write the PEM of the CA that signed it "
        "into ca_pem (Manager's own CA, unless somebody replaced it)."
    )


async def test_a_ca_that_is_none_is_bad_input(examined: Examine) -> None:
    """Text that is no certificate, given as the CA, is exit code 2 and one sentence."""
    async with examined(manager={"ca_pem": "[red]no certificate"}) as it:
        ended = await it.doctor()
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("error: the CA text in the block cannot be used (")


async def test_a_wrong_password_is_tried_once(examined: Examine) -> None:
    """A wrong password reaches Manager once, is a finding, and is not printed."""
    async with examined(manager={"password": "hush-hush"}) as it:
        ended = await it.doctor()
        assert it.cluster.wrong_passwords == 1
    assert (ended.code, ended.err) == (0, "")
    assert "was rejected" in rows(ended)["Manager GET clusters"][2]
    assert to_settle(ended)[0] == (
        "login rejected (Manager). Put the right password of user 'runbooks' into the cluster's MRS Manager block; "
        "no login is tried until that block changes."
    )
    assert "hush-hush" not in ended.out


async def test_an_unknown_cluster_is_bad_input(runbooks: Runbooks, prefect_server: str) -> None:
    """A cluster without a block is exit code 2 and one sentence that says where to make one."""
    words = "there is no cluster '[x]': make it in the Prefect UI under Blocks > MRS Cluster, or check the spelling"
    assert await runbooks("doctor", "[x]", PREFECT_API_URL=prefect_server) == Ended(2, "", f"error: {words}\n")


async def test_no_secret_is_printed(examined: Examine) -> None:
    """What the doctor prints holds neither passwords nor keys of the blocks."""
    async with examined() as it:
        ended = await it.doctor()
        for secret in (it.cluster.manager_password, it.region.secret_key, it.region.access_key):
            assert secret not in ended.out


async def test_what_answered_is_kept_for_the_gates(examined: Examine, tmp_path: Path) -> None:
    """Each route that was asked is in the ledger with when it last answered; a restart that a run was refused stays."""
    async with examined(mode="auto", on_unbound="rebind") as it:
        assert (await it.doctor()).code == 0
        url = kept_by(tmp_path / "runbooks")
        async with open_ledger(url) as ledger:
            async with ledger.reading() as session:
                known = await answers_of(session, it.name)
            async with ledger.writing() as session:
                refused = Asked("restart", RESTART, "ASSUMED", False, "HTTP 405: no")
                await keep_answers(session, it.name, [refused], datetime.now(UTC))
        manager = {"clusters", "alarms", "masking", "hosts", "instances", "commands"}
        cloud = {"record", "nodes", "agency update", "metadata", "agency", "changes"}
        assert {name for name, row in known.items() if row.answered} == set(known) == manager | cloud
        assert known["hosts"].call == "Manager GET clusters/{cluster}/hosts"
        ended = await it.doctor()
        assert will(ended)["restart"][0] == "handed off"
        assert "route not offered (restart)" in to_settle(ended)[0]
        assert f"`runbooks doctor {it.name} --forget`" in to_settle(ended)[0]
        assert will(await it.doctor("--forget"))["restart"] == ("automatic", NEEDS)


async def test_without_a_ledger_it_says_so_and_goes_on(examined: Examine) -> None:
    """Where the ledger does not answer all is printed, that it could not be kept too, and no change is promised."""
    async with examined(mode="auto", on_unbound="rebind") as it:
        ended = await it.doctor(RUNBOOKS_LEDGER_URL="postgresql://nobody@127.0.0.1:9/runbooks")
    assert (ended.code, ended.err, list(answers(ended).values())[:6]) == (0, "", ["yes"] * 6)
    assert ended.out.splitlines()[-1].startswith("This could not be kept for the runs' gates: the ledger postgresql")
    assert will(ended)["restart"][0] == "not done"
    assert will(ended)["restart"][1].startswith("without the ledger nothing is changed: ")
    told = [rows(ended)[asked] for asked in SOURCES]
    assert [(fine, said.partition(" postgresql")[0]) for _, fine, said, _ in told] == [
        ("-", "cannot be told: the ledger")
    ] * 3


async def test_the_logins_for_changes_are_looked_at(examined: Examine) -> None:
    """A login for changes that is known is fine; one that is rejected is a finding, and no restart is promised."""
    async with examined() as it:
        ended = await it.doctor()
        assert (answers(ended)["Manager login for changes"], answers(ended)["ECS key for changes"]) == ("-", "-")
    async with examined(mode="auto", on_unbound="rebind", own_logins=("changes",)) as it:
        ended = await it.doctor()
        assert (answers(ended)["Manager login for changes"], answers(ended)["ECS key for changes"]) == ("yes", "yes")
    async with examined(mode="auto", on_unbound="rebind", own_logins=("wrong",)) as it:
        ended = await it.doctor()
        assert answers(ended)["Manager login for changes"] == "no"
        assert will(ended)["restart"][0] == "not done"
        assert will(ended)["bind"] == ("automatic", NEEDS)


async def test_a_machine_reads_the_same(examined: Examine) -> None:
    """`--json` prints one object with every finding, what to do about it, and what will be done."""
    async with examined(mode="auto", on_unbound="rebind") as it:
        it.region.set_fault("cts-denied")
        ended = await it.doctor("--json")
    found = json.loads(ended.out)
    assert (ended.code, ended.err, found["cluster"], found["can_run"]) == (0, "", it.name, True)
    assert (found["mode"], found["on_unbound"], found["agency"]) == ("auto", "rebind", AGENCY)
    assert found["actions"]["restart"] == {"will": "automatic", "because": NEEDS}
    assert (found["trouble"], found["not_kept"]) == (None, None)
    changes = next(each for each in found["findings"] if each["name"] == "changes")
    assert changes == {
        "name": "changes",
        "call": "CTS GET traces",
        "rating": "CONFIRMED",
        "fine": False,
        "said": "HTTP 403 CTS.0013: No permission, Please check roles.",
        "means": "NOT: step 6 knows who changed the agency",
        "settle": "give the key of the cluster's MRS Cloud block the policy action cts:trace:list (README, Rights)",
        "cause": "permission missing: the policy action cts:trace:list",
        "answered": False,
        "warns": False,
    }
