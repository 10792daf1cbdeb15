"""Opening a database: which one, whether it is ours, and whether its schema is the one this code knows."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import URL, Engine

from robustbench_lab.errors import NothingStoredError, StoreError
from robustbench_lab.result_store.engine import database_url, display_name, make_engine, readable_url, sqlite_file
from robustbench_lab.result_store.schema_state import check_current, check_not_newer, migrate, stored_revision
from robustbench_lab.result_store.store import ResultStore
from robustbench_lab.result_store.store_errors import store_errors


def open_store(
    url_or_path: str | os.PathLike[str],
    *,
    create: bool = True,
    artifacts_folder: str | os.PathLike[str] | None = None,
) -> ResultStore:
    """Open the results in a file such as `rbl.db`, or behind an SQLAlchemy URL.

    create: whether a new or empty database is set up; otherwise it is an error.
    artifacts_folder: where files of cells go. Default: `rbl-artifacts` beside `rbl.db`; in the working folder for a
    database that is no file.

    Raises StoreError where the database cannot be used, MissingLibraryError where its driver is not installed.
    """
    url = database_url(url_or_path)
    name = display_name(url)
    _check_file(url, create=create)
    folder = _artifacts_folder(url) if artifacts_folder is None else Path(artifacts_folder)
    engine = make_engine(url if create else readable_url(url))
    try:
        with store_errors(name):
            revision = _revision(engine, name)
            if revision is not None:
                check_current(revision, name)
            elif create:
                migrate(engine, name)
            else:
                raise _nothing_yet(name)
    except BaseException:
        engine.dispose()
        raise
    return ResultStore(engine, name, folder)


def upgrade(url_or_path: str | os.PathLike[str]) -> str | None:
    """Bring an older database to the schema this rbl needs; returns the revision it had. Raises StoreError."""
    url = database_url(url_or_path)
    name = display_name(url)
    _check_file(url, create=False)
    engine = make_engine(url)
    try:
        with store_errors(name):
            revision = _revision(engine, name)
            check_not_newer(revision, name)
            migrate(engine, name)
    finally:
        engine.dispose()
    return revision


def _revision(engine: Engine, name: str) -> str | None:
    with engine.connect() as connection:
        return stored_revision(connection, name)


def _check_file(url: URL, *, create: bool) -> None:
    """What SQLite itself says of these is hard to understand, or it creates a file that nobody asked for."""
    file = sqlite_file(url)
    if file is None:
        return
    if file.is_dir():
        raise StoreError(f"{file} is a folder: name a file in it, such as {file / 'rbl.db'}")
    if not file.exists() and not create:
        raise _nothing_yet(str(file))
    if not file.parent.is_dir():
        raise StoreError(f"cannot create {file}: the folder {file.parent} does not exist; create it first")


def _nothing_yet(name: str) -> NothingStoredError:
    return NothingStoredError(f"no results in {name} yet: run `rbl run` first")


def open_source(other: str | os.PathLike[str], into: str | os.PathLike[str]) -> ResultStore:
    """The database to copy results from. Raises StoreError where it holds none, or is the one to copy into."""
    url, target = database_url(other), database_url(into)
    file, target_file = sqlite_file(url), sqlite_file(target)
    name = display_name(url)
    if url == target or (file and target_file and file.resolve() == target_file.resolve()):
        raise StoreError(f"{name} is the database to copy into: name another one to copy from")
    try:
        return open_store(other, create=False)
    except NothingStoredError:
        raise NothingStoredError(f"no results in {name}: name a database that holds some") from None


def checkpoints_folder(url_or_path: str | os.PathLike[str]) -> Path | None:
    """Where unfinished attacks are kept: `rbl-checkpoints` beside `rbl.db`; in the working folder for a server's
    database; None for one in memory, which no other process goes on with.
    """
    url = database_url(url_or_path)
    if url.get_backend_name() != "sqlite":
        return Path("rbl-checkpoints")
    file = sqlite_file(url)
    return None if file is None else file.parent / f"{file.stem}-checkpoints"


def batches_file(url_or_path: str | os.PathLike[str]) -> Path | None:
    """Where batch sizes that worked after memory ran out are kept: `rbl-batches.json`, where checkpoints are."""
    folder = checkpoints_folder(url_or_path)
    return folder and folder.with_name(folder.name.removesuffix("checkpoints") + "batches.json")


def logs_folder(url_or_path: str | os.PathLike[str]) -> Path:
    """Where runs write their logs: `rbl-logs` beside `rbl.db`; in the working folder for a database that is no file."""
    file = sqlite_file(database_url(url_or_path))
    return Path("rbl-logs") if file is None else file.parent / f"{file.stem}-logs"


def _artifacts_folder(url: URL) -> Path:
    file = sqlite_file(url)
    return Path("rbl-artifacts") if file is None else file.parent / f"{file.stem}-artifacts"
