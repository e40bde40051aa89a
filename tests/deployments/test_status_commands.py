"""`runbooks status`, `why`, `evidence`, `approvals` and `approve`: what they say is what the ledger holds."""

import json
import re
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from tasks import timing
from tasks.ledger.approval_tables import Approval
from tasks.ledger.approving import put, question_of
from tasks.ledger.database import DRIVERS, Ledger, open_ledger
from tasks.ledger.episodes import Asking, Holding, Part, claim, let_go, settle
from tasks.ledger.keeping import Line, digest_of, keep, written_out
from tasks.ledger.modes import note_modes
from tasks.ledger.outbox import Filing, file
from tasks.ledger.tables import Intent
from tasks.models import Alarm
from tasks.ticket_files import id_of
from tests.deployments.conftest import Runbooks
from tests.intake.standing import a_cluster, block_of, connect, seen, told

pytestmark = [pytest.mark.anyio, pytest.mark.command, pytest.mark.xdist_group("command")]

RUN = "11111111-2222-4333-8444-555555555555"
NOW = timing.wall().replace(microsecond=0)
LINES = [
    Line(NOW, "1", "node-1", "asked", "ALM-12110 on node-1 is active on Manager"),
    Line(NOW, "2", "node-1", "asked", "meta instance of node-1: Manager says 'Faulty'"),
    Line(NOW, "3", "node-1", "ended", "DECLINED: restart rejected by Ada"),
]


class Told:
    """A ledger in which a run of cluster alpha has asked a person, and kept its record."""

    def __init__(self, home: Path) -> None:
        self._url = URL.create(DRIVERS["sqlite"], database=str(home / "ledger.db"))
        self.episode = ""

    async def begin(self, *, four_eyes: bool = False, starter: str = "alarm") -> None:
        """The alarm came, the run took the episode, asked, and waits."""
        async with open_ledger(self._url) as ledger:
            await connect(ledger, cluster := a_cluster("alpha"))
            (found,) = await seen(ledger, cluster, told(host="node-1", serial="17"))
            self.episode = found.episode
            await self._asks(ledger, cluster.cluster_id, four_eyes=four_eyes, starter=starter)

    async def _asks(self, ledger: Ledger, cluster_id: str, *, four_eyes: bool, starter: str) -> None:
        async with ledger.writing() as session:
            asking = Asking(RUN, "http://prefect/run", automated=True)
            self.holding = await claim(session, cluster_id, "alpha", "12110", asking, timing.wall())
            assert isinstance(self.holding, Holding)
            question = Approval(
                attempt=self.holding.attempt,
                step="3",
                kind="approve",
                episode_id=self.holding.episode,
                run=RUN,
                link="http://prefect/run",
                cluster="alpha",
                action="restart",
                targets="node-1",
                why="the cluster's mode for a restart is 'approve'",
                starter=starter,
                four_eyes=four_eyes,
                asked=NOW,
                expires=NOW + timedelta(hours=1),
            )
            await put(session, self.holding, question)
            await keep(session, self.holding, LINES, NOW)
            await keep(session, self.holding, LINES, NOW)  # begun anew it learns the same
            await let_go(session, self.holding)

    async def sees_modes(self, *modes: str) -> None:
        """The cluster's restarts have these modes, one after the other."""
        async with open_ledger(self._url) as ledger:
            for n, mode in enumerate(modes):
                async with ledger.writing() as session:
                    await note_modes(session, {"alpha": {"restart": mode}}, NOW + timedelta(seconds=n))

    async def connects(self, name: str) -> None:
        """The ledger knows a cluster of that name, whose alarms nobody has seen."""
        async with open_ledger(self._url) as ledger:
            await connect(ledger, a_cluster(name))

    async def tells(self, text: str, source: str) -> None:
        """This source says so in the cluster's ticket."""
        async with open_ledger(self._url) as ledger, ledger.writing() as session:
            await file(session, Filing("alpha/12110/t", "title", text, source=source, episode=self.episode), NOW)

    async def begin_with_many(self, hosts: int) -> None:
        """So many hosts alarmed, each was restarted and then refused, for the same reason and a few for their own."""
        names = [f"node-{n:03}" for n in range(hosts)]
        async with open_ledger(self._url) as ledger:
            await connect(ledger, cluster := a_cluster("alpha"))
            found = await seen(ledger, cluster, *(told(host=name, serial=str(n)) for n, name in enumerate(names)))
            self.episode = found[0].episode
            async with ledger.writing() as session:
                asking = Asking(RUN, "http://prefect/run", automated=True)
                holding = await claim(session, cluster.cluster_id, "alpha", "12110", asking, timing.wall())
                assert isinstance(holding, Holding)
                at: dict[str, Any] = {"attempt": holding.attempt, "step": "3", "episode_id": self.episode}
                for n, name in enumerate(names):
                    intent = Intent(target=name, cluster_id=cluster.cluster_id, at=NOW, ended=NOW, **at)
                    intent.did = f"restarted (command {n})"
                    session.add(intent)
                said = [Line(NOW, "3", name, "ended", f"REFUSED: {name} is in maintenance") for name in names]
                own = [Line(NOW, "3", "(the cluster)", "ended", f"REFUSED: reason {n}") for n in range(20)]
                await keep(session, holding, [*said, *own], NOW)
                alarms = [Alarm(alarm_id="12110", serial=str(n), location=f"HostName={h}") for n, h in enumerate(names)]
                parts = [Part(each, "REFUSED", "1 2n REFUSED") for each in alarms]
                await settle(session, holding, parts, "REFUSED", "", timing.wall())

    async def asked(self) -> tuple[str, str, str, str]:
        """What came of the question: decision, by whom, how that is known, comment."""
        assert isinstance(self.holding, Holding)
        async with open_ledger(self._url) as ledger, ledger.reading() as session:
            found = await question_of(session, self.holding, "3", "approve")
            assert found is not None
            return found.decision, found.by, found.channel, found.comment


