"""The ledger's tables of tickets: what each is about, and what its system has been told of it so far."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from tasks.ledger.columns import Table


class TicketRow(Table, kw_only=True, eq=False):
    """A ticket. It is written here before its system hears of it.

    Attributes:
        correlation: what it is about; there is never a second ticket for it.
        system: name of the block of its system; empty: the files of a machine.
        key: what its system calls it; empty until that has taken it.
        cluster: name of the block, `cluster_id` and `alarm_id` what its alarms have; empty of an incident.
        hosts: those whose alarm it is about, one a line; empty: whichever of the cluster alarm.
        since: a clear that was seen before is not about its alarms.
        part_of: correlation of the incident it belongs to; `follows` that of an older ticket about the same.
        busy: until when somebody delivers one of its changes; `fence` grows each time.
    """

    __tablename__ = "tickets"
    correlation: Mapped[str] = mapped_column(primary_key=True)
    system: Mapped[str] = mapped_column(default="")
    key: Mapped[str] = mapped_column(default="")
    title: Mapped[str]
    cluster: Mapped[str] = mapped_column(default="")
    cluster_id: Mapped[str] = mapped_column(default="")
    alarm_id: Mapped[str] = mapped_column(default="")
    episode: Mapped[str] = mapped_column(default="", index=True)
    hosts: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default="open")
    created: Mapped[datetime]
    updated: Mapped[datetime]
    since: Mapped[datetime]
    resolved: Mapped[datetime | None] = mapped_column(default=None)
    part_of: Mapped[str] = mapped_column(default="")
    follows: Mapped[str] = mapped_column(default="")
    busy: Mapped[datetime | None] = mapped_column(default=None)
    fence: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        Index("tickets_of_a_cluster", "cluster_id", "alarm_id"),
        Index(
            "open_tickets",
            "created",
            sqlite_where=sql("state = 'open'"),
            postgresql_where=sql("state = 'open'"),
        ),
    )


class ChangeRow(Table, kw_only=True, eq=False):
    """One thing that a ticket's system is to be told. They are told in their order.

    Attributes:
        kind: file, comment, resolve, reopen.
        source: who says so: a flow run's id, or what was seen. The same text of the same source is told once.
        done: when the system had taken it; `tries` is how often it was sent, and `not_before` when it may be again.
        error: why it was not taken the last time.
    """

    __tablename__ = "ticket_changes"
    correlation: Mapped[str] = mapped_column(ForeignKey(TicketRow.correlation), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    text: Mapped[str]
    source: Mapped[str] = mapped_column(default="")
    at: Mapped[datetime]
    done: Mapped[datetime | None] = mapped_column(default=None)
    tries: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]
    error: Mapped[str] = mapped_column(default="")

    __table_args__ = (
        Index(
            "undelivered_changes",
            "correlation",
            "n",
            sqlite_where=sql("done IS NULL"),
            postgresql_where=sql("done IS NULL"),
        ),
    )
