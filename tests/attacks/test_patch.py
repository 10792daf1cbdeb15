"""Patches: one for each image, and one for all; nothing outside the window changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rbl_attacks.fixed_budget.fgsm import fgsm
from rbl_attacks.fixed_budget.patch_pgd import patch_pgd
from rbl_attacks.score_based.noise import noise
from rbl_attacks.universal.adversarial_patch import adversarial_patch
from rbl_attacks.universal.patch_places import Placing, windows_of
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog.component_syntax import parse_component
from robustbench_lab.contracts import Bounds, ThreatModel
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.objectives import Untargeted
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.classification import Classification
from robustbench_lab.testing.known_models import HalfSpace
from robustbench_lab.threat_models.norm_balls import Linf
from robustbench_lab.threat_models.patch import Patch

SAMPLES = 40
Attack = Callable[..., None]


def setting_on(
    model: nn.Module, threat_model: ThreatModel, clean: Tensor, batch_size: int = 13, bounds: Bounds | None = None
) -> ProblemSetting:
    return ProblemSetting(
        model=model.eval(),
        objective=Untargeted(),
        threat_model=threat_model,
        clean=clean,
        goal=model(clean).argmax(1),
        open=torch.ones(len(clean), dtype=torch.bool),
        bounds=bounds or Bounds(),
        rng=SampleRng.for_samples(0, "patch", [str(index) for index in range(len(clean))], clean.device),
        batch_size=batch_size,
    )


def attacked(attack: Attack, setting: ProblemSetting, **params: object) -> AttackProblem:
    problem = AttackProblem(setting)
    attack(problem, **params)
    assert audit_attack(problem, setting, setting.model, passes=1).problems == ()
    return problem


def images(shape: tuple[int, ...] = (1, 5, 5), seed: int = 1) -> Tensor:
    return torch.rand(SAMPLES, *shape, generator=torch.Generator().manual_seed(seed))


class Brightness(nn.Module):
    """Class 1 where the mean is above a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        excess = 10 * (x.flatten(1).mean(1) - self.threshold)
        return torch.stack([torch.zeros_like(excess), excess], dim=1)


# ---------------------------------------------------------------- a patch for each image


@pytest.mark.parametrize("attack", [fgsm, partial(patch_pgd, steps=10, restarts=1)])
def test_on_a_half_space_exactly_the_samples_within_reach_are_broken(attack: Attack) -> None:
    model = HalfSpace()
    # Pushed away from the boundary by more or less, so that some samples need large windows.
    push = torch.linspace(-0.4, 0.4, SAMPLES).view(-1, 1, 1, 1)
    clean = 0.5 + model.weight.sign() * push + 0.2 * (images() - 0.5)
    reach = model.distance(clean, "patch")
    for side in (1, 2, 3, 4):
        eps = side**2 / 25
        problem = attacked(attack, setting_on(model, Patch(eps), clean))
        assert torch.equal(problem.claimed, reach < eps + 1e-3)
    assert len(reach.unique()) > 2


def test_more_restarts_go_on_with_the_samples_still_unbroken() -> None:
    model, clean = HalfSpace(), images()
    one, five = (attacked(patch_pgd, setting_on(model, Patch(1 / 25), clean), steps=5, restarts=n) for n in (1, 5))
    unbroken = int((~one.claimed).sum())
    assert unbroken > 0
    extra = five.counted_model.backward_passes - one.counted_model.backward_passes
    assert 0 < extra <= 4 * 5 * unbroken


def test_data_in_other_bounds_and_of_other_shapes_is_attacked_alike() -> None:
    clean = images((3, 9, 6))
    usual = attacked(patch_pgd, setting_on(Brightness(0.55), Patch(0.2), clean), steps=10, restarts=2)
    shifted = nn.Sequential(_Shift(), Brightness(0.55))
    other = attacked(
        patch_pgd, setting_on(shifted, Patch(0.2), clean * 4 - 1, bounds=Bounds(-1, 3)), steps=10, restarts=2
    )
    assert usual.claimed.any()
    assert torch.equal(usual.claimed, other.claimed)


class _Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) / 4


# ---------------------------------------------------------------- one patch for all


def test_the_same_square_is_on_every_image_at_places_of_its_own() -> None:
    clean = images((3, 12, 10))
    candidates = attacked(adversarial_patch, setting_on(Brightness(0.9), Patch(0.1), clean), steps=30).candidates
    changed = (candidates != clean).any(1)
    squares, places = [], set()
    for one, where in zip(candidates, changed, strict=True):
        rows, columns = where.any(1).nonzero().squeeze(1), where.any(0).nonzero().squeeze(1)
        top, left = int(rows[0]), int(columns[0])
        places.add((top, left))
        if len(rows) == len(columns) == 3:
            squares.append(one[:, top : top + 3, left : left + 3])
    assert len(squares) > SAMPLES // 2
    assert len(places) > 10
    assert all(torch.allclose(square, squares[0], atol=1e-5) for square in squares)