@pytest.fixture
def story(tmp_path: Path) -> Told:
    """Nothing has happened yet."""
    (tmp_path / "runbooks").mkdir()
    return Told(tmp_path / "runbooks")


async def test_status_shows_what_is_open(runbooks: Runbooks, story: Told) -> None:
    """The open episode, that a person is asked, and what stops changes; as JSON too; on an empty ledger nothing."""
    assert (await runbooks("status")).out == "no open episode\n"
    await story.begin()
    ended = await runbooks("status")
    assert re.search(rf"alpha +│ 12110 +│ {story.episode} +│ [^│]* +│ a person is asked +│", ended.out)
    assert "1 question(s) wait for a person: `runbooks approvals`" in ended.out
    found = json.loads((await runbooks("status", "--json")).out)
    assert [(each["id"], each["state"], each["run"]) for each in found["episodes"]] == [(story.episode, "waiting", RUN)]
    assert (found["questions"], found["brakes"], found["breaker"], found["stop_file"]) == (1, [], None, "")


async def test_why_tells_the_reason(runbooks: Runbooks, story: Told) -> None:
    """By the cluster's name and by the episode's id: the alarm, that nothing was changed, who was asked, the reason."""
    await story.begin()
    ended = [await runbooks("why", about) for about in ("alpha", story.episode)]
    assert ended[0] == ended[1]
    text = ended[0].out
    assert "nothing was changed" in text
    assert "restart, approve: not answered yet" in text
    assert "node-1: DECLINED: restart rejected by Ada" in text
    unknown = await runbooks("why", "beta")
    assert (unknown.code, unknown.err) == (
        2,
        "error: the ledger knows no cluster and no episode 'beta': `runbooks status` shows them\n",
    )


async def test_why_tells_of_other_modes(runbooks: Runbooks, story: Told) -> None:
    """How the cluster's modes changed is told, the last five changes; not how they were when it was first seen."""
    await story.begin()
    await story.sees_modes("approve", "auto", "observe")
    told = [line for line in (await runbooks("why", "alpha")).out.splitlines() if line.startswith("mode")]
    assert [line.partition(" UTC ")[2].rstrip() for line in told] == [
        "the mode of a restart became 'auto', it was 'approve'",
        "the mode of a restart became 'observe', it was 'auto'",
    ]


