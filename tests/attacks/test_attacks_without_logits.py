"""Attacks that need no logits run on forecasters and detectors as they do on classifiers; the others are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.contracts import Access, AttackSpec, Bounds, ThreatModel
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import Audit, audit_attack
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.planning.experiment_spec import ExperimentSpec
from robustbench_lab.planning.run_plan import make_plan
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.tasks.detection_objectives import Untargeted
from robustbench_lab.tasks.detector_output import DetectorOutput
from robustbench_lab.tasks.forecasting_objectives import Error, Up
from robustbench_lab.testing.known_detectors import grid_setting
from robustbench_lab.testing.known_forecasters import LinearForecaster, forecast_setting
from robustbench_lab.threat_models.natural import Corruption
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf
from robustbench_lab.threat_models.patch import Patch
from robustbench_lab.threat_models.series import Series

CATALOG = open_catalog([])
SPECS: list[Any] = [entry.spec for entry in CATALOG.entries("attacks")]
WITHOUT_LOGITS = [
    spec for spec in SPECS if not spec.tasks or ("detection" in spec.tasks and "classification" not in spec.tasks)
]
EPS = 0.1
FROM_ZERO = Bounds(0.0, float("inf"))
THREAT_MODELS: dict[str, dict[str, ThreatModel]] = {
    "forecasting": {"series": Series(EPS), "linf": Linf(0.5), "l2": L2(2.0), "l1": L1(5.0)},
    "detection": {
        "linf": Linf(0.08),
        "l2": L2(0.5),
        "patch": Patch(0.3),
        "corruption": Corruption(5),
    },
}
SETTINGS: dict[str, Callable[[ThreatModel], ProblemSetting]] = {
    "forecasting": lambda threat: forecast_setting(threat, Error(), bounds=FROM_ZERO),
    "detection": lambda threat: grid_setting(threat, Untargeted(), samples=4),
}
CASES = [
    pytest.param(spec, task, norm, id=f"{spec.name}-{task}-{norm}")
    for spec in WITHOUT_LOGITS
    for task, threat_models in THREAT_MODELS.items()
    for norm in threat_models
    if norm in spec.threat_models and (not spec.tasks or task in spec.tasks)
]
FEW: dict[str, dict[str, Any]] = {
    "pgd": {"steps": 20, "restarts": 1},
    "apgd": {"steps": 20},
    "patch-pgd": {"steps": 5, "restarts": 1},
    "hopskipjump": {"queries": 300},
    "corruptions": {"kinds": ["gaussian_noise", "contrast"]},
}


def attacked(setting: ProblemSetting, name: str, task: str, **params: Any) -> Audit:
    """What the core makes of an attack of the catalog."""
    problem = AttackProblem(setting)
    resolved = CATALOG.resolve("attacks", Component(name, params), task=task)
    CATALOG.build("attacks", resolved, problem, task=task)
    return audit_attack(problem, setting, setting.model, passes=1)


@pytest.mark.parametrize(("spec", "task", "norm"), CASES)
def test_an_attack_that_needs_no_logits_does_harm_and_never_makes_a_sample_better(
    spec: AttackSpec, task: str, norm: str
) -> None:
    setting = replace(SETTINGS[task](THREAT_MODELS[task][norm]), minimum_norm=spec.minimum_norm)
    params = FEW.get(spec.name, dict(spec.quick))
    if spec.name == "difgsm" and task == "forecasting":
        with pytest.raises(SkipCell, match="resizes images"):
            attacked(setting, spec.name, task, **params)
        return
    audit = attacked(setting, spec.name, task, **params)
    assert not [finding for finding in audit.problems if finding.code == "outside-threat-model"]
    gain = audit.outcomes.columns["damage"] - setting.clean_measure["damage"].numpy()
    assert (gain >= 0).all()
    # Those that look for the nearest adversarial input may find none within the budget.
    assert gain.sum() > 0 or spec.minimum_norm
    assert not spec.minimum_norm or np.isfinite(audit.outcomes.distance).any()


class ReportsOnly(nn.Module):
    """A detector as a service shows it: what it reports, no candidates and no training loss."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> DetectorOutput:
        return DetectorOutput(self.detector(images).detect)