def test_it_learns_the_square_that_is_best_wherever_it_is_put() -> None:
    clean = 0.5 * images((3, 12, 10))
    problem = attacked(adversarial_patch, setting_on(Brightness(0.9), Patch(0.1), clean), steps=60)
    changed = problem.candidates != clean
    assert (problem.candidates[changed] > 0.999).all()


@pytest.mark.parametrize("params", [{}, {"rotation": 0.0, "smallest": 1.0, "brightness": 0.0}])
def test_it_breaks_more_than_random_squares(params: dict[str, float]) -> None:
    clean = images((1, 12, 12))
    setting = setting_on(Brightness(0.56), Patch(0.2), clean)
    random, searched = attacked(noise, setting, repeats=1), attacked(adversarial_patch, setting, steps=60, **params)
    assert int(searched.claimed.sum()) > int(random.claimed.sum()) + 3


def test_a_second_run_and_another_batch_size_give_the_same() -> None:
    setting = setting_on(Brightness(0.55), Patch(0.2), images((1, 12, 12)))
    first, second, one_by_one = (
        attacked(adversarial_patch, replace(setting, batch_size=size), steps=20) for size in (13, 13, 1)
    )
    assert torch.equal(first.candidates, second.candidates)
    assert torch.equal(first.claimed, one_by_one.claimed)


# ---------------------------------------------------------------- a patch from a file


@pytest.mark.parametrize("channels", [1, 3])
def test_a_trained_patch_does_the_same_from_its_picture(tmp_path: Path, channels: int) -> None:
    setting = setting_on(Brightness(0.9), Patch(0.15), images((channels, 12, 12)))
    trained = attacked(adversarial_patch, setting, steps=10)
    ((name, patch),) = trained.kept
    assert (name, patch.shape) == ("patch", (channels, 4, 4))
    again = attacked(adversarial_patch, setting, patch=str(picture(tmp_path, patch)))
    assert [finding.code for finding in again.notes] == ["given-patch"]
    assert again.kept == []
    assert float((again.candidates - trained.candidates).abs().max()) <= 0.5 / 255 + 1e-6
    assert again.counted_model.backward_passes == 0


def test_a_patch_keeps_the_datas_own_range_and_a_large_one_is_reduced(tmp_path: Path) -> None:
    setting = setting_on(Brightness(0.9), Patch(0.15), images((1, 12, 12)) * 6 - 3, bounds=Bounds(-3, 3))
    for level, value in ((0.0, -3.0), (1.0, 3.0)):
        given = picture(tmp_path, torch.full((1, 64, 64), level))
        candidates = attacked(adversarial_patch, setting, patch=str(given)).candidates
        changed = candidates[candidates != setting.clean]
        assert len(changed) > SAMPLES * 3 * 3
        assert bool((changed == value).all())


def test_what_is_no_square_picture_is_refused_in_one_line(tmp_path: Path) -> None:
    setting = setting_on(Brightness(0.9), Patch(0.15), images((1, 12, 12)))
    (tmp_path / "text.png").write_text("no picture")
    wide = picture(tmp_path, torch.zeros(1, 4, 6))
    for path, said in ((wide, "is 6x4: a patch is a square"), (tmp_path / "text.png", "cannot read the image")):
        with pytest.raises(UsageError, match=said) as caught:
            adversarial_patch(AttackProblem(setting), patch=str(path))
        assert "\n" not in str(caught.value)
    with pytest.raises(SkipCell, match="1 or 3 channels, not 2"):
        adversarial_patch(AttackProblem(setting_on(Brightness(0.9), Patch(0.15), images((2, 12, 12)))), patch=str(wide))


