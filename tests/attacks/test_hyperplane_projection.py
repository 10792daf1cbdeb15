"""The shortest steps to a hyperplane within the bounds, against exact solutions and the authors' code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rbl_attacks.minimum_norm.hyperplane_projection import HYPERPLANES
from robustbench_lab.contracts import Bounds

ORDER = {"linf": math.inf, "l2": 2, "l1": 1}
NORMS = list(ORDER)
ROWS = 16


def shortest_step(norm: str, weight: Tensor, bounds: Bounds, x: Tensor, value: Tensor) -> Tensor:
    size, against = HYPERPLANES[norm](weight.clone(), bounds).step_from(x, value)
    return -size * against


def length(step: Tensor, norm: str) -> Tensor:
    return torch.linalg.vector_norm(step.double(), ord=ORDER[norm], dim=1)


def case(
    seed: int, dimension: int, *, zeros: float = 0.0, at_bounds: float = 0.0, reach: float = 0.5, bounds: Bounds
) -> tuple[Tensor, Tensor, Tensor]:
    """Points, weights and values; `reach` is the share of the way to the farthest corner at which the plane lies."""
    generator = torch.Generator().manual_seed(seed)

    def uniform() -> Tensor:
        return torch.rand(ROWS, dimension, generator=generator)

    x = uniform()
    x = torch.where(uniform() < at_bounds, x.round(), x) * bounds.width + bounds.low
    weight = torch.where(uniform() < zeros, 0, torch.randn(ROWS, dimension, generator=generator))
    side = torch.randn(ROWS, generator=generator).sign()
    # At the corner that lies farthest against the side's direction, the value falls by this much.
    falls = torch.maximum((x - bounds.low) * weight * side[:, None], (x - bounds.high) * weight * side[:, None])
    return x, weight, side * reach * falls.sum(1)


def corner(x: Tensor, weight: Tensor, value: Tensor, bounds: Bounds) -> Tensor:
    """The step to the corner of the box where the value is lowest, or highest if it is negative."""
    ends = torch.where(weight * value.sign()[:, None] > 0, bounds.low, bounds.high)
    return torch.where(weight == 0, 0, ends - x)


def exact_length(x: Tensor, weight: Tensor, value: Tensor, norm: str, bounds: Bounds) -> Tensor:
    """Length of the shortest step, in float64, by bisection (linf, l2) or by filling up (l1)."""
    x, weight, value = x.double(), weight.double(), value.double()
    room, size = corner(x, weight, value, bounds).abs(), weight.abs()
    if norm == "l1":
        order = size.argsort(1, descending=True)
        worth = (room * size).gather(1, order)
        before = worth.cumsum(1) - worth
        used = (value.abs()[:, None] - before).clamp(min=0).minimum(worth)
        return torch.where(worth > 0, used / size.gather(1, order), 0).sum(1)
    slope = torch.ones_like(size) if norm == "linf" else size
    low, high = torch.zeros(len(x), 1).double(), torch.full((len(x), 1), 1e6).double()
    for _ in range(200):
        middle = (low + high) / 2
        short = (torch.minimum(middle * slope, room) * size).sum(1, keepdim=True) < value.abs()[:, None]
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return length(torch.minimum(high * slope, room), norm)


BOXES = st.sampled_from([Bounds(), Bounds(-1, 1), Bounds(-3.0, 7.0)])


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    dimension=st.integers(1, 200),
    zeros=st.sampled_from([0.0, 0.5]),
    at_bounds=st.sampled_from([0.0, 0.7]),
    reach=st.floats(1e-3, 0.999),
    bounds=BOXES,
)
def test_a_step_ends_on_the_hyperplane_within_the_bounds_and_none_is_shorter(
    norm: str, seed: int, dimension: int, zeros: float, at_bounds: float, reach: float, bounds: Bounds
) -> None:
    x, weight, value = case(seed, dimension, zeros=zeros, at_bounds=at_bounds, reach=reach, bounds=bounds)
    step = shortest_step(norm, weight, bounds, x, value)
    slack = 4e-6 * bounds.width
    assert (x + step >= bounds.low - slack).all()
    assert (x + step <= bounds.high + slack).all()
    left = (weight.double() * step.double()).sum(1) + value.double()
    assert (left.abs() <= 1e-5 * (weight.abs().sum(1) * bounds.width)).all()
    shortest = exact_length(x, weight, value, norm, bounds)
    assert torch.allclose(length(step, norm), shortest, rtol=2e-4, atol=1e-5 * bounds.width)
    assert (step[weight == 0] == 0).all()


@pytest.mark.parametrize("norm", ["linf", "l1"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), dimension=st.integers(1, 5), reach=st.floats(0.01, 0.99))
def test_no_linear_program_finds_a_shorter_step(norm: str, seed: int, dimension: int, reach: float) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    x, weight, value = case(seed, dimension, zeros=0.2, at_bounds=0.2, reach=reach, bounds=Bounds())
    found = length(shortest_step(norm, weight, Bounds(), x, value), norm)
    one = int(torch.argmax(value.abs()))
    w, t = weight[one].double().numpy(), x[one].double().numpy()
    # Variables: the step, and bounds on the sizes of its coordinates (one for all in linf).
    identity, sizes = np.eye(dimension), (np.ones((dimension, 1)) if norm == "linf" else np.eye(dimension))
    count = sizes.shape[1]
    solved = optimize.linprog(
        np.concatenate([np.zeros(dimension), np.ones(count)]),
        A_ub=np.block([[identity, -sizes], [-identity, -sizes]]),
        b_ub=np.zeros(2 * dimension),
        A_eq=np.concatenate([w, np.zeros(count)])[None],
        b_eq=[-float(value[one])],
        bounds=[(-a, 1 - a) for a in t] + [(0, None)] * count,
    )
    assert solved.status in (0, 2)
    if solved.status == 0:
        assert float(found[one]) == pytest.approx(solved.fun, abs=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dimension", [1, 30, 200])
def test_where_the_box_does_not_reach_the_hyperplane_the_step_goes_to_the_nearest_corner(
    norm: str, dimension: int
) -> None:
    x, weight, value = case(3, dimension, zeros=0.3, reach=1.7, bounds=Bounds())
    step = shortest_step(norm, weight, Bounds(), x, value)
    assert torch.allclose(step, corner(x, weight, value, Bounds()), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_without_bounds_the_length_is_the_value_over_the_dual_norm(norm: str) -> None:
    bounds = Bounds(-math.inf, math.inf)
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, ROWS, 100, generator=generator).mul_(5)
    weight[:, ::7] = 0
    value = torch.randn(ROWS, generator=generator)
    step = shortest_step(norm, weight, bounds, x, value)
    dual = {"linf": 1, "l2": 2, "l1": math.inf}[norm]
    assert torch.allclose(length(step, norm).float(), value.abs() / torch.linalg.vector_norm(weight, ord=dual, dim=1))
    assert torch.allclose((weight * step).sum(1), -value, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_size_of_weight_and_value_does_not_matter(norm: str, scale: float) -> None:
    x, weight, value = case(4, 60, zeros=0.1, reach=0.2, bounds=Bounds())
    step = shortest_step(norm, weight, Bounds(), x, value)
    scaled = shortest_step(norm, weight * scale, Bounds(), x, value * scale)
    assert torch.allclose(step, scaled, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_no_step_where_there_is_no_hyperplane_or_the_point_is_on_it(norm: str) -> None:
    x, weight, value = case(5, 40, bounds=Bounds())
    weight[0], weight[1, 3], weight[2, 5] = 0, math.nan, math.inf
    value[3], value[4], value[5] = math.nan, math.inf, 0
    step = shortest_step(norm, weight, Bounds(), x, value)
    assert (step[:6] == 0).all()
    assert step.isfinite().all()
    assert (step[6:] != 0).any(1).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_has_the_same_step_whatever_else_is_in_the_batch(norm: str) -> None:
    x, weight, value = case(6, 300, zeros=0.1, at_bounds=0.3, reach=0.9, bounds=Bounds())
    together = shortest_step(norm, weight, Bounds(), x, value)
    for row in range(ROWS):
        one = slice(row, row + 1)
        alone = shortest_step(norm, weight[one], Bounds(), x[one], value[one])
        assert torch.allclose(alone, together[one], atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("reach", [0.01, 0.2, 0.8])
def test_steps_are_those_of_the_authors_code(norm: str, reach: float) -> None:
    official = getattr(pytest.importorskip("pyautoattack.fab_projections"), f"projection_{norm}")
    x, weight, value = case(7, 300, zeros=0.1, at_bounds=0.2, reach=reach, bounds=Bounds())
    step = shortest_step(norm, weight, Bounds(), x, value)
    theirs = official(x.clone(), weight.clone(), (weight * x).sum(1) - value)
    assert torch.allclose(length(step, norm), length(theirs, norm), rtol=1e-3)
    # Their float32 offset is off by a rounding error of the sum; in l1 the last coordinate carries all of it.
    assert torch.allclose(step, theirs, atol=1e-4)
