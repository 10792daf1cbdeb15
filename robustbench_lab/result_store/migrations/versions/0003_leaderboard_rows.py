"""What a leaderboard says of one defended model, kept beside the cells it follows from.

A migration never changes once it is released, so it imports nothing of robustbench_lab.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

CELLS_AT_ONCE = 900  # some builds of SQLite take 999 variables in a statement
cells = sa.table(
    "cells",
    *(sa.column(name) for name in ("cell_id", "row_id", "task", "sample_set_id", "norm", "eps", "adversary")),
    sa.column("definition", sa.JSON()),
)
rows = sa.table("leaderboard_rows", sa.column("id"), sa.column("state"))


def upgrade() -> None:
    """Say of each cell which row it belongs to. The rows themselves are made when a leaderboard is asked for."""
    op.create_table(
        "leaderboard_rows",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("rules", sa.String(64)),
        sa.Column("summary", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leaderboard_rows")),
    )
    op.add_column("cells", sa.Column("row_id", sa.String(64)))
    _fill()
    op.create_index(op.f("ix_cells_row_id"), "cells", ["row_id"])


def _fill() -> None:
    connection = op.get_bind()
    found: set[str] = set()
    for cell_ids in _parts(connection.scalars(sa.select(cells.c.cell_id)).all()):
        wanted = connection.execute(sa.select(cells).where(cells.c.cell_id.in_(cell_ids)))
        ids = [{"cell": row.cell_id, "row": _row_id(row)} for row in wanted]
        statement = cells.update().where(cells.c.cell_id == sa.bindparam("cell"))
        connection.execute(statement.values(row_id=sa.bindparam("row")), ids)
        found.update(one["row"] for one in ids)
    if found:
        connection.execute(rows.insert(), [{"id": row_id, "state": revision} for row_id in sorted(found)])


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + CELLS_AT_ONCE] for start in range(0, len(ids), CELLS_AT_ONCE))


def _row_id(row: sa.Row[Any]) -> str:
    """SHA-256 of what the cells of a row have in common."""
    dataset, threat_model, objective = (
        row.definition[kind]["label"] for kind in ("dataset", "threat_model", "objective")
    )
    model, defense = (row.definition[kind]["identity"] for kind in ("model", "defense"))
    budget = [threat_model, row.norm, row.eps]
    key = [row.task, dataset, row.sample_set_id, *budget, objective, row.adversary, model, defense]
    text = json.dumps(key, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
