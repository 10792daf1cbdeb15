"""What another way back through convolutions gains on a CPU: the gradient to the input, beside PyTorch's own.

    python benchmarks/input_gradients.py

Forward and backward passes: first of single layers, then of whole networks. In turn, CPU seconds, medians.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial

import torch
from cases import MODELS, MissingError
from timing import paired
from torch import Tensor, nn

from robustbench_lab.hardware.host_memory import keep_freed_memory
from robustbench_lab.plugin_tools.quick_gradients import quick_gradients

LAYERS = [
    (nn.Conv2d(3, 8, 3, stride=2, padding=1), 106, 32),
    (nn.Conv2d(3, 64, 7, stride=2, padding=3), 8, 224),
    (nn.Conv2d(3, 96, 16, stride=16), 8, 224),
    (nn.Conv2d(1, 16, 5, stride=2), 106, 28),
]
"""With samples, and pixels a side."""


def backward(net: nn.Module, x: Tensor) -> None:
    """The gradient of the sum of squares."""
    leaf = x.detach().requires_grad_()
    torch.autograd.grad(net(leaf).square().sum(), leaf)


def ratio(net: nn.Module, x: Tensor, rounds: int) -> float:
    """Time the quick way to that of the usual one."""
    usual = net.eval().requires_grad_(False)
    quick = quick_gradients(copy.deepcopy(usual))
    return paired(partial(backward, usual, x), lambda: partial(backward, quick, x), rounds)["ratio"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    for conv, samples, side in LAYERS:
        x = torch.rand(samples, conv.in_channels, side, side)
        print(f"{ratio(conv, x, asked.rounds):5.2f}  {samples} x {side}x{side}  {conv}")
    for name, load in MODELS.items():
        try:
            net, inputs, _labels = load(106)
        except MissingError:
            continue
        if not any(module._forward_hooks for module in quick_gradients(copy.deepcopy(net)).modules()):
            continue
        print(f"{ratio(net, inputs, asked.rounds):5.2f}  {name}, {len(inputs)} samples")


if __name__ == "__main__":
    main()
