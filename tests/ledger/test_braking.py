"""What stops all changes: people's brakes, and the breaker, each of its limits from both sides."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from sqlalchemy import URL, select

from tasks.ledger.braking import brake, braked, brakes, open_breaker, release, reset_breaker, trip_if_shared
from tasks.ledger.database import Ledger, open_ledger
from tasks.ledger.tables import Brake, Breaker, Cluster, Episode
from tests.ledger.conftest import HOUR, MINUTE, NOW, SECOND

pytestmark = pytest.mark.anyio
TOGETHER = 15 * MINUTE
SHARED = "alarmed within 15 minutes: their cause may be a shared one"
SINCE = "since 2026-11-25 12:00 UTC"


def stops(why: str) -> str:
    """What a run is told while the breaker has tripped for this reason."""
    return f"the breaker has tripped ({why}); see its incident ticket, `runbooks breaker reset` lets changes go on"


async def put_on(ledger: Ledger, cluster: str = "", reason: str = "a storm", now: datetime = NOW) -> None:
    """Ann puts a brake on."""
    async with ledger.writing() as session:
        await brake(session, cluster, reason, "ann", now)


async def take_off(ledger: Ledger, cluster: str = "", now: datetime = NOW) -> int:
    """Bob takes brakes off; returns how many."""
    async with ledger.writing() as session:
        return await release(session, cluster, "it is over", "bob", now)


async def why_not(ledger: Ledger, *clusters: str) -> list[str]:
    """Why nothing is changed in each of these clusters; empty: it may be."""
    async with ledger.reading() as session:
        return [await braked(session, each) for each in clusters]


async def test_without_a_brake_nothing_is_stopped(ledger: Ledger) -> None:
    """In a ledger in which nobody has stopped anything no cluster is braked, one without a name neither."""
    assert await why_not(ledger, "alpha", "") == ["", ""]
    async with ledger.reading() as session:
        assert (await brakes(session), await open_breaker(session)) == ([], None)


async def test_a_brake_of_one_cluster(ledger: Ledger) -> None:
    """A brake of one cluster stops that one, with who, when, why and how it ends, until that cluster's is taken off."""
    await put_on(ledger, "alpha")
    assert await why_not(ledger, "alpha", "beta", "alph", "") == [
        f"ann has stopped changes of alpha {SINCE} (a storm); `runbooks resume alpha` ends it",
        "",
        "",
        "",
    ]
    assert [await take_off(ledger), await take_off(ledger, "beta")] == [0, 0]
    assert (await why_not(ledger, "alpha"))[0].startswith("ann has stopped changes of alpha ")
    assert [await take_off(ledger, "alpha"), await take_off(ledger, "alpha")] == [1, 0]
    assert await why_not(ledger, "alpha") == [""]


async def test_a_brake_holds_for_all_blocks_of_a_cluster(ledger: Ledger) -> None:
    """A brake of one block stops runs that were started with another block of the same cluster, and of no other one."""
    async with ledger.writing() as session:
        for block, id_ in (("alpha", "id-1"), ("alpha again", "id-1"), ("beta", "id-2")):
            session.add(Cluster(name=block, cluster_id=id_, source="prod", speed=1, connected=NOW))
    await put_on(ledger, "alpha again")
    words = f"ann has stopped changes of alpha again {SINCE} (a storm); `runbooks resume alpha again` ends it"
    assert await why_not(ledger, "alpha", "alpha again", "beta", "unknown") == [words, words, "", ""]


async def test_a_brake_of_all_clusters(ledger: Ledger) -> None:
    """A brake of all clusters stops each of them, and taking off that of one cluster does not end it."""
    await put_on(ledger)
    words = f"ann has stopped all changes {SINCE} (a storm); `runbooks resume` ends it"
    assert await why_not(ledger, "alpha", "beta", "") == [words] * 3
    assert await take_off(ledger, "alpha") == 0
    assert await why_not(ledger, "alpha") == [words]
    assert await take_off(ledger) == 1
    assert await why_not(ledger, "alpha", "beta", "") == ["", "", ""]


