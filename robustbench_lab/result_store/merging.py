"""The results of another database into this one, for runs that were made on several machines.

What is here stays, unless the other one has a number where this one has none. Merging twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, insert, select, update

from robustbench_lab.provenance import content_hash
from robustbench_lab.records import Outcomes, Status
from robustbench_lab.result_store import reading, schema, writing
from robustbench_lab.result_store.artifact_files import Artifact, copy_artifact
from robustbench_lab.result_store.chunks import chunks
from robustbench_lab.result_store.packing import unpack_outcomes

CELLS_AT_ONCE = 200
"""So many outcomes are in memory at a time."""
TOLERANCE = 1e-3
"""Relative. Distances and other columns of the same cell may differ by so much between devices."""


@dataclass
class Merged:
    """What became of the other database's results."""

    runs: int = 0
    """New here, like the cells and units below."""
    cells: int = 0
    replaced: int = 0
    """Cells that had failed or been skipped here, and are `ok` there."""
    kept: int = 0
    """Cells that are here already."""
    units: int = 0
    """Of cells that neither has finished."""
    conflicts: list[str] = field(default_factory=list)
    """A line for each cell that both have evaluated, to different outcomes. This database's are kept."""
    missing_files: list[str] = field(default_factory=list)
    """A line for each file that the other one names and that is not there, or not as it was."""
    stale_files: set[str] = field(default_factory=set)
    """Of replaced cells."""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "stale_files"}


def merge(source: Connection, target: Connection, from_folder: Path, to_folder: Path) -> Merged:
    """Copy what `target` lacks. Raises OSError where a file cannot be copied."""
    merged = Merged()
    runs = _copy_runs(source, target, merged)
    theirs = _statuses(source)
    ours = reading.statuses(target, theirs)
    new = [cell_id for cell_id in theirs if cell_id not in ours]
    both = [cell_id for cell_id in theirs if cell_id in ours]
    better = [one for one in both if theirs[one] is Status.OK and ours[one] is not Status.OK]
    merged.cells, merged.replaced, merged.kept = len(new), len(better), len(both) - len(better)
    _find_conflicts(source, target, [one for one in both if theirs[one] is ours[one] is Status.OK], merged)
    merged.stale_files = writing.delete_cells(target, [*better, *new])  # and the units of new ones
    for cell_ids in chunks([*better, *new], CELLS_AT_ONCE):
        files = _copy_files(source, cell_ids, from_folder, to_folder, merged)
        _copy_cells(source, target, cell_ids, runs, files)
    merged.stale_files -= set(target.scalars(select(schema.artifacts.c.path)))
    _copy_units(source, target, runs, merged)
    return merged


def _statuses(connection: Connection) -> dict[str, Status]:
    """Of all cells, in the order they were stored."""
    table = schema.cells
    query = select(table.c.cell_id, table.c.status).order_by(table.c.finished_at, table.c.cell_id)
    return {cell_id: Status(status) for cell_id, status in connection.execute(query)}


# ---------------------------------------------------------------- runs


def _copy_runs(source: Connection, target: Connection, merged: Merged) -> dict[str, str]:
    """Runs that are not here; returns the id that each of their runs has here."""
    table = schema.runs
    ours = {row["id"]: row for row in _rows(target, table)}
    ids = {}
    for row in _rows(source, table):
        run_id = row["id"]
        if run_id in ours and _began(ours[run_id]) != _began(row):  # ids are short: another run may have the same
            run_id = content_hash([run_id, *_began(row)])[:16]
        ids[row["id"]] = run_id
        if run_id not in ours:
            _copy_missing(source, target, schema.environments, [row["environment_id"]])
            target.execute(insert(table).values({**row, "id": run_id}))
            merged.runs += 1
        elif ours[run_id]["status"] == "running":
            ended = {name: row[name] for name in ("status", "finished_at")}
            target.execute(update(table).where(table.c.id == run_id).values(ended))
    return ids


