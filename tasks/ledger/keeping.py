"""The evidence of episodes: added line by line, read as whole records."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.ledger.episodes import Holding
from tasks.ledger.evidence_tables import EvidenceRow


@dataclass(frozen=True)
class Line:
    """One line of a record: when, at which step of the page, about which host, what kind, in words."""

    at: datetime
    step: str
    host: str
    kind: str
    text: str

    def __str__(self) -> str:
        fields = (self.at.isoformat(), self.step, self.host, self.kind, self.text)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


async def keep(session: AsyncSession, holding: Holding, lines: Sequence[Line], now: datetime) -> None:
    """Add what is new. A run that is begun anew learns the same again, and that is there already."""
    there = await session.scalar(select(func.count()).where(EvidenceRow.attempt == holding.attempt)) or 0
    for n, line in enumerate(lines[there:], start=there):
        row = EvidenceRow(
            attempt=holding.attempt,
            n=n,
            episode_id=holding.episode,
            at=line.at,
            step=line.step,
            host=line.host,
            kind=line.kind,
            text=line.text,
            written=now,
        )
        session.add(row)


async def records_of(session: AsyncSession, episode: str) -> dict[str, list[Line]]:
    """Attempt -> its record, in the order in which the attempts began; may be empty."""
    mine = select(EvidenceRow).where(EvidenceRow.episode_id == episode)
    records: dict[str, list[Line]] = {}
    for row in await session.scalars(mine.order_by(EvidenceRow.written, EvidenceRow.attempt, EvidenceRow.n)):
        line = Line(row.at, row.step, row.host, row.kind, row.text)
        records.setdefault(row.attempt, []).append(line)
    return records


def written_out(lines: Iterable[Line]) -> str:
    """A record as text, a JSON array a line: what its SHA-256 is of."""
    return "".join(f"{line}\n" for line in lines)


def digest_of(lines: Iterable[Line]) -> str:
    """The SHA-256 of a record."""
    return hashlib.sha256(written_out(lines).encode()).hexdigest()
