"""How forecasters are trained here: on every window of standardised series, in random order, by Adam.

Adversarial training as in Madry et al. 2018 (https://arxiv.org/abs/1706.06083): every batch is replaced by PGD
adversarial examples of the current model. The PGD here is the recipe's own, so that weights depend on no attack of the
catalog.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustbench_lab.tasks.forecast_output import LEVELS, Forecast, centre

TRAINING_STEPS = 3
"""PGD steps that make a training example."""
Loss = Literal["mae", "mse", "pinball", "likelihood"]


@dataclass(frozen=True)
class Recipe:
    """What differs between models. The learning rate rises to its peak and falls to 0 (Smith & Topin 2018)."""

    epochs: int
    peak_learning_rate: float
    training_eps: float = 0.0
    """l-infinity budget of the training examples, in standard deviations; 0 trains on clean windows."""
    training_noise: float = 0.0
    """Standard deviation of normal noise on the histories of the training examples, in standard deviations."""
    loss: Loss = "mae"
    batch_size: int = 128
    seed: int = 0


def fit(
    net: nn.Module, series: Tensor, history: int, horizon: int, recipe: Recipe, *, batches: int | None = None
) -> list[float]:
    """Trains a network on standardised series `[T, C]`, each by itself, and gives the loss of each batch.

    batches: stop after so many. Random numbers are torch's own: seed them before.
    """
    windows = series.unfold(0, history + horizon, 1)  # [W, C, L + H]
    steps = recipe.epochs * -(-len(windows) // recipe.batch_size)
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_learning_rate, total_steps=steps)
    losses: list[float] = []
    for _ in range(recipe.epochs):
        for index in torch.randperm(len(windows)).split(recipe.batch_size):
            if len(losses) == batches:
                return losses
            batch = windows[index].flatten(0, 1)
            past, future = batch[:, :history], batch[:, history:]
            if recipe.training_eps > 0:
                past = pgd(net, past, future, recipe.training_eps, TRAINING_STEPS)
            if recipe.training_noise > 0:
                past = past + recipe.training_noise * torch.randn_like(past)
            optimizer.zero_grad()
            loss = LOSSES[recipe.loss](net, past, future)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    return losses


def pgd(model: Callable[[Tensor], Forecast], history: Tensor, future: Tensor, eps: float, steps: int) -> Tensor:
    """Histories within eps (in their own units) in l-infinity: sign steps up the absolute error from a random start."""
    adversarial = history + eps * (2 * torch.rand_like(history) - 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        (gradient,) = torch.autograd.grad((centre(model(adversarial)) - future).abs().sum(), adversarial)
        moved = adversarial.detach() + 2.5 * eps / steps * gradient.sign()
        adversarial = history + (moved - history).clamp(-eps, eps)
    return adversarial


def _mae(net: nn.Module, past: Tensor, future: Tensor) -> Tensor:
    return (net(past) - future).abs().mean()


def _mse(net: nn.Module, past: Tensor, future: Tensor) -> Tensor:
    return (net(past) - future).square().mean()


def _pinball(net: nn.Module, past: Tensor, future: Tensor) -> Tensor:
    """The quantile loss (Koenker & Bassett 1978), the mean over the nine levels; net: to `[M, H, 9]`."""
    missed = future[..., None] - net(past)
    levels = missed.new_tensor(LEVELS)
    return torch.maximum(levels * missed, (levels - 1) * missed).mean()


def _likelihood(net: Any, past: Tensor, future: Tensor) -> Tensor:
    """Of DeepAR: minus the log-density of all its steps, those of the history too."""
    return -net.log_density(torch.cat([past, future], 1)).mean()


LOSSES: dict[Loss, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "mae": _mae,
    "mse": _mse,
    "pinball": _pinball,
    "likelihood": _likelihood,
}
