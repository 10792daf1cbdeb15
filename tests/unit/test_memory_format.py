"""Channels-last is taken where trials show that it is faster, and only before long work."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustbench_lab.passes import memory_format
from robustbench_lab.passes.memory_format import fastest_format

EXAMPLE = torch.rand(4, 3, 8, 8)
MANY, FEW_PASSES = 10**12, 1


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval().requires_grad_(False)


def is_channels_last(model: nn.Module) -> bool:
    return bool(model[0].weight.is_contiguous(memory_format=torch.channels_last))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[bool, float]:
    """Seconds that a pass takes, by whether the weights are in channels-last order."""
    seconds = {False: 1.0, True: 1.0}
    monkeypatch.setattr(memory_format, "_seconds", lambda model, _x: seconds[is_channels_last(model)])
    return seconds


@pytest.mark.parametrize(("ratio", "taken"), [(0.5, True), (0.94, True), (0.96, False), (2.0, False)])
def test_the_faster_order_is_taken(clock: dict[bool, float], ratio: float, taken: bool) -> None:
    clock[True] = ratio
    model = net()
    found = fastest_format(model, EXAMPLE, MANY)
    assert is_channels_last(model) == taken
    assert found == (torch.channels_last if taken else torch.contiguous_format)


def test_a_pass_that_something_else_held_up_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {False: iter([9.0, 5.0, 9.0, 5.0, 1.0, 5.0]), True: iter([9.0, 1.2, 0.8, 1.2])}
    monkeypatch.setattr(memory_format, "_seconds", lambda model, _x: next(times[is_channels_last(model)]))
    assert fastest_format(net(), EXAMPLE, MANY) == torch.channels_last


def test_trials_take_a_small_part_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    monkeypatch.setattr(memory_format, "_seconds", lambda _model, x: tried.append(len(x)) or 100.0)
    example = torch.rand(32, 3, 8, 8)
    fastest_format(net(), example, passes=1280)
    assert set(tried[2:]) == {8}
    assert sum(tried[2:]) <= 0.05 * 1280
    tried.clear()
    fastest_format(net(), example, passes=10**6)
    assert set(tried[2:]) == {32}


def test_nothing_is_tried_before_short_work(clock: dict[bool, float]) -> None:
    clock[True] = 0.1
    model = net()
    assert fastest_format(model, EXAMPLE, FEW_PASSES) is None
    assert not is_channels_last(model)


def test_predictions_and_gradients_stay_the_same() -> None:
    model = net()
    leaf = EXAMPLE.clone().requires_grad_()
    (before,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    model.to(memory_format=torch.channels_last)
    (after,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    assert torch.allclose(before, after, atol=1e-6)


def test_models_without_convolutions_are_left_alone() -> None:
    assert fastest_format(nn.Linear(3, 2), torch.rand(4, 3), MANY) is None
