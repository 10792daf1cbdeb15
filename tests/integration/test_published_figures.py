"""A published model on published data: our numbers against published ones, against Foolbox, and against themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robustbench_lab.pipeline import open_catalog, run_experiment
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.records import CellRecord

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]


def run(
    shared: Path, folder: Path, attacks: list[str], *, samples: int, batch_size: int | None = None
) -> list[CellRecord]:
    spec = ExperimentSpec.from_flags(
        attacks=attacks,
        models=[f"onnx(path={str(shared / 'models/cifar10_resnet_2b.onnx')!r}, mean={MEAN}, std={STD})"],
        datasets=[f"npz(path={str(shared / 'data/cifar10_test_5k.npz')!r})"],
        norms=["linf"],
        eps=["2/255"],
        samples=samples,
        batch_size=batch_size,
        devices=["cpu"],
        database=str(folder / f"{batch_size}.db"),
    )
    return list(run_experiment(spec, open_catalog()).records)


def test_clean_and_pgd_accuracy_are_the_published_ones(shared_folder: Path, tmp_path: Path) -> None:
    """VNN-COMP 2021: 69.25% clean and 54.82% under PGD at 2/255 on the whole test set of 10,000.

    Ours is the first 1000 of a re-encoded half of it, so the published value must lie in the interval, a point wider.
    """
    (record,) = run(shared_folder, tmp_path, ["pgd(steps=50)"], samples=1000)
    clean, robust = record.metrics["clean_accuracy"], record.metrics["robust_accuracy"]
    assert clean.low - 0.01 < 0.6925 < clean.high + 0.01
    assert robust.low - 0.01 < 0.5482 < robust.high + 0.01


def test_pgd_agrees_with_foolboxs_sample_by_sample(shared_folder: Path, tmp_path: Path) -> None:
    steps = "steps=50, {}=0.00039215686"  # 2.5 * (2/255) / 50
    attacks = [f"pgd({steps.format('step_size')})", f"foolbox:LinfPGD({steps.format('abs_stepsize')})"]
    ours, theirs = run(shared_folder, tmp_path, attacks, samples=500)
    agreement = (ours.outcomes.robust == theirs.outcomes.robust).mean()
    assert agreement >= 0.99
    assert abs(ours.metrics["robust_accuracy"].value - theirs.metrics["robust_accuracy"].value) <= 0.003
    assert theirs.findings == ()
    assert ours.backward_per_sample < theirs.backward_per_sample


@pytest.mark.parametrize("attack", ["pgd(steps=20)", "noise"])
def test_the_batch_size_changes_no_outcome(shared_folder: Path, tmp_path: Path, attack: str) -> None:
    robust = []
    for batch_size in (7, 64, 200):
        (record,) = run(shared_folder, tmp_path, [attack], samples=200, batch_size=batch_size)
        robust.append(record.outcomes.robust)
    for other in robust[1:]:
        assert int(np.count_nonzero(robust[0] != other)) <= 1


@pytest.mark.slow
def test_dlinear_on_etth1_has_the_published_error(shared_folder: Path, tmp_path: Path) -> None:
    """Zeng et al. 2023, table 2, at a history of 336 and a horizon of 96; the recipe is the benchmark's."""
    recipe = Path(__file__).resolve().parents[2] / "benchmarks" / "etth1.py"
    done = subprocess.run([sys.executable, recipe, "DLinear", "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["windows"] == 2880 - 96 + 1
    assert found["mse"] == pytest.approx(0.375, rel=0.03)
    assert found["mae"] == pytest.approx(0.399, rel=0.03)
