"""Where runs and their watchers meet: what each run does right now, and what is asked of it, over the database.

So it works from another terminal, and from another machine that uses the same database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, func, insert, select, update

from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.records import Status
from robustbench_lab.result_store import schema
from robustbench_lab.result_store.json_values import from_json, to_json
from robustbench_lab.result_store.transactions import Transactions

T = TypeVar("T")

SILENT_SECONDS = 30.0
"""After so long without a heartbeat a run counts as dead: its process was killed, or its machine is gone."""


@dataclass(frozen=True)
class RunNotice:
    """What the database knows of a run."""

    run_id: str
    condition: str
    """`running`, `finished`, `interrupted`, or `dead`: running by its own account, but silent for too long."""
    started_at: datetime
    finished_at: datetime | None
    command: tuple[str, ...]
    host: str | None
    silent_seconds: float | None
    """Since the last heartbeat; None where there never was one."""
    state: Mapping[str, Any] | None
    """What the run itself said last: `RunState.document`."""


@dataclass(frozen=True)
class Cancellation:
    """A request that a run has not answered yet."""

    id: int
    cell: str | None
    """The beginning of a cell's id; None: the whole run."""


@dataclass(frozen=True)
class Gap:
    """A stored cell that has no result."""

    run_id: str
    """That stored it."""
    cell_id: str
    status: str
    reason: str


class RunBoard:
    """Heartbeats and requests. Every method is one transaction, and raises StoreError where the database refuses."""

    def __init__(self, transactions: Transactions, name: str) -> None:
        self._transactions = transactions
        self._name = name

    # ------------------------------------------------------------ the run's side

    def beat(self, run_id: str, host: str, state: Mapping[str, Any]) -> None:
        """Note what a run does now."""
        values = {"beat_at": func.current_timestamp(), "host": host, "state": to_json(state)}
        table = schema.heartbeats

        def work(connection: Connection) -> None:
            if connection.execute(update(table).where(table.c.run_id == run_id).values(values)).rowcount == 0:
                connection.execute(insert(table).values(run_id=run_id, **values))

        self._write(work)

    def cancellations(self, run_id: str) -> list[Cancellation]:
        """What is asked of a run."""
        table = schema.cancellations
        query = select(table.c.id, table.c.cell).where(table.c.run_id == run_id, table.c.cells.is_(None))
        return self._read(lambda connection: [Cancellation(*row) for row in connection.execute(query)])

    def answer(self, cancellation: Cancellation, cells: int) -> None:
        """Say how many cells were cancelled."""
        table = schema.cancellations
        self._write(
            lambda connection: connection.execute(
                update(table).where(table.c.id == cancellation.id).values(cells=cells)
            )
        )

    # ------------------------------------------------------------ the watcher's side

    def runs(self) -> list[RunNotice]:
        """All runs, the newest first."""
        return self._read(_notices)

    def find_run(self, prefix: str) -> RunNotice:
        """The one run whose id begins with `prefix`. Raises UsageError where there is none, or several."""
        runs = self.runs()
        found = [run for run in runs if run.run_id.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        if not found:
            ids = {run.run_id for run in runs}
            raise UsageError(f"no run in {self._name} begins with '{prefix}'.{did_you_mean(prefix, ids)}")
        raise UsageError(f"{len(found)} runs begin with '{prefix}': write more of the id")

    def request_cancellation(self, run_id: str, cell: str | None) -> int:
        """Ask a run to cancel a cell, or all of itself; returns the request's id."""
        values = {"run_id": run_id, "cell": cell, "requested_at": func.current_timestamp()}

        def work(connection: Connection) -> int:
            table = schema.cancellations
            request: int = connection.scalars(insert(table).values(values).returning(table.c.id)).one()
            return request

        return self._write(work)

    def cells_cancelled(self, request: int) -> int | None:
        """What the run answered; None: nothing yet."""
        table = schema.cancellations
        query = select(table.c.cells).where(table.c.id == request)
        return self._read(lambda connection: connection.scalar(query))

    def spec(self, run_id: str) -> dict[str, Any]:
        """The settings a run was started with, as `ExperimentSpec.to_json` wrote them."""
        query = select(schema.runs.c.spec).where(schema.runs.c.id == run_id)
        spec: dict[str, Any] = from_json(self._read(lambda connection: connection.scalar(query)))
        return spec

    def gaps(self) -> list[Gap]:
        """Stored cells without a result, those of the newest run first."""
        cells, runs = schema.cells, schema.runs
        query = (
            select(cells.c.run_id, cells.c.cell_id, cells.c.status, cells.c.reason)
            .join(runs, runs.c.id == cells.c.run_id)
            .where(cells.c.status != Status.OK)
            .order_by(runs.c.started_at.desc(), runs.c.id, cells.c.cell_id)
        )
        return self._read(lambda connection: [Gap(*row) for row in connection.execute(query)])

    # ------------------------------------------------------------ transactions

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._transactions.reading() as connection:
            return work(connection)

    def _write(self, work: Callable[[Connection], T]) -> T:
        return self._transactions.write(work)


def run_condition(connection: Connection, run_id: str) -> str | None:
    """As `RunNotice.condition`; None where there is no such run."""
    row = connection.execute(_SIGNS.where(schema.runs.c.id == run_id)).first()
    return None if row is None else _condition(row, _now(connection))


_SIGNS = select(schema.runs, schema.heartbeats).outerjoin(schema.heartbeats)


def _notices(connection: Connection) -> list[RunNotice]:
    now = _now(connection)
    rows = connection.execute(_SIGNS.order_by(schema.runs.c.started_at.desc(), schema.runs.c.id))
    return [_notice(row, now) for row in rows]


def _now(connection: Connection) -> datetime:
    """By the database's own clock, which all machines share."""
    return connection.scalars(select(func.current_timestamp(type_=schema.UtcDateTime()))).one()


def _condition(row: Any, now: datetime) -> str:
    last_sign = row.beat_at or row.started_at  # an older rbl gave no heartbeats
    silent = (now - last_sign).total_seconds() > SILENT_SECONDS
    return "dead" if row.status == "running" and silent else str(row.status)


def _notice(row: Any, now: datetime) -> RunNotice:
    silent = None if row.beat_at is None else max((now - row.beat_at).total_seconds(), 0.0)
    return RunNotice(
        run_id=row.id,
        condition=_condition(row, now),
        started_at=row.started_at,
        finished_at=row.finished_at,
        command=tuple(row.command),
        host=row.host,
        silent_seconds=silent,
        state=None if row.state is None else from_json(row.state),
    )
