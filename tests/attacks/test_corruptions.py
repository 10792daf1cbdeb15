"""Common corruptions: each kind against what defines it, determinism by sample, and the worst case over kinds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor, nn

from rbl_attacks.natural.corruption_kinds import KINDS, corrupted
from rbl_attacks.natural.corruption_kinds.filters import zoomed
from rbl_attacks.natural.corruption_kinds.plasma import plasma
from rbl_attacks.natural.corruptions import Kind, corruptions
from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import SkipCell
from robustbench_lab.evaluation.attack_audit import audit_attack
from robustbench_lab.objectives import Untargeted
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.natural import Corruption

every_kind = pytest.mark.parametrize("kind", KINDS)
NOT_MONOTONE = {"glass_blur", "elastic_transform", "frost"}
"""In the published constants several parameters of these change at once, not all of them for the worse."""


class OwnNumbers:
    """Random numbers for samples with these names."""

    def __init__(self, names: list[str], shape: tuple[int, ...]) -> None:
        self.rng = SampleRng.for_samples(0, "corruptions", names, torch.device("cpu"))
        self.shape = shape

    def uniform(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor:
        return self.rng.uniform(self.shape if shape is None else shape, draw)

    def normal(self, draw: str, shape: tuple[int, ...] | None = None) -> Tensor:
        return self.rng.normal(self.shape if shape is None else shape, draw)


def natural_images(count: int = 8, shape: tuple[int, ...] = (3, 32, 32)) -> Tensor:
    """Smooth, in 8 bits, with some contrast."""
    noise = np.random.default_rng(0).random((count, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 2, 2), mode="wrap")
    scaled = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy((scaled * 255).round() / 255).float()


def made(x: Tensor, kind: str, severity: int) -> Tensor:
    return corrupted(x, kind, severity, OwnNumbers([str(index) for index in range(len(x))], tuple(x.shape[1:])))


def size_of_change(x: Tensor, y: Tensor) -> float:
    return float((x - y).square().mean().sqrt())


# ---------------------------------------------------------------- what every kind keeps to


def test_the_parameter_offers_every_kind() -> None:
    assert {"all", *KINDS} == set(Kind.__args__)
    assert len(KINDS) == 15


@every_kind
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (1, 5, 5), (3, 20, 33), (3, 9, 5), (3, 70, 66)])
def test_a_kind_gives_images_in_8_bits_of_the_same_size(kind: str, shape: tuple[int, ...]) -> None:
    x = natural_images(2, shape)
    before = x.clone()
    for severity in (1, 5):
        y = made(x, kind, severity)
        assert y.shape == x.shape
        assert y.dtype == x.dtype
        assert y.isfinite().all()
        assert ((y * 255 - (y * 255).round()).abs() < 1e-3).all()
        assert (y >= 0).all()
        assert (y <= 1).all()
    assert torch.equal(x, before)


@every_kind
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_kind_copes_with_a_flat_image(kind: str, value: float) -> None:
    assert made(torch.full((2, 3, 32, 32), value), kind, 5).isfinite().all()


@every_kind
def test_a_samples_corruption_does_not_depend_on_what_else_is_in_the_batch(kind: str) -> None:
    x = natural_images()
    whole = made(x, kind, 3)
    alone = corrupted(x[[5, 2]], kind, 3, OwnNumbers(["5", "2"], tuple(x.shape[1:])))
    assert (whole[[5, 2]] - alone).abs().max() <= 1.01 / 255
    assert ((whole[[5, 2]] - alone).abs() > 1e-4).float().mean() < 0.001


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 96, 96)])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NOT_MONOTONE])
def test_a_higher_severity_changes_an_image_more(kind: str, shape: tuple[int, ...]) -> None:
    x = natural_images(4, shape)
    sizes = [size_of_change(made(x, kind, severity), x) for severity in range(1, 6)]
    # The third severity of ImageNet-C's snow is a little milder than the second, by its own constants.
    assert all(more > 0.95 * less for less, more in itertools.pairwise(sizes))
    assert sizes[0] > 0.002
    assert sizes[4] > 1.2 * sizes[0]


@pytest.mark.parametrize("kind", sorted(NOT_MONOTONE))
def test_the_kinds_whose_severities_change_several_things_change_an_image_visibly(kind: str) -> None:
    x = natural_images()
    assert all(size_of_change(made(x, kind, severity), x) > 0.02 for severity in range(1, 6))


# ---------------------------------------------------------------- each kind against its definition


def test_gaussian_noise_has_the_stated_deviation() -> None:
    grey = torch.full((50, 3, 32, 32), 0.5)
    assert float(made(grey, "gaussian_noise", 3).std()) == pytest.approx(0.08, rel=0.02)


@pytest.mark.parametrize("photons", [500, 50, 3])
def test_shot_noise_is_poisson_distributed(photons: int) -> None:
    numbers = OwnNumbers([str(index) for index in range(60)], (3, 32, 32))
    grey = torch.full((60, 3, 32, 32), 51 / 255)
    counts = KINDS["shot_noise"].apply(grey, photons, numbers).mul(photons).round().flatten().numpy()
    mean = photons * 51 / 255
    assert counts.mean() == pytest.approx(mean, rel=0.01)
    assert counts.var() == pytest.approx(mean, rel=0.02)
    for most in {0, int(mean), int(mean) + 2}:
        assert (counts <= most).mean() == pytest.approx(stats.poisson.cdf(most, mean), abs=0.005)


def test_black_has_no_shot_noise() -> None:
    assert (made(torch.zeros(3, 3, 32, 32), "shot_noise", 5) == 0).all()


def test_impulse_noise_makes_its_share_of_values_black_or_white() -> None:
    y = made(torch.full((60, 3, 32, 32), 128 / 255), "impulse_noise", 5)
    assert float((y == 0).float().mean()) == pytest.approx(0.035, rel=0.05)
    assert float((y == 1).float().mean()) == pytest.approx(0.035, rel=0.05)
    assert ((y == 0) | (y == 1) | ((y - 128 / 255).abs() < 1e-6)).all()


@pytest.mark.parametrize("kind", ["defocus_blur", "motion_blur", "zoom_blur", "glass_blur", "pixelate"])
def test_blur_leaves_a_flat_image_alone(kind: str) -> None:
    grey = torch.full((3, 3, 32, 32), 100 / 255)
    assert torch.allclose(made(grey, kind, 5), grey, atol=1e-6)


@pytest.mark.parametrize("kind", ["defocus_blur", "motion_blur"])
def test_blur_spreads_a_point_without_losing_light(kind: str) -> None:
    x = torch.zeros(4, 1, 33, 33)
    x[:, :, 16, 16] = 1
    y = KINDS[kind].apply(x, KINDS[kind].small[4], OwnNumbers(list("abcd"), (1, 33, 33)))
    assert torch.allclose(y.sum((1, 2, 3)), torch.ones(4), atol=1e-4)
    assert y.amax() < 0.5


def test_the_ring_of_a_defocused_point_has_the_stated_radius() -> None:
    x = torch.zeros(1, 1, 65, 65)
    x[:, :, 32, 32] = 1
    y = KINDS["defocus_blur"].apply(x, (6, 0.5), OwnNumbers(["a"], (1, 65, 65)))[0, 0]
    assert y[32, 38] > 0.3 * y[32, 32]
    assert y[32, 40] < 1e-3 * y[32, 32]


def test_glass_blur_moves_a_pixel_no_farther_than_stated() -> None:
    x = torch.zeros(30, 1, 32, 32)
    x[:, :, 16, 16] = 1
    y = KINDS["glass_blur"].apply(x, (0.05, 1, 1), OwnNumbers([str(i) for i in range(30)], (1, 32, 32)))
    beyond = y.clone()
    beyond[:, :, 15:18, 15:18] = 0
    assert (beyond == 0).all()
    assert (y != x).flatten(1).any(1).float().mean() > 0.3


def test_zooming_keeps_the_centre_and_agrees_with_scipy() -> None:
    x = natural_images(1, (1, 32, 32))
    crop = x[0, 0, 6:26, 6:26].numpy()
    large = ndimage.zoom(crop, 1.6, order=1)
    assert np.allclose(zoomed(x, 1.6)[0, 0].numpy(), large, atol=1e-5)


def test_brightness_raises_the_value_and_leaves_hue_and_saturation() -> None:
    x = torch.tensor([0.2, 0.4, 0.1]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    y = KINDS["brightness"].apply(x, 0.3, OwnNumbers(["a"], (3, 8, 8)))
    assert torch.allclose(y[0, :, 0, 0], torch.tensor([0.35, 0.7, 0.175]))
    assert torch.allclose(KINDS["brightness"].apply(x * 0, 0.3, OwnNumbers(["a"], (3, 8, 8))), torch.tensor(0.3))


def test_contrast_shrinks_the_differences_from_the_mean() -> None:
    x = natural_images()
    y = KINDS["contrast"].apply(x, 0.3, OwnNumbers(list("abcdefgh"), (3, 32, 32)))
    assert torch.allclose(y.mean((2, 3)), x.mean((2, 3)), atol=1e-5)
    assert torch.allclose(y.std((2, 3)), 0.3 * x.std((2, 3)), atol=1e-5)


def test_fog_is_brighter_than_no_fog_relative_to_the_brightest_value() -> None:
    x = torch.full((4, 3, 32, 32), 0.5)
    x[:, :, 0, 0] = 1
    y = KINDS["fog"].apply(x, (1.0, 2.0), OwnNumbers(list("abcd"), (3, 32, 32)))
    assert (y >= x / 2 - 1e-6).all()
    assert y.amax() <= 1 + 1e-6


def test_a_plasma_fractal_fills_the_range_and_is_rougher_where_it_decays_less() -> None:
    like = torch.zeros(20, 3, 32, 32)
    numbers = OwnNumbers([str(index) for index in range(20)], (3, 32, 32))
    smooth, rough = plasma(like, 3.0, numbers, "fog"), plasma(like, 1.5, numbers, "fog")
    for field in (smooth, rough):
        assert field.shape == (20, 1, 32, 32)
        assert (field.flatten(1).amin(1) == 0).all()
        assert (field.flatten(1).amax(1) == 1).all()
    assert rough.diff(dim=3).abs().mean() > 2 * smooth.diff(dim=3).abs().mean()


def test_pixelating_is_the_box_resampling_of_pillow() -> None:
    from PIL import Image

    x = natural_images(1)
    picture = Image.fromarray((x[0].permute(1, 2, 0) * 255).round().byte().numpy())
    down = picture.resize((20, 20), Image.Resampling.BOX)
    up = np.asarray(down.resize((32, 32), Image.Resampling.BOX)).transpose(2, 0, 1) / 255
    assert np.abs(made(x, "pixelate", 5)[0].numpy() - up).max() <= 1.01 / 255


# ---------------------------------------------------------------- the attack


class Brightness(nn.Module):
    """Class 1 where the mean is above a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        excess = x.flatten(1).mean(1) - self.threshold
        return torch.stack([torch.zeros_like(excess), excess], dim=1)


