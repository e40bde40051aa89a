"""What runs learned, waited for and set out to do; brakes and breakers; what clusters share."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables and columns that are new."""
    op.add_column("clusters", sa.Column("account", sa.Text(), nullable=False, server_default=""))
    op.add_column("clusters", sa.Column("agency", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "learned",
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("attempt", "key"),
    )
    op.create_index(op.f("ix_learned_at"), "learned", ["at"], unique=False)
    op.create_table(
        "waits",
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("episode_id", sa.Text(), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["episode_id"], ["episodes.id"]),
        sa.PrimaryKeyConstraint("attempt", "step"),
    )
    op.create_index(op.f("ix_waits_deadline"), "waits", ["deadline"], unique=False)
    op.create_index(op.f("ix_waits_episode_id"), "waits", ["episode_id"], unique=False)
    op.create_table(
        "intents",
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("episode_id", sa.Text(), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("ended", sa.DateTime(timezone=True), nullable=True),
        sa.Column("did", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["episode_id"], ["episodes.id"]),
        sa.PrimaryKeyConstraint("attempt", "step", "target"),
    )
    op.create_index(op.f("ix_intents_at"), "intents", ["at"], unique=False)
    op.create_index(op.f("ix_intents_cluster_id"), "intents", ["cluster_id"], unique=False)
    op.create_index(op.f("ix_intents_episode_id"), "intents", ["episode_id"], unique=False)
    op.create_table(
        "brakes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released_by", sa.Text(), nullable=False),
        sa.Column("released_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_brakes_released"), "brakes", ["released"], unique=False)
    op.create_table(
        "breakers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("clusters", sa.Text(), nullable=False),
        sa.Column("reset", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reset_by", sa.Text(), nullable=False),
        sa.Column("reset_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "one_open_breaker",
        "breakers",
        ["scope"],
        unique=True,
        sqlite_where=sa.text("reset IS NULL"),
        postgresql_where=sa.text("reset IS NULL"),
    )
