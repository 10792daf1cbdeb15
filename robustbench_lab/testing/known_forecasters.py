"""Forecasters whose best attack is known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustbench_lab.contracts import Bounds, Objective, ThreatModel
from robustbench_lab.problem_setting import ProblemSetting
from robustbench_lab.sample_rng import SampleRng
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


def forecast_setting(
    threat_model: ThreatModel,
    objective: Objective,
    *,
    samples: int = 6,
    series: int = 2,
    batch_size: int = 4,
    seed: int = 0,
    bounds: Bounds | None = None,
) -> ProblemSetting:
    """A problem on a `LinearForecaster`: series of standard deviations 2 and 30 around 10, whose future is noisy.

    bounds: what histories are clipped to; None: open.
    """
    bounds = bounds or Bounds(-math.inf, math.inf)
    model = LinearForecaster(seed).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    unit = torch.tensor(UNITS[:series]).expand(samples, series)
    clean = 10 + unit[:, None] * torch.randn(samples, HISTORY, series, generator=generator)
    clean = clean.clamp(bounds.low, bounds.high)
    task, prediction = Forecasting(), model(clean)
    future = prediction + 0.2 * unit[:, None] * torch.randn(prediction.shape, generator=generator)
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
