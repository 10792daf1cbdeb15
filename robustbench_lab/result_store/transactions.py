"""Transactions: readers see one state, writers take turns, and what fails for a moment is tried again."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, StaticPool
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

from robustbench_lab.result_store.engine import POSTGRESQL_WRITER_LOCK, WRITES
from robustbench_lab.result_store.store_errors import store_errors

T = TypeVar("T")

PAUSES = (0.1, 0.5, 2.0, 8.0, 20.0)
"""Seconds before a transaction is tried again: a server that restarts is back within them."""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SERVER_BUSY = {"40001", "40P01"}
"""PostgreSQL could not order transactions that ran at the same time."""
_SERVER_GONE = ("08", "57P")
"""PostgreSQL's classes of errors for connections that break and servers that stop or start."""


class Transactions:
    """Errors of the database become StoreError."""

    def __init__(self, engine: Engine, name: str) -> None:
        # Reading several tables must see one state of them. SQLite's transactions always do.
        snapshot = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
        self.engine = engine
        self._reader = engine.execution_options(**snapshot)
        self._writer = engine.execution_options(**{WRITES: True})
        self._name = name
        # A database in memory has one connection, which threads must take in turns.
        self._turn = RLock() if isinstance(engine.pool, StaticPool) else nullcontext()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that writes nothing."""
        with store_errors(self._name), self._turn, self._reader.connect() as connection, connection.begin():
            yield connection

    def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns; it may be called several times, and leaves what it wrote the last time."""
        with store_errors(self._name):
            for pause in PAUSES:
                try:
                    return self._write(work)
                except DBAPIError as error:
                    if not _passes_by(error):
                        raise
                    time.sleep(pause)
            return self._write(work)

    def write_if_free(self, work: Callable[[Connection], object]) -> bool:
        """Whether `work` could be done at once: nobody else writes, and the database takes writes."""
        if isinstance(self.engine.pool, StaticPool):
            self._write(work)
            return True
        with self.engine.connect() as connection:
            try:
                return _write_at_once(connection, work)
            except (OperationalError, ProgrammingError):  # locked, read-only, no rights
                return False
            finally:
                connection.invalidate()  # it does not wait for locks any more

    def _write(self, work: Callable[[Connection], T]) -> T:
        with self._turn, self._writer.begin() as connection:
            return work(connection)


def _write_at_once(connection: Connection, work: Callable[[Connection], object]) -> bool:
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA busy_timeout=0")
        connection = connection.execution_options(**{WRITES: True})
    with connection.begin():
        if connection.dialect.name == "postgresql":
            free = connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({POSTGRESQL_WRITER_LOCK})")
            if not free.scalar_one():
                return False
        work(connection)
    return True


def _passes_by(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed a little later."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _BUSY
    state = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or state in _SERVER_BUSY or state.startswith(_SERVER_GONE)
