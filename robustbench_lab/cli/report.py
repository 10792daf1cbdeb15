"""`rbl report`: a static page that stands on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_lab.cli.common_flags import Database, Definition, OnlyTasks, Plugins, RunScripts


def report(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder to write index.html to.")] = Path(
        "report"
    ),
    definition: Definition = None,
    task: OnlyTasks = None,
    pictures: Annotated[
        int,
        typer.Option(
            "--pictures", metavar="N", min=0, help="Samples shown of each result whose adversarial inputs were saved."
        ),
    ] = 3,
    run_scripts: RunScripts = False,
    db: Database = "rbl.db",
    plugin: Plugins = None,
) -> None:
    """Write leaderboard, curves and pictures as a web page.

    With the provenance of each result, and the command that gives it again.
    """
    from robustbench_lab.cli.output import say
    from robustbench_lab.cli.stored_results import stored_leaderboard
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.report.html import write_report
    from robustbench_lab.report.report_pictures import report_pictures
    from robustbench_lab.result_store import open_store

    catalog = open_catalog(plugin or [])
    built = stored_leaderboard(catalog, db, definition=definition, tasks=task or [])
    with open_store(db, create=False) as store:
        provenance = store.runs_of(record.cell.cell_id for record in built.records)
        files = store.artifacts_of(provenance) if pictures else {}
        folder = store.artifacts_folder
    shown = report_pictures(built.records, files, folder, catalog, pictures, run_scripts=run_scripts)
    page = write_report(built, provenance, out, shown)
    say(f"wrote {page}")
