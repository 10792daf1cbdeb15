"""What a transaction writes. Each function takes the connection of a transaction that its caller commits."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select, update

from robustbench_lab.provenance import content_hash
from robustbench_lab.records import Status
from robustbench_lab.redaction import redacted
from robustbench_lab.result_store import rows, schema
from robustbench_lab.result_store.chunks import chunks
from robustbench_lab.result_store.json_values import to_json

# Made once: to put a statement together takes SQLAlchemy longer than SQLite takes to carry it out.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_UNITS, _ROWS = schema.unit_outcomes.c, schema.leaderboard_rows.c
_DELETE_SLICE = delete(schema.unit_outcomes).where(
    _UNITS.cell_id == bindparam("cell"), _UNITS.start == bindparam("from"), _UNITS.stop == bindparam("to")
)
_INSERT_UNIT = insert(schema.unit_outcomes)
_FIND_SAMPLES = select(schema.sample_sets.c.id).where(schema.sample_sets.c.id == bindparam("id"))
_STATUS = select(schema.cells.c.status).where(schema.cells.c.cell_id == bindparam("id"))
_INSERT_CELL = insert(schema.cells)
_INSERT_METRICS = insert(schema.metrics)
_INSERT_OUTCOMES = insert(schema.sample_outcomes)
_INSERT_FILES = insert(schema.artifacts)
_ROWS_OF_CELLS = select(schema.cells.c.row_id).distinct().where(schema.cells.c.cell_id.in_(_IDS))
_FILES_OF_CELLS = select(schema.artifacts.c.path).where(schema.artifacts.c.cell_id.in_(_IDS))
_DELETE_CELLS = delete(schema.cells).where(schema.cells.c.cell_id.in_(_IDS))
_DELETE_UNITS = delete(schema.unit_outcomes).where(_UNITS.cell_id.in_(_IDS))
_CHANGE_ROW = (
    update(schema.leaderboard_rows)
    .where(_ROWS.id == bindparam("row"))
    .values(state=bindparam("new_state"), rules=None, summary=None)
)
_INSERT_ROW = insert(schema.leaderboard_rows).values(id=bindparam("row"), state=bindparam("new_state"))


def insert_run(
    connection: Connection,
    run_id: str,
    command: Sequence[str],
    spec: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> None:
    """A run that begins now, and its environment unless it is known."""
    environment_id = content_hash(environment)
    table = schema.environments
    if connection.scalar(select(table.c.id).where(table.c.id == environment_id)) is None:
        connection.execute(insert(table).values(id=environment_id, environment=to_json(environment)))
    run = {
        "id": run_id,
        "started_at": datetime.now(UTC),
        "command": redacted(list(command)),
        "spec": to_json(redacted(spec)),
        "environment_id": environment_id,
        "status": "running",
    }
    connection.execute(insert(schema.runs).values(run))


def finish_run(connection: Connection, run_id: str, status: str) -> None:
    """The run has ended now."""
    ended = update(schema.runs).where(schema.runs.c.id == run_id)
    connection.execute(ended.values(status=status, finished_at=datetime.now(UTC)))


def replace_unit(connection: Connection, values: rows.Values) -> None:
    """A unit in place of the same slice of its cell."""
    connection.execute(_DELETE_SLICE, {"cell": values["cell_id"], "from": values["start"], "to": values["stop"]})
    connection.execute(_INSERT_UNIT, values)


def replace_cell(connection: Connection, values: rows.CellRows, *, keeps_ok: bool) -> set[str]:
    """A closed cell in place of its units and of an earlier result; returns the paths of files that nothing refers to.

    keeps_ok: whether an earlier result stays that is ok where the new one is not.
    """
    cell_id, status, files = values.cell["cell_id"], values.cell["status"], {file["path"] for file in values.artifacts}
    if keeps_ok and status != Status.OK and connection.scalar(_STATUS, {"id": cell_id}) == Status.OK:
        connection.execute(_DELETE_UNITS, {"ids": [cell_id]})
        return files - set(connection.scalars(_FILES_OF_CELLS, {"ids": [cell_id]}))
    if connection.scalar(_FIND_SAMPLES, {"id": values.samples.identity}) is None:
        connection.execute(insert(schema.sample_sets), rows.sample_set_values(values.samples))
    stale = delete_cells(connection, [cell_id])
    connection.execute(_INSERT_CELL, values.cell)
    forget_summaries(connection, [values.cell["row_id"]])
    children = (
        (_INSERT_METRICS, values.metrics),
        (_INSERT_OUTCOMES, values.outcomes),
        (_INSERT_FILES, values.artifacts),
    )
    for statement, child_values in children:
        if child_values:
            connection.execute(statement, child_values)
    return stale - files


def delete_cells(connection: Connection, cell_ids: Iterable[str]) -> set[str]:
    """Delete cells with all that refers to them, and their units; returns the paths of their files."""
    paths: set[str] = set()
    for chunk in chunks(cell_ids):
        if changed := connection.scalars(_ROWS_OF_CELLS, {"ids": chunk}).all():
            paths.update(connection.scalars(_FILES_OF_CELLS, {"ids": chunk}))
            connection.execute(_DELETE_CELLS, {"ids": chunk})
            forget_summaries(connection, changed)
        connection.execute(_DELETE_UNITS, {"ids": chunk})
    return paths


def forget_summaries(connection: Connection, row_ids: Iterable[str]) -> None:
    """What is kept of these leaderboard rows no longer follows from their cells. New rows are noted."""
    for row_id in row_ids:
        state = {"row": row_id, "new_state": secrets.token_hex(8)}
        if not connection.execute(_CHANGE_ROW, state).rowcount:
            connection.execute(_INSERT_ROW, state)
