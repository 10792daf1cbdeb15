"""A gradient is held against finite differences of its own loss."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_lab.contracts import Bounds
from robustbench_lab.evaluation.gradient_check import finite_differences_agree

SAMPLES = 6
ANYWHERE = Bounds(float("-inf"), float("inf"))


def _data(seed: int, size: int = 30) -> tuple[Tensor, Tensor]:
    """Inputs within 0 and 1, and a direction that is not along any axis."""
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(SAMPLES, size, generator=random)
    return x, 0.5 + torch.rand(size, generator=random)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 999),
    slope=st.floats(0.1, 100),
    level=st.floats(-50, 50),
    factor=st.sampled_from([-1.0, 0.01, 0.3, 0.7, 1.0, 1.4, 3.0, 100.0]),
)
def test_on_a_linear_loss_it_agrees_exactly_up_to_a_factor_of_two(
    seed: int, slope: float, level: float, factor: float
) -> None:
    """Where the gradient is too long by a factor, the loss changes by 1 / factor of what it foretells."""
    x, direction = _data(seed)
    gradient = (slope * factor * direction).expand_as(x)

    def loss(z: Tensor) -> Tensor:
        return slope * (z @ direction) + level

    agrees, told = finite_differences_agree(loss, x, loss(x), gradient, ANYWHERE)
    assert bool((agrees <= told).all())
    if factor in (0.7, 1.0, 1.4):
        assert torch.equal(agrees, told)
    else:
        assert not bool(agrees.any())


@given(st.integers(0, 999))
def test_a_smooth_loss_agrees_and_its_reverse_or_a_shuffled_gradient_does_not(seed: int) -> None:
    x, direction = _data(seed)

    def loss(z: Tensor) -> Tensor:
        return torch.nn.functional.softplus(4 * (z - 0.5) @ direction) + (z - 0.5).square().sum(1)

    leaf = x.clone().requires_grad_()
    before = loss(leaf)
    (gradient,) = torch.autograd.grad(before.sum(), leaf)
    agrees, told = finite_differences_agree(loss, x, before.detach(), gradient, Bounds())
    assert bool(agrees.all())
    assert bool(told.all())
    agrees, told = finite_differences_agree(loss, x, before.detach(), -gradient, Bounds())
    assert not bool(agrees.any())
    assert bool(told.all())


def test_steps_stay_within_the_bounds() -> None:
    x, direction = _data(0)
    x = x.round()
    seen: list[Tensor] = []

    def loss(z: Tensor) -> Tensor:
        seen.append(z)
        return 30 * z @ direction

    agrees, told = finite_differences_agree(loss, x, 30 * x @ direction, 30 * direction.expand_as(x), Bounds())
    assert all(float(one.min()) >= 0 and float(one.max()) <= 1 for one in seen)
    assert bool(agrees.all())
    assert bool(told.all())


def test_where_no_small_step_changes_the_loss_nothing_is_told() -> None:
    x, direction = _data(0)
    slight = 1e-6 * direction.expand_as(x)
    for gradient in (slight, -slight, torch.zeros_like(x), torch.full_like(x, torch.nan)):
        _, told = finite_differences_agree(lambda z: z @ slight[0], x, x @ slight[0], gradient, Bounds())
        assert not bool(told.any())


def test_one_wrong_sample_is_told_from_the_others() -> None:
    x, direction = _data(0)
    gradient = direction.repeat(SAMPLES, 1)
    gradient[2] *= -1
    agrees, _ = finite_differences_agree(lambda z: z @ direction, x, x @ direction, gradient, ANYWHERE)
    assert agrees.tolist() == [one != 2 for one in range(SAMPLES)]
