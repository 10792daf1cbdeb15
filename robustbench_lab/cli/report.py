"""`rbl report`: a static page that stands on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from robustbench_lab.cli.stored_results import RUN_SCRIPTS


def report(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write index.html to.")] = Path("report"),
    definition: Annotated[Optional[str], typer.Option("--definition", help="A leaderboard.toml to follow.")] = None,  # noqa: UP045
    task: Annotated[Optional[list[str]], typer.Option("--task", help="Only this task. Repeatable.")] = None,  # noqa: UP045
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, help="Samples shown of each result whose adversarial inputs were saved.")
    ] = 3,
    run_scripts: Annotated[bool, typer.Option("--run-scripts", help=RUN_SCRIPTS)] = False,
    db: Annotated[str, typer.Option("--db", help="Result database.")] = "rbl.db",
    plugin: Annotated[Optional[list[str]], typer.Option("--plugin", help="A single-file plugin. Repeatable.")] = None,  # noqa: UP045
) -> None:
    """Write the leaderboard, security curves, pictures, provenance and commands as one HTML page."""
    from robustbench_lab.cli.output import say
    from robustbench_lab.cli.stored_results import stored_leaderboard
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.report.html import write_report
    from robustbench_lab.report.report_pictures import report_pictures
    from robustbench_lab.result_store import open_store

    catalog = open_catalog(plugin or [])
    built = stored_leaderboard(catalog, db, definition=definition, tasks=task or [])
    with open_store(db, create=False) as store:
        provenance = {record.cell.cell_id: store.run_of(record.cell.cell_id) for record in built.records}
        files = {cell_id: store.artifacts(cell_id) for cell_id in provenance} if pictures else {}
        folder = store.artifacts_folder
    shown = report_pictures(built.records, files, folder, catalog, pictures, run_scripts=run_scripts)
    page = write_report(built, provenance, out, shown)
    say(f"wrote {page}")
