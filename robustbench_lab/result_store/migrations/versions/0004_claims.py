"""Which run evaluates which cell.

A migration never changes once it is released, so it imports nothing of robustbench_lab.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "claims",
        sa.Column("cell_id", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("cell_id", name=op.f("pk_claims")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_claims_run_id"), ondelete="CASCADE"),
    )
    op.create_index(op.f("ix_claims_run_id"), "claims", ["run_id"])
