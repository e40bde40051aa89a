"""What all tables of the ledger share."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, Dialect, Double, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, MappedAsDataclass


class Utc(TypeDecorator[datetime]):
    """An aware time, kept in UTC; SQLite keeps no offset, so it is added again when read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the ledger takes aware times only")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read as UTC."""
        if value is None:
            return None
        known: datetime = value
        return known.replace(tzinfo=UTC) if known.tzinfo is None else known.astimezone(UTC)


class Table(MappedAsDataclass, DeclarativeBase, kw_only=True, eq=False):
    """All tables of the ledger."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: Utc, float: Double, str: Text}
