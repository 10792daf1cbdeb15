"""Whether a database is sound: its file, its outcomes, its metrics, and the files that belong to its cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

from sqlalchemy import Connection, select

from robustbench_lab.comparable_cells import subject_of
from robustbench_lab.contracts import Estimate
from robustbench_lab.errors import StoreError
from robustbench_lab.records import CellRecord, Outcomes, Status
from robustbench_lab.result_store import reading, rows, schema
from robustbench_lab.result_store.artifact_files import Artifact, artifact_problem
from robustbench_lab.result_store.chunks import chunks
from robustbench_lab.result_store.store_errors import store_errors

Metrics = Mapping[str, Mapping[str, Callable[[Outcomes], Estimate]]]
"""Task to metric name to metric."""
CELLS_AT_ONCE = 200
TOLERANCE = 1e-9
UNREADABLE = (StoreError, KeyError, TypeError, ValueError)
"""What reading raises where a value is not what it should be."""


def check(connection: Connection, folder: Path, metrics: Metrics) -> Iterator[str]:
    """A line for each thing that is wrong.

    Metrics that are not named in `metrics` (their plugin is not installed) are left out.
    """
    yield from _check_database(connection)
    yield from _check_cells(connection, metrics)
    yield from _check_units(connection)
    yield from _check_files(connection, folder)


def _check_database(connection: Connection) -> Iterator[str]:
    """SQLite's own checks. A server sees to these things by itself."""
    if connection.dialect.name != "sqlite":
        return
    for (said,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if said != "ok":
            yield f"database: {said}"
    for table, number, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"database: row {number} of {table} refers to a row of {parent} that does not exist"


def _check_cells(connection: Connection, metrics: Metrics) -> Iterator[str]:
    table = schema.cells
    row_ids = {row.cell_id: row.row_id for row in connection.execute(select(table.c.cell_id, table.c.row_id))}
    for cell_ids in chunks(row_ids, CELLS_AT_ONCE):
        for cell_id, record in _read(connection, cell_ids):
            if isinstance(record, Exception):
                yield f"{cell_id}: cannot be read: {record}"
                continue
            if subject_of(record.cell).row_id != row_ids[cell_id]:
                yield f"{cell_id}: it does not belong to the leaderboard row that it is in"
            for problem in _check_record(record, metrics.get(record.cell.task, {})):
                yield f"{cell_id}: {problem}"


def _read(connection: Connection, cell_ids: list[str]) -> Iterator[tuple[str, CellRecord | Exception]]:
    """Cells, or what is wrong with them: together where they can be read, otherwise one by one."""
    file = connection.dialect.name == "sqlite"  # a server fails as a whole
    try:
        with store_errors("the file") if file else nullcontext():
            records = reading.cells(connection, [], cell_ids, with_outcomes=True)
    except UNREADABLE as error:
        if len(cell_ids) == 1:
            yield cell_ids[0], error
        else:
            for cell_id in cell_ids:
                yield from _read(connection, [cell_id])
    else:
        yield from ((record.cell.cell_id, record) for record in records)


def _check_record(record: CellRecord, metrics: Mapping[str, Callable[[Outcomes], Estimate]]) -> Iterator[str]:
    outcomes = record.outcomes
    if outcomes is None:
        if record.status is Status.OK:
            yield "it is ok, but has no outcomes"
        return
    for name, stored in record.metrics.items():
        if name in metrics and not _same(stored, computed := metrics[name](outcomes)):
            yield f"{name} is stored as {_shown(stored)}, and its outcomes give {_shown(computed)}"


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.6g} [{estimate.low:.6g}, {estimate.high:.6g}]"


def _same(stored: Estimate, computed: Estimate) -> bool:
    pairs = zip(stored.__dict__.values(), computed.__dict__.values(), strict=True)
    return all(
        math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or (math.isnan(one) and math.isnan(other))
        for one, other in pairs
    )


def _check_units(connection: Connection) -> Iterator[str]:
    table = schema.unit_outcomes
    for row in connection.execute(select(table)):
        name = f"{row.cell_id}: samples {row.start} to {row.stop}"
        try:
            rows.unit_record(row)
        except UNREADABLE as error:
            yield f"{name}: cannot be read: {error}"


def _check_files(connection: Connection, folder: Path) -> Iterator[str]:
    table = schema.artifacts
    for row in connection.execute(select(table).order_by(table.c.id)):
        if problem := artifact_problem(folder, Artifact(row.kind, row.path, row.sha256, row.bytes)):
            yield f"{row.cell_id}: {problem}"