def picture(folder: Path, patch: Tensor) -> Path:
    """`[C, H, W]` from 0 to 1 as a PNG file."""
    levels = (patch * 255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
    Image.fromarray(levels).save(folder / "patch.png")
    return folder / "patch.png"


def test_passes_are_as_estimated() -> None:
    problem = attacked(adversarial_patch, setting_on(Brightness(9), Patch(0.2), images((1, 9, 9))), steps=7, batch=15)
    assert problem.counted_model.backward_passes == 7 * 15
    assert problem.counted_model.forward_passes == 7 * 15 + SAMPLES


def test_another_threat_model_is_skipped_with_a_reason() -> None:
    with pytest.raises(SkipCell, match="patch, placed-patch or object-patch"):
        adversarial_patch(AttackProblem(setting_on(Brightness(0.5), Linf(0.1), images((1, 9, 9)))))


@pytest.mark.parametrize("attack", [partial(adversarial_patch, steps=5), partial(patch_pgd, steps=5, restarts=2)])
@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_model_without_a_useful_answer_is_survived(attack: Attack, value: float) -> None:
    class Useless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] * value

    problem = AttackProblem(setting_on(Useless(), Patch(0.2), images((1, 9, 9))))
    attack(problem)
    assert problem.candidates.isfinite().all()


# ---------------------------------------------------------------- how a patch is put on an image


def pasted(patch: Tensor, clean: Tensor, *, degrees: float = 0.0, size: float = 1.0, light: float = 1.0) -> Tensor:
    eps = patch.shape[1] ** 2 / clean[0, 0].numel()
    problem = AttackProblem(setting_on(Brightness(9), Patch(eps), clean))
    every = torch.ones(len(clean))
    where = Placing(
        windows_of(problem, "test"), degrees * every[:, None], size * every[:, None], light * every, every, 0.0
    )
    return where.paste(patch, problem)


def test_upright_and_at_full_size_the_pixels_are_those_of_the_patch() -> None:
    clean, patch = images((2, 9, 11)), torch.rand(2, 4, 4)
    x = pasted(patch, clean)
    for one, before in zip(x, clean, strict=True):
        where = (one != before).any(0)
        top, left = int(where.any(1).float().argmax()), int(where.any(0).float().argmax())
        assert int(where.sum()) == 16
        assert torch.allclose(one[:, top : top + 4, left : left + 4], patch, atol=1e-5)


@pytest.mark.parametrize(("degrees", "size"), [(33.0, 1.0), (180.0, 0.5), (-90.0, 0.8), (45.0, 0.7)])
def test_turned_and_shrunk_it_stays_in_its_window(degrees: float, size: float) -> None:
    clean = images((2, 9, 11))
    x = pasted(torch.rand(2, 4, 4), clean, degrees=degrees, size=size)
    where = (x != clean).any(1)
    assert (where.any(2).sum(1) <= 4).all()
    assert (where.any(1).sum(1) <= 4).all()
    assert (where.sum((1, 2)) >= 4).all()


def test_a_quarter_turn_turns_the_patch() -> None:
    clean, patch = torch.zeros(1, 1, 8, 8), torch.rand(1, 4, 4) * 0.9 + 0.1
    upright, turned = (pasted(patch, clean, degrees=degrees) for degrees in (0.0, 90.0))
    block = upright[0, 0][upright[0, 0] > 0].reshape(4, 4)
    assert torch.allclose(turned[0, 0][turned[0, 0] > 0].reshape(4, 4), block.rot90(1), atol=1e-5)


def test_brightness_scales_the_values_and_the_gradient_reaches_the_patch() -> None:
    clean = torch.zeros(3, 1, 8, 8)
    patch = torch.full((1, 4, 4), 0.5, requires_grad=True)
    x = pasted(patch, clean, light=1.1)
    assert float(x.detach().amax()) == pytest.approx(0.55, abs=1e-5)
    (gradient,) = torch.autograd.grad(x.sum(), patch)
    assert torch.allclose(gradient, torch.full_like(gradient, 3.3), atol=1e-4)


# ---------------------------------------------------------------- on a real model


@pytest.fixture(scope="module")
def digits() -> ProblemSetting:
    catalog = open_catalog()
    model = catalog.build("models", catalog.resolve("models", parse_component("digits-cnn"))).eval()
    samples = catalog.build("datasets", catalog.resolve("datasets", parse_component("digits"))).load(range(150))
    setting = setting_on(model.requires_grad_(False), Patch(0.15), samples.inputs, 150)
    right = Classification().intact(model(samples.inputs), samples.targets)
    return replace(setting, goal=samples.targets, open=right)


def test_on_digits_a_patch_for_each_image_beats_one_for_all_and_that_beats_random_squares(
    digits: ProblemSetting,
) -> None:
    random, universal, own = (AttackProblem(digits) for _ in range(3))
    noise(random, repeats=1)
    adversarial_patch(universal, steps=100)
    patch_pgd(own, steps=20, restarts=3)
    assert int(universal.claimed.sum()) > 1.5 * int(random.claimed.sum())
    assert int(own.claimed.sum()) > 1.5 * int(universal.claimed.sum())
    assert int(own.claimed.sum()) > 100
