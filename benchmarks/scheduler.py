"""What scheduling costs, and how well it keeps slots busy.

    python benchmarks/scheduler.py --out benchmarks/results/scheduler.json [PART ...]

Parts: `two_workers` and `busy` use two cores, the others one. Parts that are not named keep the figures of an earlier
run in the file. On a machine that does other work as well, times mean little.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from robustbench_lab.evaluation.evaluate_cell import EvaluationOptions, close_cell, evaluate_unit
from robustbench_lab.evaluation.workbench import Workbench
from robustbench_lab.hardware.device_slots import Slot
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import make_plan
from robustbench_lab.records import UnitRecord, WorkUnit
from robustbench_lab.result_store import open_store
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.scheduling.cutting import UnitSize, cut
from robustbench_lab.scheduling.dispatch import Order
from robustbench_lab.scheduling.pending_units import PendingUnits
from robustbench_lab.scheduling.scheduler import Scope, cells_to_do
from robustbench_lab.scheduling.unit_costs import UnitCosts
from robustbench_lab.tasks.classification import robust_accuracy
from robustbench_lab.testing.example_results import example_cell
from robustbench_lab.testing.simulated_slots import FakeClock, simulate

CATALOG = open_catalog()
TRIVIAL = {"models": ["digits-cnn"], "attacks": ["fgsm"], "samples": 8, "devices": ["cpu"]}


class Work(RunObserver):
    """When units were evaluated, slot by slot."""

    def __init__(self) -> None:
        self._begun: dict[Slot, float] = {}
        self._units: dict[Slot, list[tuple[float, float]]] = defaultdict(list)

    def unit_started(self, unit: WorkUnit, slot: Slot) -> None:  # noqa: ARG002 (the observer's)
        self._begun[slot] = time.perf_counter()

    def unit_finished(self, record: UnitRecord, slot: Slot) -> None:  # noqa: ARG002 (the observer's)
        self._units[slot].append((self._begun[slot], time.perf_counter()))

    @property
    def seconds(self) -> float:
        """From the beginning of the first unit to the end of the last."""
        return self._ended - min(units[0][0] for units in self._units.values())

    @property
    def busy_share(self) -> float:
        """Of the slot that was busy least, from when all workers had started."""
        began = max(units[0][0] for units in self._units.values())
        busy = [sum(max(0, end - max(start, began)) for start, end in units) for units in self._units.values()]
        return min(busy) / (self._ended - began)

    @property
    def _ended(self) -> float:
        return max(units[-1][1] for units in self._units.values())


def run(folder: Path, name: str, **fields: Any) -> tuple[float, Work]:
    """A whole run on a new database: its seconds, and those in which units were evaluated."""
    spec, work = ExperimentSpec.from_flags(database=str(folder / f"{name}.db"), **fields), Work()
    began = time.perf_counter()
    run_experiment(spec, CATALOG, observers=[work])
    return time.perf_counter() - began, work


# ---------------------------------------------------------------- one core


def plan(folder: Path) -> dict[str, Any]:
    """10,000 cells: expanded, then checked against a store that holds 100 of them."""
    spec = ExperimentSpec.from_flags(
        models=["digits-cnn"],
        attacks=[f"pgd(steps={steps})" for steps in range(1, 101)],
        norms=["linf"],
        eps=[number / 100 for number in range(1, 11)],
        seeds=list(range(10)),
        samples=8,
    )
    few = {"models": ["digits-cnn"], "attacks": ["pgd(steps=1)"], "norms": ["linf"], "samples": 8}
    run(folder, "plan", **few, eps=[number / 100 for number in range(1, 11)], seeds=list(range(10)))
    seconds = []
    for _ in range(3):
        began = time.process_time()  # it runs in one thread, and waits for nothing
        made = make_plan(spec, CATALOG)
        with open_store(folder / "plan.db") as store:
            to_do = cells_to_do(made.cells, store, Scope())
            store.open_units([cell.cell_id for cell in to_do])
            timings = store.timings({cell.model.label for cell in to_do})
        costs = UnitCosts("cpu")
        costs.learn(timings)
        units = [unit for cell in to_do for unit in cut(cell, [(0, len(cell.samples.sample_ids))], 1000)]
        PendingUnits(units, [Slot("cpu", "cpu", 1)], costs)
        seconds.append(time.process_time() - began)
    return {"cells": len(made.cells), "to_do": len(to_do), "seconds": statistics.median(seconds)}


def simulated(_folder: Path) -> dict[str, Any]:
    """500 cells whose costs differ by a factor of 100, on 8 GPUs that load a model in 5 s; a tenth cannot be cut."""
    ratios = []
    for seed in range(10):
        numbers = random.Random(seed)  # noqa: S311 (no secret)
        slots = tuple(Slot(f"cuda:{index}", f"cuda:{index}", 1) for index in range(8))
        of_cell = {f"cell-{index}": 10 ** numbers.uniform(-2, 0) for index in range(500)}
        total = 1000 * sum(of_cell.values())
        units: list[WorkUnit] = []
        for index, (name, seconds) in enumerate(of_cell.items()):
            cell = example_cell(model=f"model-{index % 40}", attack=f"attack-{index // 40}", samples=1000)
            size = 1000 if index % 10 == 0 else UnitSize(0).fair(seconds, total, 8)
            units += cut(replace(cell, cell_id=name), [(0, 1000)], size)
        ratios.append(_makespan(units, slots, partial(_made_up, of_cell)))
    return {"makespan_to_lower_bound": max(ratios), "median": statistics.median(ratios), "cells": 500, "slots": 8}


def _made_up(of_cell: dict[str, float], unit: WorkUnit) -> float:
    return of_cell[unit.cell.cell_id] * (unit.stop - unit.start)


def _makespan(units: list[WorkUnit], slots: tuple[Slot, ...], seconds: Callable[[WorkUnit], float]) -> float:
    """Relative to what no order could beat. Costs are known from the start, as from stored timings."""

    class Known(UnitCosts):
        def seconds(self, unit: WorkUnit) -> float:
            return seconds(unit)

    clock = FakeClock()
    made = simulate(
        PendingUnits(units, slots, Known("cuda"), Order.COST, clock=clock),
        slots,
        seconds,
        clock=clock,
        loading_seconds=5.0,
    )
    work = math.fsum(seconds(unit) for unit in units) + 5.0 * len({unit.cell.model.identity for unit in units})
    return made.seconds / max(work / len(slots), *(seconds(unit) for unit in units))


def overhead(folder: Path) -> dict[str, Any]:
    """What a trivial cell costs above its bare evaluation: from the difference of a long and a short run."""
    bare = _bare_seconds()
    made: dict[str, Any] = {"bare_ms": 1000 * bare}
    for executor in ("inline", "local"):
        few, many = (
            run(folder, f"{executor}-{count}", **TRIVIAL, executor=executor, seeds=list(range(count)))[0]
            for count in (50, 350)
        )
        made[f"{executor}_ms"] = 1000 * ((many - few) / 300 - bare)
    return made


def _bare_seconds() -> float:
    """The median of evaluating such a cell and computing its metric, one after another."""
    cells = make_plan(ExperimentSpec.from_flags(**TRIVIAL, seeds=list(range(60))), CATALOG).cells
    bench = Workbench(CATALOG, torch.device("cpu"))
    seconds = []
    for cell in cells:
        began = time.perf_counter()
        record = evaluate_unit(WorkUnit(cell, 0, 8), bench, EvaluationOptions(), lambda *_: None)
        close_cell(cell, [record], {"robust_accuracy": robust_accuracy}, "none")
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[10:])


# ---------------------------------------------------------------- two cores


def two_workers(folder: Path) -> dict[str, Any]:
    """16 like cells on one worker and on two, in turn: medians of five rounds."""
    rounds = []
    for number in range(5):
        one, two = (_like_cells(folder, f"{number}-{workers}", workers) for workers in (1, 2))
        ratios = {"ratio": two[0] / one[0], "ratio_without_start": two[1] / one[1]}
        rounds.append({"one_seconds": one[0], "two_seconds": two[0], **ratios})
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def _like_cells(folder: Path, name: str, workers: int) -> tuple[float, float]:
    """Seconds of the whole run, and of these those from the first unit on."""
    what = {"models": ["digits-cnn"], "attacks": ["pgd(steps=300)"], "norms": ["linf"], "eps": [0.05], "samples": 300}
    common = {**what, "devices": ["cpu"], "seeds": list(range(16)), "executor": "local", "threads_per_worker": 1}
    whole, work = run(folder, name, **common, workers=workers)
    return whole, work.seconds


def busy(folder: Path) -> dict[str, Any]:
    """50 cells whose costs differ by a factor of 100, on two workers, from when both have started."""
    steps = [round(4 * 100 ** (number / 49)) for number in range(50)]
    attacks = [f"pgd(steps={count}, step_size={0.01 + number / 1e6})" for number, count in enumerate(steps)]
    what = {"models": ["digits-cnn"], "attacks": attacks, "norms": ["linf"], "eps": [0.05], "devices": ["cpu"]}
    whole, work = run(folder, "busy", **what, samples=100, workers=2, threads_per_worker=1)
    return {"busy_share": work.busy_share, "seconds": work.seconds, "with_start_seconds": whole}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    part.__name__: part for part in (plan, simulated, overhead, two_workers, busy)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    figures = json.loads(asked.out.read_text()) if asked.out and asked.out.exists() else {}
    figures["machine"] = {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    for name in asked.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = PARTS[name](Path(folder))
        print(name, figures[name], flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
