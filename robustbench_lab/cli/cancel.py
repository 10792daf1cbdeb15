"""`rbl cancel`: ask a run at work, in another terminal or on another machine, to leave something out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lab.cli.common_flags import Database

if TYPE_CHECKING:
    from robustbench_lab.result_store.run_board import RunBoard, RunNotice

ANSWER_SECONDS = 20.0
"""A run looks for requests every few seconds."""
POLL_SECONDS = 0.2


def cancel(
    what: Annotated[
        str,
        typer.Argument(
            metavar="CELL|RUN", help="The id of a cell that is to be evaluated, or of a run; or its beginning."
        ),
    ],
    db: Database = "rbl.db",
) -> None:
    """Take a cell out of the runs that are at work, or stop a run.

    What is being evaluated is finished first. A cancelled cell is stored as skipped. A run that is stopped leaves its
    other cells as they are.
    """
    from robustbench_lab.cli.output import say
    from robustbench_lab.errors import UsageError
    from robustbench_lab.redaction import without_passwords
    from robustbench_lab.result_store import open_store

    with open_store(db, create=False) as store:
        running = [run for run in store.board.runs() if run.condition == "running"]
        if not running:
            raise UsageError(f"no run is at work in {without_passwords(db)}: there is nothing to cancel")
        stopped = [run for run in running if run.run_id.startswith(what)]
        if stopped:
            _ask(store.board, stopped, None)
            for run in stopped:
                say(f"run {run.run_id} stops when its running units are finished; the same command goes on from there")
            return
        cells = _ask(store.board, running, what)
        if not cells:
            raise UsageError(f"no cell that is still to be evaluated begins with '{what}': `rbl plan` lists the cells")
    say(
        f"cancelled {cells} cell{'' if cells == 1 else 's'}: stored as skipped once the units that run are finished,"
        " where these are not the last;"
        " the same command with --retry-failed or --fresh evaluates them"
    )


def _ask(board: RunBoard, runs: list[RunNotice], cell: str | None) -> int:
    """How many cells the runs cancelled. Raises UsageError where one does not answer."""
    from robustbench_lab.errors import UsageError

    requests = {run.run_id: board.request_cancellation(run.run_id, cell) for run in runs}
    until = time.monotonic() + ANSWER_SECONDS
    cells = 0
    for run_id, request in requests.items():
        while (answer := board.cells_cancelled(request)) is None and board.find_run(run_id).condition == "running":
            if time.monotonic() > until:
                raise UsageError(f"run {run_id} does not answer: `rbl status` shows whether it is at work")
            time.sleep(POLL_SECONDS)
        cells += answer or 0
    return cells
