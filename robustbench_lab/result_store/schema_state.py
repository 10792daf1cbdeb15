"""Which schema a database has; creating and upgrading it. Alembic is imported only to do so."""

from __future__ import annotations

import shlex
import sqlite3
import time
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text

from robustbench_lab.errors import StoreError
from robustbench_lab.result_store.engine import WRITES
from robustbench_lab.result_store.revision import REVISION

VERSION_TABLE = "alembic_version"
PAUSE_SECONDS = 0.05
"""Between two attempts at a locked database."""


def stored_revision(connection: Connection, name: str) -> str | None:
    """The schema revision of a database, None for an empty one.

    Raises StoreError for a database of something else.
    """
    # One look: between two, another process may have created all of them.
    tables = set(inspect(connection).get_table_names())
    if VERSION_TABLE in tables:
        revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 (a constant)
        if isinstance(revision, str) and revision.isdigit() and len(revision) == len(REVISION):
            return revision
        if revision is not None:
            raise StoreError(f"{name} is the database of another program: name another one")
    other = tables - {VERSION_TABLE}
    if other:
        raise StoreError(f"{name} is the database of another program (it has a table '{min(other)}'): name another one")
    return None


def check_not_newer(revision: str | None, name: str) -> None:
    """Raise StoreError where a newer rbl wrote the database."""
    if revision is not None and revision > REVISION:
        raise StoreError(
            f"{name} has schema {revision}, this rbl knows up to {REVISION}: run `pip install -U robustbench-lab`"
        )


def check_current(revision: str, name: str) -> None:
    """Raise StoreError unless the database has the schema that this code reads and writes."""
    check_not_newer(revision, name)
    if revision != REVISION:
        advice = f"run `rbl db upgrade --db {shlex.quote(name)}`"
        raise StoreError(f"{name} has schema {revision}, this rbl needs {REVISION}: {advice}")


def migrate(engine: Engine, name: str) -> None:
    """Bring a database, new or old, to the newest schema, in one transaction: killed half-way, it is as before.

    Waits while another process does the same, and then finds nothing left to do.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "robustbench_lab.result_store:migrations")
    with engine.connect().execution_options(**{WRITES: True}) as connection:
        _set_pragmas(connection, "journal_mode=WAL", "foreign_keys=OFF")
        with connection.begin():
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise StoreError(f"{name} has a schema that no released rbl wrote: restore a copy of it") from error
        _set_pragmas(connection, "foreign_keys=ON")


def _set_pragmas(connection: Connection, *settings: str) -> None:
    """Settings that SQLite takes outside of a transaction only.

    WAL lets others read while one writes, and stays with the file. Foreign keys are off during a migration because
    Alembic changes a table by replacing it, and dropping the old one would delete what refers to its rows.
    """
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        for setting in settings:
            _when_free(driver, f"PRAGMA {setting}")


def _when_free(driver: sqlite3.Connection, statement: str) -> None:
    """Execute it, as late as a statement of this connection waits for a lock.

    SQLite itself does not wait before it changes to WAL: of two processes that set up one new database one would fail.
    """
    (milliseconds,) = driver.execute("PRAGMA busy_timeout").fetchone()
    until = time.monotonic() + milliseconds / 1000
    while True:
        try:
            driver.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(PAUSE_SECONDS)
