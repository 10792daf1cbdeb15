"""Forecasters whose best attack is known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.problem_parts.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
from robustbench_lab.tasks.forecast_output import LEVELS, Paths, Quantiles, point
from robustbench_lab.tasks.forecasting import Forecasting

HISTORY, HORIZON = 12, 4
UNITS = (2.0, 30.0)
"""Standard deviations of the two series, so that a budget in the wrong unit shows."""


class LinearForecaster(nn.Module):
    """Each step of the forecast is linear in the series' own history: `[B, 12, C]` to `[B, 4, C]`.

    Where every value of a history may move by eps units, the mean of the forecast moves by eps units times the l1 norm
    of `mean_weight` at most; where the Euclidean length of the change is at most eps units, by its l2 norm.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(HORIZON, HISTORY, generator=torch.Generator().manual_seed(seed)) / HISTORY
        self.weight = nn.Parameter(weight, requires_grad=False)

    @property
    def mean_weight(self) -> Tensor:
        """What each value of the history adds to the mean of the forecast, `[12]`."""
        return self.weight.mean(0)

    def forward(self, history: Tensor) -> Tensor:
        """Histories `[B, 12, C]` to forecasts `[B, 4, C]`."""
        return torch.einsum("hl,blc->bhc", self.weight, history)


class GaussianForecaster(nn.Module):
    """Each step of the forecast is Gaussian, its mean and its standard deviation linear in the series' own history.

    The mean is that of a `LinearForecaster`; the standard deviation is 3 plus `spread` times the history, which must
    not come below 0. The draws are the same for every window, so the model is deterministic.
    """

    def __init__(self, seed: int = 0, paths: int | None = None) -> None:
        """paths: how many are drawn; None: quantiles instead."""
        super().__init__()
        self.mean = LinearForecaster(seed)
        self.spread = nn.Parameter(torch.linspace(0.01, 0.04, HISTORY), requires_grad=False)
        generator = torch.Generator().manual_seed(seed)
        self.draws = None if paths is None else torch.randn(HORIZON, 1, paths, generator=generator)

    def deviation(self, history: Tensor) -> Tensor:
        """Standard deviations `[B, 1, C]`, the same for all steps."""
        return 3 + torch.einsum("l,blc->bc", self.spread, history)[:, None]

    def forward(self, history: Tensor) -> Quantiles | Paths:
        """Histories `[B, 12, C]` to the nine deciles, or to paths."""
        mean, deviation = self.mean(history)[..., None], self.deviation(history)[..., None]
        if self.draws is None:
            return Quantiles(mean + deviation * torch.special.ndtri(torch.tensor(LEVELS)), LEVELS)
        paths = mean + deviation * self.draws
        density = -((paths.detach() - mean) / deviation).square() / 2 - deviation.log()  # but for a constant
        return Paths(paths, density.sum((1, 2)))


def forecast_setting(
    threat_model: ThreatModel,
    objective: Objective,
    *,
    model: nn.Module | None = None,
    samples: int = 6,
    series: int = 2,
    batch_size: int = 4,
    seed: int = 0,
    bounds: Bounds | None = None,
    whole: bool = False,
) -> ProblemSetting:
    """A problem of series of standard deviations 2 and 30 around 10, whose future is noisy.

    model: None: a `LinearForecaster`. bounds: what histories are clipped to; None: open.
    """
    bounds = bounds or Bounds(-math.inf, math.inf)
    model = (model or LinearForecaster(seed)).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    unit = torch.tensor(UNITS[:series]).expand(samples, series)
    clean = 10 + unit[:, None] * torch.randn(samples, HISTORY, series, generator=generator)
    clean = clean.clamp(bounds.low, bounds.high)
    clean = clean.round() if whole else clean
    task, prediction = Forecasting(), model(clean)
    middle = point(prediction)
    future = middle + 0.2 * unit[:, None] * torch.randn(middle.shape, generator=generator)
    start = HISTORY + HORIZON * torch.arange(samples)
    targets = {"future": future, "scale": 0.5 * unit, "unit": unit, "start": start}
    goal = objective.prepare(prediction, targets)
    return ProblemSetting(
        model=model,
        objective=objective,
        threat_model=threat_model,
        clean=clean,
        goal=goal,
        open=torch.ones(samples, dtype=torch.bool),
        bounds=bounds,
        rng=SampleRng.for_samples(0, "check", [str(index) for index in range(samples)], clean.device),
        batch_size=batch_size,
        task=task,
        targets=targets,
        right=task.intact(prediction, targets),
        clean_measure={**task.measure(prediction, targets), "damage": objective.damage(prediction, goal)},
    )
