"""Attacks on a network whose pixels do not see each other: the best attack is known in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rbl_attacks.fixed_budget.apgd import apgd_from_larger_balls
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog import Catalog
from robustbench_lab.catalog.component_syntax import parse_component
from robustbench_lab.catalog.plugin_loading import load_plugins
from robustbench_lab.contracts import Access
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import Audit, audit_attack
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.tasks.segmentation import clean_pixel_accuracy, robust_pixel_accuracy
from robustbench_lab.tasks.segmentation_objectives import Targeted, Untargeted
from robustbench_lab.testing.known_segmenters import PixelHalfSpace, pixel_setting
from robustbench_lab.threat_models.norm_balls import L1, L2, Linf

CATALOG = Catalog.from_plugins(load_plugins())
EPS = 0.02
GRADIENT = ["pgd(steps=20)", "pgd(steps=20, loss='dag')", "segpgd(steps=20)", "apgd(steps=20)", "sea(steps=20)"]


def attacked(label: str, setting: ProblemSetting) -> Audit:
    resolved = CATALOG.resolve("attacks", parse_component(label), task="segmentation")
    problem = AttackProblem(setting)
    CATALOG.build("attacks", resolved, problem, task="segmentation")
    return audit_attack(problem, setting, setting.model, passes=1)


@pytest.mark.parametrize("label", [*GRADIENT, "mim(steps=20)", "fgsm"])
def test_in_linf_gradient_attacks_turn_every_pixel_that_can_be_turned(label: str) -> None:
    setting = pixel_setting(Linf(eps=EPS))
    outcomes = attacked(label, setting).outcomes
    turned = (PixelHalfSpace().distances(setting.clean, "linf") < EPS).float().mean(1)
    assert 0.2 < float(turned.mean()) < 0.8
    assert outcomes.columns["damage"] == pytest.approx(turned.numpy())
    assert clean_pixel_accuracy(outcomes).value == 1
    assert robust_pixel_accuracy(outcomes).value == pytest.approx(1 - float(turned.mean()))


@pytest.mark.parametrize("loss", [None, "damage"])
def test_without_gradients_square_turns_nearly_every_pixel_that_can_be_turned(loss: str | None) -> None:
    setting = pixel_setting(Linf(eps=EPS))
    turned = (PixelHalfSpace().distances(setting.clean, "linf") < EPS).float().mean(1).numpy()
    damage = attacked(f"square(queries=600, loss={loss!r})", setting).outcomes.columns["damage"]
    assert (damage <= turned + 1e-6).all()
    assert damage.mean() > 0.95 * turned.mean()


@pytest.mark.parametrize(("norm", "threat_model"), [("l2", L2(eps=0.2)), ("l1", L1(eps=0.5))])
def test_in_l2_and_l1_no_attack_turns_more_pixels_than_the_nearest_ones_together_allow(
    norm: str, threat_model: L2 | L1
) -> None:
    setting = pixel_setting(threat_model)
    most = (PixelHalfSpace().distances(setting.clean, norm) < threat_model.eps).float().mean(1).numpy()
    damage = np.stack([attacked(label, setting).outcomes.columns["damage"] for label in GRADIENT])
    assert (damage <= most + 1e-6).all()
    assert damage.max(axis=0).mean() > most.mean() / 2


def test_with_the_budget_for_it_an_image_is_broken_when_99_percent_of_its_pixels_are_turned() -> None:
    setting = pixel_setting(Linf(eps=0.08))
    needed = PixelHalfSpace().distances(setting.clean, "linf")[:, -1]  # 36 pixels: all of them
    outcomes = attacked("pgd(steps=20)", setting).outcomes
    assert 0 < outcomes.robust.sum() < len(outcomes)
    assert outcomes.robust.tolist() == (needed > 0.08).tolist()


@pytest.mark.parametrize("label", ["pgd(steps=5)", "segpgd(steps=5)", "sea(steps=5)", "noise", "nes(queries=20)"])
def test_outcomes_do_not_depend_on_the_batch_size(label: str) -> None:
    setting = pixel_setting(L2(eps=0.2) if label.startswith("pgd") else Linf(eps=EPS))
    one, other = (attacked(label, replace(setting, batch_size=size)).outcomes for size in (1, 12))
    for name, column in one.columns.items():
        assert np.array_equal(column, other.columns[name]), name


ANY_TASK = [
    entry.spec
    for entry in CATALOG.entries("attacks")
    if not entry.spec.tasks and "linf" in entry.spec.threat_models and not entry.problem
]


@pytest.mark.parametrize("spec", ANY_TASK, ids=lambda spec: spec.name)
def test_every_attack_that_is_for_any_task_runs_and_what_follows_gradients_does_damage(spec: object) -> None:
    setting = pixel_setting(Linf(eps=EPS), samples=4)
    quick = ", ".join(f"{name}={value!r}" for name, value in spec.quick.items())  # type: ignore[attr-defined]
    outcomes = attacked(f"{spec.name}({quick})", setting).outcomes  # type: ignore[attr-defined]
    if spec.access is Access.GRADIENTS:  # type: ignore[attr-defined]
        assert outcomes.columns["damage"].mean() > 0.1


@pytest.mark.parametrize(
    ("label", "threat_model"),
    [
        ("adversarial-patch(steps=5)", "placed-patch(eps=0.25)"),
        ("patch-pgd(steps=5)", "patch(eps=0.25)"),
        ("segpgd(steps=5)", "mask(eps=0.1, box=[0, 0, 0.5, 1])"),
        ("corruptions(kinds=['brightness', 'contrast'])", "corruption(eps=5)"),
    ],
)
def test_patches_masks_and_corruptions_do_damage_where_they_may_change_pixels(label: str, threat_model: str) -> None:
    resolved = CATALOG.resolve("threat_models", parse_component(threat_model), task="segmentation")
    setting = pixel_setting(CATALOG.build("threat_models", resolved), samples=4)
    audit = attacked(label, setting)
    assert audit.problems == ()
    most = 1.0 if "corruption" in label else 0.5 if "mask" in threat_model else 0.25
    assert 0.05 < audit.outcomes.columns["damage"].max() <= most


def test_a_targeted_attack_turns_what_it_can_to_its_class_and_the_ensembles_refuse_it() -> None:
    setting = pixel_setting(Linf(eps=EPS), objective=Targeted(target=1))
    distance = PixelHalfSpace().distances(setting.clean, "linf")
    damage = attacked("pgd(steps=20)", setting).outcomes.columns["damage"]
    assert 0 < damage.mean() <= (distance < EPS).float().sum(1).numpy().max()
    for label in ("sea", "segpgd"):
        with pytest.raises(SkipCell, match="is untargeted"):
            attacked(label, setting)


@pytest.mark.parametrize("threat_model", [Linf(eps=EPS), L2(eps=0.2)])
def test_sea_begins_in_larger_balls_and_counts_nothing_outside_the_budget(threat_model: Linf | L2) -> None:
    setting = pixel_setting(threat_model, batch_size=12)
    farthest: list[float] = []
    region = setting.around(threat_model, torch.arange(12))
    setting.model.register_forward_pre_hook(lambda _, x: farthest.append(float(region.distance(x[0].detach()).max())))
    problem = AttackProblem(setting)
    apgd_from_larger_balls(problem, steps=20, loss="js")
    # The starts of the three balls are queries as well; the last step is one without a gradient.
    budgets = [2.0] * 7 + [1.5] * 7 + [1.0] * 9
    assert np.array(farthest) / threat_model.eps == pytest.approx(np.array(budgets), rel=1e-3)
    assert region.contains(problem.candidates).all()


def test_where_only_parts_of_an_image_may_change_sea_stays_within_the_budget() -> None:
    resolved = CATALOG.resolve(
        "threat_models", parse_component("mask(eps=0.1, box=[0, 0, 0.5, 1])"), task="segmentation"
    )
    setting = pixel_setting(CATALOG.build("threat_models", resolved), samples=4)
    with_balls, without = (attacked(f"sea(steps=10{more})", setting) for more in ("", ", larger_balls=False"))
    assert with_balls.problems == ()
    damage, same = (one.outcomes.columns["damage"] for one in (with_balls, without))
    assert np.array_equal(damage, same)


def test_segpgd_weighs_wrong_pixels_more_from_step_to_step(monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[float] = []
    usual = AttackProblem.ascend

    def recording(problem: AttackProblem, x: torch.Tensor, size: float, loss: object = None) -> object:
        weights.append(loss.keywords["wrong_weight"])  # type: ignore[attr-defined]
        return usual(problem, x, size, loss)  # type: ignore[arg-type]

    monkeypatch.setattr(AttackProblem, "ascend", recording)
    attacked("segpgd(steps=4)", pixel_setting(Linf(eps=EPS), samples=2))
    assert weights == [0, 1 / 8, 2 / 8, 3 / 8]


def test_a_goal_from_the_models_own_prediction_needs_no_annotations() -> None:
    setting = pixel_setting(Linf(eps=EPS), objective=Untargeted(labels="self"))
    assert attacked("pgd(steps=20)", setting).outcomes.columns["damage"].mean() > 0.2
