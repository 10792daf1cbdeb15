"""The results of all runs. Every method is one transaction: it happens completely or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from sqlalchemy import Connection, Engine

from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.records import CellRecord, Status, UnitRecord
from robustbench_lab.result_store import reading, writing
from robustbench_lab.result_store.artifact_files import Artifact, remove_artifacts, write_artifacts
from robustbench_lab.result_store.cell_summary import CellSummary
from robustbench_lab.result_store.engine import WRITES
from robustbench_lab.result_store.schema_state import stored_revision
from robustbench_lab.result_store.store_errors import store_errors

T = TypeVar("T")

SHOWN_ID = 12


class ResultStore:
    """Runs, cells and what came out of them, in one database. Made by `open_store`.

    Any number of processes may use one database at the same time: a writer waits for its turn, a reader sees the
    state of the moment it asked. All methods raise StoreError where the database refuses.
    """

    def __init__(self, engine: Engine, name: str, artifacts_folder: Path) -> None:
        # Reading several tables must see one state of them. SQLite's transactions always do.
        snapshot = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
        self._engine = engine
        self._reader = engine.execution_options(**snapshot)
        self._writer = engine.execution_options(**{WRITES: True})
        self.name = name
        """What the user called the database; without a password."""
        self.artifacts_folder = artifacts_folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database. Closing twice is harmless."""
        self._engine.dispose()

    def schema_revision(self) -> str | None:
        """The revision of the database's schema."""
        with self._reading() as connection:
            return stored_revision(connection, self.name)

    # ------------------------------------------------------------ runs

    def begin_run(self, command: Sequence[str], spec: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
        """Note that a run begins; returns its id, 8 hex digits. `spec` and `environment` are JSON-able."""
        return self._write(lambda connection: writing.insert_run(connection, command, spec, environment))

    def finish_run(self, run_id: str, status: Literal["finished", "interrupted"]) -> None:
        """Note how a run ended."""
        self._write(lambda connection: writing.finish_run(connection, run_id, status))

    # ------------------------------------------------------------ units of cells that are not closed

    def save_unit(self, record: UnitRecord, run_id: str) -> None:
        """Keep what a work unit gave until its cell is closed; replaces what is kept of the same slice."""
        self._write(lambda connection: writing.replace_unit(connection, record, run_id))

    def units(self, cell_id: str) -> list[UnitRecord]:
        """What is kept of an open cell, in order of its samples."""
        with self._reading() as connection:
            return reading.units(connection, cell_id)

    # ------------------------------------------------------------ cells

    def save_cell(self, record: CellRecord, run_id: str, artifacts: Sequence[bytes] = ()) -> None:
        """Close a cell: store its result in place of an earlier one, and forget its units.

        artifacts: adversarial inputs as safetensors, in order of the samples; they are written as files first.
        """
        with store_errors(self.name):
            files = write_artifacts(self.artifacts_folder, record.cell.cell_id, artifacts)
        stale = self._write(lambda connection: writing.replace_cell(connection, record, run_id, files))
        self._remove_files(stale - {file.path for file in files})

    def delete_cells(self, cell_ids: Iterable[str]) -> None:
        """Forget cells and their units; ids that are not stored are passed over."""
        ids = list(cell_ids)
        self._remove_files(self._write(lambda connection: writing.delete_cells(connection, ids)))

    def stored_statuses(self, cell_ids: Iterable[str]) -> dict[str, Status]:
        """The status of each of these cells that has a stored result."""
        with self._reading() as connection:
            return reading.statuses(connection, cell_ids)

    def cells(
        self,
        *,
        task: str | None = None,
        status: Status | None = None,
        run_id: str | None = None,
        ids: Iterable[str] | None = None,
        with_outcomes: bool = True,
    ) -> list[CellRecord]:
        """Stored results that meet every condition, in the order of `ids`, otherwise in the order they were stored.

        with_outcomes: False leaves out the outcomes per sample.
        """
        conditions = reading.conditions(task, status, run_id)
        with self._reading() as connection:
            return reading.cells(connection, conditions, ids, with_outcomes=with_outcomes)

    def summaries(
        self, *, task: str | None = None, status: Status | None = None, run_id: str | None = None
    ) -> list[CellSummary]:
        """What a table of stored results shows, in the order they were stored: several times faster than `cells`."""
        with self._reading() as connection:
            return reading.summaries(connection, reading.conditions(task, status, run_id))

    def find_cell(self, prefix: str) -> str:
        """The id of the one cell that begins with `prefix`. Raises UsageError where there is none, or several."""
        with self._reading() as connection:
            ids = reading.cell_ids(connection)
        found = sorted(cell_id for cell_id in ids if cell_id.startswith(prefix))
        if len(found) == 1:
            return found[0]
        if not found:
            alike = did_you_mean(prefix, {cell_id[: max(len(prefix), SHOWN_ID)] for cell_id in ids})
            raise UsageError(f"no cell in {self.name} begins with '{prefix}'.{alike}")
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise UsageError(f"{len(found)} cells begin with '{prefix}': write more of the id. There is: {shown}")

    def run_of(self, cell_id: str) -> dict[str, Any]:
        """Where a stored cell comes from, JSON-able: the run that stored it and its environment. Times are ISO, UTC.

        Raises UsageError where no such cell is stored.
        """
        with self._reading() as connection:
            provenance = reading.provenance(connection, cell_id)
        if provenance is None:
            raise UsageError(f"no cell '{cell_id}' in {self.name}: `rbl leaderboard --json` lists what there is")
        return provenance

    def artifacts(self, cell_id: str) -> list[Artifact]:
        """Files of a stored cell, in the order they were given."""
        with self._reading() as connection:
            return reading.artifacts(connection, cell_id)

    # ------------------------------------------------------------ transactions

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with store_errors(self.name), self._reader.connect() as connection, connection.begin():
            yield connection

    def _write(self, work: Callable[[Connection], T]) -> T:
        with store_errors(self.name), self._writer.begin() as connection:
            return work(connection)

    def _remove_files(self, paths: set[str]) -> None:
        with store_errors(self.name):
            remove_artifacts(self.artifacts_folder, paths)
