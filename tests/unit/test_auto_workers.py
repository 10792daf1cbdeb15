"""How many processes a run on the CPU gets where nobody says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import RunPlan, make_plan
from robustbench_lab.scheduling import auto_workers, executor_choice
from robustbench_lab.scheduling.auto_workers import WORKER_BYTES, WORTH_SECONDS, worthwhile_workers
from robustbench_lab.scheduling.executor_choice import choose_executor
from robustbench_lab.scheduling.unit_costs import GUESSED_SECONDS

CATALOG = open_catalog()
CPU = {"models": ["digits-cnn"], "devices": ["cpu"]}


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 threads and plenty of memory."""
    monkeypatch.setattr("robustbench_lab.hardware.device_slots.usable_threads", lambda: 16)
    monkeypatch.setattr(auto_workers, "free_memory", lambda: 1 << 50)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def planned(database: Path, seconds: float, **settings: Any) -> tuple[ExperimentSpec, RunPlan]:
    """A plan of one cell whose inputs are said to be so large that it is expected to take that long."""
    spec = ExperimentSpec.from_flags(**{**CPU, "attacks": ["pgd"], **settings}, database=str(database))
    made = make_plan(spec, CATALOG)
    (cell,) = made.cells
    passes = len(cell.samples.sample_ids) * (cell.estimated_forward + cell.estimated_backward)
    values = round(seconds / passes / GUESSED_SECONDS["cpu"])
    return spec, replace(made, sample_bytes={cell.dataset.identity: 4 * values})


@pytest.mark.parametrize(
    ("seconds", "workers"), [(1, 1), (1.5 * WORTH_SECONDS, 1), (3.5 * WORTH_SECONDS, 3), (9e5, 16)]
)
def test_each_process_has_work_that_its_start_is_worth(tmp_path: Path, seconds: float, workers: int) -> None:
    assert worthwhile_workers(*planned(tmp_path / "rbl.db", seconds), CATALOG) == workers
    assert list(tmp_path.iterdir()) == []


def test_an_attack_that_cannot_be_cut_gets_all_threads(tmp_path: Path) -> None:
    assert worthwhile_workers(*planned(tmp_path / "rbl.db", 9e5, attacks=["universal"]), CATALOG) == 1


def test_so_does_one_change_for_all_samples_whatever_the_attack(tmp_path: Path) -> None:
    series = {"models": ["demand-dlinear"], "attacks": ["pgd"], "threat_models": ["series(eps=0.1)"]}
    spec, plan = planned(tmp_path / "rbl.db", 9e5, **series)
    assert worthwhile_workers(spec, plan, CATALOG) == 16
    shared = CATALOG.resolve("threat_models", Component("recorded-series", {"eps": 0.1}))
    (cell,) = plan.cells
    whole = replace(plan, cells=(replace(cell, threat_model=shared),))
    assert worthwhile_workers(spec, whole, CATALOG) == 1


def test_threads_and_memory_are_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert worthwhile_workers(*planned(tmp_path / "rbl.db", 9e5, threads_per_worker=5), CATALOG) == 3
    monkeypatch.setattr(auto_workers, "free_memory", lambda: 4 * WORKER_BYTES)
    assert worthwhile_workers(*planned(tmp_path / "rbl.db", 9e5), CATALOG) == 4
    monkeypatch.setattr(auto_workers, "free_memory", lambda: 0)
    assert worthwhile_workers(*planned(tmp_path / "rbl.db", 9e5), CATALOG) == 1
    monkeypatch.undo()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert worthwhile_workers(*planned(tmp_path / "rbl.db", 9e5), CATALOG) == 1


def test_what_is_stored_is_no_work_and_what_like_cells_took_counts(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"attacks": ["fgsm"], "samples": 8, "executor": "inline"}
    spec, plan = planned(tmp_path / "rbl.db", 9e5, **settings)
    assert worthwhile_workers(spec, plan, CATALOG) == 16
    run_experiment(spec, CATALOG)
    assert worthwhile_workers(spec, plan, CATALOG) == 1
    for again in ({"fresh": True}, {"seeds": [7]}):
        assert worthwhile_workers(*planned(tmp_path / "rbl.db", 9e5, **settings, **again), CATALOG) == 1


# ---------------------------------------------------------------- the executor that follows


def test_a_long_run_gets_processes_and_a_short_one_stays_inline(tmp_path: Path) -> None:
    executor, slots = choose_executor(*planned(tmp_path / "rbl.db", 9e5), CATALOG)
    assert (executor.name, len(slots), slots[0].threads) == ("local", 16, 1)
    executor, slots = choose_executor(*planned(tmp_path / "rbl.db", 1), CATALOG)
    assert (executor.name, len(slots), slots[0].threads) == ("inline", 1, 16)


@pytest.mark.parametrize("asked", [{"executor": "inline"}, {"workers": 1}])
def test_what_is_asked_for_is_not_overruled(tmp_path: Path, asked: dict[str, Any]) -> None:
    executor, slots = choose_executor(*planned(tmp_path / "rbl.db", 9e5, **asked), CATALOG)
    assert (executor.name, len(slots)) == ("inline", 1)


@pytest.mark.parametrize(("attacks", "expected"), [(["pgd"], "inline"), (["pgd", "fgsm"], "local")])
def test_several_cells_on_a_gpu_get_a_process_that_a_fault_in_a_kernel_may_end(
    monkeypatch: pytest.MonkeyPatch, attacks: list[str], expected: str
) -> None:
    monkeypatch.setattr(executor_choice, "resolve_devices", lambda _names: ("cuda:0",))
    spec = ExperimentSpec.from_flags(models=["digits-cnn"], attacks=attacks)
    executor, slots = choose_executor(spec, make_plan(spec, CATALOG), CATALOG)
    assert (executor.name, [slot.name for slot in slots]) == (expected, ["cuda:0"])
