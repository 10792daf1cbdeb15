"""`rbl leaderboard`: tables from stored results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_lab.cli.common_flags import Database, Definition, OnlyTasks, Plugins
from robustbench_lab.hardware.garbage import no_garbage

if TYPE_CHECKING:
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.ranking.leaderboard import Leaderboard


def leaderboard(
    definition: Definition = None,
    task: OnlyTasks = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="NAME", help="A metric, model, passes or seconds.")
    ] = None,
    format: Annotated[  # noqa: A002
        str, typer.Option("--format", metavar="NAME", help="table, markdown, csv, json, jsonl (the cells) or latex.")
    ] = "table",
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", min=0, help="Rows of each table that the terminal shows; 0: all.")
    ] = 20,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    db: Database = "rbl.db",
    plugin: Plugins = None,
) -> None:
    """Rank stored results.

    By the worst case over attacks per sample, with exact intervals; what they cannot tell apart shares a rank.
    """
    from robustbench_lab.catalog import Catalog
    from robustbench_lab.catalog.plugin_loading import load_plugins
    from robustbench_lab.cli.output import console, results
    from robustbench_lab.cli.stored_results import stored_leaderboard
    from robustbench_lab.report.table import renderable

    catalog = Catalog.from_plugins(load_plugins(plugin or []))
    chosen = "json" if json else format
    rows_only = catalog.find("reports", chosen).spec.rows_only
    with no_garbage():
        built = stored_leaderboard(catalog, db, definition=definition, tasks=task or [], sort=sort, rows_only=rows_only)
        if chosen == "table":
            console().print(renderable(built, rows))
        else:
            results().write(_written(catalog, chosen, built).rstrip("\n") + "\n")


def _written(catalog: Catalog, name: str, leaderboard: Leaderboard) -> str:
    """What a report format makes of a leaderboard. Raises PluginError where it fails."""
    from robustbench_lab.errors import PluginError, describe_error

    report = catalog.load_factory("reports", name)
    try:
        text = report(leaderboard)
        if not isinstance(text, str):
            raise PluginError(f"it must return text, not {type(text).__name__}")
    except (Exception, SystemExit) as error:
        raise PluginError(f"report '{name}': {describe_error(error)}") from error
    return text