async def test_of_several_brakes_the_oldest_speaks(ledger: Ledger) -> None:
    """Brakes stand beside each other, the oldest that concerns a cluster speaks, and each is taken off for itself."""
    await put_on(ledger, "beta", "disks")
    await put_on(ledger, "alpha", "an upgrade", NOW + MINUTE)
    await put_on(ledger, "", "a storm", NOW + HOUR)
    await put_on(ledger, "alpha", "another upgrade", NOW + HOUR)
    async with ledger.reading() as session:
        assert [(each.cluster, each.reason) for each in await brakes(session)] == [
            ("beta", "disks"),
            ("alpha", "an upgrade"),
            ("", "a storm"),
            ("alpha", "another upgrade"),
        ]
    of_all = "ann has stopped all changes since 2026-11-25 13:00 UTC (a storm); `runbooks resume` ends it"
    assert await why_not(ledger, "alpha", "beta", "gamma") == [
        "ann has stopped changes of alpha since 2026-11-25 12:01 UTC (an upgrade); `runbooks resume alpha` ends it",
        f"ann has stopped changes of beta {SINCE} (disks); `runbooks resume beta` ends it",
        of_all,
    ]
    assert await take_off(ledger, "alpha") == 2
    assert await why_not(ledger, "alpha") == [of_all]


async def test_who_took_a_brake_off_is_kept(ledger: Ledger) -> None:
    """A brake that is taken off stays on record with who did it, when and why, and is not taken off twice."""
    await put_on(ledger, "alpha")
    await take_off(ledger, "alpha", NOW + MINUTE)
    await take_off(ledger, "alpha", NOW + HOUR)
    async with ledger.reading() as session:
        (row,) = (await session.scalars(select(Brake))).all()
    assert (row.cluster, row.reason, row.by, row.since) == ("alpha", "a storm", "ann", NOW)
    assert (row.released, row.released_by, row.released_reason) == (NOW + MINUTE, "bob", "it is over")


def name(number: int) -> str:
    """The name of a cluster, in the order of the alphabet."""
    return f"c-{number:03}"


async def set_up(
    ledger: Ledger,
    fleet: int,
    ago: Mapping[int, timedelta],
    *,
    accounts: Mapping[int, str] | None = None,
    gone: int = 0,
) -> None:
    """A fleet of so many clusters; `ago` tells when the alarm of each was raised, if one was.

    Args:
        accounts: of clusters that do not have one of their own.
        gone: clusters beyond the fleet that were deleted; their alarm was raised just now.
    """
    async with ledger.writing() as session:
        for number in range(fleet + gone):
            session.add(
                Cluster(
                    name=name(number),
                    cluster_id=f"id-{number}",
                    source=name(number),
                    speed=1,
                    connected=NOW - 30 * 24 * HOUR,
                    gone=NOW if number >= fleet else None,
                    account=(accounts or {}).get(number, f"own-{number}"),
                )
            )
        for number, since in {**ago, **dict.fromkeys(range(fleet, fleet + gone), SECOND)}.items():
            session.add(an_episode(number, NOW - since))


def an_episode(number: int, opened: datetime, state: str = "raised", n: int = 1) -> Episode:
    """The episode of a cluster."""
    return Episode(
        id=f"e-{number}-{n}",
        cluster_id=f"id-{number}",
        cluster=name(number),
        alarm_id="12110",
        state=state,
        opened=opened,
        opened_by="syslog",
        raised=opened,
    )


def all_at_once(count: int) -> dict[int, timedelta]:
    """So many clusters alarmed a minute ago."""
    return dict.fromkeys(range(count), MINUTE)


async def tripped_by(ledger: Ledger, number: int = 0, *, now: datetime = NOW, speed: float = 1) -> str:
    """Why nothing is changed in this cluster, as a run asks before a change."""
    async with ledger.writing() as session:
        return await braked(session, name(number)) or await trip_if_shared(session, f"id-{number}", now, speed)


# The size of the fleet, how many of it alarm together, and whether that is too many.
LIMITS = [
    (1, 1, False),
    (2, 1, False),
    (2, 2, True),
    (4, 1, False),
    (4, 2, True),
    (5, 2, False),
    (5, 4, False),
    (5, 5, True),
    (6, 5, True),
    (20, 4, False),
    (20, 5, True),
    (25, 4, False),
    (25, 5, True),
    (26, 5, False),
    (26, 6, True),
    (30, 5, False),
    (30, 6, True),
    (35, 6, False),
    (35, 7, True),
    (100, 19, False),
    (100, 20, True),
    (101, 20, False),
    (101, 21, True),
]


@pytest.mark.parametrize(("fleet", "alarmed", "too_many"), LIMITS)
async def test_a_fifth_of_the_fleet(ledger: Ledger, fleet: int, alarmed: int, too_many: bool) -> None:
    """A fifth of the fleet and at least five clusters trip the breaker, or two of fewer than five, and no less does."""
    await set_up(ledger, fleet, all_at_once(alarmed))
    why = f"{alarmed} of {fleet} clusters {SHARED}"
    assert await tripped_by(ledger) == (stops(why) if too_many else "")
    async with ledger.reading() as session:
        rows = (await session.scalars(select(Breaker))).all()
    names = "\n".join(name(number) for number in range(alarmed))
    assert [(each.scope, each.since, each.why, each.clusters, each.reset) for each in rows] == (
        [("fleet", NOW, why, names, None)] if too_many else []
    )


