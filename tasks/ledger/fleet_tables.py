"""The ledger's tables about the fleet: sweeps, which routes answer, how modes changed, how episodes went."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tasks.ledger.columns import Table
from tasks.ledger.tables import Episode


class Sweep(Table, kw_only=True, eq=False):
    """One sweep over the fleet, or over what was selected of it.

    Attributes:
        id: the flow run's id, so that a run that is begun anew goes on with its own.
        selection: what was selected, as it was written, one a line; empty: the whole fleet.
        planned: how many clusters it set out to look at.
        ended: None while it goes on, or when it never came to its end.
        holder: the process that is at it, which says so again and again: `alive` is when it last did.
        runs: how often it was begun, the first time and again.
        summary: what came of it, in a sentence or two, or why it was broken off; empty while it goes on.
    """

    __tablename__ = "sweeps"
    id: Mapped[str] = mapped_column(primary_key=True)
    selection: Mapped[str] = mapped_column(default="")
    remediate: Mapped[bool] = mapped_column(default=False)
    planned: Mapped[int] = mapped_column(default=0)
    started: Mapped[datetime] = mapped_column(index=True)
    ended: Mapped[datetime | None] = mapped_column(default=None)
    holder: Mapped[str] = mapped_column(default="")
    alive: Mapped[datetime]
    runs: Mapped[int] = mapped_column(default=1)
    summary: Mapped[str] = mapped_column(default="")


class Swept(Table, kw_only=True, eq=False):
    """What a sweep saw of one cluster.

    Attributes:
        cluster: name of its block; of a cluster that has none its id in the cloud.
        managed: it has a block.
        answers: its findings as JSON.
    """

    __tablename__ = "swept"
    sweep_id: Mapped[str] = mapped_column(ForeignKey(Sweep.id, ondelete="CASCADE"), primary_key=True)
    cluster: Mapped[str] = mapped_column(primary_key=True)
    cluster_id: Mapped[str]
    managed: Mapped[bool] = mapped_column(default=True)
    at: Mapped[datetime]
    answers: Mapped[str]


class RouteAnswer(Table, kw_only=True, eq=False):
    """Whether a route ever answered for a cluster, as `runbooks doctor` saw it last.

    Attributes:
        cluster: name of its block.
        name: of the route, `call` the method and path it was called by; another call is another route.
        answered: when it last answered with something of use; None: never.
        said: its last answer in a few words.
    """

    __tablename__ = "route_answers"
    cluster: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    call: Mapped[str]
    rating: Mapped[str]
    asked: Mapped[datetime]
    answered: Mapped[datetime | None] = mapped_column(default=None)
    said: Mapped[str]


class ModeChange(Table, kw_only=True, eq=False):
    """A cluster's mode, or that of one action, became another one.

    Attributes:
        cluster: name of its block.
        what: `cluster`, `restart`, `rebind`.
        at: when it was first seen; Prefect does not say when it was changed, nor by whom.
        old: empty when the cluster was first seen.
    """

    __tablename__ = "mode_changes"
    cluster: Mapped[str] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    old: Mapped[str]
    new: Mapped[str]


class MeasuredRow(Table, kw_only=True, eq=False):
    """How one episode went, measured once when it was closed: what came to be known of it since changes no number.

    Attributes:
        id: grows with each commit.
        detect, act, verify, recover: seconds, by their definitions in `measuring.py`; None: not known.
        refused: why changes were refused, a word for each host, one a line.
    """

    __tablename__ = "measured"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True, init=False)
    episode_id: Mapped[str] = mapped_column(ForeignKey(Episode.id), unique=True)
    cluster: Mapped[str]
    alarm_id: Mapped[str]
    outcome: Mapped[str]
    detect: Mapped[float | None]
    act: Mapped[float | None]
    verify: Mapped[float | None]
    recover: Mapped[float | None]
    refused: Mapped[str]