async def test_evidence_is_exported_and_verified(runbooks: Runbooks, story: Told, tmp_path: Path) -> None:
    """The export is the record with its SHA-256; that verifies, whole or as it was earlier, and no other does."""
    await story.begin()
    file = tmp_path / "evidence.txt"
    assert (await runbooks("evidence", "export", story.episode, "--out", str(file))).code == 0
    assert file.read_text() == f"# run {RUN} sha256 {digest_of(LINES)}\n{written_out(LINES)}"
    whole = await runbooks("evidence", "verify", story.episode, digest_of(LINES))
    earlier = await runbooks("evidence", "verify", story.episode, digest_of(LINES[:2]))
    other = await runbooks("evidence", "verify", story.episode, digest_of(LINES[1:]))
    given = "; compared with the SHA-256 that you gave, "
    assert (whole.code, whole.out) == (0, f"verified: the whole record of run {RUN}{given}{digest_of(LINES)}\n")
    begun = f"verified: the first 2 of 3 lines of run {RUN}{given}{digest_of(LINES[:2])}\n"
    assert (earlier.code, earlier.out) == (0, begun)
    assert (other.code, other.out.split(":")[0]) == (1, "NOT verified")
    again = await runbooks("evidence", "export", story.episode, "--out", str(file))
    assert (again.code, again.err) == (2, f"error: {file}: File exists\n")
    assert f"SHA-256 {digest_of(LINES)}" in (await runbooks("evidence", "show", "alpha")).out


async def test_evidence_is_compared_with_the_tickets(runbooks: Runbooks, story: Told) -> None:
    """Without a digest each that the episode's tickets name is looked for; one that is none, or none at all, is 1."""
    await story.begin()
    nothing = await runbooks("evidence", "verify", story.episode)
    said = f"NOT verified: nothing to compare of episode {story.episode}: none of its tickets names a SHA-256\n"
    assert (nothing.code, nothing.out) == (1, said)
    await story.tells(f"SHA-256 of what happened, line by line: {digest_of(LINES[:1])}\n", RUN)
    await story.tells(f"SHA-256 of what happened, line by line: {'0' * 64}\n", "another episode's run")
    ticket = id_of("alpha/12110/t")
    first = f"ticket {ticket}, file of {NOW:%Y-%m-%d %H:%M:%S} UTC, {digest_of(LINES[:1])}"
    same = await runbooks("evidence", "verify", "alpha")
    verified = f"verified: the first 1 of 3 lines of run {RUN}; compared with {first}\n"
    assert (same.code, same.out) == (0, verified)
    await story.tells(f"SHA-256 of what happened, line by line: {'f' * 64}\n", f"episode/{story.episode}")
    other = await runbooks("evidence", "verify", story.episode)
    no = f"NOT verified: no record of episode {story.episode} has it; compared with ticket {ticket}, "
    assert (other.code, other.out.splitlines()[0] + "\n") == (1, verified)
    assert other.out.splitlines()[1].startswith(no)


async def test_evidence_is_compared_with_an_export(runbooks: Runbooks, story: Told, tmp_path: Path) -> None:
    """A file that was exported is compared by its lines and its head; one that somebody has changed is not the same."""
    await story.begin()
    file = tmp_path / "evidence.txt"
    assert (await runbooks("evidence", "export", story.episode, "--out", str(file))).code == 0
    whole = f"verified: the whole record of run {RUN}; compared with "
    head = f"{whole}the head of run {RUN} in {file}, {digest_of(LINES)}"
    same = await runbooks("evidence", "verify", story.episode, str(file))
    assert (same.code, same.out.splitlines()) == (
        0,
        [f"{whole}the lines of run {RUN} in {file}, {digest_of(LINES)}", head],
    )
    file.write_text(file.read_text().replace("'Faulty'", "'Normal'"))
    other = await runbooks("evidence", "verify", story.episode, str(file))
    assert (other.code, other.out.splitlines()[0].split(":")[0], other.out.splitlines()[1]) == (1, "NOT verified", head)
    empty = tmp_path / "empty"
    empty.touch()
    refused = await runbooks("evidence", "verify", story.episode, str(empty))
    assert refused.err == f"error: {empty} holds no record: `runbooks evidence export` writes such files\n"


