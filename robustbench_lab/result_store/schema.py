"""The tables, as SQLAlchemy sees them. They are created and changed by Alembic alone (see `migrations/`)."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, in UTC. SQLite keeps no time zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Local or foreign time to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Stored time to an aware one."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _reason_rule() -> CheckConstraint:
    """A reason stands beside every status but `ok`."""
    rule = "(status = 'ok' AND reason IS NULL) OR (status <> 'ok' AND reason IS NOT NULL)"
    return CheckConstraint(rule, name="reason")


def _status_rule() -> CheckConstraint:
    return CheckConstraint("status IN ('ok', 'skipped', 'failed')", name="status")


def _ok_cell_only() -> tuple[CheckConstraint, ForeignKeyConstraint]:
    """The row's cell must exist with status `ok`: the row's own status says `ok`, and the cell's must be the same."""
    same_status = ForeignKeyConstraint(["cell_id", "status"], ["cells.cell_id", "cells.status"], ondelete="CASCADE")
    return CheckConstraint("status = 'ok'", name="ok_cells_only"), same_status


environments = Table(
    "environments",
    metadata,
    Column("id", String(64), primary_key=True),  # content hash of the JSON
    Column("environment", JSON, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("command", JSON, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("environment_id", String(64), ForeignKey("environments.id"), nullable=False),
    Column("status", String(16), nullable=False),
    CheckConstraint("status IN ('running', 'finished', 'interrupted')", name="status"),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("run_id", String(64), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("beat_at", UtcDateTime, nullable=False),  # by the database's clock
    Column("host", Text, nullable=False),
    Column("state", JSON, nullable=False),  # what the run does: see run_heartbeat.py
)

cancellations = Table(
    "cancellations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(64), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("cell", Text),  # the beginning of a cell id; NULL: the whole run
    Column("requested_at", UtcDateTime, nullable=False),
    Column("cells", Integer),  # how many the run cancelled; NULL: it has not answered yet
)

claims = Table(
    "claims",
    metadata,
    Column("cell_id", String(64), primary_key=True),
    Column("run_id", String(64), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("host", Text, nullable=False),
    Column("process", Text, nullable=False),  # ProcessMark.process
)

sample_sets = Table(
    "sample_sets",
    metadata,
    Column("id", String(64), primary_key=True),  # SampleSet.identity
    Column("dataset_revision", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("packed_ids", LargeBinary, nullable=False),
    Column("packed_indices", LargeBinary, nullable=False),
)

cells = Table(
    "cells",
    metadata,
    Column("cell_id", String(64), primary_key=True),
    Column("run_id", String(64), ForeignKey("runs.id"), nullable=False, index=True),
    Column("status", String(16), nullable=False),
    Column("reason", Text),
    # What is measured, as a person reads it; `definition` holds it completely.
    Column("task", Text, nullable=False, index=True),
    Column("model", Text, nullable=False),
    Column("defense", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("attack", Text, nullable=False),
    Column("objective", Text, nullable=False),
    Column("threat_model", Text, nullable=False),
    Column("norm", Text),
    Column("eps", Double, nullable=False),
    Column("adversary", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("sample_set_id", String(64), ForeignKey("sample_sets.id"), nullable=False),
    Column("samples", Integer, nullable=False),
    Column("definition", JSON, nullable=False),
    # What came out, besides metrics and outcomes.
    Column("forward_per_sample", Double),
    Column("backward_per_sample", Double),
    Column("wall_seconds", Double, nullable=False),
    Column("verdict", String(16)),
    Column("findings", JSON, nullable=False),
    # What the number does not depend on.
    Column("device", Text, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("executor", Text, nullable=False),
    Column("finished_at", UtcDateTime, nullable=False),
    Column("row_id", String(64), index=True),  # never NULL; a column that a migration adds cannot say so
    _status_rule(),
    _reason_rule(),
    CheckConstraint("verdict IN ('reliable', 'suspect', 'failed')", name="verdict"),
    UniqueConstraint("cell_id", "status"),  # what metrics and outcomes refer to
)

leaderboard_rows = Table(
    "leaderboard_rows",
    metadata,
    Column("id", String(64), primary_key=True),  # what cells.row_id names
    Column("state", String(16), nullable=False),  # another one with every change of the row's cells
    # What follows from the cells; NULL until a leaderboard asks for it, and again after every change.
    Column("rules", String(64)),
    Column("summary", Text),
)

metrics = Table(
    "metrics",
    metadata,
    Column("cell_id", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("status", String(16), nullable=False),
    # NULL stands for NaN, which SQLite cannot store.
    Column("value", Double),
    Column("low", Double),
    Column("high", Double),
    CheckConstraint("low <= value AND value <= high", name="interval"),
    *_ok_cell_only(),
)

sample_outcomes = Table(
    "sample_outcomes",
    metadata,
    Column("cell_id", String(64), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("packed", LargeBinary, nullable=False),
    *_ok_cell_only(),
)

unit_outcomes = Table(
    "unit_outcomes",
    metadata,
    Column("cell_id", String(64), primary_key=True),  # of a cell that is not in `cells` yet
    Column("start", Integer, primary_key=True, autoincrement=False),
    Column("stop", Integer, primary_key=True, autoincrement=False),
    Column("run_id", String(64), ForeignKey("runs.id"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text),
    Column("packed", LargeBinary),
    Column("forward_passes", BigInteger, nullable=False),
    Column("backward_passes", BigInteger, nullable=False),
    Column("wall_seconds", Double, nullable=False),
    Column("findings", JSON, nullable=False),
    Column("device", Text, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("artifact", LargeBinary),
    _status_rule(),
    _reason_rule(),
    CheckConstraint("status = 'ok' OR packed IS NULL", name="ok_units_only"),
    CheckConstraint("0 <= start AND start < stop", name="range"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cell_id", String(64), ForeignKey("cells.cell_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("path", Text, nullable=False),  # relative to the artifacts folder, with forward slashes
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
