"""Cells of every kind on a simulated GPU: nothing mixes devices, and the outcomes are those of the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from robustbench_lab.evaluation.evaluate_cell import EvaluationOptions, evaluate_unit
from robustbench_lab.evaluation.workbench import Workbench
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import make_plan
from robustbench_lab.records import Cell, Status, UnitRecord, WorkUnit
from robustbench_lab.testing.simulated_gpu import RefusedByGpuError, simulated_gpu

CATALOG = open_catalog()
BENCHES: dict[torch.device, Workbench] = {}
BUDGETS = {"linf": 0.15, "l2": 0.7, "l1": 3.0, "l0": 5.0}
OTHER_TASKS = ("scene-fcos", "scene-unet", "demand-dlinear")
IN_A_BALL = {
    "linf": [
        *("pgd(steps=2, restarts=2, schedule='cosine')", "fgsm", "mim(steps=2)", "nifgsm(steps=2)"),
        *("difgsm(steps=2)", "vmifgsm(steps=2)", "apgd(steps=3)", "apgd(steps=3, loss='targeted-dlr')", "fab(steps=2)"),
        *("fab-t(steps=2, targets=2)", "fmn(steps=2)", "deepfool(steps=2)", "pdpgd(steps=2)", "square(queries=6)"),
        *("nes(queries=12)", "spsa(queries=12)", "simba(queries=6)", "hopskipjump(queries=40)", "universal(steps=2)"),
    ],
    "l2": ["pgd(steps=2)", "apgd(steps=3)", "fab(steps=2)", "ddn(steps=2)", "cw(steps=2)", "square(queries=6)"],
    "l1": ["pgd(steps=2)", "apgd(steps=3)", "fab(steps=2)", "ead(steps=2)", "square(queries=6)"],
    "l0": ["sigma-zero(steps=2)", "jsma", "vfga(steps=2)"],
}


def the_cell(**settings: Any) -> Cell:
    """The one that these settings plan."""
    (cell,) = make_plan(ExperimentSpec.from_flags(**{"samples": 3, **settings}), CATALOG).cells
    return cell


def evaluated(cell: Cell, device: torch.device) -> UnitRecord:
    bench = BENCHES.setdefault(device, Workbench(CATALOG, device))
    unit = WorkUnit(cell, 0, len(cell.samples.sample_ids))
    return evaluate_unit(unit, bench, EvaluationOptions(batch_size=2), lambda *_: None)


def check(**settings: Any) -> None:
    """The cell of these settings gives the same on both devices."""
    cell = the_cell(**settings)
    with simulated_gpu() as gpu:
        there = evaluated(cell, gpu)
    assert (there.status, there.reason) == (Status.OK, None)
    here = evaluated(cell, torch.device("cpu"))
    assert there.outcomes is not None
    assert here.outcomes is not None
    assert there.outcomes.robust.tolist() == here.outcomes.robust.tolist()
    np.testing.assert_allclose(there.outcomes.distance, here.outcomes.distance, rtol=1e-5)
    assert (there.forward_passes, there.backward_passes) == (here.forward_passes, here.backward_passes)


@pytest.mark.parametrize(("norm", "attack"), [(norm, one) for norm, attacks in IN_A_BALL.items() for one in attacks])
def test_attacks_in_a_ball(norm: str, attack: str) -> None:
    check(models=["digits-cnn"], attacks=[attack], norms=[norm], eps=[BUDGETS[norm]])


@pytest.mark.parametrize("attack", ["pgd(steps=2)", "apgd(steps=2)", "noise"])
@pytest.mark.parametrize("model", OTHER_TASKS)
def test_other_tasks(model: str, attack: str) -> None:
    check(models=[model], attacks=[attack], samples=2)


@pytest.mark.parametrize("attack", ["autoattack", "swift"])
def test_whole_evaluations(attack: str) -> None:
    check(models=["digits-cnn"], attacks=[attack], norms=["linf"], eps=[0.2], samples=2)


@pytest.mark.parametrize("defense", ["jpeg", "bit-depth", "median", "gaussian-noise", "resize-pad"])
def test_defenses(defense: str) -> None:
    check(models=["digits-cnn"], defenses=[defense], attacks=["pgd(steps=2)"])


@pytest.mark.parametrize(
    ("model", "threat_model", "attack"),
    [
        ("digits-cnn", "patch(eps=0.2)", "patch-pgd(steps=2)"),
        ("digits-cnn", "spatial(eps=1)", "spatial"),
        ("digits-cnn", "corruption(eps=3)", "corruptions"),
        ("scene-fcos", "patch(eps=0.2)", "adversarial-patch(steps=2)"),
        ("scene-fcos", "object-patch(eps=0.2)", "patch-pgd(steps=2)"),
        ("demand-dlinear", "fault(eps=3)", "faults"),
    ],
)
def test_other_threat_models(model: str, threat_model: str, attack: str) -> None:
    check(models=[model], threat_models=[threat_model], attacks=[attack], samples=2)


def test_an_attack_on_another_model_than_the_judged_one() -> None:
    check(models=["digits-cnn"], attacks=["pgd(steps=2)"], adversary=["transfer(model='digits-cnn-at')"])


# ---------------------------------------------------------------- the simulation itself refuses what a GPU refuses


def test_two_devices_in_one_operation_are_refused() -> None:
    with simulated_gpu() as gpu:
        x = torch.rand(3, device=gpu)
        for mixed in (
            lambda: x + torch.rand(3),
            lambda: torch.where(x > 0, x, torch.rand(3)),
            lambda: x.index_select(0, torch.tensor([0])),
            lambda: torch.cat([x, torch.rand(3)]),
        ):
            with pytest.raises(RefusedByGpuError, match="same device"):
                mixed()
        with pytest.raises(RefusedByGpuError, match="to numpy"):
            np.asarray(x)
        with pytest.raises(RefusedByGpuError, match="generator"):
            torch.rand(3, device=gpu, generator=torch.Generator())


def test_what_a_gpu_allows_is_allowed() -> None:
    with simulated_gpu() as gpu:
        x = torch.tensor([1.0, 2.0, 3.0], device=gpu)
        assert (x + torch.tensor(2.0)).tolist() == [3, 4, 5]
        assert x[torch.tensor([2, 0])].tolist() == [3, 1]
        assert x.cpu().device.type == "cpu"
        x[1:] = torch.tensor(0.0)
        x.view(3, 1)[0] = 7
        assert x.tolist() == [7, 0, 0]
        y = torch.zeros(3)
        y.copy_(x)
        assert y.tolist() == [7, 0, 0]
        assert (x.device, (x * 2).device, x.clone().sum().device) == (gpu, gpu, gpu)
