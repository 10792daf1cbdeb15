"""What an adversary of series may do beyond a norm ball: each region against what its definition says."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from robustbench_lab.attack_problem import AttackProblem
from robustbench_lab.catalog.component_syntax import Component
from robustbench_lab.contracts import Bounds
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.evaluation.attack_audit import Audit, audit_attack
from robustbench_lab.pipeline import open_catalog
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.forecasting_objectives import Up
from robustbench_lab.testing.known_forecasters import LinearForecaster, forecast_setting
from robustbench_lab.threat_models.masked_region import masked
from robustbench_lab.threat_models.series import Series

OPEN, FROM_0 = Bounds(-math.inf, math.inf), Bounds(0.0, math.inf)
EPS = 0.3
STEPS, CHANNELS = 7, 3
FORMS: list[dict[str, Any]] = [
    {},
    {"relative": True},
    {"steps": 2},
    {"most_channels": 2},
    {"steps": 2, "relative": True, "last": 5},
    {"smooth": 0.1},
    {"smooth": 0.08, "last": 5},
    {"smooth": 1.0, "channels": [1]},
    {"monotone": True},
    {"monotone": True, "channels": [0, 2]},
    {"monotone": True, "relative": True},
    {"integer": True},
    {"integer": True, "steps": 3},
    {"integer": True, "monotone": True},
    {"integer": True, "relative": True},
]
CONVEX = [form for form in FORMS if not {"integer", "steps", "most_channels"} & form.keys()]
ALL = [*FORMS, {"norm": "l2", "relative": True}]


def example(seed: int, *, whole: bool, counting: bool = False, samples: int = 4) -> tuple[Tensor, dict[str, Tensor]]:
    """Histories around 3 units, and their units; counting: with parts that do not fall."""
    generator = torch.Generator().manual_seed(seed)
    unit = 10 ** (2 * torch.rand(samples, CHANNELS, generator=generator))
    clean = unit[:, None] * (3 + torch.randn(samples, STEPS, CHANNELS, generator=generator)).clamp(min=0)
    if counting:
        clean = clean.cumsum(1) - 5 * unit[:, None] * (torch.arange(STEPS) >= 4)[:, None]
        clean = clean.clamp(min=0)
    return (clean.round() if whole else clean), {"unit": unit, "future": torch.zeros(samples, 2, CHANNELS)}


def region_of(form: dict[str, Any], seed: int, bounds: Bounds = FROM_0) -> tuple[Any, Tensor, Tensor]:
    """The region, its clean inputs and units `[N, 1, C]`."""
    clean, targets = example(seed, whole="integer" in form, counting="monotone" in form)
    threat_model = Series(EPS, **form)
    threat_model.check(bounds)
    return threat_model.around(clean, bounds, targets), clean, targets["unit"][:, None]


def rng(samples: int = 4) -> SampleRng:
    return SampleRng.for_samples(0, "test", [str(index) for index in range(samples)], torch.device("cpu"))


def far_from(clean: Tensor, unit: Tensor, seed: int, size: float) -> Tensor:
    return clean + size * unit * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + 1))


@given(form=st.sampled_from(ALL), seed=st.integers(0, 1000), size=st.sampled_from([0.01, 0.3, 5.0]))
@settings(max_examples=80, deadline=None)
def test_projections_and_starts_are_inside_and_projecting_twice_changes_nothing(
    form: dict[str, Any], seed: int, size: float
) -> None:
    region, clean, unit = region_of(form, seed)
    projected = region.project(far_from(clean, unit, seed, size))
    for x in (projected, region.random_start(rng(), "start"), clean.clone()):
        assert region.contains(x).all()
        assert (x >= 0).all()
        assert (region.distance(x) <= EPS * 1.0001).all()
    assert torch.allclose(region.project(projected.clone()), projected, rtol=1e-5, atol=0)
    assert not region.contains(projected + 3 * EPS * (unit + clean)).any()


@given(form=st.sampled_from(ALL), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_some_samples_have_the_region_that_they_have_among_others(form: dict[str, Any], seed: int) -> None:
    region, clean, unit = region_of(form, seed)
    far, gradient = far_from(clean, unit, seed, 1.0), torch.randn(clean.shape) / unit
    chosen = torch.tensor([2, 0])
    part = region.select(chosen)
    assert torch.allclose(part.project(far[chosen]), region.project(far.clone())[chosen], rtol=1e-5)
    steps = part.steepest(gradient[chosen], clean[chosen]), region.steepest(gradient.clone(), clean)[chosen]
    assert torch.allclose(*steps, rtol=1e-4, atol=1e-5)
    assert torch.equal(part.random_start(rng().select(chosen), "a"), region.random_start(rng(), "a")[chosen])


@given(form=st.sampled_from(ALL), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_what_is_out_of_reach_stays_and_the_rest_keeps_to_the_rules(form: dict[str, Any], seed: int) -> None:
    region, clean, unit = region_of(form, seed)
    reach = torch.rand(clean.shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    part = masked(region, reach)
    for x in (part.project(far_from(clean, unit, seed, 1.0)), part.random_start(rng(), "start")):
        assert torch.equal(x[~reach], clean[~reach])
        assert part.contains(x).all()
        assert region.contains(x).all()


@given(form=st.sampled_from(CONVEX), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_projection_is_the_nearest_point_of_a_convex_region(form: dict[str, Any], seed: int) -> None:
    """From the nearest point no other one lies in the direction of the point that was projected."""
    region, clean, unit = region_of(form, seed)
    x = far_from(clean, unit, seed, 0.5)
    nearest = region.project(x.clone())
    others = [region.project(far_from(clean, unit, seed + number, 0.5)) for number in range(1, 6)]
    for other in (*others, nearest + region.steepest((x - nearest) / unit**2, nearest)):
        inside = torch.where(region.contains(other)[:, None, None], other, nearest)
        ahead = ((x - nearest) * (inside - nearest) / unit**2).flatten(1).sum(1)
        assert (ahead <= 1e-4 + (0.02 if "smooth" in form else 0)).all()


@pytest.mark.parametrize(
    ("form", "axis"), [({"steps": 2}, 1), ({"most_channels": 2}, 2), ({"integer": True, "steps": 3}, 1)]
)
def test_the_groups_that_a_projection_keeps_are_the_best_of_all_choices(form: dict[str, Any], axis: int) -> None:
    region, clean, unit = region_of(form, 5)
    box = Series(EPS, integer="integer" in form).around(clean, FROM_0, {"unit": unit[:, 0]})
    count = next(value for name, value in form.items() if name != "integer")
    for seed in range(20):
        x = far_from(clean, unit, seed, 0.4)
        in_box, best = box.project(x.clone()), torch.full((len(x),), math.inf)
        for chosen in combinations(range(clean.shape[axis]), count):
            candidate = clean.index_copy(axis, torch.tensor(chosen), in_box.index_select(axis, torch.tensor(chosen)))
            best = best.minimum(((candidate - x) / unit).square().flatten(1).sum(1))
        found = ((region.project(x.clone()) - x) / unit).square().flatten(1).sum(1)
        assert torch.allclose(found, best, rtol=1e-4)


@pytest.mark.parametrize(("form", "axis"), [({"steps": 2}, 1), ({"most_channels": 2}, 2)])
def test_a_step_of_the_whole_budget_ends_at_the_best_of_all_choices_of_groups(form: dict[str, Any], axis: int) -> None:
    region, clean, unit = region_of(form, 6)
    for seed in range(20):
        gradient = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)) / unit
        end = Series(EPS).around(clean, FROM_0, {"unit": unit[:, 0]}).project(clean + 9 * EPS * gradient.sign() * unit)
        gain = (gradient * (end - clean)).sum(3 - axis)
        best = gain.topk(2, dim=1).values.sum(1)
        stepped = region.project(clean + EPS * region.steepest(gradient.clone(), clean))
        assert torch.allclose((gradient * (stepped - clean)).flatten(1).sum(1), best, rtol=1e-4)


def test_a_search_that_begins_in_the_wrong_steps_finds_the_right_ones() -> None:
    setting = forecast_setting(Series(EPS, steps=2), Up())
    for seed in range(5):
        problem = AttackProblem(setting)
        x = problem.random_start(seed)
        for _ in range(50):
            _, gradient = problem.loss_and_gradient(x)
            x = problem.project(x + EPS / 20 * problem.steepest(gradient, x))
        changed = (x != setting.clean).any(2)
        best = LinearForecaster().mean_weight.abs().topk(2).indices
        assert changed.nonzero()[:, 1].view(-1, 2).unique(dim=0).tolist() == [sorted(best.tolist())]


def attacked(setting: ProblemSetting, name: str, **params: Any) -> Audit:
    """What the core makes of an attack of the catalog."""
    catalog = open_catalog([])
    problem = AttackProblem(setting)
    catalog.build(
        "attacks", catalog.resolve("attacks", Component(name, params), task="forecasting"), problem, task="forecasting"
    )
    return audit_attack(problem, setting, setting.model, passes=1)


def best_shift(form: dict[str, Any], setting: ProblemSetting) -> np.ndarray:
    """The largest shift of the mean forecast of each sample, by what the region is defined as."""
    weight, unit = LinearForecaster().mean_weight.double(), setting.targets["unit"][:, None].double()
    size = EPS * (
        setting.clean.double().abs() / unit if "relative" in form else torch.ones_like(setting.clean).double()
    )
    gain = weight.abs()[:, None] * (size * unit).floor() / unit if "integer" in form else weight.abs()[:, None] * size
    if "smooth" in form or "monotone" in form:
        return np.array([_by_linear_program(form, setting, sample) for sample in range(len(size))])
    if "steps" in form:
        return gain.mean(2).topk(form["steps"], dim=1).values.sum(1).numpy()
    if "most_channels" in form:
        return (gain.sum(1).amax(1) / 2).numpy()
    return gain.sum(1).mean(1).numpy()


def _by_linear_program(form: dict[str, Any], setting: ProblemSetting, sample: int) -> float:
    weight, total = LinearForecaster().mean_weight.double().numpy(), 0.0
    difference = np.diff(np.eye(len(weight)), axis=0)
    for channel in range(2):
        rise = np.diff(setting.clean[sample, :, channel].double().numpy()) / float(setting.targets["unit"][0, channel])
        if "smooth" in form:
            rules, limits = np.concatenate([difference, -difference]), np.full(2 * len(rise), form["smooth"])
        else:
            rules, limits = -difference[rise >= 0], rise[rise >= 0]
        total -= linprog(-weight, A_ub=rules, b_ub=limits, bounds=(-EPS, EPS)).fun
    return total / 2


@pytest.mark.parametrize(
    "form",
    [
        {"relative": True},
        {"steps": 2},
        {"most_channels": 1},
        {"steps": 3, "relative": True},
        {"smooth": 0.1},
        {"smooth": 0.13},
        {"monotone": True},
        {"integer": True},
        {"integer": True, "steps": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("name", "params", "share", "least"),
    [
        ("fgsm", {}, 0.9999, 0.95),
        ("pgd", {"steps": 20}, 0.9999, 0.99),
        ("apgd", {"steps": 20}, 0.999, 0.99),
        ("mim", {"steps": 8}, 0.9999, 0.99),
        ("noise", {"repeats": 2}, 0.0, 0.0),
    ],
)
def test_attacks_reach_the_best_shift_of_a_linear_forecaster_and_no_more(
    name: str, params: dict[str, Any], share: float, least: float, form: dict[str, Any]
) -> None:
    """least: the share in regions that are no boxes, where a step along the gradient does not end at the best point."""
    setting = forecast_setting(Series(EPS, **form), Up(), whole="integer" in form)
    audit = attacked(setting, name, **params)
    best, shift = best_shift(form, setting), audit.outcomes.columns["shift"]
    assert not [finding for finding in audit.problems if finding.code == "outside-threat-model"]
    assert (shift <= best * 1.0001 + 1e-6).all()
    assert (shift >= (min(share, least) if {"smooth", "monotone"} & form.keys() else share) * best).all()


@pytest.mark.parametrize("form", [{"steps": 2}, {"smooth": 0.1}, {"integer": True}, {"relative": True}], ids=str)
@pytest.mark.parametrize("name", ["nes", "square"])
def test_an_attack_without_gradients_finds_most_of_it(name: str, form: dict[str, Any]) -> None:
    setting = forecast_setting(Series(EPS, **form), Up(), whole="integer" in form)
    audit = attacked(setting, name, queries=600)
    assert not [finding for finding in audit.problems if finding.code == "outside-threat-model"]
    assert (audit.outcomes.columns["shift"] >= 0.6 * best_shift(form, setting)).all()


def test_square_finds_all_of_it_where_the_region_is_a_box() -> None:
    setting = forecast_setting(Series(EPS), Up())
    audit = attacked(setting, "square", queries=1000)
    np.testing.assert_allclose(audit.outcomes.columns["shift"], best_shift({}, setting), rtol=1e-4)


def test_square_in_l2_comes_near_the_longest_push_along_the_weights() -> None:
    setting = forecast_setting(Series(1.0, norm="l2"), Up())
    audit = attacked(setting, "square", queries=1500)
    weight = LinearForecaster().mean_weight[:, None].expand(-1, 2) / 2
    best = float(weight.norm())
    assert (audit.outcomes.columns["shift"] <= best * 1.0001).all()
    assert (audit.outcomes.columns["shift"] >= 0.8 * best).all()


def test_what_is_0_has_no_relative_change() -> None:
    clean, targets = example(1, whole=False)
    clean[:, 3] = 0
    region = Series(0.5, relative=True).around(clean, OPEN, targets)
    x = region.project(clean + 1e4)
    assert (x[:, 3] == 0).all()
    assert torch.allclose((x / clean - 1).abs()[clean != 0], torch.tensor(0.5), rtol=1e-3)
    x[:, 3] = 1e-6
    assert not region.contains(x).any()


def with_covariates() -> tuple[Tensor, dict[str, Tensor]]:
    """Two series, a past covariate, a known one, and a flag; the last 2 of 9 steps are the known one's future."""
    clean = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0))
    return clean, {
        "future": torch.zeros(3, 2, 2),
        "unit": torch.tensor([[1.0, 10.0]]).expand(3, -1),
        "input_unit": torch.tensor([[1.0, 10.0, 2.0, 4.0, 1.0]]).expand(3, -1),
        "roles": torch.tensor([[0, 0, 1, 2, 3]]).expand(3, -1),
    }