def problem_on(model: nn.Module, severity: float, clean: Tensor, bounds: Bounds | None = None) -> AttackProblem:
    return AttackProblem(setting_on(model, severity, clean, bounds))


def setting_on(model: nn.Module, severity: float, clean: Tensor, bounds: Bounds | None = None) -> ProblemSetting:
    return ProblemSetting(
        model=model.eval(),
        objective=Untargeted(),
        threat_model=Corruption(severity),
        clean=clean,
        goal=model(clean).argmax(1),
        open=torch.ones(len(clean), dtype=torch.bool),
        bounds=bounds or Bounds(),
        rng=SampleRng.for_samples(0, "corruptions", [str(index) for index in range(len(clean))], clean.device),
        batch_size=5,
    )


def test_a_sample_is_broken_if_one_of_the_kinds_breaks_it() -> None:
    clean = natural_images(8)
    model = Brightness(0.55)
    broken = {}
    for kinds in (["brightness"], ["contrast"], ["brightness", "contrast"]):
        problem = problem_on(model, 3, clean)
        corruptions(problem, kinds=kinds)
        broken[tuple(kinds)] = problem.claimed
    assert broken["brightness",].any()
    assert not broken["contrast",].any()
    assert torch.equal(broken["brightness", "contrast"], broken["brightness",] | broken["contrast",])


