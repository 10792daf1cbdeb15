"""`rbl verify`: score saved adversarial inputs again, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from robustbench_lab.verification import Verification


def verify(
    cells: Annotated[Optional[list[str]], typer.Argument(metavar="[CELL]...", help="Cell ids; none: all.")] = None,  # noqa: UP045
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda:1 ...")] = "auto",
    db: Annotated[str, typer.Option("--db", help="Result database.")] = "rbl.db",
    plugin: Annotated[Optional[list[str]], typer.Option("--plugin", help="A single-file plugin. Repeatable.")] = None,  # noqa: UP045
) -> int:
    """Check stored results again: hashes, components, and a fresh pass over the saved adversarial inputs."""
    import torch

    from robustbench_lab.cli.output import print_json
    from robustbench_lab.devices import resolve_devices
    from robustbench_lab.exit_codes import ExitCode
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.ranking import task_metrics
    from robustbench_lab.result_store import open_store
    from robustbench_lab.verification import Outcome
    from robustbench_lab.verification import verify as verify_cell
    from robustbench_lab.workbench import Workbench

    catalog = open_catalog(plugin or [])
    bench = Workbench(catalog, torch.device(resolve_devices([device])[0]))
    results = []
    with open_store(db, create=False) as store:
        ids = [store.find_cell(cell) for cell in cells] if cells else None
        for record in store.cells(ids=ids):
            named = task_metrics(catalog, {record.cell.task})[record.cell.task]
            metrics = {metric.name: metric.function for metric in named}
            files = store.artifacts(record.cell.cell_id)
            results.append(verify_cell(record, files, store.artifacts_folder, bench, metrics))
            if not json:
                _print(results[-1])
    if json:
        rows = [{"cell_id": one.cell_id, "outcome": one.outcome, "remarks": list(one.remarks)} for one in results]
        print_json({"schema_version": 1, "cells": rows})
    differs = any(one.outcome is not Outcome.VERIFIED for one in results)
    return ExitCode.SOME_CELLS_FAILED if differs else ExitCode.OK


def _print(one: Verification) -> None:
    from robustbench_lab.cli.output import console

    console().print(f"{one.outcome:14}  {one.cell_id}  {'; '.join(one.remarks)}".rstrip(), soft_wrap=True)
