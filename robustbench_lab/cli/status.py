"""`rbl status`: what runs do right now, in another terminal or on another machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from robustbench_lab.cli.common_flags import Database

if TYPE_CHECKING:
    from rich.console import RenderableType

    from robustbench_lab.result_store import RunBoard, RunNotice

SHOWN_RUNS = 10
FOLLOW_SECONDS = 2.0


def status(
    run: Annotated[
        Optional[str],  # noqa: UP045 (read at run time by typer on every supported Python)
        typer.Argument(metavar="RUN", help="A run's id, or the beginning of one.  [default: all runs]"),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout; with --follow one a line.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until none of the runs is at work.")] = False,
    db: Database = "rbl.db",
) -> None:
    """Show the runs of a database, and how far they are.

    Of those at work also what runs where. A run is dead when it has given no sign of life for a while: it was killed,
    or its machine is gone.
    """
    from robustbench_lab.result_store import open_store

    with open_store(db, create=False) as store:
        if not follow:
            _show(_runs(store.board, run), run, store.name, json=json)
        elif json:
            _write_lines(_until_over(store.board, run), store.name)
        else:
            _follow(_until_over(store.board, run), run)


def _runs(board: RunBoard, run: str | None) -> list[RunNotice]:
    return [board.find_run(run)] if run else board.runs()


def _until_over(board: RunBoard, run: str | None) -> Iterator[list[RunNotice]]:
    """The runs every few seconds, and once more when none of them is at work any longer."""
    while True:
        runs = _runs(board, run)
        yield runs
        if all(one.condition != "running" for one in runs):
            return
        time.sleep(FOLLOW_SECONDS)


def _show(runs: list[RunNotice], asked: str | None, db: str, *, json: bool) -> None:
    from robustbench_lab.cli.output import console, print_json
    from robustbench_lab.report.status_view import status_document

    if json:
        print_json(status_document(db, runs))
    else:
        out = console()
        out.print(_view(runs, asked, out.width))


def _write_lines(looks: Iterator[list[RunNotice]], db: str) -> None:
    import json

    from robustbench_lab.cli.output import results
    from robustbench_lab.report.status_view import status_document

    for runs in looks:
        results().write(json.dumps(status_document(db, runs), allow_nan=False) + "\n")
        results().flush()


def _follow(looks: Iterator[list[RunNotice]], asked: str | None) -> None:
    """In place in a terminal; elsewhere a line whenever something has changed."""
    from robustbench_lab.cli.output import console
    from robustbench_lab.report.status_view import line

    out = console()
    if out.is_terminal:
        from rich.live import Live

        with Live(console=out, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            for runs in looks:
                live.update(_view(runs, asked, out.width), refresh=True)
        return
    said: dict[str, str] = {}
    for runs in looks:
        for run in runs:
            if said.get(run.run_id) != line(run):
                said[run.run_id] = line(run)
                out.print(line(run), soft_wrap=True)
        out.file.flush()


def _view(runs: list[RunNotice], asked: str | None, width: int) -> RenderableType:
    """All runs at work, and the newest of the others."""
    from robustbench_lab.report.status_view import renderable

    at_work = [run for run in runs if run.condition == "running"]
    shown = [run for index, run in enumerate(runs) if index < SHOWN_RUNS or run in at_work]
    return renderable(shown, slots_of=runs if asked else at_work, width=width)
