"""`rbl verify`: score saved adversarial inputs again, in this process."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from robustbench_lab.cli.common_flags import Database, Json, Plugins, RunScripts

if TYPE_CHECKING:
    from robustbench_lab.evaluation.workbench import Workbench
    from robustbench_lab.result_store import ResultStore
    from robustbench_lab.trust.verification import Verification


def verify(
    cells: Annotated[Optional[list[str]], typer.Argument(metavar="CELL", help="Cell ids; none: all.")] = None,  # noqa: UP045
    json: Json = False,
    run_scripts: RunScripts = False,
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda:1 ...")] = "auto",
    db: Database = "rbl.db",
    bundle: Annotated[
        Optional[Path],  # noqa: UP045 (read at run time by typer on every supported Python)
        typer.Option("--bundle", metavar="FILE", help="A file of `rbl bundle`, in place of a database."),
    ] = None,
    plugin: Plugins = None,
) -> int:
    """Check stored results again, down to each saved sample.

    Hashes, components, and a fresh pass over the saved adversarial inputs.
    """
    import torch

    from robustbench_lab.cli.output import print_json, say
    from robustbench_lab.evaluation.workbench import Workbench
    from robustbench_lab.exit_codes import ExitCode
    from robustbench_lab.hardware.devices import resolve_devices
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.ranking.stored_leaderboard import forged_rows
    from robustbench_lab.result_store import open_store
    from robustbench_lab.trust.result_bundle import opened_bundle
    from robustbench_lab.trust.verification import Outcome

    catalog = open_catalog(plugin or [])
    bench = Workbench(catalog, torch.device(resolve_devices([device])[0]))
    results: list[Verification] = []
    origin: dict[str, str | None] = {}
    with ExitStack() as stack:
        if bundle is not None:
            opened = stack.enter_context(opened_bundle(bundle))
            db = str(opened.database)
            origin = {"manifest_sha256": opened.manifest_sha256, "signed_by": opened.signed_by}
            say(f"bundle {opened.manifest_sha256}: signed by {opened.signed_by or 'nobody'}")
        store = stack.enter_context(open_store(db, create=False))
        ids = [store.find_cell(cell) for cell in cells] if cells else [one.cell_id for one in store.summaries()]
        for cell_id in ids:
            results.append(_verified(store, cell_id, bench, run_scripts=run_scripts))
            if not json:
                _print(results[-1])
        kept = list(forged_rows(store, catalog))
        for line in kept:
            say(line)
    if json:
        rows = [{"cell_id": one.cell_id, "outcome": one.outcome, "remarks": list(one.remarks)} for one in results]
        print_json({"schema_version": 1, "cells": rows, "leaderboard_rows": kept, "bundle": origin or None})
    differs = bool(kept) or any(one.outcome is not Outcome.VERIFIED for one in results)
    return ExitCode.SOME_CELLS_FAILED if differs else ExitCode.OK


def _verified(store: ResultStore, cell_id: str, bench: Workbench, *, run_scripts: bool) -> Verification:
    """A cell that cannot even be read differs, and costs no other cell."""
    from robustbench_lab.errors import StoreError, describe_error
    from robustbench_lab.ranking.stored_leaderboard import task_metrics
    from robustbench_lab.trust.verification import Outcome, Verification
    from robustbench_lab.trust.verification import verify as verify_cell

    try:
        (record,) = store.cells(ids=[cell_id])
        files = store.artifacts(cell_id)
    except (StoreError, LookupError, TypeError, ValueError) as error:
        return Verification(
            cell_id, Outcome.DIFFERS, (f"what is stored of it cannot be read: {describe_error(error)}",)
        )
    task = record.cell.task
    metrics = {metric.name: metric.function for metric in task_metrics(bench.catalog, {task})[task]}
    return verify_cell(record, files, store.artifacts_folder, bench, metrics, run_scripts=run_scripts)


def _print(one: Verification) -> None:
    from robustbench_lab.cli.output import console
    from robustbench_lab.report.formatting import printable

    line = printable(f"{one.outcome:14}  {one.cell_id}  {'; '.join(one.remarks)}".rstrip())
    console().print(line, soft_wrap=True)
