"""`rbl show CELL`: one result with all that is known of it."""

from __future__ import annotations

from typing import Annotated

import typer


def show(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="A cell id, or the beginning of one.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    samples: Annotated[bool, typer.Option("--samples", help="What became of each sample, too.")] = False,
    db: Annotated[str, typer.Option("--db", help="Result database.")] = "rbl.db",
) -> None:
    """Show one result: definition, metrics, findings, provenance."""
    from robustbench_lab.cli.output import console, print_json
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.ranking import task_metrics
    from robustbench_lab.report.cell_view import renderable
    from robustbench_lab.report.json_documents import cell_document
    from robustbench_lab.result_store import open_store

    with open_store(db, create=False) as store:
        cell_id = store.find_cell(cell)
        (record,) = store.cells(ids=[cell_id])
        provenance = store.run_of(cell_id)
    if json:
        print_json(cell_document(record, provenance, samples=samples))
    else:
        metrics = task_metrics(open_catalog(), {record.cell.task})[record.cell.task]
        console().print(renderable(record, provenance, samples=samples, metrics=metrics))
