"""Gradients through frozen batch normalisation."""

import pytest
import torch
from torch import nn

from robustbench_lab.plugin_tools.batch_norm import right_gradients


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("strides", [(64, 4, 2, 1), (64, 1, 32, 16), (16, 1, 32, 16)])
def test_the_gradient_is_the_slope_however_it_lies_in_memory(
    strides: tuple[int, ...], count: int, memory_format: torch.memory_format
) -> None:
    norm = nn.BatchNorm2d(16).eval().double()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.normal_(generator=random)
        norm.running_var.uniform_(0.5, 2.0, generator=random)
    above = torch.randn((count, 16, 2, 2), generator=random, dtype=torch.float64)
    gradient = above.clone() if count > 1 else torch.empty_strided((1, 16, 2, 2), strides, dtype=torch.float64)
    gradient.copy_(above)
    x = torch.randn((count, 16, 2, 2), generator=random, dtype=torch.float64).to(memory_format=memory_format)
    x.requires_grad_()
    (made,) = torch.autograd.grad(right_gradients(norm)(x), x, gradient)
    slope = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().view(-1, 1, 1)
    torch.testing.assert_close(made, above * slope)
