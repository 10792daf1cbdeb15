"""A cell gives the same whether it is evaluated in one unit or in several, attack by attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import CellRecord
from robustbench_lab.scheduling import cutting

CATALOG = open_catalog()
BUDGETS = {"linf": 0.1, "l2": 1.0, "l1": 5.0, "l0": 5.0, "patch": 0.1, "spatial": 1.0, "corruption": 3.0}
FAST = {"deepfool", "mim", "simba"}
INDEPENDENT = [
    entry.spec.name
    for entry in CATALOG.entries("attacks")
    if entry.plugin.name == "rbl-attacks"
    and entry.spec.sample_deterministic
    and not (entry.spec.joint or entry.spec.compares_samples)
]


def evaluated(attack: str, database: Path) -> CellRecord:
    spec = CATALOG.find("attacks", attack).spec
    norm = spec.threat_models[0]
    experiment = ExperimentSpec.from_flags(
        attacks=[Component(attack, dict(spec.quick))],
        models=["digits-cnn"],
        threat_models=[f"{norm}(eps={BUDGETS[norm]})"],
        samples=60,
        database=str(database),
    )
    (record,) = run_experiment(experiment, CATALOG).records
    return record


@pytest.mark.parametrize(
    "attack", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in INDEPENDENT]
)
def test_outcomes_passes_findings_and_verdict_do_not_depend_on_how_a_cell_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    whole = evaluated(attack, tmp_path / "whole.db")
    monkeypatch.setattr(cutting, "MOST_SAMPLES", 20)
    cut = evaluated(attack, tmp_path / "cut.db")
    assert whole.outcomes is not None
    assert cut.outcomes is not None
    assert np.array_equal(whole.outcomes.robust, cut.outcomes.robust)
    assert np.allclose(whole.outcomes.distance, cut.outcomes.distance, rtol=1e-4, equal_nan=True)
    assert (cut.findings, cut.verdict) == (whole.findings, whole.verdict)
    # A batch of another size rounds differently: an attack that stops at the boundary takes now and then a step more.
    assert cut.backward_per_sample == pytest.approx(whole.backward_per_sample, rel=0.02)
    # autoattack asks in each unit anew, with one sample, how many classes there are.
    assert cut.forward_per_sample == pytest.approx(whole.forward_per_sample, rel=0.02, abs=0.1)
