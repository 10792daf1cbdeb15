"""Batch normalisations are folded into the convolutions before them, wherever that leaves the network what it is."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from robustbench_lab.evaluation.workbench import ready
from robustbench_lab.passes.folded_norms import with_folded_norms

CPU = torch.device("cpu")
NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def images(count: int = 3, channels: int = 4, side: int = 9, seed: int = 0) -> Tensor:
    return torch.rand((count, channels, side, side), generator=torch.Generator().manual_seed(seed))


def used(net: nn.Module, seed: int = 0) -> nn.Module:
    """Ready for attacks, with statistics as training leaves them: none of them 0 or 1."""
    random = torch.Generator().manual_seed(seed)
    for module in net.modules():
        for name, least in (("running_mean", -1.0), ("running_var", 0.5), ("weight", 0.5), ("bias", -1.0)):
            values = getattr(module, name, None)
            if isinstance(module, NORMS) and values is not None:
                values.data.copy_(least + torch.rand(values.shape, generator=random))
    return ready(net, CPU)


def norms_in(net: nn.Module) -> int:
    return sum(isinstance(module, NORMS) for module in net.modules())


def input_gradient(net: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(net(leaf).square().sum(), leaf)[0]


@settings(max_examples=30)
@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    norm=st.sampled_from(
        [
            nn.BatchNorm2d,
            lambda channels: nn.BatchNorm2d(channels, affine=False, eps=0.1),
            FrozenBatchNorm2d,
            lambda channels: BatchNormAct2d(channels, act_layer=nn.SiLU),
        ]
    ),
    seed=st.integers(0, 99),
)
def test_outputs_and_gradients_are_the_networks(
    kernel: int, stride: int, groups: int, bias: bool, norm: Callable[[int], nn.Module], seed: int
) -> None:
    conv = nn.Conv2d(4, 8, kernel, stride=stride, groups=groups, bias=bias)
    net = used(nn.Sequential(conv, norm(8), nn.Tanh(), nn.Conv2d(8, 2, 1)), seed)
    x = images(seed=seed)
    folded = with_folded_norms(net, x)
    assert folded is not None
    assert (norms_in(net), norms_in(folded)) == (1, 0)
    others = images(seed=seed + 1)
    torch.testing.assert_close(folded(others), net(others), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(input_gradient(folded, others), input_gradient(net, others), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "left"), [("resnet18", 0), ("mobilenetv3_small_100", 0), ("densenet121", 62), ("regnetx_002", 0)]
)
def test_networks_of_timm_are_what_they_were_with_fewer_normalisations(name: str, left: int) -> None:
    torch.manual_seed(0)
    net = used(timm.create_model(name, num_classes=10))
    x = images(4, 3, 64)
    before, weights = net(x), copy.deepcopy(net.state_dict())
    folded = with_folded_norms(net, x)
    assert folded is not None
    assert norms_in(folded) == left < norms_in(net)
    torch.testing.assert_close(folded(x), before, rtol=1e-3, atol=1e-3 * float(before.abs().max()))
    assert torch.equal(net(x), before)
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not any(module.training for module in folded.modules())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_the_order_in_memory_stays() -> None:
    net = used(nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))).to(memory_format=torch.channels_last)
    folded = with_folded_norms(net, images())
    assert folded is not None
    assert folded[0].weight.is_contiguous(memory_format=torch.channels_last)


class Derived(nn.BatchNorm2d):
    """Who knows what it does."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Wired(nn.Module):
    """A convolution and normalisations, connected in a way of their own."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.way = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def _residual(net: Wired, x: Tensor) -> Tensor:
    made = net.conv(x)
    return made + net.first(made)


def _shared_convolution(net: Wired, x: Tensor) -> Tensor:
    return net.first(net.conv(x)) + net.second(net.conv(x + 1))


def _shared_norm(net: Wired, x: Tensor) -> Tensor:
    return net.first(net.conv(x)) + net.first(x)


def _looks_at_its_norm(net: Wired, x: Tensor) -> Tensor:
    return net.first(net.conv(x)) * net.first.running_var.sum()


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Conv2d(4, 4, 1), Derived(4)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.ConvTranspose2d(4, 4, 1), nn.BatchNorm2d(4)),
        Wired(_residual),
        Wired(_shared_convolution),
        Wired(_shared_norm),
        Wired(_looks_at_its_norm),
    ],
    ids=["derived", "not-after", "before", "no-statistics", "transposed", "residual", "conv", "norm", "looks"],
)
def test_what_would_change_the_network_is_left_alone(net: nn.Module) -> None:
    assert with_folded_norms(used(net), images()) is None


def test_a_layer_that_somebody_looks_at_is_left_alone() -> None:
    for place in (0, 1):
        net = used(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
        net[place].register_forward_hook(lambda *_: None)
        assert with_folded_norms(net, images()) is None


def test_a_network_that_cannot_be_copied_is_left_alone() -> None:
    net = used(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    net.held = (one for one in ())
    assert with_folded_norms(net, images()) is None


def test_what_happens_in_place_between_the_two_is_seen() -> None:
    parts = [nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)]
    net = used(nn.Sequential(*parts))
    folded = with_folded_norms(net, images())
    assert folded is not None
    assert [type(part).__name__ for part in folded][2:] == ["QuickBatchNorm2d", "Conv2d", "Identity"]
    torch.testing.assert_close(folded(images(seed=1)), net(images(seed=1)), rtol=1e-4, atol=1e-5)


def test_a_module_that_stands_in_two_places_is_folded_in_both() -> None:
    pair = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    net = used(nn.Sequential(pair, nn.ReLU(), pair))
    folded = with_folded_norms(net, images())
    assert folded is not None
    assert norms_in(folded) == 0
    torch.testing.assert_close(folded(images(seed=1)), net(images(seed=1)), rtol=1e-4, atol=1e-5)


def test_torchvisions_frozen_backbone_is_folded() -> None:
    torch.manual_seed(0)
    net = used(torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d, num_classes=5))
    folded = with_folded_norms(net, images(2, 3, 64))
    assert folded is not None
    assert norms_in(folded) == 0
