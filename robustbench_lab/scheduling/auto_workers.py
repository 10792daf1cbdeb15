"""How many processes a run on the CPU is worth, where nobody says."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_lab.catalog import Catalog
from robustbench_lab.errors import NothingStoredError
from robustbench_lab.hardware.container_limits import free_memory
from robustbench_lab.hardware.device_slots import allowed_threads
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import RunPlan
from robustbench_lab.records import Cell, WorkUnit
from robustbench_lab.result_store import open_store
from robustbench_lab.scheduling.scheduler import Scope, cells_to_do, is_whole, like_timings
from robustbench_lab.scheduling.unit_costs import UnitCosts

WORTH_SECONDS = 8.0
"""Of expected work that another process must have: starting it takes some 3."""
WORKER_BYTES = 2 << 30
"""Of free memory for each process: PyTorch takes 0.4 GiB, a batch on a CPU is small (`batch_size.CPU_VALUES`)."""


def worthwhile_workers(spec: ExperimentSpec, plan: RunPlan, catalog: Catalog) -> int:
    """Processes that finish a plan's open cells soonest; at least 1.

    Small networks gain little from a second thread and much from a second process. A cell that is never cut keeps its
    process busy for as long as it takes, so there are never more than the rest of the work fills meanwhile.
    """
    costs = UnitCosts("cpu", plan.input_values)
    to_do = _open_cells(spec, plan, costs)
    seconds = [costs.seconds(WorkUnit(cell, 0, len(cell.samples.sample_ids))) for cell in to_do]
    whole = [one for cell, one in zip(to_do, seconds, strict=True) if is_whole(cell, catalog)]
    worth = int(sum(seconds) / max([WORTH_SECONDS, *whole]))
    fitting = free_memory() // WORKER_BYTES
    threads = allowed_threads() // (spec.threads_per_worker or 1)
    return max(1, min(worth, fitting, threads))


def _open_cells(spec: ExperimentSpec, plan: RunPlan, costs: UnitCosts) -> Sequence[Cell]:
    """Those that are not stored; what is stored of like cells goes into `costs`."""
    try:
        store = open_store(spec.database, create=False)
    except NothingStoredError:
        return plan.cells
    with store:
        to_do = cells_to_do(plan.cells, store, Scope(spec.fresh, spec.retry_failed))
        costs.learn(like_timings(store, to_do))
    return to_do
