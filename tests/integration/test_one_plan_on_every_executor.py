"""One plan of real components on each executor that ships: the outcome of every sample is the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_lab.pipeline import RunResult, open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import Status, UnitRecord
from robustbench_lab.run_observer import RunObserver
from robustbench_lab.scheduling import cutting

PLAN: dict[str, Any] = {
    "models": ["digits-cnn-at"],
    "defenses": ["none", "gaussian-noise"],
    "attacks": ["pgd(steps=4)", "square(queries=10)", "deepfool(steps=5)"],
    "norms": ["linf"],
    "eps": [0.1],
    "samples": 64,
    "devices": ["cpu"],
    "threads_per_worker": 1,
}
"""Randomized and not, with gradients and without, within a budget and looking for the least distance."""


class Units(RunObserver):
    """Writes down which units a run had, and where."""

    def __init__(self) -> None:
        self.of_cell: Counter[str] = Counter()
        self.slots: set[str] = set()

    def unit_finished(self, record: UnitRecord, slot: Any) -> None:
        self.of_cell[record.cell_id] += 1
        self.slots.add(slot.name)


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that cells are cut at all, and otherwise for one slot than for two."""
    monkeypatch.setattr(cutting, "LEAST_SECONDS", 1e-3)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunResult]:
    """The plan in one process. The attacks break some samples and leave some, or all runs could not but be the same."""
    made, _ = run(tmp_path_factory.mktemp("reference"), "inline")
    assert [record.status for record in made.records] == [Status.OK] * 6
    assert all(0 < record.metrics["robust_accuracy"].value < 1 for record in made.records)
    return made


def run(folder: Path, executor: str, **fields: Any) -> tuple[RunResult, Units]:
    units = Units()
    spec = ExperimentSpec.from_flags(**PLAN, executor=executor, database=str(folder / "rbl.db"), **fields)
    return run_experiment(spec, open_catalog(), observers=[units]), units


@pytest.mark.parametrize(("executor", "workers"), [("local", 2), pytest.param("ray", 2, marks=pytest.mark.slow)])
def test_the_outcome_of_every_sample_is_that_of_a_run_in_one_process(
    tmp_path: Path, reference: RunResult, executor: str, workers: int
) -> None:
    fields: dict[str, Any] = {"workers": workers}
    if executor == "ray":
        pytest.importorskip("ray", reason='Ray is not installed: pip install "robustbench-lab[ray]"')
        fields["address"] = "local"
    made, units = run(tmp_path, executor, **fields)
    assert len(units.slots) == workers
    assert max(units.of_cell.values()) > 1
    assert {record.executor for record in made.records} == {executor}
    for one, other in zip(reference.records, made.records, strict=True):
        assert (one.cell.cell_id, one.metrics) == (other.cell.cell_id, other.metrics)
        assert one.outcomes is not None
        assert other.outcomes is not None
        assert np.array_equal(one.outcomes.clean_correct, other.outcomes.clean_correct)
        assert np.array_equal(one.outcomes.robust, other.outcomes.robust)
        assert np.allclose(one.outcomes.distance, other.outcomes.distance, rtol=1e-5, equal_nan=True)