def test_one_kind_costs_one_pass_a_sample_and_all_cost_at_most_fifteen() -> None:
    one, every = (problem_on(Brightness(10), 1, natural_images(8)) for _ in range(2))
    corruptions(one, kinds=["fog"])
    corruptions(every)
    assert one.counted_model.forward_passes == 8
    assert every.counted_model.forward_passes == 8 * 15


def test_broken_samples_cost_nothing_more() -> None:
    problem = problem_on(Brightness(0.01), 1, torch.zeros(8, 3, 32, 32))
    corruptions(problem, kinds=["brightness", "fog", "snow"])
    assert problem.claimed.all()
    assert problem.counted_model.forward_passes == 8


def test_data_in_other_bounds_is_corrupted_alike() -> None:
    bounds = Bounds(-2, 3)
    clean = natural_images(8)
    usual, scaled = problem_on(Brightness(10), 4, clean), problem_on(Brightness(10), 4, clean * 5 - 2, bounds)
    for problem in (usual, scaled):
        corruptions(problem, kinds=["snow"])
    assert torch.allclose(usual.candidates * 5 - 2, scaled.candidates, atol=0.03)


def test_every_candidate_is_allowed_by_the_threat_model() -> None:
    setting = setting_on(Brightness(0.5), 5, natural_images(8))
    problem = AttackProblem(setting)
    corruptions(problem)
    assert audit_attack(problem, setting, setting.model, passes=1).problems == ()


def test_inputs_that_are_no_grey_or_colour_images_are_skipped_with_a_reason() -> None:
    with pytest.raises(SkipCell, match="grey or colour images"):
        corruptions(problem_on(Brightness(0.5), 1, torch.rand(3, 4, 8, 8)))


def test_a_model_that_answers_nan_is_broken_by_the_first_kind() -> None:
    class Answerless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), math.nan)

    problem = problem_on(Answerless(), 1, natural_images(4))
    corruptions(problem)
    assert problem.claimed.all()
    assert problem.counted_model.forward_passes == 4