@pytest.mark.parametrize(
    ("fleet", "alarmed", "sharing", "too_many"),
    [(20, 2, 2, False), (20, 3, 3, True), (20, 4, 2, False), (20, 4, 3, True), (5, 3, 3, True), (100, 3, 3, True)],
)
async def test_clusters_of_one_account(ledger: Ledger, fleet: int, alarmed: int, sharing: int, too_many: bool) -> None:
    """Three clusters of one account trip the breaker, and only they are named in it, two and others do not."""
    shared = dict.fromkeys([*range(sharing), fleet - 1], "acme")  # the last one does not alarm
    await set_up(ledger, fleet, all_at_once(alarmed), accounts=shared)
    why = f"{sharing} clusters of account acme {SHARED}"
    assert await tripped_by(ledger) == (stops(why) if too_many else "")
    async with ledger.reading() as session:
        rows = (await session.scalars(select(Breaker))).all()
    names = "\n".join(name(number) for number in range(sharing))
    assert [(each.why, each.clusters) for each in rows] == ([(why, names)] if too_many else [])


async def test_another_account_goes_on(ledger: Ledger) -> None:
    """Clusters that share an account stop one of another account only once one of them has tripped the breaker."""
    await set_up(ledger, 20, all_at_once(4), accounts=dict.fromkeys(range(3), "acme"))
    assert await tripped_by(ledger, 3) == ""
    words = stops(f"3 clusters of account acme {SHARED}")
    assert [await tripped_by(ledger, 0), await tripped_by(ledger, 3)] == [words, words]


async def test_an_unknown_account_is_not_shared(ledger: Ledger) -> None:
    """Clusters whose account is not known do not share one."""
    await set_up(ledger, 20, all_at_once(4), accounts=dict.fromkeys(range(4), ""))
    assert await tripped_by(ledger) == ""


async def test_the_share_of_the_fleet_speaks_first(ledger: Ledger) -> None:
    """Where both limits are passed all clusters that alarm are named, not only those of the account."""
    await set_up(ledger, 20, all_at_once(5), accounts=dict.fromkeys(range(3), "acme"))
    assert await tripped_by(ledger) == stops(f"5 of 20 clusters {SHARED}")


@pytest.mark.parametrize(
    ("speed", "ago", "together"),
    [
        (1, TOGETHER - SECOND, True),
        (1, TOGETHER, False),
        (60, TOGETHER / 60 - timedelta(milliseconds=1), True),
        (60, TOGETHER / 60, False),
    ],
)
async def test_within_fifteen_minutes(ledger: Ledger, speed: float, ago: timedelta, together: bool) -> None:
    """Only what alarmed within the last fifteen minutes of the cluster's time counts, not what did so before."""
    await set_up(ledger, 20, {**all_at_once(1), **dict.fromkeys(range(1, 5), ago), 0: SECOND / 10})
    words = stops(f"5 of 20 clusters {SHARED}")
    assert await tripped_by(ledger, speed=speed) == (words if together else "")


async def test_a_cluster_counts_once(ledger: Ledger) -> None:
    """A cluster counts once, however often it alarmed, and whether its episodes are open or closed."""
    await set_up(ledger, 20, all_at_once(4))
    async with ledger.writing() as session:
        session.add_all([an_episode(0, NOW - MINUTE, "closed", n) for n in (2, 3, 4)])
        session.add(Cluster(name="z", cluster_id="id-0", source="z", speed=1, connected=NOW))  # a second block of it
    assert await tripped_by(ledger) == ""
    async with ledger.writing() as session:
        session.add(an_episode(4, NOW - MINUTE, "closed"))
    assert await tripped_by(ledger) == stops(f"5 of 20 clusters {SHARED}")


async def test_clusters_that_are_gone_do_not_count(ledger: Ledger) -> None:
    """A cluster whose block was deleted is neither of the fleet nor among those that alarm."""
    await set_up(ledger, 4, all_at_once(1), gone=10)
    assert [await tripped_by(ledger, 0), await tripped_by(ledger, 5)] == ["", ""]
    async with ledger.writing() as session:
        session.add(an_episode(1, NOW - MINUTE))
    assert await tripped_by(ledger) == stops(f"2 of 4 clusters {SHARED}")


