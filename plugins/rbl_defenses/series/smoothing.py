"""Median smoothing (Chiang et al., "Detection as regression: certified object detection with median smoothing", 2020).

https://arxiv.org/abs/2007.03730. A model behind a defense knows nothing of a series' training part, and a window's own
spread is the adversary's to widen, which would void the guarantee: so the noise is in the data's own units.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from rbl_defenses.series.measured import Ahead, Channels, Measured
from robustbench_lab.tasks.forecast_output import point

Sigma = Annotated[float, Field(gt=0)]


def smoothing(
    model: nn.Module,
    *,
    sigma: Sigma | Sequence[Sigma],
    samples: Annotated[int, Field(ge=1)] = 32,
    channels: Channels | None = None,
    ahead: Ahead = 0,
) -> nn.Module:
    """The median of the forecasts of histories with Gaussian noise, fresh at every forward pass.

    Of a probabilistic forecaster the median of its point forecasts. `certified_interval` says how far an adversary can
    move it.

    sigma: standard deviation of the noise in the data's own units; one number, or one for each channel with noise.
    samples: forecasts that the median is taken of.
    channels: those that get noise; None: all. ahead: steps at the end that hold what is known of the future.
    """
    return Smoothed(model, torch.tensor(sigma, dtype=torch.float32), samples, Measured(channels, ahead))


class Smoothed(nn.Module):
    """The median forecast of noisy histories."""

    sigma: Tensor

    def __init__(self, model: nn.Module, sigma: Tensor, samples: int, measured: Measured) -> None:
        super().__init__()
        self.model = model
        self.samples = samples
        self.measured = measured
        self.register_buffer("sigma", sigma)

    def forecasts(self, x: Tensor, samples: int) -> Tensor:
        """So many point forecasts of one history each, `[samples, N, H, C]`."""
        noisy = self.measured.changed(x.repeat(samples, 1, 1), lambda part: part + self.sigma * torch.randn_like(part))
        forecast = self.model(noisy)
        self.measured.check(x, forecast)
        return point(forecast).unflatten(0, (samples, len(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs `[N, L, C]` to forecasts `[N, H, C]`."""
        return self.forecasts(x, self.samples).median(0).values


def certified_interval(forecasts: Tensor, radius: float, *, confidence: float = 0.999) -> tuple[Tensor, Tensor]:
    """What the median forecast stays between, `[N, H, C]` each, whatever an adversary does within a budget.

    forecasts: of clean histories, `[S, N, H, C]`, as `Smoothed.forecasts` gives them; the more, the closer.
    radius: the Euclidean length of the change in units of the noise's standard deviation, each channel in its own: in
        `series(eps=0.1, norm='l2')` 0.1 training standard deviations by sigma.
    confidence: of each value's interval, over the draws of the noise.

    The quantiles Phi(-radius) and Phi(radius) of the noisy forecasts bound the median (Chiang et al. 2020, theorem 1).
    They are estimated by order statistics on the safe side; infinite where there are too few samples.
    """
    from scipy.stats import binom

    count, wrong = len(forecasts), (1 - confidence) / 2
    lower, upper = NormalDist().cdf(-radius), NormalDist().cdf(radius)
    # Of `count` draws at least `below` are under the lower quantile but with probability `wrong`, and so for the upper.
    below = int(binom.ppf(wrong, count, lower))
    above = int(binom.ppf(1 - wrong, count, upper)) + 1
    ordered = forecasts.sort(0).values
    unknown = torch.full_like(ordered[0], torch.inf)
    return (ordered[below - 1] if below >= 1 else -unknown), (ordered[above - 1] if above <= count else unknown)
