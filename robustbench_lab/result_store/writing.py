"""What a transaction writes. Each function takes the connection of a transaction that its caller commits."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from robustbench_lab.provenance import content_hash
from robustbench_lab.records import CellRecord, UnitRecord
from robustbench_lab.result_store import rows, schema
from robustbench_lab.result_store.artifact_files import Artifact
from robustbench_lab.result_store.chunks import chunks
from robustbench_lab.result_store.json_values import to_json


def insert_run(
    connection: Connection, command: Sequence[str], spec: Mapping[str, Any], environment: Mapping[str, Any]
) -> str:
    """A run that begins now, and its environment unless it is known; returns the run's id."""
    environment_id = content_hash(environment)
    table = schema.environments
    if connection.scalar(select(table.c.id).where(table.c.id == environment_id)) is None:
        connection.execute(insert(table).values(id=environment_id, environment=to_json(environment)))
    run_id = secrets.token_hex(4)
    run = {
        "id": run_id,
        "started_at": datetime.now(UTC),
        "command": list(command),
        "spec": to_json(spec),
        "environment_id": environment_id,
        "status": "running",
    }
    connection.execute(insert(schema.runs).values(run))
    return run_id


def finish_run(connection: Connection, run_id: str, status: str) -> None:
    """The run has ended now."""
    ended = update(schema.runs).where(schema.runs.c.id == run_id)
    connection.execute(ended.values(status=status, finished_at=datetime.now(UTC)))


def replace_unit(connection: Connection, record: UnitRecord, run_id: str) -> None:
    """A unit in place of the same slice of its cell."""
    table = schema.unit_outcomes
    same_slice = (table.c.cell_id == record.cell_id, table.c.start == record.start, table.c.stop == record.stop)
    connection.execute(delete(table).where(*same_slice))
    connection.execute(insert(table).values(rows.unit_values(record, run_id)))


def replace_cell(connection: Connection, record: CellRecord, run_id: str, files: Sequence[Artifact]) -> set[str]:
    """A closed cell in place of its units and of an earlier result; returns the paths of that one's files."""
    cell_id, samples = record.cell.cell_id, record.cell.samples
    table = schema.sample_sets
    if connection.scalar(select(table.c.id).where(table.c.id == samples.identity)) is None:
        connection.execute(insert(table).values(rows.sample_set_values(samples)))
    stale = delete_cells(connection, [cell_id])
    connection.execute(insert(schema.cells).values(rows.cell_values(record, run_id)))
    children = {
        schema.metrics: rows.metric_values(record),
        schema.sample_outcomes: rows.outcome_values(record),
        schema.artifacts: [rows.artifact_values(cell_id, file) for file in files],
    }
    for child, values in children.items():
        if values:
            connection.execute(insert(child), values)
    return stale


def delete_cells(connection: Connection, cell_ids: Iterable[str]) -> set[str]:
    """Delete cells with all that refers to them, and their units; returns the paths of their files."""
    paths: set[str] = set()
    for chunk in chunks(cell_ids):
        files = schema.artifacts
        paths.update(connection.scalars(select(files.c.path).where(files.c.cell_id.in_(chunk))))
        connection.execute(delete(schema.cells).where(schema.cells.c.cell_id.in_(chunk)))
        connection.execute(delete(schema.unit_outcomes).where(schema.unit_outcomes.c.cell_id.in_(chunk)))
    return paths