@pytest.mark.parametrize("number", [9, 99])
async def test_whoever_asks_first_trips_it(ledger: Ledger, number: int) -> None:
    """A cluster whose own alarm is older, or that no intake knows, trips it as well when others alarm together."""
    await set_up(ledger, 20, {**all_at_once(4), 9: HOUR})
    assert await tripped_by(ledger, number) == ""
    async with ledger.writing() as session:
        session.add(an_episode(4, NOW - MINUTE))
    assert await tripped_by(ledger, number) == stops(f"5 of 20 clusters {SHARED}")
    async with ledger.reading() as session:
        (row,) = (await session.scalars(select(Breaker))).all()
    assert row.clusters == "\n".join(name(each) for each in range(5))


async def test_an_older_alarm_of_the_account(ledger: Ledger) -> None:
    """A cluster whose own alarm is older does not count, and is stopped when three others of its account alarm."""
    await set_up(ledger, 20, {**all_at_once(2), 3: HOUR}, accounts=dict.fromkeys(range(4), "acme"))
    assert await tripped_by(ledger, 3) == ""
    async with ledger.writing() as session:
        session.add(an_episode(2, NOW - MINUTE))
    assert await tripped_by(ledger, 3) == stops(f"3 clusters of account acme {SHARED}")


async def test_what_has_tripped_stays_so(ledger: Ledger) -> None:
    """A tripped breaker stops every cluster, also without a name, in all the time until a person resets it."""
    await set_up(ledger, 20, all_at_once(5))
    words = await tripped_by(ledger)
    later = [await tripped_by(ledger, number, now=NOW + 1000 * HOUR) for number in (0, 7, 99)]
    assert [*later, *await why_not(ledger, "alpha", "")] == [words] * 5
    async with ledger.writing() as session:
        reset = await reset_breaker(session, "the region is well", "bob", NOW + HOUR)
    assert reset is not None
    assert (reset.reset, reset.reset_by, reset.reset_reason) == (NOW + HOUR, "bob", "the region is well")
    assert await why_not(ledger, "alpha", "") == ["", ""]
    async with ledger.writing() as session:
        assert await reset_breaker(session, "once more", "bob", NOW + 2 * HOUR) is None
    async with ledger.reading() as session:
        (row,) = (await session.scalars(select(Breaker))).all()
    assert (row.reset, row.reset_by, row.reset_reason) == (NOW + HOUR, "bob", "the region is well")


async def test_a_brake_speaks_before_the_breaker(ledger: Ledger) -> None:
    """Where a person has put a brake on, that is what a run is told, and the breaker when it is taken off."""
    await set_up(ledger, 20, all_at_once(5))
    words = await tripped_by(ledger)
    await put_on(ledger)
    assert await why_not(ledger, "c-000") == [
        f"ann has stopped all changes {SINCE} (a storm); `runbooks resume` ends it"
    ]
    await take_off(ledger)
    assert await why_not(ledger, "c-000") == [words]


async def test_what_was_reset_does_not_trip_it_again(ledger: Ledger) -> None:
    """The episodes that tripped it do not do so again once it was reset, until enough others have opened since."""
    await set_up(ledger, 20, all_at_once(5))
    await tripped_by(ledger)
    reset = NOW + MINUTE
    async with ledger.writing() as session:
        await reset_breaker(session, "well", "bob", reset)
    now = NOW + 2 * MINUTE
    assert [await tripped_by(ledger, number, now=now) for number in range(5)] == [""] * 5
    async with ledger.writing() as session:
        session.add_all([an_episode(number, reset + SECOND) for number in range(5, 9)])
        session.add(an_episode(9, reset))  # it was there when the person looked
    assert [await tripped_by(ledger, number, now=now) for number in range(10)] == [""] * 10
    async with ledger.writing() as session:
        session.add(an_episode(10, reset + SECOND))
    assert await tripped_by(ledger, 10, now=now) == stops(f"5 of 20 clusters {SHARED}")
    async with ledger.reading() as session:
        rows = (await session.scalars(select(Breaker).order_by(Breaker.since))).all()
    names = "\n".join(name(number) for number in (5, 6, 7, 8, 10))
    assert [(each.since, each.reset is None) for each in rows] == [(NOW, False), (now, True)]
    assert rows[1].clusters == names


async def test_one_breaker_of_many_that_ask(url: URL) -> None:
    """Of twenty runs that ask at once one trips it, and all are told the same."""

    async def ask(ledger: Ledger, number: int) -> str:
        return await tripped_by(ledger, number)

    async with open_ledger(url) as one, open_ledger(url) as other:
        await set_up(one, 20, all_at_once(20))
        told = await asyncio.gather(*(ask((one, other)[number % 2], number) for number in range(20)))
        async with one.reading() as session:
            rows = (await session.scalars(select(Breaker))).all()
    assert set(told) == {stops(f"20 of 20 clusters {SHARED}")}
    assert [(each.since, each.reset) for each in rows] == [(NOW, None)]
