"""Giving a database's unused space back to the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine


def vacuum(engine: Engine) -> tuple[int, int]:
    """Compact a database, and gather what its query planner needs; returns its bytes before and after."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection  # SQLAlchemy would begin a transaction first
            size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            return _run(driver.execute, size, "VACUUM", "ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        return _run(connection.exec_driver_sql, "SELECT pg_database_size(current_database())", "VACUUM FULL ANALYZE")


def _run(execute: Callable[[str], Any], size: str, *statements: str) -> tuple[int, int]:
    before = execute(size).fetchone()[0]
    for statement in statements:
        execute(statement).close()
    return before, execute(size).fetchone()[0]
