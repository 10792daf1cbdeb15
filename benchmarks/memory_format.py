"""Does channels-last pay? Forward and backward passes to the input, in turn with the usual order; ratios of medians.

python benchmarks/memory_format.py
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import timm
import torch
from torch import Tensor, nn

CASES = {
    "resnet18": (32, 64),
    "resnet50": (96, 8),
    "wide_resnet50_2": (64, 8),
    "vit_tiny_patch16_224": (224, 4),
    "efficientnet_lite0": (224, 4),
    "mobilenetv3_small_100": (224, 8),
    "convnext_atto": (128, 8),
    "resnext50_32x4d": (96, 8),
}
"""Model to (side of the image, batch size)."""


def seconds(model: nn.Module, x: Tensor) -> float:
    began = time.perf_counter()
    leaf = x.detach().requires_grad_()
    torch.autograd.grad(model(leaf).logsumexp(1).sum(), leaf)
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    print(f"{'model':24} {'grouped':>8} {'channels-last / usual':>22}")
    for name, (side, batch) in CASES.items():
        usual = timm.create_model(name).to(asked.device).eval().requires_grad_(False)
        last = copy.deepcopy(usual).to(memory_format=torch.channels_last)
        x = torch.rand(batch, 3, side, side, device=asked.device)
        times = [(seconds(usual, x), seconds(last, x)) for _ in range(asked.rounds + 1)][1:]
        ratio = statistics.median(b for _, b in times) / statistics.median(a for a, _ in times)
        grouped = any(isinstance(one, nn.Conv2d) and one.groups > 1 for one in usual.modules())
        print(f"{name:24} {'yes' if grouped else 'no':>8} {ratio:22.2f}", flush=True)


if __name__ == "__main__":
    main()
