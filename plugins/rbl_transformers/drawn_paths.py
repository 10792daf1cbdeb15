"""Paths drawn from the distributions of transformers' forecasters, so that gradient flows through them.

Every value is a function of the distribution's parameters and of uniform numbers that never change: the same history
has the same paths, whatever else is in the batch.
"""

import math
from typing import Any

import torch
from scipy.stats import nbinom
from torch import Tensor
from torch.distributions import NegativeBinomial, Normal, StudentT

LEAST = 1e-6
"""Distance of the uniform numbers from 0 and 1, where values would be infinite."""
SEED = 0


def uniform(paths: int, steps: int, series: int) -> Tensor:
    """The numbers that paths are made of, two for each value: `[2, S, H, C]`."""
    generator = torch.Generator().manual_seed(SEED)
    drawn = torch.rand((2, paths, steps, series), generator=generator, dtype=torch.float64)
    return drawn.clamp(LEAST, 1 - LEAST).float()


def draw(kind: Any, parameters: tuple[Tensor, ...], loc: Tensor, scale: Tensor, numbers: Tensor) -> Tensor:
    """Values of the distribution `kind` with these parameters, scaled and moved; all shapes broadcast.

    Normal and Student's t have a gradient; the negative binomial, of whole numbers, has none. numbers: `[2, ...]`.
    """
    if kind is NegativeBinomial:
        count, logits = (one.detach() for one in _scaled_counts(parameters, scale))
        made = nbinom.ppf(numbers[0].cpu().numpy(), count.cpu().numpy(), torch.sigmoid(-logits).cpu().numpy())
        return torch.as_tensor(made, dtype=count.dtype, device=count.device)
    *shape, centre, spread = parameters
    standard = student(numbers, shape[0]) if kind is StudentT else torch.special.ndtri(numbers[0])
    return loc + scale * (centre + spread * standard)


def log_density(kind: Any, parameters: tuple[Tensor, ...], loc: Tensor, scale: Tensor, values: Tensor) -> Tensor:
    """The logarithm of the density, or for whole numbers of the probability, of each value."""
    if kind is NegativeBinomial:
        count, logits = _scaled_counts(parameters, scale)
        probability: Tensor = NegativeBinomial(count, logits=logits, validate_args=False).log_prob(values)  # type: ignore[no-untyped-call]
        return probability
    *shape, centre, spread = parameters
    standard: Normal | StudentT = (
        StudentT(shape[0], centre, spread, validate_args=False)
        if kind is StudentT
        else Normal(centre, spread, validate_args=False)
    )
    density: Tensor = standard.log_prob((values - loc) / scale) - scale.log()  # type: ignore[no-untyped-call]
    return density


def has_gradient(kind: Any) -> bool:
    """Whether drawn values have a gradient."""
    return kind in (Normal, StudentT)


def _scaled_counts(parameters: tuple[Tensor, ...], scale: Tensor) -> tuple[Tensor, Tensor]:
    """Number of failures and logits: a count is scaled by its mean, as the library does."""
    count, logits = parameters
    logits = logits + scale.log()
    return count.expand_as(logits), logits


def student(numbers: Tensor, degrees: Tensor) -> Tensor:
    """Student's t from two uniform numbers (Bailey 1994, https://doi.org/10.2307/2153537)."""
    length = (degrees * torch.expm1(-2 / degrees * numbers[0].log())).sqrt()
    return length * torch.cos(2 * math.pi * numbers[1])


class PathsInPlace:
    """Takes the place of a network's `distribution_output` while the library's own loop draws paths step by step.

    With `given`, these paths are walked along instead of new ones, and `log_density` holds the logarithm of each one's
    density.
    """

    def __init__(self, own: Any, numbers: Tensor, given: Tensor | None = None) -> None:
        """numbers: `[2, S, H, C]`. given: `[N * S, H, C]`. C is absent where the network is of one series."""
        self.kind = own.distribution_class
        self.numbers = numbers
        self.given = given
        self.step = 0
        self.log_density: Tensor | float = 0.0

    def distribution(
        self, parameters: tuple[Tensor, ...], loc: Tensor | None = None, scale: Tensor | None = None
    ) -> "_Steps":
        """Of the next steps, for paths `[N * S, steps]` or `[N * S, steps, C]`."""
        one = torch.ones_like(parameters[0])
        return _Steps(self, parameters, 0 * one if loc is None else loc, one if scale is None else scale)


class _Steps:
    """What the library's loop asks of a distribution."""

    def __init__(self, paths: PathsInPlace, parameters: tuple[Tensor, ...], loc: Tensor, scale: Tensor) -> None:
        self.paths = paths
        self.of = (paths.kind, parameters, loc, scale)

    def sample(self) -> Tensor:
        """The next steps of all paths."""
        paths, like = self.paths, self.of[1][0]
        steps = slice(paths.step, paths.step + like.shape[1])
        paths.step += like.shape[1]
        if paths.given is None:
            numbers = paths.numbers[:, :, steps]
            histories = len(like) // numbers.shape[1]
            numbers = numbers if like.ndim == 3 else numbers.squeeze(3)
            return draw(*self.of, numbers.repeat(1, histories, *(1,) * (like.ndim - 1)))
        values = paths.given[:, steps] if like.ndim == 3 else paths.given[:, steps].squeeze(2)
        paths.log_density = paths.log_density + log_density(*self.of, values).flatten(1).sum(1)
        return values