@pytest.mark.parametrize(
    ("params", "channels", "first"),
    [
        ({}, [0, 1, 2, 3], 0),
        ({"of": "series"}, [0, 1], 0),
        ({"of": "covariates"}, [2, 3], 0),
        ({"of": "covariates", "channels": [3]}, [3], 0),
        ({"channels": [1], "last": 2}, [1], 5),
        ({"of": "covariates", "last": 3}, [2, 3], 4),
    ],
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_channels_are_chosen_by_what_they_are_and_each_has_its_own_unit(
    norm: Any, params: dict[str, Any], channels: list[int], first: int
) -> None:
    clean, targets = with_covariates()
    x = Series(0.1, norm, **params).around(clean, OPEN, targets).project(clean + 1e4)
    change = (x - clean) / targets["input_unit"][:, None]
    moved = torch.zeros(9, 5, dtype=torch.bool)
    moved[first:, channels] = True
    assert torch.equal(change != 0, moved.expand(3, -1, -1))
    if norm == "linf":
        assert torch.allclose(change[:, moved], torch.tensor(0.1), rtol=1e-3)
    else:
        assert torch.allclose(change.flatten(1).norm(dim=1), torch.tensor(0.1), rtol=1e-3)


def test_data_without_covariates_have_none_to_attack() -> None:
    clean, targets = example(0, whole=False)
    with pytest.raises(SkipCell, match="the data have no covariates"):
        Series(0.1, of="covariates").around(clean, OPEN, targets)
    assert Series(0.1, of="series").around(clean, OPEN, targets).contains(clean).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": 2, "smooth": 0.1}, "steps and smooth do not go together"),
        ({"steps": 2, "most_channels": 1}, "steps and most_channels do not go together"),
        ({"smooth": 0.1, "monotone": True}, "smooth and monotone do not go together"),
        ({"smooth": 0.1, "integer": True}, "smooth and integer do not go together"),
        ({"smooth": 0.1, "relative": True}, "smooth and relative do not go together"),
        ({"norm": "l2", "steps": 2}, "steps are known in norm='linf' only"),
        ({"norm": "l2", "integer": True}, "integer are known in norm='linf' only"),
    ],
)
def test_what_does_not_go_together_is_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Series(0.1, **params).check(OPEN)