async def test_why_fits_one_screen(runbooks: Runbooks, story: Told) -> None:
    """Of two hundred hosts those that went the same way are one line, and of the rest as many are shown as fit."""
    await story.begin_with_many(200)
    text = (await runbooks("why", "alpha")).out
    assert len(text.splitlines()) <= 25
    few = "node-000 serial 0, node-001 serial 1, node-002 serial 2, node-003 serial 3 and 196 more"
    assert f"alarm    200 ({few}): 1 2n REFUSED" in text
    hosts = "200 (node-000, node-001, node-002, node-003 and 196 more)"
    assert f"changed  {NOW:%Y-%m-%d %H:%M:%S} UTC step 3, {hosts}: the last: restarted (command 199)" in text
    assert f"because  {hosts}: REFUSED: node-000 is in maintenance" in text
    assert f"because  and 15 more: `runbooks evidence show {story.episode}`" in text


async def test_why_knows_a_cluster_that_never_alarmed(runbooks: Runbooks, story: Told) -> None:
    """A cluster that the ledger knows and that had no episode is no mistake."""
    await story.connects("beta")
    ended = await runbooks("why", "beta")
    said = "cluster  beta: no episode yet: no alarm that has a runbook was told of it"
    assert (ended.code, ended.out.rstrip()) == (0, said)


@pytest.mark.server
async def test_why_knows_a_cluster_of_prefect_s(runbooks: Runbooks, prefect_server: str) -> None:
    """A cluster that has a block and that no intake has seen yet is no mistake, and one without a block is one."""
    cluster = a_cluster("why-gamma")
    await block_of(cluster).save(cluster.name)
    known = await runbooks("why", cluster.name, PREFECT_API_URL=prefect_server)
    unknown = await runbooks("why", "why-delta", PREFECT_API_URL=prefect_server)
    assert (known.code, "no episode yet" in known.out, unknown.code) == (0, True, 2)


@pytest.mark.parametrize("reject", [False, True])
async def test_a_question_is_answered_once(runbooks: Runbooks, story: Told, reject: bool) -> None:
    """It is listed, answered from the terminal by the beginning of the run's id, and then nobody is asked any more."""
    assert (await runbooks("approvals")).out == "nobody is asked anything\n"
    await story.begin()
    (listed,) = json.loads((await runbooks("approvals", "--json")).out)
    assert (listed["run"], listed["targets"], listed["four_eyes"]) == (RUN, ["node-1"], False)
    assert (
        "**Restart the Meta instance of these hosts, one after the other**" in (await runbooks("approvals", "1111")).out
    )
    answer = ("approve", "1111", "--by", "Ada", "--comment", "go ahead", *(["--reject"] if reject else []))
    ended = await runbooks(*answer)
    word = "rejected" if reject else "approved"
    claimed = "claimed, unauthenticated: from a terminal, without a key"
    assert (ended.code, ended.out.splitlines()[0]) == (0, f"alpha, restart: {word} by Ada ({claimed})")
    assert await story.asked() == (word, "Ada", claimed, "go ahead")
    twice = await runbooks(*answer)
    assert twice.code == 2
    assert twice.err == "error: 0 open questions are of run '1111', not one: nobody is asked anything\n"


async def test_four_eyes_demand_a_key(runbooks: Runbooks, story: Told) -> None:
    """A cluster that demands four eyes takes a rejection from anybody, and no approval without a personal key."""
    await story.begin(four_eyes=True)
    refused = await runbooks("approve", "1111", "--by", "Ada")
    assert (refused.code, refused.err.split(":")[1]) == (2, " alpha demands four eyes")
    assert (await story.asked())[0] == ""
    assert (await runbooks("approve", "1111", "--by", "Ada", "--reject")).code == 0
    assert (await story.asked())[0] == "rejected"


