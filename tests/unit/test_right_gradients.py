"""Gradients in eval mode: through batch normalisation, and through recurrent layers on CUDA."""

import pytest
import torch
from torch import nn

from robustbench_lab.plugin_tools.right_gradients import right_gradients


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


class _Watched(nn.GRU):
    """Remembers whether it could have used cuDNN."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        self.with_cudnn = torch.backends.cudnn.enabled
        return super().forward(x)


def test_recurrent_layers_leave_cudnn_only_for_gradients_and_only_while_they_run() -> None:
    assert torch.backends.cudnn.enabled
    net = right_gradients(right_gradients(nn.Sequential(_Watched(3, 4)).eval()))
    net(torch.rand(5, 2, 3, requires_grad=True))
    assert not net[0].with_cudnn
    assert torch.backends.cudnn.enabled
    with torch.inference_mode():
        net(torch.rand(5, 2, 3))
    assert net[0].with_cudnn


def test_a_recurrent_layer_that_raises_gives_cudnn_back() -> None:
    net = right_gradients(nn.LSTM(3, 4).eval())
    with pytest.raises(RuntimeError):
        net(torch.rand(5, 2, 7, requires_grad=True))
    assert torch.backends.cudnn.enabled


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recurrent_layers_have_a_gradient_on_cuda() -> None:
    net = right_gradients(nn.LSTM(3, 4).cuda().eval().requires_grad_(False))
    x = torch.rand(5, 2, 3, device="cuda", requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[0].sum(), x)
    assert gradient.abs().amax() > 0
