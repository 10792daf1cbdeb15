"""What can go wrong in a database, as one line for the user."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from robustbench_lab.errors import StoreError
from robustbench_lab.redaction import without_passwords

_KEPT = "what was stored before is kept; then run the same command again"

_DAMAGED = "damaged: restore a copy, or save what is readable with `sqlite3 FILE .recover`"

_SQLITE_ADVICE = {
    sqlite3.SQLITE_FULL: f"the disk is full: free some space, {_KEPT}",
    sqlite3.SQLITE_IOERR: f"the file system refused to read or write: check for a full or failing disk, {_KEPT}",
    sqlite3.SQLITE_BUSY: "locked by another program for too long: wait for it to end, then run the same command again",
    sqlite3.SQLITE_LOCKED: "locked by another program: wait for it to end, then run the same command again",
    sqlite3.SQLITE_READONLY: "read-only: make the file, what lies beside it (-wal, -shm) and the folder writable,"
    " or name another file",
    sqlite3.SQLITE_PERM: "access is denied: make the file and its folder readable and writable, or name another file",
    sqlite3.SQLITE_AUTH: "access is denied: make the file and its folder readable and writable, or name another file",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: make the file and its folder readable and writable, or name another",
    sqlite3.SQLITE_NOTADB: "no SQLite database: name another file",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_TOOBIG: "a value is too large to be stored: use fewer samples",
}

_CONNECTION_ADVICE = "check the URL, and that the server runs and has this database and user"
_POSTGRESQL_ADVICE = {
    "53100": f"the server's disk is full: free some space, {_KEPT}",
    "53300": "the server has too many connections: wait for others to end, then run the same command again",
    "25006": "read-only: connect to a server that takes writes",
    "42501": "access is denied: ask the owner of the database for the rights to create and change tables",
    "57P01": f"the server was stopped: start it, {_KEPT}",
}
"""By SQLSTATE."""


@contextmanager
def store_errors(name: str) -> Iterator[None]:
    """Turn errors of the database called `name`, and of the files beside it, into StoreError.

    OverflowError: an integer of more than 64 bits. UnicodeDecodeError: a text, or a message, with damage in it.
    """
    try:
        yield
    except DBAPIError as error:
        raise StoreError(f"{name}: {_advice(error.orig)}") from error
    except (sqlite3.Error, OSError, OverflowError, UnicodeDecodeError) as error:
        raise StoreError(f"{name}: {_advice(error)}") from error


def _advice(error: BaseException | None) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _SQLITE_ADVICE:  # the low byte of an extended code is the primary one
        return _SQLITE_ADVICE[code & 0xFF]
    if isinstance(error, UnicodeDecodeError) or str(error).startswith("Could not decode to UTF-8"):
        return _DAMAGED  # Python finds it before SQLite does
    if isinstance(error, OSError):
        return f"cannot write {error.filename}: {error.strerror}; {_KEPT}"
    said = without_passwords((str(error).strip() or type(error).__name__).splitlines()[0])
    state = getattr(error, "sqlstate", "")
    if state is None:  # of psycopg, where there is no connection
        return f"{said.rstrip(':')}; {_CONNECTION_ADVICE}"
    return _POSTGRESQL_ADVICE.get(state, f"the database refused: {said}")
