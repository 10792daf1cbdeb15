"""The results of all runs. Every method is one transaction: it happens completely or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from sqlalchemy import Connection, Engine

from robustbench_lab.errors import StoreError, UsageError, did_you_mean
from robustbench_lab.hardware.process_mark import ProcessMark
from robustbench_lab.records import CellRecord, Status, UnitRecord
from robustbench_lab.result_store import claims, reading, rows, writing
from robustbench_lab.result_store.artifact_files import Artifact, remove_artifacts, write_artifacts
from robustbench_lab.result_store.cell_summary import CellSummary
from robustbench_lab.result_store.cell_timing import CellTiming
from robustbench_lab.result_store.checking import Metrics, check
from robustbench_lab.result_store.claims import Claim
from robustbench_lab.result_store.commit_batches import CommitBatches, Pending
from robustbench_lab.result_store.kept_row import KeptRow
from robustbench_lab.result_store.kept_rows import forget_rows, keep_rows, read_rows
from robustbench_lab.result_store.merging import Merged, merge
from robustbench_lab.result_store.run_board import RunBoard
from robustbench_lab.result_store.schema_state import stored_revision
from robustbench_lab.result_store.store_errors import store_errors
from robustbench_lab.result_store.transactions import Transactions
from robustbench_lab.result_store.vacuuming import vacuum

T = TypeVar("T")

SHOWN_ID = 12


class ResultStore:
    """Runs, cells and what came out of them, in one database. Made by `open_store`.

    Any number of processes may use one database at the same time: a writer waits for its turn, a reader sees the
    state of the moment it asked. All methods raise StoreError where the database refuses.
    """

    def __init__(self, engine: Engine, name: str, artifacts_folder: Path) -> None:
        self._transactions = Transactions(engine, name)
        self._batches: CommitBatches | None = None
        self.board = RunBoard(self._transactions, name)
        """What runs do right now."""
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
        self._transactions.engine.dispose()

    def schema_revision(self) -> str | None:
        """The revision of the database's schema."""
        with self._reading() as connection:
            return stored_revision(connection, self.name)

    # ------------------------------------------------------------ runs

    def begin_run(self, command: Sequence[str], spec: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
        """Note that a run begins; returns its id, 8 hex digits. `spec` and `environment` are JSON-able.

        Passwords of databases are left out.
        """
        run_id = secrets.token_hex(4)
        self._write(lambda connection: writing.insert_run(connection, run_id, command, spec, environment))
        return run_id

    def finish_run(self, run_id: str, status: Literal["finished", "interrupted"]) -> None:
        """Note how a run ended."""
        self._write(lambda connection: writing.finish_run(connection, run_id, status))

    @contextmanager
    def claiming(self, run_id: str, *, replaces_failed: bool = False) -> Iterator[Callable[[str], Claim]]:
        """Inside, what is yielded claims a cell for the run by its id; at the end the run lets go of all its claims.

        replaces_failed: results that are stored now and are not ok are to be replaced. Where the database refuses, each
        cell is the run's own: it may be evaluated twice, and nothing is lost.
        """
        mark, replaces = ProcessMark.own(), self._failures() if replaces_failed else {}

        def claim(cell_id: str) -> Claim:
            with suppress(StoreError):
                return self._transactions.write(
                    lambda connection: claims.claim(connection, run_id, cell_id, mark, replaces)
                )
            return Claim.OURS

        try:
            yield claim
        finally:
            with suppress(StoreError):
                self._transactions.write(lambda connection: claims.release(connection, run_id))

    def _failures(self) -> claims.Failures:
        with self._reading() as connection:
            return claims.failures(connection)

    # ------------------------------------------------------------ units of cells that are not closed

    def save_unit(self, record: UnitRecord, run_id: str) -> None:
        """Keep what a work unit gave until its cell is closed; replaces what is kept of the same slice."""
        values = rows.unit_values(record, run_id)
        self._save(lambda connection: writing.replace_unit(connection, values), then=lambda _: None)

    def units(self, cell_id: str) -> list[UnitRecord]:
        """What is kept of an open cell, in order of its samples."""
        with self._reading() as connection:
            return reading.units(connection, cell_id)

    def open_units(self, cell_ids: Iterable[str]) -> dict[str, list[UnitRecord]]:
        """What is kept of these cells as far as they are open, in order of their samples."""
        with self._reading() as connection:
            return reading.open_units(connection, cell_ids)

    # ------------------------------------------------------------ cells

    def save_cell(
        self, record: CellRecord, run_id: str, artifacts: Sequence[bytes] = (), *, keeps_ok: bool = False
    ) -> None:
        """Close a cell: store its result in place of an earlier one, and forget its units.

        artifacts: adversarial inputs as safetensors, in order of the samples; they are written as files first.
        keeps_ok: an earlier result that is ok stays where this one is not: another run has got it meanwhile.
        """
        with store_errors(self.name):
            files = write_artifacts(self.artifacts_folder, record.cell.cell_id, artifacts)
        values = rows.cell_rows(record, run_id, files)
        self._save(
            lambda connection: writing.replace_cell(connection, values, keeps_ok=keeps_ok), then=self._remove_files
        )

    def delete_cells(self, cell_ids: Iterable[str]) -> None:
        """Forget cells and their units; ids that are not stored are passed over."""
        ids = list(cell_ids)
        self._remove_files(self._write(lambda connection: writing.delete_cells(connection, ids)))

    def stored_statuses(self, cell_ids: Iterable[str]) -> dict[str, Status]:
        """The status of each of these cells that has a stored result."""
        with self._reading() as connection:
            return reading.statuses(connection, cell_ids)

    def failed_or_cancelled(self, cell_ids: Iterable[str]) -> set[str]:
        """Those of these cells that are stored as failed, or as skipped because they were cancelled."""
        with self._reading() as connection:
            return reading.failed_or_cancelled(connection, cell_ids)

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

    def holds_cells(self, tasks: Sequence[str] = ()) -> bool:
        """Whether there is a cell of one of these tasks; none named: whether there is any."""
        with self._reading() as connection:
            return reading.holds_cells(connection, tasks)

    def leaderboard_rows(self, tasks: Sequence[str] = ()) -> list[KeptRow]:
        """The rows that the cells (of some tasks) belong to, with what is kept of them."""
        with self._reading() as connection:
            return read_rows(connection, tasks)

    def cells_of_rows(self, row_ids: Iterable[str]) -> list[CellRecord]:
        """The cells of some leaderboard rows, in the order they were stored."""
        with self._reading() as connection:
            return reading.cells_of_rows(connection, row_ids)

    def keep_rows(self, rows: Sequence[KeptRow]) -> None:
        """Keep summaries for those who ask next, unless their cells have changed meanwhile.

        That is no more than a saving of time: where another process writes now, or the database can only be read,
        nothing is kept.
        """
        self._flush()
        self._transactions.write_if_free(lambda connection: keep_rows(connection, rows))

    def forget_rows(self) -> None:
        """Forget all that is kept of leaderboard rows: the next leaderboard makes it from the cells."""
        self._write(forget_rows)

    def summaries(
        self, *, task: str | None = None, status: Status | None = None, run_id: str | None = None
    ) -> list[CellSummary]:
        """What a table of stored results shows, in the order they were stored: several times faster than `cells`."""
        with self._reading() as connection:
            return reading.summaries(connection, reading.conditions(task, status, run_id))

    def timings(self, models: Iterable[str] | None = None) -> list[CellTiming]:
        """What the stored cells of these models (labels; None: of all) took, those that are alike together."""
        with self._reading() as connection:
            return reading.timings(connection, models)

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
        found = self.runs_of([cell_id])
        if not found:
            raise UsageError(f"no cell '{cell_id}' in {self.name}: `rbl leaderboard --json` lists what there is")
        return found[cell_id]

    def runs_of(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The same of many cells, by their ids; without those that are not stored."""
        with self._reading() as connection:
            return reading.provenance(connection, ids)

    def artifacts(self, cell_id: str) -> list[Artifact]:
        """Files of a stored cell, in the order they were given."""
        return self.artifacts_of([cell_id]).get(cell_id, [])

    def artifacts_of(self, ids: Iterable[str]) -> dict[str, list[Artifact]]:
        """The same of many cells, by their ids; without those that have none."""
        with self._reading() as connection:
            return reading.artifacts(connection, ids)

    # ------------------------------------------------------------ the whole database

    def merge(self, other: ResultStore) -> Merged:
        """Copy what another database has and this one lacks, in one transaction."""
        with other._reading() as source, store_errors(self.name):
            merged = self._write(lambda target: merge(source, target, other.artifacts_folder, self.artifacts_folder))
        self._remove_files(merged.stale_files)
        return merged

    def check(self, metrics: Metrics) -> Iterator[str]:
        """A line for each thing that is wrong.

        metrics: task to metric name to metric; metrics that are not named are not recomputed.
        """
        with self._reading() as connection:
            yield from check(connection, self.artifacts_folder, metrics)

    def vacuum(self) -> tuple[int, int]:
        """Give unused space back to the disk; returns the bytes of the database before and after."""
        self._flush()
        with store_errors(self.name):
            return vacuum(self._transactions.engine)

    # ------------------------------------------------------------ transactions

    @contextmanager
    def batched(self) -> Iterator[None]:
        """Inside, saved units and cells may wait for half a second to be committed together, when there are many.

        All that waits is committed at the end, however it comes, and before anything is read by this store. A save
        may raise what befell an earlier one.
        """
        batches = self._batches = CommitBatches(self._transactions)
        try:
            yield
        finally:
            self._batches = None
            batches.flush()

    def when_stored(self, action: Callable[[], None]) -> None:
        """Call `action` once all that was saved so far is committed."""
        if self._batches is None:
            action()
        else:
            self._batches.when_committed(action)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        self._flush()
        with self._transactions.reading() as connection:
            yield connection

    def _write(self, work: Callable[[Connection], T]) -> T:
        self._flush()
        return self._transactions.write(work)

    def _save(self, work: Callable[[Connection], T], then: Callable[[T], None]) -> None:
        """Write it now, or soon."""
        if self._batches is None:
            then(self._transactions.write(work))
        else:
            self._batches.add(Pending(work, then))

    def _flush(self) -> None:
        if self._batches is not None:
            self._batches.flush()

    def _remove_files(self, paths: set[str]) -> None:
        with store_errors(self.name):
            remove_artifacts(self.artifacts_folder, paths)
