"""The ledger's table of what persons were asked and what they said."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from tasks.ledger.columns import Table
from tasks.ledger.tables import Episode


class Approval(Table, kw_only=True, eq=False):
    """One question of an attempt at a step of the page; a person is asked once, whatever becomes of the process.

    Attributes:
        kind: `approve` (may it be done), `by hand` (do it yourself, for no API does).
        targets: what would be changed, one a line; `why` what was seen so far.
        starter: who started the run: `alarm`, a name, or empty where nobody knows.
        n: how often the form was put; `key` is that of the last one, by which Prefect has it.
        expires: until then an answer counts.
        decision: approved, rejected, expired; done, could not (of what was to be done by hand); empty: none yet.
        by: who decided, `channel` how that is known.
        not_before: the change is to be made no sooner than that.
    """

    __tablename__ = "approvals"
    attempt: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    episode_id: Mapped[str] = mapped_column(ForeignKey(Episode.id), index=True)
    run: Mapped[str] = mapped_column(index=True)
    link: Mapped[str]
    cluster: Mapped[str]
    action: Mapped[str]
    targets: Mapped[str]
    why: Mapped[str]
    starter: Mapped[str] = mapped_column(default="")
    four_eyes: Mapped[bool] = mapped_column(default=False)
    n: Mapped[int] = mapped_column(default=0)
    key: Mapped[str] = mapped_column(default="")
    asked: Mapped[datetime]
    expires: Mapped[datetime]
    decision: Mapped[str] = mapped_column(default="")
    by: Mapped[str] = mapped_column(default="")
    channel: Mapped[str] = mapped_column(default="")
    comment: Mapped[str] = mapped_column(default="")
    not_before: Mapped[datetime | None] = mapped_column(default=None)
    decided: Mapped[datetime | None] = mapped_column(default=None)

    __table_args__ = (
        Index("undecided", "expires", sqlite_where=text("decision = ''"), postgresql_where=text("decision = ''")),
    )
