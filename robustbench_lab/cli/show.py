"""`rbl show CELL`: one result with all that is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from robustbench_lab.cli.common_flags import Database, Json, Plugins, RunScripts

if TYPE_CHECKING:
    from robustbench_lab.report.cell_pictures import CellPictures

PICTURES = 6


def show(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="A cell id, or the beginning of one.")],
    json: Json = False,
    samples: Annotated[bool, typer.Option("--samples", help="What became of each sample, too.")] = False,
    pictures: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--pictures", metavar="FOLDER", help="Folder to write pictures of a few samples to: clean and under attack."
        ),
    ] = None,
    run_scripts: RunScripts = False,
    db: Database = "rbl.db",
    plugin: Plugins = None,
) -> None:
    """Show one result: definition, metrics, findings, provenance."""
    from robustbench_lab.cli.output import console, print_json
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.ranking.stored_leaderboard import task_metrics
    from robustbench_lab.report.cell_pictures import PictureMaker
    from robustbench_lab.report.cell_view import renderable
    from robustbench_lab.report.json_documents import cell_document
    from robustbench_lab.result_store import open_store

    with open_store(db, create=False) as store:
        cell_id = store.find_cell(cell)
        (record,) = store.cells(ids=[cell_id])
        provenance = store.run_of(cell_id)
        artifacts = store.artifacts(cell_id)
        folder = store.artifacts_folder
    catalog = open_catalog(plugin or [])
    if json:
        print_json(cell_document(record, provenance, samples=samples))
    else:
        metrics = task_metrics(catalog, {record.cell.task})[record.cell.task]
        console().print(renderable(record, provenance, samples=samples, metrics=metrics))
    if pictures is not None:
        _write(PictureMaker(catalog, run_scripts).of_cell(record, artifacts, folder, PICTURES), pictures)


def _write(made: CellPictures, folder: Path) -> None:
    from robustbench_lab.cli.output import say
    from robustbench_lab.errors import UsageError

    if made.remark is not None:
        raise UsageError(f"no pictures of {made.record.cell.cell_id}: {made.remark}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for picture in made.pictures:
            (folder / picture.file_name).write_bytes(picture.content)
            say(f"wrote {folder / picture.file_name}: {picture.caption}")
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}; name another folder") from error
    if made.legend:
        say(made.legend)
