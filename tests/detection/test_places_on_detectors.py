"""Patches, masks and corruptions on detectors: what is painted where, on canvases with padding, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from rbl_attacks.fixed_budget.fgsm import fgsm
from rbl_attacks.fixed_budget.patch_pgd import patch_pgd
from rbl_attacks.fixed_budget.pgd import pgd
from rbl_attacks.natural.corruptions import corruptions
from rbl_attacks.score_based.noise import noise
from rbl_attacks.universal.adversarial_patch import adversarial_patch
from rbl_attacks.universal.patch_places import Changes, Placing
from rbl_attacks.universal.printable import LEVELS, non_printability, total_variation
from rbl_attacks.universal.universal import universal
from rbl_defenses.gaussian_noise import gaussian_noise
from rbl_defenses.resize_pad import resize_pad
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import Audit, audit_attack
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.detection import Detection
from robustbench_lab.tasks.detection_objectives import Untargeted, Vanish
from robustbench_lab.testing.bright_squares import SIDE, BrightSquares, bright_squares
from robustbench_lab.threat_models.bound_patches import ObjectPatch, PlacedPatch
from robustbench_lab.threat_models.mask import Mask
from robustbench_lab.threat_models.natural import Corruption
from robustbench_lab.threat_models.norm_balls import Linf
from robustbench_lab.threat_models.patch import Patch
from robustbench_lab.threat_models.reach import reachable

SAMPLES = 8
SIZE = (24, 32)
PADDING = 6
"""Columns on the right that are no part of the image."""
Attack = Callable[..., None]


def setting_on(
    threat_model: ThreatModel, objective: Objective | None = None, *, model: torch.nn.Module | None = None
) -> ProblemSetting:
    """Bright squares on canvases whose right columns are padding."""
    model, objective, task = (model or BrightSquares()).eval(), objective or Vanish(), Detection()
    images, boxes = bright_squares(SAMPLES, size=(SIZE[0], SIZE[1] - PADDING))
    clean = torch.nn.functional.pad(images, (0, PADDING))
    attackable = torch.ones(SAMPLES, 1, *SIZE, dtype=torch.bool)
    attackable[..., -PADDING:] = False
    labels = torch.zeros(SAMPLES, 1, dtype=torch.int64)
    targets = {"boxes": boxes, "labels": labels, "crowd": torch.zeros_like(labels, dtype=torch.bool)}
    prediction = model(clean)
    goal = objective.prepare(prediction, targets)
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=threat_model,
        clean=clean,
        goal=goal,
        open=torch.ones(SAMPLES, dtype=torch.bool),
        bounds=Bounds(),
        rng=SampleRng.for_samples(0, "places", [str(index) for index in range(SAMPLES)], clean.device),
        batch_size=5,
        task=task,
        targets=targets,
        attackable=attackable,
        right=task.intact(prediction, targets),
        clean_measure={**task.measure(prediction, targets), "damage": objective.damage(prediction, goal)},
    )


def attacked(attack: Attack, setting: ProblemSetting, **params: object) -> tuple[AttackProblem, Audit]:
    problem = AttackProblem(setting)
    attack(problem, **params)
    audit = audit_attack(problem, setting, setting.model, passes=1)
    assert audit.problems == ()
    assert torch.equal(problem.candidates[..., -PADDING:], setting.clean[..., -PADDING:])
    return problem, audit


def vanished(audit: Audit) -> int:
    return int(audit.outcomes.columns["vanished"].sum())


# ---------------------------------------------------------------- a change for each image

PLACES = [
    Patch(0.2),
    PlacedPatch(0.3, x=0.4, y=0.5),
    ObjectPatch(0.5),
    Mask(0.4, where="objects"),
    Mask(0.4, where="background"),
    Mask(0.4, box=(0.0, 0.0, 0.5, 1.0)),
]


@pytest.mark.parametrize("threat_model", PLACES, ids=str)
@pytest.mark.parametrize("attack", [fgsm, noise, partial(pgd, steps=5), partial(patch_pgd, steps=5, restarts=2)])
def test_every_candidate_keeps_to_the_threat_model_and_leaves_the_padding_alone(
    attack: Attack, threat_model: ThreatModel
) -> None:
    attacked(attack, setting_on(threat_model, Untargeted()))


@pytest.mark.parametrize("threat_model", [ObjectPatch(0.5), Mask(0.9, where="objects"), Patch(0.1)], ids=str)
def test_what_reaches_the_object_makes_it_vanish_and_random_values_do_so_less(threat_model: ThreatModel) -> None:
    attack = partial(patch_pgd, steps=20, restarts=1) if isinstance(threat_model, Patch) else partial(pgd, steps=20)
    searched, random = (vanished(attacked(one, setting_on(threat_model))[1]) for one in (attack, noise))
    assert searched == SAMPLES
    assert random < SAMPLES


@pytest.mark.parametrize("threat_model", [Mask(1.0, where="background"), ObjectPatch(0.5, labels=[1])], ids=str)
def test_what_does_not_reach_the_object_leaves_it_to_be_found(threat_model: ThreatModel) -> None:
    assert vanished(attacked(partial(pgd, steps=20), setting_on(threat_model))[1]) == 0


@pytest.mark.parametrize(
    ("threat_model", "expected"),
    [
        (Linf(0.1), SAMPLES),
        (Patch(0.2), SAMPLES),
        (ObjectPatch(0.5), SAMPLES),
        (ObjectPatch(0.5, labels=[0, 1]), SAMPLES),
        (ObjectPatch(0.5, labels=[1]), 0),
        (Mask(0.4, where="objects", labels=[1]), 0),
        (Mask(0.4, where="background", labels=[1]), SAMPLES),
        (Mask(0.4, box=(1 - PADDING / SIZE[1], 0.0, 1.0, 1.0)), 0),
    ],
    ids=str,
)
def test_samples_that_a_threat_model_does_not_reach_are_known(threat_model: ThreatModel, expected: int) -> None:
    setting = setting_on(threat_model)
    assert int(reachable(setting.around(threat_model)).sum()) == expected
    assert int(reachable(setting.around(threat_model, torch.tensor([1, 3]))).sum()) == min(expected, 2)


def test_the_patch_of_an_object_lies_within_its_box() -> None:
    setting = setting_on(ObjectPatch(0.25))
    problem, _ = attacked(noise, setting)
    changed = (problem.candidates != setting.clean).any(1)
    for where, (left, top, right, bottom) in zip(changed, setting.targets["boxes"][:, 0].int().tolist(), strict=True):
        assert int(where.sum()) == (SIDE // 2) ** 2
        assert int(where[top:bottom, left:right].sum()) == (SIDE // 2) ** 2


@pytest.mark.parametrize("defend", [partial(gaussian_noise, sigma=0.02), resize_pad])
def test_randomized_defenses_are_attacked_through(defend: Callable[..., torch.nn.Module]) -> None:
    torch.manual_seed(0)
    setting = replace(setting_on(ObjectPatch(0.7), model=defend(BrightSquares())), eot=3)
    problem = AttackProblem(setting)
    pgd(problem, steps=10)
    assert vanished(audit_attack(problem, setting, setting.model, passes=5)) >= SAMPLES - 1


# ---------------------------------------------------------------- corruptions


def test_corruptions_of_a_canvas_that_is_not_square_leave_its_padding_alone() -> None:
    setting = setting_on(Corruption(5))
    problem, audit = attacked(corruptions, setting, kinds=["contrast", "fog", "zoom_blur", "jpeg_compression"])
    assert not problem.unmoved.any()
    assert vanished(audit) > 0


# ---------------------------------------------------------------- one for all


@pytest.mark.parametrize("threat_model", [Patch(0.1), PlacedPatch(0.3, x=0.4, y=0.5), ObjectPatch(0.5)], ids=str)
@pytest.mark.parametrize("folds", [1, 2])
def test_one_patch_for_all_keeps_to_the_threat_model(threat_model: ThreatModel, folds: int) -> None:
    attacked(adversarial_patch, setting_on(threat_model), steps=5, batch=4, folds=folds, shown="changed", noise=0.1)


def test_one_patch_on_every_object_makes_those_vanish_that_it_has_not_seen() -> None:
    setting = setting_on(ObjectPatch(0.5))
    _, audit = attacked(adversarial_patch, setting, steps=60, batch=4, folds=2)
    _, random = attacked(noise, setting, repeats=1)
    assert vanished(audit) == SAMPLES
    assert vanished(random) < SAMPLES


def test_on_every_object_it_is_the_same_picture() -> None:
    setting = setting_on(ObjectPatch(0.25))
    problem, _ = attacked(adversarial_patch, setting, steps=20, batch=4)
    shown = []
    for image, where in zip(problem.candidates, (problem.candidates != setting.clean).any(1), strict=True):
        rows, columns = where.any(1).nonzero().squeeze(1), where.any(0).nonzero().squeeze(1)
        shown.append(image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    assert all(torch.allclose(one, shown[0], atol=1e-5) for one in shown)


def test_a_patch_is_scaled_to_the_window_of_each_object() -> None:
    boxes = torch.tensor([[[2.0, 2.0, 10.0, 10.0], [12.0, 4.0, 24.0, 16.0], [0.0, 0.0, 0.0, 0.0]]])
    targets = {"boxes": boxes, "labels": torch.tensor([[0, 0, -1]])}
    setting = replace(setting_on(ObjectPatch(1.0)), targets=targets, attackable=None)
    one = replace(
        setting, clean=setting.clean[:1] * 0, open=setting.open[:1], rng=setting.rng.select(torch.tensor([0]))
    )
    problem = AttackProblem(replace(one, goal={name: value[:1] for name, value in setting.goal.items()}))
    patch = torch.zeros(3, 12, 12)
    patch[0, :6], patch[1, :, 6:] = 1.0, 0.5
    x = Placing.drawn(problem, "test", Changes()).paste(patch, problem)[0]
    assert torch.allclose(x[:, 4:16, 12:24], patch, atol=1e-5)
    assert torch.allclose(x[0, 2:10, 2:10].mean(), torch.tensor(0.5), atol=1e-5)
    assert torch.allclose(x[1, 2:10, 2:10].mean(), torch.tensor(0.25), atol=1e-5)
    assert x[:, :2].sum() == x[:, 17:].sum() == 0


def test_a_smooth_and_a_printable_patch_can_be_asked_for() -> None:
    def patch_of(**weights: float) -> Tensor:
        setting = setting_on(PlacedPatch(0.3, x=0.0, y=0.5), Untargeted())
        problem = AttackProblem(setting)
        adversarial_patch(problem, steps=60, batch=8, rotation=0, smallest=1, brightness=0, **weights)
        window = problem.region.region.windows[0, 0].tolist()
        return problem.candidates[0, :, window[0] : window[0] + window[2], : window[2]]

    plain, tame = patch_of(), patch_of(smoothness=1e3, printability=1e3)
    assert total_variation(tame) < 0.5 * total_variation(plain)
    assert non_printability(tame, 0, 1) < 0.5 * non_printability(plain, 0, 1)


def test_printable_colours_are_at_no_distance_and_their_gradient_is_finite() -> None:
    patch = torch.full((3, 4, 4), LEVELS[1], requires_grad=True)
    distance = non_printability(patch, 0, 1)
    (gradient,) = torch.autograd.grad(distance, patch)
    assert distance.item() == 0
    assert gradient.isfinite().all()
    assert float(non_printability(-torch.ones(1, 4, 4), -1, 1)) == pytest.approx(2 * LEVELS[0])


def test_one_perturbation_for_all_images_makes_objects_vanish() -> None:
    _, audit = attacked(universal, setting_on(Linf(0.35)), steps=30, folds=2)
    _, random = attacked(noise, setting_on(Linf(0.35)))
    assert vanished(random) < vanished(audit) == SAMPLES


def test_without_a_place_a_patch_is_skipped_with_a_reason() -> None:
    with pytest.raises(SkipCell, match="patch, placed-patch or object-patch"):
        adversarial_patch(AttackProblem(setting_on(Linf(0.1))))
