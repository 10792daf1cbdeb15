"""A region of which only some values are within reach."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustbench_lab.contracts import Bounds
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.threat_models.masked_region import MaskedRegion
from robustbench_lab.threat_models.norm_balls import L0, L1, L2, Linf

BALLS = [Linf(0.1), L2(0.5), L1(1.0), L0(5)]
CLEAN = torch.rand(4, 2, 5, 6, generator=torch.Generator().manual_seed(0))
REACH = torch.zeros(4, 1, 5, 6, dtype=torch.bool)
REACH[:, :, :3, :4] = True


def region(ball: Linf | L2 | L1 | L0) -> MaskedRegion:
    return MaskedRegion(ball.around(CLEAN, Bounds()), REACH)


def outside(x: Tensor) -> Tensor:
    return (x - CLEAN)[~REACH.expand_as(x)]


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.norm)
def test_what_is_out_of_reach_never_changes(ball: Linf | L2 | L1 | L0) -> None:
    masked = region(ball)
    rng = SampleRng.for_samples(0, "test", list("abcd"), torch.device("cpu"))
    start = masked.random_start(rng, "start/0")
    far = masked.project(CLEAN + torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1)))
    for x in (start, far):
        assert not outside(x).any()
        assert (x != CLEAN).any()
        assert masked.contains(x).all()
    direction = masked.steepest(torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(2)), start)
    assert not direction[~REACH.expand_as(direction)].any()
    assert direction.flatten(1).any(1).all()


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.norm)
def test_within_reach_it_is_the_other_region(ball: Linf | L2 | L1 | L0) -> None:
    """As if the image were only what is within reach."""
    x = CLEAN + 0.3 * torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))
    small = ball.around(CLEAN[:, :, :3, :4].contiguous(), Bounds())
    expected = small.project(x[:, :, :3, :4].contiguous())
    assert torch.allclose(region(ball).project(x.clone())[:, :, :3, :4], expected, atol=1e-5)


def test_a_change_out_of_reach_is_not_contained() -> None:
    x = CLEAN.clone()
    x[1, 0, 4, 5] += 1e-3
    assert region(Linf(0.1)).contains(x.clamp(0, 1)).tolist() == [True, False, True, True]


def test_a_selection_keeps_its_own_reach() -> None:
    reach = REACH.clone()
    reach[2] = ~reach[2]
    part = MaskedRegion(Linf(0.1).around(CLEAN, Bounds()), reach).select(torch.tensor([2, 0]))
    assert torch.equal(part.attackable, reach[[2, 0]])
    assert torch.equal(part.clean, CLEAN[[2, 0]])
