"""Another way back through some layers gives the same gradient, and is taken only where it may be."""

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from robustbench_lab.plugin_tools.quick_gradients import QuickConv2d, quick_gradients

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
    assert "_ConvolutionBackward" in str(made.grad_fn)
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
    assert "_ConvolutionBackward" not in _way_back(
        _quick(conv), torch.rand(1, conv.in_channels, 9, 9, requires_grad=True)
    )


def test_weights_that_want_a_gradient_get_it() -> None:
    quick = _quick(SLOW[0]).requires_grad_(True)
    quick(torch.rand(1, 3, 9, 9, requires_grad=True)).sum().backward()
    assert quick.weight.grad is not None


def test_a_copy_goes_by_its_own_weights_and_a_second_call_adds_nothing() -> None:
    quick = quick_gradients(_quick(SLOW[0]))
    assert type(quick) is QuickConv2d
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


def _norm(*, affine: bool = True, dtype: torch.dtype = torch.float64) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(5, affine=affine, dtype=dtype).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for values in (norm.running_var, norm.running_mean, *norm.parameters()):
            assert values is not None
            values.uniform_(0.5, 2.0, generator=random)
    return norm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@settings(max_examples=10)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
def test_output_and_gradient_are_those_of_the_normalisation(
    memory_format: torch.memory_format, affine: bool, count: int, side: int, seed: int
) -> None:
    norm, random = _norm(affine=affine), torch.Generator().manual_seed(seed)
    x = torch.randn((count, 5, side, 4), generator=random, dtype=torch.float64).to(memory_format=memory_format)
    x.requires_grad_()
    expected, made = norm(x), _quick(norm)(x)
    assert torch.equal(made, expected)
    assert "_NormalisationBackward" in str(made.grad_fn)
    above = torch.randn(expected.shape, generator=random, dtype=torch.float64)
    (found,) = torch.autograd.grad(made, x, above)
    slope = 1 / (norm.running_var + norm.eps).sqrt() * (norm.weight if affine else 1)  # type: ignore[operator]
    torch.testing.assert_close(found, above * slope.view(-1, 1, 1))


def test_gradients_of_gradients_and_transforms_go_through_a_normalisation() -> None:
    norm = _norm()
    quick = _quick(norm)
    x = torch.rand(2, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: quick(x).pow(3), x)
    right, found = (torch.func.jacrev(net)(x) for net in (norm, quick))
    torch.testing.assert_close(found, right)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(3, 5, 1), _norm(dtype=torch.float32), nn.ReLU(inplace=True)),
    ],
    ids=["convolution", "normalisation"],
)
def test_a_layer_behind_may_overwrite_the_output_as_alexnets_does(net: nn.Module) -> None:
    x = torch.rand(2, 3, 9, 9, requires_grad=True)
    right, found = (torch.autograd.grad(one(x).square().sum(), x)[0] for one in (net, _quick(net)))
    torch.testing.assert_close(found, right)


class _Standardised(nn.Conv2d):
    """Convolves with another weight than the one it holds, as timm's `StdConv2d` does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.weight - self.weight.mean(), self.bias, self.stride)


class _ActivatedNorm(nn.BatchNorm2d):
    """Normalises and clips, as timm's `BatchNormAct2d` does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


@pytest.mark.parametrize(
    "layer",
    [_Standardised(3, 4, 3, stride=2), _ActivatedNorm(3).eval(), nn.BatchNorm2d(3)],
    ids=lambda one: type(one).__name__,
)
def test_layers_that_compute_something_else_keep_their_gradient(layer: nn.Module) -> None:
    x = torch.rand(2, 3, 9, 9, requires_grad=True)
    quick = _quick(layer)
    right, found = (torch.autograd.grad(one(x).square().sum(), x)[0] for one in (layer, quick))
    assert torch.equal(found, right)


def test_a_norm_whose_weights_want_a_gradient_gives_it_and_one_in_training_keeps_its_statistics_going() -> None:
    quick = _quick(_norm())
    quick.requires_grad_(True)(torch.rand(1, 5, 3, 3, dtype=torch.float64, requires_grad=True)).sum().backward()
    assert quick.weight.grad is not None
    before = quick.running_mean.clone()
    quick.train()(torch.rand(2, 5, 3, 3, dtype=torch.float64))
    assert not torch.equal(quick.running_mean, before)


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "nfnet_f0", "tf_efficientnet_b0", "convnext_atto"])
def test_gradients_of_timms_networks_stay_as_they_are(name: str) -> None:
    net = timm.create_model(name).eval().requires_grad_(False)
    x = torch.rand(1, 3, 65, 65, requires_grad=True)
    right, found = (torch.autograd.grad(one(x)[:, 0].sum(), x)[0] for one in (net, _quick(net)))
    torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-4 * float(right.abs().max()))