@pytest.mark.parametrize("name", [spec.name for spec in WITHOUT_LOGITS if spec.access is Access.SCORES])
def test_a_detector_that_only_reports_is_attacked_by_the_damage_of_its_reports(name: str) -> None:
    setting = grid_setting(THREAT_MODELS["detection"]["linf"], Untargeted(), samples=4)
    before = setting.clean_measure["damage"]
    model = ReportsOnly(setting.model)
    measured = {**setting.task.measure(model(setting.clean), setting.targets), "damage": before}
    audit = attacked(replace(setting, model=model, clean_measure=measured), name, "detection", queries=200)
    assert (audit.outcomes.columns["damage"] > before.numpy()).all()


def test_a_loss_without_gradient_is_refused_to_attacks_that_follow_one() -> None:
    setting = grid_setting(THREAT_MODELS["detection"]["linf"], Untargeted(), samples=4)
    with pytest.raises(SkipCell, match="this loss has no gradient: choose another one, or an attack that needs none"):
        attacked(setting, "pgd", "detection", loss="damage")


def test_each_of_these_attacks_is_tried_on_both_tasks() -> None:
    tried = {(case.values[0].name, case.values[1]) for case in CASES}
    images_only = {"patch-pgd", "corruptions", "square"}
    for spec in WITHOUT_LOGITS:
        assert (spec.name, "detection") in tried
        assert (spec.name, "forecasting") in tried or spec.name in images_only
    assert {"pgd", "fgsm", "apgd", "mim", "nifgsm", "vmifgsm", "nes", "spsa", "simba", "universal", "ddn", "noise"} <= {
        name for name, task in tried if task == "forecasting"
    }


@pytest.mark.parametrize(("model", "task"), [("demand-dlinear", "forecasting"), ("scene-fcos", "detection")])
def test_attacks_that_need_logits_are_refused_in_one_line_each(model: str, task: str) -> None:
    """The plan is made of those that fit, and says of each of the others why it does not."""
    fitting = {spec.name for spec in SPECS if not spec.tasks or task in spec.tasks}
    others = sorted({spec.name for spec in SPECS} - fitting)
    plan = make_plan(ExperimentSpec.from_flags(models=[model], attacks=["noise", *others]), CATALOG)
    assert [cell.attack.name for cell in plan.cells] == ["noise"]
    assert len(plan.left_out) == len(others) > 20
    for one in plan.left_out:
        assert re.fullmatch(rf"it is for ([a-z]+(, [a-z]+)* and )?[a-z]+, not {task}", one.reason)
        assert "\n" not in one.label


# ---------------------------------------------------------------- strength, where the optimum is known

LONG: dict[str, dict[str, Any]] = {
    "nes": {"queries": 1000},
    "spsa": {"queries": 1000, "pairs": 24},
    "simba": {"queries": 600},
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("pgd", 0.97),
        ("fgsm", 0.999),
        ("apgd", 0.99),
        ("mim", 0.99),
        ("nifgsm", 0.99),
        ("vmifgsm", 0.99),
        ("universal", 0.99),
        ("nes", 0.9),
        ("spsa", 0.9),
        ("simba", 0.9),
    ],
)
def test_attacks_come_near_to_the_best_shift_of_two_series_in_very_different_units(
    name: str, share: float, norm: Any
) -> None:
    setting = forecast_setting(Series(EPS, norm), Up())
    columns = attacked(setting, name, "forecasting", **LONG.get(name, {})).outcomes.columns
    weight = LinearForecaster().mean_weight
    # Of the mean over both series: in l2 the two share the budget.
    best = EPS * float(weight.abs().sum() if norm == "linf" else weight.norm() / 2**0.5)
    assert (columns["shift"] <= best * 1.0001).all()
    assert (columns["shift"] >= share * best).all()


@pytest.mark.parametrize("name", ["mim", "nifgsm", "vmifgsm", "spsa", "simba", "universal"])
def test_rescaled_series_are_attacked_alike(name: str) -> None:
    """In units of 1024 times the series' own all numbers are the same, but for their exponents."""
    found = []
    for factor in (1.0, 1024.0):
        setting = forecast_setting(Series(EPS), Up(), bounds=FROM_ZERO)
        targets = {key: setting.targets[key] * factor for key in ("future", "scale", "unit")}
        model = LinearForecaster()
        clean = factor * setting.clean
        again = replace(setting, clean=clean, targets=targets, goal=Up().prepare(model(clean), targets))
        problem = AttackProblem(again)
        quick = next(dict(spec.quick) for spec in SPECS if spec.name == name)
        CATALOG.build(
            "attacks",
            CATALOG.resolve("attacks", Component(name, quick), task="forecasting"),
            problem,
            task="forecasting",
        )
        found.append(problem.candidates / factor)
    assert np.allclose(*found, rtol=1e-5)
