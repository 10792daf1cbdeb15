"""Paths drawn from the library's distributions, so that gradient flows through them.

Every value is a function of the distribution's parameters and of uniform numbers that never change: the same history
has the same paths, whatever else is in the batch.
"""

from typing import Any

from gluonts.torch.distributions import AffineTransformed
from scipy.stats import nbinom, poisson
from torch import Tensor
from torch.distributions import Distribution, Laplace, NegativeBinomial, Normal, Poisson, StudentT

from rbl_transformers.drawn_paths import student
from robustbench_lab.plugin_tools.series_channels import as_black_box

WITHOUT_GRADIENT = (NegativeBinomial, Poisson)
"""Of whole numbers."""


def drawn(distribution: Distribution, numbers: Tensor) -> Tensor:
    """Values of a distribution; numbers: `[2, ...]` between 0 and 1, all shapes broadcast.

    Whole numbers have no gradient.
    """
    if isinstance(distribution, AffineTransformed):
        made: Tensor = distribution.loc + distribution.scale * drawn(distribution.base_dist, numbers)
        return made
    if isinstance(distribution, StudentT):
        return distribution.loc + distribution.scale * student(numbers, distribution.df)
    if isinstance(distribution, Normal | Laplace):
        quantile: Tensor = distribution.icdf(numbers[0])  # type: ignore[no-untyped-call]
        return quantile
    if isinstance(distribution, NegativeBinomial):
        count, share = _arrays(distribution.total_count, distribution.probs)
        return as_black_box(nbinom.ppf(*_arrays(numbers[0]), count, 1 - share), numbers)
    if isinstance(distribution, Poisson):
        return as_black_box(poisson.ppf(*_arrays(numbers[0], distribution.rate)), numbers)
    raise TypeError(f"{type(distribution).__name__} is not known")  # OUTPUTS has no such


def _arrays(*tensors: Tensor) -> tuple[Any, ...]:
    return tuple(one.detach().cpu().double().numpy() for one in tensors)
