"""Runs that use one database share its cells: each cell is evaluated by the run that claims it first.

A run asks before it begins a cell. A claim holds until its run has ended, is silent or lost its process; the cell is
then free for others. Each function takes the connection of a transaction that its caller commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from robustbench_lab.hardware.process_mark import ProcessMark
from robustbench_lab.records import Status
from robustbench_lab.result_store import schema
from robustbench_lab.result_store.run_board import run_condition


class Claim(StrEnum):
    """What a run that asks for a cell is told."""

    OURS = "ours"
    """Evaluate it."""
    INHERITED = "inherited"
    """Evaluate it: another run had it, has ended, and may have stored a part."""
    ELSEWHERE = "elsewhere"
    """Another run is at it."""
    STORED = "stored"
    """Another run has stored it."""


RELEASED = ""
"""In place of a process."""
_CLAIMS = schema.claims.c
_STORED = select(schema.cells.c.run_id, schema.cells.c.finished_at).where(schema.cells.c.cell_id == bindparam("cell"))
_HOLDER = select(schema.claims).where(_CLAIMS.cell_id == bindparam("cell"))
_INSERT = insert(schema.claims)
_TAKE_OVER = update(schema.claims).where(_CLAIMS.cell_id == bindparam("cell"))


Failures = Mapping[str, tuple[str, datetime]]
"""Cell id to the run and time of a result that is not ok: what tells it from one of a later attempt."""


def failures(connection: Connection) -> Failures:
    """All that are stored."""
    table = schema.cells
    query = select(table.c.cell_id, table.c.run_id, table.c.finished_at).where(table.c.status != Status.OK)
    return {row.cell_id: (row.run_id, row.finished_at) for row in connection.execute(query)}


def claim(connection: Connection, run_id: str, cell_id: str, mark: ProcessMark, replaces: Failures) -> Claim:
    """Claim a cell for a run.

    mark: of the process that asks. replaces: results that are to be replaced, if they are still the same.
    """
    stored = connection.execute(_STORED, {"cell": cell_id}).first()
    if stored is not None and replaces.get(cell_id) != (stored.run_id, stored.finished_at):
        return Claim.STORED
    holder = connection.execute(_HOLDER, {"cell": cell_id}).first()
    values = {"run_id": run_id, "host": mark.host, "process": mark.process}
    if holder is None:
        connection.execute(_INSERT, {"cell_id": cell_id, **values})
        return Claim.OURS
    if holder.run_id == run_id:
        return Claim.OURS
    is_done = stored is not None and stored.run_id == holder.run_id
    if not is_done and _holds(connection, holder):
        return Claim.ELSEWHERE
    connection.execute(_TAKE_OVER.values(values), {"cell": cell_id})
    return Claim.INHERITED


def release(connection: Connection, run_id: str) -> None:
    """The run evaluates nothing any more. Of cells that it leaves open it stays known whose they were."""
    closed = select(schema.cells.c.cell_id)
    connection.execute(delete(schema.claims).where(_CLAIMS.run_id == run_id, _CLAIMS.cell_id.in_(closed)))
    connection.execute(update(schema.claims).where(_CLAIMS.run_id == run_id).values(process=RELEASED))


def _holds(connection: Connection, holder: Any) -> bool:
    if holder.process == RELEASED or ProcessMark(holder.host, holder.process).is_gone():
        return False
    return run_condition(connection, holder.run_id) == "running"
