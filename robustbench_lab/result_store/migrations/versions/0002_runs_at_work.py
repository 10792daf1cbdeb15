"""What runs do right now, and requests to cancel.

A migration never changes once it is released, so it imports nothing of robustbench_lab.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add two tables."""
    op.create_table(
        "heartbeats",
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_heartbeats")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_heartbeats_run_id"), ondelete="CASCADE"),
    )
    op.create_table(
        "cancellations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("cell", sa.Text()),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cells", sa.Integer()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cancellations")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_cancellations_run_id"), ondelete="CASCADE"),
    )
    op.create_index(op.f("ix_cancellations_run_id"), "cancellations", ["run_id"])
