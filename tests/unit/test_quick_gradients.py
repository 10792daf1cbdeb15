"""Another way back through some convolutions gives the same gradient, and is taken only where it may be."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustbench_lab.plugin_tools.quick_gradients import quick_gradients

SLOW = [
    nn.Conv2d(3, 8, 3, stride=2, padding=1),
    nn.Conv2d(1, 16, 5, stride=2, padding=2),
    nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(0, 2), bias=False),
    nn.Conv2d(4, 4, 7, stride=3),
    nn.Conv2d(3, 5, 2, stride=3, padding=1),
]
OTHERS = [
    nn.Conv2d(3, 4, 3, stride=2, dilation=2),
    nn.Conv2d(8, 16, 1, stride=2),
    nn.Conv2d(8, 16, 3, stride=2),
    nn.Conv2d(3, 6, 3, stride=2, groups=3),
    nn.Conv2d(3, 8, 3),
    nn.Conv2d(3, 8, 3, stride=2, padding_mode="reflect", padding=1),
]


def _quick(net: nn.Module) -> nn.Module:
    return quick_gradients(copy.deepcopy(net).requires_grad_(False))


def _way_back(net: nn.Module, x: torch.Tensor) -> str:
    """The name of the node that leads back to the input."""
    return str(net(x).grad_fn)


@pytest.mark.parametrize("conv", SLOW, ids=str)
@settings(max_examples=10)
@given(st.integers(1, 4), st.integers(7, 14), st.integers(9, 14), st.integers(0, 99))
def test_output_and_gradient_are_those_of_the_convolution(
    conv: nn.Conv2d, count: int, height: int, width: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn((count, conv.in_channels, height, width), generator=random).requires_grad_()
    expected, made = conv(x), _quick(conv)(x)
    assert torch.equal(made, expected)
    assert "QuickBackward" in str(made.grad_fn)
    above = torch.randn(expected.shape, generator=random)
    (right,), (found,) = torch.autograd.grad(expected, x, above), torch.autograd.grad(made, x, above)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)


def test_gradients_of_gradients_and_transforms_work() -> None:
    conv = copy.deepcopy(SLOW[0]).double()
    quick = _quick(conv)
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: quick(x).pow(3), x)
    right, found = (
        torch.func.vmap(torch.func.grad(lambda x, net=net: net(x).square().sum()))(x) for net in (conv, quick)
    )
    torch.testing.assert_close(found, right)


@pytest.mark.parametrize("conv", OTHERS, ids=str)
def test_other_convolutions_are_left_alone(conv: nn.Conv2d) -> None:
    assert "QuickBackward" not in _way_back(_quick(conv), torch.rand(1, conv.in_channels, 9, 9, requires_grad=True))


def test_weights_that_want_a_gradient_get_it() -> None:
    quick = _quick(SLOW[0]).requires_grad_(True)
    quick(torch.rand(1, 3, 9, 9, requires_grad=True)).sum().backward()
    assert quick.weight.grad is not None


def test_a_copy_goes_by_its_own_weights_and_a_second_call_adds_nothing() -> None:
    quick = quick_gradients(_quick(SLOW[0]))
    assert len(quick._forward_hooks) == 1
    other = copy.deepcopy(quick)
    other.weight.mul_(2)
    x = torch.rand(1, 3, 9, 9, requires_grad=True)
    once, twice = (torch.autograd.grad(net(x).sum(), x)[0] for net in (quick, other))
    torch.testing.assert_close(twice, 2 * once)


def test_any_memory_format_will_do() -> None:
    x = torch.rand(3, 3, 11, 9).to(memory_format=torch.channels_last).requires_grad_()
    conv = copy.deepcopy(SLOW[0]).to(memory_format=torch.channels_last)
    right, found = (torch.autograd.grad(net(x).square().sum(), x)[0] for net in (conv, _quick(conv)))
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
