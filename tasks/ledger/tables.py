"""The ledger's tables. What they are for is said in the package's docstring."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from tasks.ledger.columns import Table


class Cluster(Table, kw_only=True, eq=False):
    """A cluster block.

    Attributes:
        connected: when the block was made.
        gone: when it was first missed.
        account: the domain id of its cloud, `agency` the agency that its block names; what many share may be a cause.
        tickets: the ticket system that its block names; empty: the files of a machine.
    """

    __tablename__ = "clusters"
    name: Mapped[str] = mapped_column(primary_key=True)
    cluster_id: Mapped[str] = mapped_column(index=True)
    source: Mapped[str]
    speed: Mapped[float]
    connected: Mapped[datetime]
    gone: Mapped[datetime | None] = mapped_column(default=None)
    account: Mapped[str] = mapped_column(default="")
    agency: Mapped[str] = mapped_column(default="")
    tickets: Mapped[str] = mapped_column(default="")


class Episode(Table, kw_only=True, eq=False):
    """One time that a cluster needed a runbook.

    Attributes:
        cluster: name of the block that runs are started with.
        backlog: why nothing may be changed by itself (an old alarm); empty: it may.
        n: number of its current run; `run` is that run's id in Prefect once there is one, `runs` how often it was
            started, the first time and again.
        holder: the run that holds it since `claimed`, with `link` for people; `lease` is when that ends unless renewed.
        acted: a run of it may have changed something.
    """

    __tablename__ = "episodes"
    id: Mapped[str] = mapped_column(primary_key=True)
    cluster_id: Mapped[str]
    cluster: Mapped[str]
    alarm_id: Mapped[str]
    state: Mapped[str]
    opened: Mapped[datetime]
    opened_by: Mapped[str]
    backlog: Mapped[str] = mapped_column(default="")
    raised: Mapped[datetime]
    n: Mapped[int] = mapped_column(default=0)
    run: Mapped[str | None] = mapped_column(default=None)
    runs: Mapped[int] = mapped_column(default=0)
    holder: Mapped[str | None] = mapped_column(default=None)
    link: Mapped[str] = mapped_column(default="")
    token: Mapped[int] = mapped_column(default=0)
    lease: Mapped[datetime | None] = mapped_column(default=None)
    claimed: Mapped[datetime | None] = mapped_column(default=None)
    acted: Mapped[bool] = mapped_column(default=False)
    outcome: Mapped[str] = mapped_column(default="")
    ticket: Mapped[str] = mapped_column(default="")
    verify_until: Mapped[datetime | None] = mapped_column(default=None)
    closed: Mapped[datetime | None] = mapped_column(default=None)
    wake: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (
        Index(
            "one_open_episode",
            "cluster_id",
            "alarm_id",
            unique=True,
            sqlite_where=text("state <> 'closed'"),
            postgresql_where=text("state <> 'closed'"),
        ),
        Index("episodes_by_state", "state"),
        Index("episodes_by_run", "run"),
    )


def place_of(cluster_id: str, host: str) -> str:
    """See `Occurrence.place`."""
    return f"{cluster_id}/{host}"


class Occurrence(Table, kw_only=True, eq=False):
    """One alarm that occurred; unknown text is empty, unknown times are None.

    Attributes:
        place: cluster and host in one, by which many are looked up at once.
        cleared_seen: when we learned that it was cleared, by our clock; `cleared` is Manager's.
        ended: how the page ended for it, with its trace; empty while it has not.
    """

    __tablename__ = "occurrences"
    id: Mapped[str] = mapped_column(primary_key=True)
    cluster_id: Mapped[str]
    alarm_id: Mapped[str]
    host: Mapped[str]
    serial: Mapped[str]
    occurred: Mapped[datetime | None] = mapped_column(default=None)
    first_seen: Mapped[datetime]
    last_seen: Mapped[datetime]
    cleared: Mapped[datetime | None] = mapped_column(default=None)
    cleared_seen: Mapped[datetime | None] = mapped_column(default=None)
    cleared_by: Mapped[str] = mapped_column(default="")
    episode_id: Mapped[str | None] = mapped_column(ForeignKey(Episode.id), index=True, default=None)
    ended: Mapped[str] = mapped_column(default="")
    trace: Mapped[str] = mapped_column(default="")
    place: Mapped[str] = mapped_column(init=False, index=True)

    def __post_init__(self) -> None:
        self.place = place_of(self.cluster_id, self.host)

    __table_args__ = (
        Index("occurrences_of_a_cluster", "cluster_id", "alarm_id"),
        Index(
            "active_occurrences",
            "cluster_id",
            "alarm_id",
            sqlite_where=text("cleared_seen IS NULL"),
            postgresql_where=text("cleared_seen IS NULL"),
        ),
    )


class ObservationRow(Table, kw_only=True, eq=False):
    """One thing a source said. `occurrence_id` is None for a trigger."""

    __tablename__ = "observations"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True, init=False)
    at: Mapped[datetime] = mapped_column(index=True)
    source: Mapped[str]
    peer: Mapped[str]
    kind: Mapped[str]
    cluster_id: Mapped[str]
    alarm_id: Mapped[str]
    occurrence_id: Mapped[str | None] = mapped_column(default=None)
    digest: Mapped[str]
    duplicate: Mapped[bool]


class Poll(Table, kw_only=True, eq=False):
    """The reading of one cluster's alarm list.

    Attributes:
        due: when it is to be read next; whoever takes the work moves it on first.
        answered: when it was last read; `offered` is None until it first was.
        skew: Manager's clock less ours, in seconds.
        triggered: since when somebody asks for it to be read; `trigger_alarm` is the alarm that was named.
    """

    __tablename__ = "polls"
    cluster: Mapped[str] = mapped_column(primary_key=True)
    due: Mapped[datetime] = mapped_column(index=True)
    answered: Mapped[datetime | None] = mapped_column(default=None)
    offered: Mapped[bool | None] = mapped_column(default=None)
    skew: Mapped[float | None] = mapped_column(default=None)
    trouble: Mapped[str] = mapped_column(default="")
    triggered: Mapped[datetime | None] = mapped_column(default=None)
    trigger_alarm: Mapped[str] = mapped_column(default="")


class Rejection(Table, kw_only=True, eq=False):
    """Something received that could not be used."""

    __tablename__ = "rejections"
    id: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str]
    peer: Mapped[str]
    reason: Mapped[str]
    why: Mapped[str]
    excerpt: Mapped[str]
    first: Mapped[datetime]
    last: Mapped[datetime] = mapped_column(index=True)
    times: Mapped[int]


class SourceRow(Table, kw_only=True, eq=False):
    """A source and who speaks there."""

    __tablename__ = "sources"
    source: Mapped[str] = mapped_column(primary_key=True)
    peer: Mapped[str] = mapped_column(primary_key=True)
    heard: Mapped[datetime]


class Message(Table, kw_only=True, eq=False):
    """An id that was accepted."""

    __tablename__ = "messages"
    source: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)


class IntakeRow(Table, kw_only=True, eq=False):
    """One process of the intake; `gap_from` is when the one before it was last alive, if that was long ago."""

    __tablename__ = "intakes"
    id: Mapped[str] = mapped_column(primary_key=True)
    started: Mapped[datetime]
    alive: Mapped[datetime] = mapped_column(index=True)
    gap_from: Mapped[datetime | None] = mapped_column(default=None)


class Learned(Table, kw_only=True, eq=False):
    """What an attempt of a run has learned or done, by its key, as JSON: begun anew it takes it from here."""

    __tablename__ = "learned"
    attempt: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    at: Mapped[datetime] = mapped_column(index=True)


class Wait(Table, kw_only=True, eq=False):
    """A wait of an attempt at a step of the page. The deadline is fixed when it begins, by our clock."""

    __tablename__ = "waits"
    attempt: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[str] = mapped_column(primary_key=True)
    episode_id: Mapped[str] = mapped_column(ForeignKey(Episode.id), index=True)
    deadline: Mapped[datetime] = mapped_column(index=True)
    ended: Mapped[datetime | None] = mapped_column(default=None)


class Intent(Table, kw_only=True, eq=False):
    """A change that an attempt set out to make; it is made only after this row is on disk.

    Attributes:
        before: what the target was before, as JSON, to tell later whether the change was made.
        command: Manager's id of the command, of a bind the cloud's id of the request, once it was answered.
        ended: when it was seen how it ended; None: it may have been made or not, and only the world can tell.
    """

    __tablename__ = "intents"
    attempt: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str] = mapped_column(primary_key=True)
    episode_id: Mapped[str] = mapped_column(ForeignKey(Episode.id), index=True)
    cluster_id: Mapped[str] = mapped_column(index=True)
    at: Mapped[datetime] = mapped_column(index=True)
    before: Mapped[str] = mapped_column(default="")
    command: Mapped[str] = mapped_column(default="")
    ended: Mapped[datetime | None] = mapped_column(default=None)
    did: Mapped[str] = mapped_column(default="")


class Brake(Table, kw_only=True, eq=False):
    """A person's word that nothing is changed: in all clusters, or in the one of this block."""

    __tablename__ = "brakes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True, init=False)
    cluster: Mapped[str]
    reason: Mapped[str]
    by: Mapped[str]
    since: Mapped[datetime]
    released: Mapped[datetime | None] = mapped_column(default=None, index=True)
    released_by: Mapped[str] = mapped_column(default="")
    released_reason: Mapped[str] = mapped_column(default="")


class Breaker(Table, kw_only=True, eq=False):
    """Many clusters alarmed together: nothing is changed in any cluster until a person resets it.

    Attributes:
        scope: where nothing is changed; so far always `fleet`.
        clusters: the names of the blocks, one a line.
    """

    __tablename__ = "breakers"
    id: Mapped[str] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(default="fleet")
    since: Mapped[datetime]
    why: Mapped[str]
    clusters: Mapped[str]
    reset: Mapped[datetime | None] = mapped_column(default=None)
    reset_by: Mapped[str] = mapped_column(default="")
    reset_reason: Mapped[str] = mapped_column(default="")

    __table_args__ = (
        Index(
            "one_open_breaker",
            "scope",
            unique=True,
            sqlite_where=text("reset IS NULL"),
            postgresql_where=text("reset IS NULL"),
        ),
    )
