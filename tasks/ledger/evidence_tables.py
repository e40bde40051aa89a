"""The ledger's table of evidence: what was asked, seen, decided and done, a line each. Lines are only ever added."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from tasks.ledger.columns import Table
from tasks.ledger.tables import Episode


class EvidenceRow(Table, kw_only=True, eq=False):
    """One line of a run's record.

    Attributes:
        attempt: the run and when it took the episode: the lines of one attempt are one record.
        n: its place in that record, from 0.
        at: when it was seen or done; `written` when it came here.
        kind: asked, did, ended.
    """

    __tablename__ = "evidence"
    attempt: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    episode_id: Mapped[str] = mapped_column(ForeignKey(Episode.id), index=True)
    at: Mapped[datetime]
    step: Mapped[str]
    host: Mapped[str]
    kind: Mapped[str]
    text: Mapped[str]
    written: Mapped[datetime]
