"""The first schema.

A migration never changes once it is released, so it imports nothing of robustbench_lab.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

STATUS = "status IN ('ok', 'skipped', 'failed')"
REASON = "(status = 'ok' AND reason IS NULL) OR (status <> 'ok' AND reason IS NOT NULL)"


def upgrade() -> None:
    """Create every table."""
    _create_runs()
    _create_cells()
    _create_metrics_and_outcomes()
    _create_units()
    _create_artifacts()


def _create_runs() -> None:
    op.create_table(
        "environments",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environments")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("command", sa.JSON(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("environment_id", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.CheckConstraint("status IN ('running', 'finished', 'interrupted')", name=op.f("ck_runs_status")),
        sa.ForeignKeyConstraint(["environment_id"], ["environments.id"], name=op.f("fk_runs_environment_id")),
    )


def _create_cells() -> None:
    op.create_table(
        "sample_sets",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("dataset_revision", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("packed_ids", sa.LargeBinary(), nullable=False),
        sa.Column("packed_indices", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sample_sets")),
    )
    op.create_table(
        "cells",
        sa.Column("cell_id", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("defense", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("attack", sa.Text(), nullable=False),
        sa.Column("objective", sa.Text(), nullable=False),
        sa.Column("threat_model", sa.Text(), nullable=False),
        sa.Column("norm", sa.Text()),
        sa.Column("eps", sa.Double(), nullable=False),
        sa.Column("adversary", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("sample_set_id", sa.String(64), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("forward_per_sample", sa.Double()),
        sa.Column("backward_per_sample", sa.Double()),
        sa.Column("wall_seconds", sa.Double(), nullable=False),
        sa.Column("verdict", sa.String(16)),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("executor", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("cell_id", name=op.f("pk_cells")),
        sa.CheckConstraint(STATUS, name=op.f("ck_cells_status")),
        sa.CheckConstraint(REASON, name=op.f("ck_cells_reason")),
        sa.CheckConstraint("verdict IN ('reliable', 'suspect', 'failed')", name=op.f("ck_cells_verdict")),
        sa.UniqueConstraint("cell_id", "status", name=op.f("uq_cells_cell_id_status")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_cells_run_id")),
        sa.ForeignKeyConstraint(["sample_set_id"], ["sample_sets.id"], name=op.f("fk_cells_sample_set_id")),
    )
    op.create_index(op.f("ix_cells_run_id"), "cells", ["run_id"])
    op.create_index(op.f("ix_cells_task"), "cells", ["task"])


def _create_metrics_and_outcomes() -> None:
    op.create_table(
        "metrics",
        sa.Column("cell_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("low", sa.Double()),
        sa.Column("high", sa.Double()),
        sa.PrimaryKeyConstraint("cell_id", "name", name=op.f("pk_metrics")),
        sa.CheckConstraint("low <= value AND value <= high", name=op.f("ck_metrics_interval")),
        *_ok_cell_only("metrics"),
    )
    op.create_table(
        "sample_outcomes",
        sa.Column("cell_id", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("cell_id", name=op.f("pk_sample_outcomes")),
        *_ok_cell_only("sample_outcomes"),
    )


def _ok_cell_only(table: str) -> tuple[sa.Constraint, sa.Constraint]:
    return (
        sa.CheckConstraint("status = 'ok'", name=op.f(f"ck_{table}_ok_cells_only")),
        sa.ForeignKeyConstraint(
            ["cell_id", "status"],
            ["cells.cell_id", "cells.status"],
            name=op.f(f"fk_{table}_cell_id_status"),
            ondelete="CASCADE",
        ),
    )


def _create_units() -> None:
    op.create_table(
        "unit_outcomes",
        sa.Column("cell_id", sa.String(64), nullable=False),
        sa.Column("start", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stop", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("packed", sa.LargeBinary()),
        sa.Column("forward_passes", sa.BigInteger(), nullable=False),
        sa.Column("backward_passes", sa.BigInteger(), nullable=False),
        sa.Column("wall_seconds", sa.Double(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("batch_size", sa.Integer(), nullable=False),
        sa.Column("artifact", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("cell_id", "start", "stop", name=op.f("pk_unit_outcomes")),
        sa.CheckConstraint(STATUS, name=op.f("ck_unit_outcomes_status")),
        sa.CheckConstraint(REASON, name=op.f("ck_unit_outcomes_reason")),
        sa.CheckConstraint("status = 'ok' OR packed IS NULL", name=op.f("ck_unit_outcomes_ok_units_only")),
        sa.CheckConstraint("0 <= start AND start < stop", name=op.f("ck_unit_outcomes_range")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_unit_outcomes_run_id")),
    )


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.cell_id"], name=op.f("fk_artifacts_cell_id"), ondelete="CASCADE"),
    )
    op.create_index(op.f("ix_artifacts_cell_id"), "artifacts", ["cell_id"])