@pytest.mark.server
async def test_an_approval_with_a_key(runbooks: Runbooks, story: Told, prefect_server: str) -> None:
    """With a person's key it counts as that person's; not with another's key, nor of who started the run."""
    api = {"PREFECT_API_URL": prefect_server}
    made = await runbooks("approvers", "add", "grace", **api)
    key = made.out.splitlines()[1]
    assert (made.code, len(key)) == (0, 43)
    twice = await runbooks("approvers", "add", "grace", **api)
    assert (twice.code, "grace has a key already" in twice.err) == (2, True)
    await story.begin(four_eyes=True, starter="Grace")  # as her login is spelt
    own = await runbooks("approve", RUN, "--by", "GRACE", RUNBOOKS_APPROVER_KEY=key, **api)
    assert (own.code, own.err) == (2, "error: alpha demands four eyes: grace has started this run\n")
    made = await runbooks("approvers", "add", "heidi", **api)
    other = made.out.splitlines()[1]
    wrong = await runbooks("approve", RUN, "--by", "heidi", RUNBOOKS_APPROVER_KEY=key, **api)
    assert wrong.err == "error: the key in $RUNBOOKS_APPROVER_KEY is not that of heidi: nothing is approved\n"
    assert (await runbooks("approve", RUN, "--by", "heidi", RUNBOOKS_APPROVER_KEY=other, **api)).code == 0
    assert await story.asked() == ("approved", "heidi", "authenticated by a personal key", "")


@pytest.mark.server
@pytest.mark.parametrize(
    ("starter", "why"),
    [
        ("J.Doe", "error: alpha demands four eyes: j-doe has started this run\n"),
        ("", "error: alpha demands four eyes, and nobody knows who started this run"),
        ("\N{CJK UNIFIED IDEOGRAPH-674E}", "error: alpha demands four eyes, and nobody knows who started this run"),
    ],
)
async def test_nobody_approves_a_run_that_may_be_his_own(
    runbooks: Runbooks, story: Told, prefect_server: str, starter: str, why: str
) -> None:
    """A login spelt otherwise than the key's name is the same person; who is not known may be the same."""
    api = {"PREFECT_API_URL": prefect_server}
    key = (await runbooks("approvers", "add", "j.doe", "--replace", **api)).out.splitlines()[1]
    await story.begin(four_eyes=True, starter=starter)
    ended = await runbooks("approve", RUN, "--by", "j.doe", RUNBOOKS_APPROVER_KEY=key, **api)
    assert (ended.code, ended.err.startswith(why)) == (2, True)
    assert (await story.asked())[0] == ""


async def test_a_time_is_said_as_it_counts(runbooks: Runbooks, story: Told) -> None:
    """Too far ahead nothing is approved; else the answer says the time in UTC, or that it is over."""
    await story.begin()
    far = await runbooks("approve", "1111", "--by", "Ada", "--not-before", "2999-01-01T00:00:00")
    assert (far.code, far.err) == (2, "error: --not-before: 2999-01-01 00:00 UTC is more than 7 days ahead\n")
    assert (await story.asked())[0] == ""
    then = (NOW + timedelta(hours=2)).astimezone(timezone(timedelta(hours=1)))
    ended = await runbooks("approve", "1111", "--by", "Ada", "--not-before", then.isoformat())
    assert ended.out.splitlines()[0].endswith(
        f"without a key), not before {NOW + timedelta(hours=2):%Y-%m-%d %H:%M:%S} UTC"
    )


async def test_a_time_that_is_over_counts_at_once(runbooks: Runbooks, story: Told) -> None:
    """It is said, and the approval has no time."""
    await story.begin()
    ended = await runbooks("approve", "1111", "--by", "Ada", "--not-before", "2020-01-01T00:00:00")
    first, second, _ = ended.out.splitlines()
    assert (ended.code, first) == (0, "--not-before is over already: it counts at once")
    assert second.endswith("without a key)")
