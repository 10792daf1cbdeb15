"""The threat model `series`: budgets in units of each series' own spread."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_lab.contracts import Bounds, Region
from robustbench_lab.errors import SkipCell, UsageError
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.series import Series

OPEN = Bounds(-math.inf, math.inf)
STEPS, CHANNELS = 7, 3


def problem(seed: int, samples: int, level: float, bounds: Bounds) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    unit = 10 ** (4 * torch.rand(samples, CHANNELS, generator=generator) - 2)
    clean = unit[:, None] * (level + torch.randn(samples, STEPS, CHANNELS, generator=generator))
    return clean.clamp(bounds.low, bounds.high), {"unit": unit}


def rng(samples: int) -> SampleRng:
    return SampleRng.for_samples(0, "test", [str(index) for index in range(samples)], torch.device("cpu"))


def in_units(x: Tensor, clean: Tensor, targets: dict[str, Tensor]) -> Tensor:
    return (x - clean).double() / targets["unit"][:, None].double()


cases = given(
    seed=st.integers(0, 1000),
    level=st.sampled_from([0.0, 3.0, -100.0, 1000.0]),
    eps=st.sampled_from([0.01, 0.1, 1.0, 5.0]),
    norm=st.sampled_from(["linf", "l2"]),
    last=st.sampled_from([None, 1, 3]),
    channels=st.sampled_from([None, [1], [0, 2]]),
    bounds=st.sampled_from([OPEN, Bounds(0.0, math.inf), Bounds(-1.0, 1.0)]),
)


@cases
@settings(max_examples=60, deadline=None)
def test_projections_and_starts_lie_in_the_region_and_only_where_values_may_change(
    seed: int, level: float, eps: float, norm: Any, last: Any, channels: Any, bounds: Bounds
) -> None:
    clean, targets = problem(seed, 4, level, bounds)
    region = Series(eps, norm, last, channels).around(clean, bounds, targets)
    far = clean + 10 * eps * targets["unit"][:, None] * torch.randn(clean.shape)
    for x in (region.project(far), region.random_start(rng(4), "start"), clean.clone()):
        assert region.contains(x).all()
        assert (x >= bounds.low).all()
        assert (x <= bounds.high).all()
        frozen = torch.ones(STEPS, CHANNELS, dtype=torch.bool)
        frozen[-(last or STEPS) :, channels or list(range(CHANNELS))] = False
        assert torch.equal(x[:, frozen], clean[:, frozen])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_budget_is_that_of_each_series_in_its_own_unit(norm: Any) -> None:
    clean, targets = problem(0, 5, 0.0, OPEN)
    region = Series(0.3, norm).around(clean, OPEN, targets)
    away = region.project(clean + 100 * targets["unit"][:, None])
    change = in_units(away, clean, targets).flatten(1)
    length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert torch.allclose(length, torch.full_like(length, 0.3), rtol=1e-4)
    assert torch.allclose(region.distance(away).double(), length, rtol=1e-4)
    assert not region.contains(clean + 1.01 * (away - clean)).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_steepest_step_has_size_1_and_raises_a_linear_loss_as_much_as_any(norm: Any) -> None:
    clean, targets = problem(1, 5, 0.0, OPEN)
    unit = targets["unit"][:, None]
    gradient = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2)) / unit
    region = Series(1.0, norm).around(clean, OPEN, targets)
    step = region.steepest(gradient.clone(), clean)
    scaled = (gradient * unit).flatten(1)
    best = scaled.abs().sum(1) if norm == "linf" else scaled.norm(dim=1)
    assert torch.allclose((gradient * step).flatten(1).sum(1), best, rtol=1e-4)
    assert torch.allclose(region.distance(clean + step), torch.ones(5), rtol=1e-3)


def test_rescaled_data_have_the_rescaled_region() -> None:
    clean, targets = problem(3, 4, 2.0, OPEN)
    far = clean + torch.randn(clean.shape)
    here: Region = Series(0.2).around(clean, OPEN, targets)
    there: Region = Series(0.2).around(1024 * clean, OPEN, {"unit": 1024 * targets["unit"]})
    assert torch.equal(1024 * here.project(far.clone()), there.project(1024 * far))


def test_selected_samples_keep_their_own_units() -> None:
    clean, targets = problem(4, 6, 0.0, OPEN)
    chosen = torch.tensor([4, 1])
    whole = Series(0.2, "l2", last=3).around(clean, OPEN, targets)
    far = clean + torch.randn(clean.shape)
    part = whole.select(chosen).project(far[chosen])
    assert torch.equal(part, whole.project(far.clone())[chosen])


def test_a_unit_for_each_sample_serves_all_its_series() -> None:
    clean, _ = problem(5, 3, 0.0, OPEN)
    one = Series(0.1).around(clean, OPEN, {"unit": torch.tensor([1.0, 2.0, 3.0])})
    away = one.project(clean + 50)
    assert torch.allclose((away - clean).amax((1, 2)), 0.1 * torch.tensor([1.0, 2.0, 3.0]), rtol=1e-3)


def test_what_makes_no_sense_is_named() -> None:
    clean, targets = problem(6, 3, 0.0, OPEN)
    for eps in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="give a number of standard deviations above 0"):
            Series(eps).check(OPEN)
    Series(5.0).check(Bounds(0.0, 1.0))
    with pytest.raises(SkipCell, match="for forecasting datasets"):
        Series(0.1).around(clean, OPEN, torch.zeros(3))
    with pytest.raises(SkipCell, match="a history has 7 steps only"):
        Series(0.1, last=8).around(clean, OPEN, targets)
    with pytest.raises(SkipCell, match=r"channels=\[3\].*3 series"):
        Series(0.1, channels=[0, 3]).around(clean, OPEN, targets)
