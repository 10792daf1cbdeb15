"""`rbl plan`: what a run would do."""

from typing import TYPE_CHECKING, Any

from robustbench_lab.cli.common_flags import Json
from robustbench_lab.cli.experiment_flags import takes_experiment
from robustbench_lab.cli.output import console, print_json, say

if TYPE_CHECKING:
    from robustbench_lab.planning.experiment_spec import ExperimentSpec
    from robustbench_lab.planning.run_plan import RunPlan
    from robustbench_lab.report.listing_table import ListingColumn


@takes_experiment
def plan(
    spec: "ExperimentSpec",
    json: Json = False,
) -> None:
    """Show the cells of a run and what they cost. Evaluates nothing."""
    from robustbench_lab.pipeline import open_catalog
    from robustbench_lab.planning.run_plan import make_plan
    from robustbench_lab.report.formatting import printable

    made = make_plan(spec, open_catalog(spec.plugins))
    stored = _stored(spec, made)
    rows = [_row(cell, cell.cell_id in stored) for cell in made.cells]
    if json:
        left_out = [{"what": one.label, "reason": one.reason} for one in made.left_out]
        print_json({"cells": rows, "left_out": left_out})
        return
    _print_table(rows, [cell.eps for cell in made.cells])
    for one in made.left_out:
        say(printable(f"left out: {one.label}: {one.reason}"))


def _stored(spec: "ExperimentSpec", made: "RunPlan") -> set[str]:
    from robustbench_lab.errors import NothingStoredError
    from robustbench_lab.result_store import open_store

    try:
        store = open_store(spec.database, create=False)
    except NothingStoredError:
        return set()
    with store:
        return set(store.stored_statuses([cell.cell_id for cell in made.cells]))


def _row(cell: Any, stored: bool) -> dict[str, Any]:
    samples = len(cell.samples.sample_ids)
    return {
        "cell_id": cell.cell_id,
        "task": cell.task,
        "model": cell.model.label,
        "defense": cell.defense.label,
        "dataset": cell.dataset.label,
        "attack": cell.attack.label,
        "objective": cell.objective.label,
        "threat_model": cell.threat_model.label,
        "adversary": cell.adversary,
        "seed": cell.seed,
        "samples": samples,
        "forward_passes_at_most": samples * cell.estimated_forward or None,
        "backward_passes_at_most": samples * cell.estimated_backward if cell.estimated_forward else None,
        "stored": stored,
    }


def _print_table(rows: list[dict[str, Any]], budgets: list[float]) -> None:
    """budgets: the eps of each row."""
    from robustbench_lab.report.formatting import count_text, threat_model_text
    from robustbench_lab.report.listing_table import listing_table

    texts = []
    for row, eps in zip(rows, budgets, strict=True):
        model = row["model"] if row["defense"] == "none" else f"{row['model']} + {row['defense']}"
        forward, backward = row["forward_passes_at_most"], row["backward_passes_at_most"]
        passes = f"{forward:,} + {backward:,}" if forward else "unknown"
        budget = threat_model_text(row["threat_model"], eps)
        cells = [row["cell_id"][:8], model, row["dataset"], row["attack"], budget]
        texts.append([*cells, f"{row['samples']:,}", passes, "yes" if row["stored"] else "no"])
    out = console()
    out.print(listing_table(_columns(), texts, out.width))
    new = sum(not row["stored"] for row in rows)
    out.print(f"{count_text(len(rows), 'cell')}, {new} to evaluate; passes are forward + backward, summed over samples")


def _columns() -> "list[ListingColumn]":
    from robustbench_lab.report.listing_table import ListingColumn

    return [
        ListingColumn("cell", minor=1),
        ListingColumn("model", least=14),
        ListingColumn("dataset", least=14),
        ListingColumn("attack", least=10),
        ListingColumn("threat model", least=14),
        ListingColumn("samples", right=True, minor=3),
        ListingColumn("passes at most", right=True, minor=2),
        ListingColumn("stored"),
    ]
