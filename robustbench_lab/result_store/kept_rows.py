"""Leaderboard rows that are kept beside the cells they follow from, so that a large database is ranked at once.

They are no results: any of them can be forgotten, and made again from its cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, delete, select, update

from robustbench_lab.result_store import schema
from robustbench_lab.result_store.kept_row import KeptRow


def read_rows(connection: Connection, tasks: Sequence[str]) -> list[KeptRow]:
    """Every row that has cells, of some tasks or (none named) of all."""
    table, cells = schema.leaderboard_rows, schema.cells
    used = select(cells.c.row_id).where(cells.c.row_id == table.c.id)
    if tasks:
        used = used.where(cells.c.task.in_(tasks))
    query = select(table.c.id, table.c.state, table.c.rules, table.c.summary).where(used.exists())
    return [KeptRow(*row) for row in connection.execute(query)]


def keep_rows(connection: Connection, rows: Iterable[KeptRow]) -> None:
    """Keep the summaries of rows whose cells have not changed since their state was read."""
    table = schema.leaderboard_rows
    values = [{"row": row.row_id, "was": row.state, "rules": row.rules, "summary": row.summary} for row in rows]
    if values:
        same = (table.c.id == bindparam("row"), table.c.state == bindparam("was"))
        connection.execute(update(table).where(*same), values)


def forget_rows(connection: Connection) -> None:
    """Keep no summaries, and no rows without cells."""
    table, cells = schema.leaderboard_rows, schema.cells
    connection.execute(update(table).values(rules=None, summary=None))
    connection.execute(delete(table).where(table.c.id.not_in(select(cells.c.row_id))))
