"""Kept leaderboard rows straight from an SQLite file: importing SQLAlchemy alone takes longer than showing them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from robustbench_lab.result_store.kept_row import KeptRow
from robustbench_lab.result_store.revision import REVISION

_OF_ALL = """
SELECT id, state, rules, summary FROM leaderboard_rows
WHERE EXISTS (SELECT 1 FROM cells WHERE cells.row_id = leaderboard_rows.id {of_tasks})
"""


def quick_rows(database: str, tasks: Sequence[str] = ()) -> list[KeptRow] | None:
    """What `ResultStore.leaderboard_rows` gives; None where that takes more than reading a file of this schema.

    Whatever is wrong with the file is left to `open_store`, which says so.
    """
    if "://" in database or not Path(database).is_file() or not os.access(database, os.W_OK):
        return None
    query = _OF_ALL.format(of_tasks=f"AND cells.task IN ({', '.join('?' * len(tasks))})" if tasks else "")
    try:
        # `rw`: as every other reader, it clears SQLite's side files away when it is the last one; it creates no file.
        uri = f"{Path(database).absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            if connection.execute("SELECT version_num FROM alembic_version").fetchall() != [(REVISION,)]:
                return None
            return [KeptRow(*row) for row in connection.execute(query, tuple(tasks))]
    except (sqlite3.Error, UnicodeDecodeError):
        return None
