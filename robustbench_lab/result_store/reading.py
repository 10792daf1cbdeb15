"""What a transaction reads. The number of queries does not depend on the number of cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, null, or_, select

from robustbench_lab.contracts import Estimate
from robustbench_lab.records import CANCELLED, CellRecord, Status, UnitRecord
from robustbench_lab.result_store import rows, schema
from robustbench_lab.result_store.artifact_files import Artifact
from robustbench_lab.result_store.cell_summary import CellSummary
from robustbench_lab.result_store.cell_timing import CellTiming
from robustbench_lab.result_store.chunks import chunks
from robustbench_lab.result_store.json_values import from_json

Conditions = Sequence[ColumnElement[bool]]
"""On columns of `cells`."""


def units(connection: Connection, cell_id: str) -> list[UnitRecord]:
    """Units of an open cell, in order of its samples."""
    table = schema.unit_outcomes
    query = select(table).where(table.c.cell_id == cell_id).order_by(table.c.start, table.c.stop)
    return [rows.unit_record(row) for row in connection.execute(query)]


def open_units(connection: Connection, cell_ids: Iterable[str]) -> dict[str, list[UnitRecord]]:
    """Units of these cells as far as they are open, in order of their samples."""
    table = schema.unit_outcomes
    found: dict[str, list[UnitRecord]] = defaultdict(list)
    for chunk in chunks(cell_ids):
        query = select(table).where(table.c.cell_id.in_(chunk)).order_by(table.c.start, table.c.stop)
        for row in connection.execute(query):
            found[row.cell_id].append(rows.unit_record(row))
    return dict(found)


def timings(connection: Connection, models: Iterable[str] | None) -> list[CellTiming]:
    """What stored cells of these models (labels; None: of all) took, those that are alike together."""
    table = schema.cells
    alike = [table.c[name] for name in ("model", "defense", "dataset", "attack", "threat_model", "device")]
    passes = (table.c.forward_per_sample + table.c.backward_per_sample) * table.c.samples
    sums = [func.sum(table.c.samples), func.sum(passes), func.sum(table.c.wall_seconds)]
    query = select(*alike, *sums).where(table.c.status == Status.OK).group_by(*alike)
    queries = [query] if models is None else [query.where(table.c.model.in_(chunk)) for chunk in chunks(models)]
    return [CellTiming(*row) for one in queries for row in connection.execute(one)]


def statuses(connection: Connection, cell_ids: Iterable[str]) -> dict[str, Status]:
    """The status of each of these cells that is stored."""
    table = schema.cells
    found: dict[str, Status] = {}
    for chunk in chunks(cell_ids):
        query = select(table.c.cell_id, table.c.status).where(table.c.cell_id.in_(chunk))
        found.update((cell_id, Status(status)) for cell_id, status in connection.execute(query))
    return found


def failed_or_cancelled(connection: Connection, cell_ids: Iterable[str]) -> set[str]:
    """Those of these cells that are stored without a result, and may get one when they are evaluated again."""
    table = schema.cells
    again = or_(table.c.status == Status.FAILED, table.c.reason == CANCELLED)
    found: set[str] = set()
    for chunk in chunks(cell_ids):
        found.update(connection.scalars(select(table.c.cell_id).where(table.c.cell_id.in_(chunk), again)))
    return found


def conditions(task: str | None, status: Status | None, run_id: str | None) -> list[ColumnElement[bool]]:
    """Equality with all that is given."""
    table = schema.cells
    wanted = {table.c.task: task, table.c.status: status, table.c.run_id: run_id}
    return [column == value for column, value in wanted.items() if value is not None]


def holds_cells(connection: Connection, tasks: Sequence[str]) -> bool:
    """Whether there is a cell of one of these tasks; none named: whether there is any."""
    table = schema.cells
    query = select(table.c.cell_id).limit(1)
    return connection.scalar(query.where(table.c.task.in_(tasks)) if tasks else query) is not None


def cell_ids(connection: Connection) -> list[str]:
    """Ids of all stored cells."""
    return list(connection.scalars(select(schema.cells.c.cell_id)))


def cells(
    connection: Connection, where: Conditions, ids: Iterable[str] | None, *, with_outcomes: bool
) -> list[CellRecord]:
    """Stored cells that meet the conditions, in the order of `ids`, otherwise in the order they were stored."""
    reader = rows.CellReader()
    if ids is None:
        return _cells(connection, where, reader, with_outcomes=with_outcomes)
    wanted = list(dict.fromkeys(ids))
    found: dict[str, CellRecord] = {}
    for chunk in chunks(wanted):
        narrowed = [*where, schema.cells.c.cell_id.in_(chunk)]
        records = _cells(connection, narrowed, reader, with_outcomes=with_outcomes)
        found.update((record.cell.cell_id, record) for record in records)
    return [found[cell_id] for cell_id in wanted if cell_id in found]


def cells_of_rows(connection: Connection, row_ids: Iterable[str]) -> list[CellRecord]:
    """The cells of some leaderboard rows, in the order they were stored within each."""
    reader = rows.CellReader()
    found: list[CellRecord] = []
    for chunk in chunks(row_ids):
        found += _cells(connection, [schema.cells.c.row_id.in_(chunk)], reader, with_outcomes=True)
    return found


def summaries(connection: Connection, where: Conditions) -> list[CellSummary]:
    """One line about every cell that meets the conditions, in the order they were stored."""
    table = schema.cells
    columns = [table.c[name] for name in rows.SUMMARY_COLUMNS]
    query = select(*columns).where(*where).order_by(table.c.finished_at, table.c.cell_id)
    metrics = _metrics(connection, where)
    return [rows.cell_summary(row, metrics.get(row.cell_id, {})) for row in connection.execute(query)]


def _cells(
    connection: Connection, where: Conditions, reader: rows.CellReader, *, with_outcomes: bool
) -> list[CellRecord]:
    table, outcomes = schema.cells, schema.sample_outcomes
    used = select(table.c.sample_set_id).where(*where)
    for row in connection.execute(select(schema.sample_sets).where(schema.sample_sets.c.id.in_(used))):
        reader.add_sample_set(row)
    metrics = _metrics(connection, where)
    columns: list[ColumnElement[Any]] = [one for one in table.c if one.name not in rows.COLUMNS_FOR_QUERIES]
    columns.append(outcomes.c.packed if with_outcomes else null().label("packed"))
    query = select(*columns)
    if with_outcomes:
        query = query.outerjoin(outcomes, outcomes.c.cell_id == table.c.cell_id)
    query = query.where(*where).order_by(table.c.finished_at, table.c.cell_id)
    return [reader.record(row, metrics.get(row.cell_id, {})) for row in connection.execute(query)]


def _metrics(connection: Connection, where: Conditions) -> dict[str, dict[str, Estimate]]:
    """Cell id to metric name to estimate."""
    table = schema.metrics
    query = select(table.c.cell_id, table.c.name, table.c.value, table.c.low, table.c.high)
    if where:
        query = query.join(schema.cells, schema.cells.c.cell_id == table.c.cell_id).where(*where)
    found: dict[str, dict[str, Estimate]] = defaultdict(dict)
    for cell_id, name, value, low, high in connection.execute(query):
        found[cell_id][name] = rows.estimate(value, low, high)
    return found


def provenance(connection: Connection, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Cell id to its run and environment, JSON-able, for those that are stored; cells of one run share most of it."""
    cell, runs = schema.cells, schema.runs
    stored = [
        row
        for chunk in chunks(ids)
        for row in connection.execute(
            select(cell.c.cell_id, cell.c.run_id, cell.c.finished_at).where(cell.c.cell_id.in_(chunk))
        )
    ]
    query = select(runs, schema.environments.c.environment).join(schema.environments)
    known = {
        row.id: {
            "run_id": row.id,
            "status": row.status,
            "command": row.command,
            "spec": from_json(row.spec),
            "started_at": _iso(row.started_at),
            "finished_at": _iso(row.finished_at),
            "stored_at": None,  # each cell has its own
            "environment": from_json(row.environment),
        }
        for chunk in chunks({row.run_id for row in stored})
        for row in connection.execute(query.where(runs.c.id.in_(chunk)))
    }
    return {row.cell_id: {**known[row.run_id], "stored_at": _iso(row.finished_at)} for row in stored}


def artifacts(connection: Connection, ids: Iterable[str]) -> dict[str, list[Artifact]]:
    """Cell id to its files, in the order they were given; without the cells that have none."""
    table = schema.artifacts
    found: dict[str, list[Artifact]] = defaultdict(list)
    for chunk in chunks(ids):
        for row in connection.execute(select(table).where(table.c.cell_id.in_(chunk)).order_by(table.c.id)):
            found[row.cell_id].append(Artifact(row.kind, row.path, row.sha256, row.bytes))
    return found


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")
