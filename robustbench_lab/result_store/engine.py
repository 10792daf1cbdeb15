"""Connections: which database is meant, and how SQLite is to behave."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from robustbench_lab.errors import MissingLibraryError, StoreError
from robustbench_lab.redaction import without_passwords

BUSY_SECONDS = 15.0
"""How long SQLite waits for another writer, each time. Override with `sqlite:///rbl.db?timeout=120`."""
WRITES = "rbl_writes"
"""Execution option of connections that will write. Writers take turns, one transaction each: they replace rows, and
two that replace the same one at once would collide."""
POSTGRESQL_WRITER_LOCK = 0x72626C
"""Key of an advisory lock: "rbl" as a number."""


def database_url(url_or_path: str | os.PathLike[str]) -> URL:
    """A path such as `rbl.db` or an SQLAlchemy URL such as `postgresql+psycopg://user@host/name`."""
    text = os.fspath(url_or_path)
    if not text:  # SQLite would keep what is stored in memory, and forget it: as with `--db "$UNSET"`
        raise StoreError("the database has no name: write a file's path such as rbl.db, or dialect://user@host/name")
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        return make_url(text)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise StoreError("the database URL cannot be read: write dialect://user@host/name, or a file's path") from error


def display_name(url: URL) -> str:
    """How messages name the database; never with a password."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return without_passwords(url.render_as_string(hide_password=True))


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database, where the URL names one plainly."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return None if url.database.startswith("file:") else Path(url.database)


def readable_url(url: URL) -> URL:
    """The same database for those who only read a file, or in a folder, that cannot be written.

    SQLite reads a database in WAL mode only where it can put files beside it, or is told that nothing changes it. Those
    beside a read-only file would be read-only as well, and stay in the way when it is made writable.
    """
    file = sqlite_file(url)
    if file is None or not file.is_file() or Path(f"{file}-wal").exists():
        return url
    if os.access(file, os.W_OK) and os.access(file.parent, os.W_OK):
        return url
    unchanged = {"mode": "ro", "immutable": "1", "uri": "true"}
    return url.set(database=f"file:{quote(str(file.absolute()))}").update_query_dict(unchanged)


def make_engine(url: URL) -> Engine:
    """An engine whose connections check foreign keys and whose transactions are real ones, DDL included.

    Raises StoreError for a database that SQLAlchemy does not know, MissingLibraryError where its driver is missing.
    """
    options: dict[str, Any] = {"pool_pre_ping": url.get_backend_name() != "sqlite"}  # a server may have restarted
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {} if "timeout" in url.query else {"timeout": BUSY_SECONDS}
        if url.database in (None, "", ":memory:"):
            options["poolclass"] = StaticPool  # a database in memory belongs to one connection
            options["connect_args"]["check_same_thread"] = False  # a store's threads take turns
    try:
        engine = create_engine(url, **options)
    except NoSuchModuleError as error:
        raise StoreError(f"there is no database dialect '{url.drivername}': use sqlite or postgresql") from error
    except ModuleNotFoundError as error:
        text = f"{display_name(url)} needs the Python module '{error.name}'"
        if url.get_backend_name() == "postgresql":
            raise MissingLibraryError(f'{text}: run `pip install "robustbench-lab[postgres]"`') from error
        raise MissingLibraryError(f"{text}: install the driver that brings it, or use sqlite or postgresql") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "begin", _begin_postgresql)
    return engine


def _configure_sqlite(dbapi_connection: Any, _record: object) -> None:
    """Settings that SQLite forgets with every connection."""
    dbapi_connection.isolation_level = None  # the driver opens no transaction on its own: see _begin_sqlite
    dbapi_connection.execute("PRAGMA foreign_keys=ON")
    # FULL: a commit survives a power cut. It costs one fsync for each batch of finished units. (A killed process loses
    # no commit with any setting.)
    dbapi_connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    """Begin for real; writers at once as writers.

    A transaction that reads first and writes later fails at once, whatever the timeout, when another process wrote
    in between. IMMEDIATE waits for its turn instead.
    """
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    """Writers wait for their turn; a transaction's end lets the next one begin."""
    if connection.get_execution_options().get(WRITES, False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({POSTGRESQL_WRITER_LOCK})")
