"""Do channels-last and folded batch normalisations pay? Forward and backward passes to the input, in turn with the
network as `rbl` loads it, in the usual order; ratios of medians.

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

from robustbench_lab.evaluation.workbench import ready
from robustbench_lab.passes.folded_norms import with_folded_norms

CASES = {
    "resnet18": (32, 64),
    "resnet50": (96, 8),
    "wide_resnet50_2": (64, 8),
    "vit_tiny_patch16_224": (224, 4),
    "efficientnet_lite0": (224, 4),
    "mobilenetv3_small_100": (224, 8),
    "convnext_atto": (128, 8),
    "efficientnet_b0": (128, 8),
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


def in_channels_last(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    print(f"{'model':24} {'grouped':>8} {'channels-last':>14} {'folded':>8} {'both':>8}   to usual")
    for name, (side, batch) in CASES.items():
        x = torch.rand(batch, 3, side, side, device=asked.device)
        usual = ready(timm.create_model(name), torch.device(asked.device))
        folded = with_folded_norms(usual, x[:4]) or usual
        models = (usual, in_channels_last(usual), folded, in_channels_last(folded))
        rounds = [[seconds(model, x) for model in models] for _ in range(asked.rounds + 1)][1:]
        base, *others = (statistics.median(times) for times in zip(*rounds, strict=True))
        last, fold, both = (one / base for one in others)
        grouped = any(isinstance(one, nn.Conv2d) and one.groups > 1 for one in usual.modules())
        print(f"{name:24} {'yes' if grouped else 'no':>8} {last:14.2f} {fold:8.2f} {both:8.2f}", flush=True)


if __name__ == "__main__":
    main()