def _began(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """What never changes of a run."""
    return (run["started_at"].isoformat(), run["command"], run["environment_id"])


# ---------------------------------------------------------------- cells


def _find_conflicts(source: Connection, target: Connection, cell_ids: Iterable[str], merged: Merged) -> None:
    for chunk in chunks(cell_ids, CELLS_AT_ONCE):
        theirs, ours = _packed(source, chunk), _packed(target, chunk)
        samples = _samples(target, chunk)
        for cell_id in chunk:
            mine, other = ours.get(cell_id), theirs.get(cell_id)
            if mine != other and mine is not None and other is not None:
                count = samples[cell_id]
                differing = _differing(unpack_outcomes(mine, count), unpack_outcomes(other, count))
                if differing:
                    merged.conflicts.append(f"{cell_id}: {differing} differ in the two databases; kept as it was here")


def _packed(connection: Connection, cell_ids: Iterable[str]) -> dict[str, bytes]:
    table = schema.sample_outcomes
    query = select(table.c.cell_id, table.c.packed).where(table.c.cell_id.in_(cell_ids))
    return {row.cell_id: row.packed for row in connection.execute(query)}


def _samples(connection: Connection, cell_ids: Iterable[str]) -> dict[str, int]:
    """How many samples each cell has."""
    table = schema.cells
    query = select(table.c.cell_id, table.c.samples).where(table.c.cell_id.in_(cell_ids))
    return {row.cell_id: row.samples for row in connection.execute(query)}


def _differing(mine: Outcomes, other: Outcomes) -> str:
    """What differs between outcomes of the same samples; empty where nothing does that could not be rounding."""
    arrays, others = _arrays(mine), _arrays(other)
    if arrays.keys() != others.keys() or any(arrays[name].shape != others[name].shape for name in arrays):
        return "the columns of the outcomes"
    samples = np.zeros(len(mine), dtype=np.bool_)
    for name, array in arrays.items():
        same = _same(array, others[name])
        samples |= ~same.reshape(len(mine), -1).all(axis=1)
    count = int(samples.sum())
    return f"{count} of {len(mine)} samples" if count else ""


def _arrays(outcomes: Outcomes) -> dict[str, NDArray[Any]]:
    fixed = {"clean_correct": outcomes.clean_correct, "robust": outcomes.robust, "distance": outcomes.distance}
    return {**fixed, **{f"column {name}": column for name, column in outcomes.columns.items()}}


def _same(mine: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    rounded = mine.dtype.kind == "f"
    same = np.isclose(mine, other, rtol=TOLERANCE, atol=1e-6, equal_nan=True) if rounded else mine == other
    return np.asarray(same, dtype=np.bool_)


def _copy_cells(
    source: Connection,
    target: Connection,
    cell_ids: list[str],
    runs: Mapping[str, str],
    files: list[dict[str, Any]],
) -> None:
    """Cells that are not in `target`, with all that refers to them."""
    cells = _rows(source, schema.cells, cell_ids)
    _copy_missing(source, target, schema.sample_sets, {row["sample_set_id"] for row in cells})
    target.execute(insert(schema.cells), [{**row, "run_id": runs[row["run_id"]]} for row in cells])
    for table in (schema.metrics, schema.sample_outcomes):
        if found := _rows(source, table, cell_ids):
            target.execute(insert(table), found)
    if files:
        target.execute(insert(schema.artifacts), files)
    writing.forget_summaries(target, {row["row_id"] for row in cells})


def _copy_files(
    source: Connection, cell_ids: list[str], from_folder: Path, to_folder: Path, merged: Merged
) -> list[dict[str, Any]]:
    """Files of these cells; returns the rows of those that are there."""
    found = []
    for row in sorted(_rows(source, schema.artifacts, cell_ids), key=lambda row: row["id"]):
        artifact = Artifact(row["kind"], row["path"], row["sha256"], row["bytes"])
        problem = copy_artifact(from_folder, to_folder, artifact)
        if problem:
            merged.missing_files.append(f"{row['cell_id']}: {problem}")
        else:
            found.append({name: value for name, value in row.items() if name != "id"})
    return found


# ---------------------------------------------------------------- units


def _copy_units(source: Connection, target: Connection, runs: Mapping[str, str], merged: Merged) -> None:
    """Units of cells that are neither finished nor begun here: a run can go on with them."""
    table = schema.unit_outcomes
    theirs = set(source.scalars(select(table.c.cell_id).distinct()))
    begun = set(target.scalars(select(table.c.cell_id).distinct()))
    finished = reading.statuses(target, theirs)
    for cell_ids in chunks(sorted(theirs - begun - finished.keys()), CELLS_AT_ONCE):
        units = [{**row, "run_id": runs[row["run_id"]]} for row in _rows(source, table, cell_ids)]
        target.execute(insert(table), units)
        merged.units += len(units)


# ---------------------------------------------------------------- rows


def _rows(connection: Connection, table: Table, cell_ids: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Column name to value for all rows of a table, or those of some cells."""
    query = select(table)
    if cell_ids is not None:
        query = query.where(table.c.cell_id.in_(cell_ids))
    return [dict(row) for row in connection.execute(query).mappings()]


def _copy_missing(source: Connection, target: Connection, table: Table, ids: Iterable[str]) -> None:
    """Rows with these ids that `target` lacks; equal ids mean equal contents."""
    for chunk in chunks(ids):
        known = set(target.scalars(select(table.c.id).where(table.c.id.in_(chunk))))
        query = select(table).where(table.c.id.in_(set(chunk) - known))
        if rows := [dict(row) for row in source.execute(query).mappings()]:
            target.execute(insert(table), rows)
