"""`rbl leaderboard`: tables from stored results."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Optional

import typer

Names = Optional[list[str]]  # noqa: UP045 (read at run time by typer on every supported Python)


def leaderboard(
    definition: Annotated[Optional[str], typer.Option("--definition", help="A leaderboard.toml to follow.")] = None,  # noqa: UP045
    task: Annotated[Names, typer.Option("--task", help="Only this task. Repeatable.")] = None,
    sort: Annotated[Optional[str], typer.Option("--sort", help="A metric, model, passes or seconds.")] = None,  # noqa: UP045
    format: Annotated[str, typer.Option("--format", help="table, markdown, csv, json or latex.")] = "table",  # noqa: A002
    rows: Annotated[
        int, typer.Option("--rows", min=0, help="Rows of each table that the terminal shows; 0: all.")
    ] = 20,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    db: Annotated[str, typer.Option("--db", help="Result database.")] = "rbl.db",
    plugin: Annotated[Names, typer.Option("--plugin", help="A single-file plugin. Repeatable.")] = None,
) -> None:
    """Rank stored results: worst case over attacks per sample, exact intervals, ties share a rank."""
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.cli.output import console, results
    from robustbench_lab.cli.stored_results import stored_leaderboard
    from robustbench_lab.plugin_loading import load_plugins
    from robustbench_lab.report.table import renderable

    catalog = Catalog.from_plugins(load_plugins(plugin or []))
    chosen = "json" if json else format
    rows_only = catalog.find("reports", chosen).spec.rows_only
    with _no_garbage():
        built = stored_leaderboard(catalog, db, definition=definition, tasks=task or [], sort=sort, rows_only=rows_only)
        if chosen == "table":
            console().print(renderable(built, rows))
        else:
            results().write(catalog.load_factory("reports", chosen)(built).rstrip("\n") + "\n")


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Without the search for garbage: of the very many objects made meanwhile all are used, and it looks at each."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
