"""Train a small network on scikit-learn's digits and measure its robustness, all from Python.

python examples/evaluate_own_model.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import robustbench_lab

TRAIN = 1300
EPOCHS = 150


def main() -> None:
    images, labels = digits()
    model = trained(images[:TRAIN], labels[:TRAIN])
    test = (images[TRAIN:], labels[TRAIN:])
    for eps in (0.02, 0.05):
        result = robustbench_lab.evaluate(
            model, test, attacks=["pgd(schedule='cosine')", "noise"], norm="linf", eps=eps
        )
        (row,) = result.leaderboard.tables[0].rows
        clean, robust = row.metrics["clean_accuracy"], row.metrics["robust_accuracy"]
        interval = f"{robust.low:.1%} to {robust.high:.1%}"
        print(f"linf {eps}: clean {clean.value:.1%}, robust {robust.value:.1%} ({interval}), {row.verdict}")


def digits() -> tuple[Tensor, Tensor]:
    """Images `[1797, 1, 8, 8]` in [0, 1] and their labels."""
    data = load_digits()
    return torch.from_numpy(data.images).float()[:, None] / 16, torch.from_numpy(data.target)


def trained(images: Tensor, labels: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model


if __name__ == "__main__":
    main()
