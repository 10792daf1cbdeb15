"""Networks that forecast all steps at once: quantiles, or a distribution of each value."""

from __future__ import annotations

import torch
from gluonts.torch.distributions import QuantileOutput
from torch import Tensor, nn

from rbl_gluonts.drawn_paths import drawn
from rbl_gluonts.saved_predictor import SavedPredictor
from rbl_gluonts.window_inputs import WindowInputs
from rbl_transformers.drawn_paths import uniform
from robustbench_lab.tasks.forecast_output import Forecast, Paths, Quantiles


class DistributionForecaster(nn.Module):
    """SimpleFeedForward, DLinear, PatchTST, LagTST, TiDE and TFT, of one series at a time; iTransformer, of all."""

    numbers: Tensor

    def __init__(self, saved: SavedPredictor, inputs: WindowInputs, horizon: int, paths: int) -> None:
        """inputs: of the network. horizon: steps to forecast."""
        super().__init__()
        self.net = saved.net
        self.inputs = inputs
        self.horizon = horizon
        self.register_buffer("numbers", uniform(paths, saved.horizon, 1), persistent=False)

    def forward(self, inputs: Tensor) -> Forecast:
        """Windows `[N, L, channels]`, with features `[N, L + H, channels]`, to `Quantiles` or `Paths`."""
        given = self.inputs(inputs)
        made, loc, scale = self.net(**given)
        together = given["past_target"].ndim == 3
        loc, scale = (one if together else one[..., None] for one in (loc, scale))  # [B, 1, 1 or C]
        output = self.net.distr_output
        if isinstance(output, QuantileOutput):
            values = made[0] if together else made[0].unsqueeze(2)  # [B, H, 1 or C, Q]
            quantiles = (loc + scale * values.movedim(3, 0)).movedim(0, 3)
            return Quantiles(self._by_window(quantiles, inputs), tuple(output.quantiles))
        # [B, 1, H, 1 or C] each; copied, since some outputs overwrite what they are given.
        parameters = [(one if together else one.unsqueeze(2)).unsqueeze(1).clone() for one in made]
        distribution = output.distribution(parameters, loc=loc[:, None], scale=scale[:, None])
        values = drawn(distribution, self.numbers)  # [B, S, H, 1 or C]
        density = distribution.log_prob(values.detach())
        if getattr(self.net, "nonnegative_pred_samples", False):
            values = values.relu()
        paths = self._by_window(values.movedim(1, 3), inputs)
        by_path = self._by_window(density.movedim(1, 3), inputs).sum((1, 2))
        return Paths(paths, by_path)

    def _by_window(self, values: Tensor, inputs: Tensor) -> Tensor:
        """`[N * C, H, 1, ...]` or `[N, H, C, ...]` to `[N, H, C, ...]` of the steps asked for."""
        groups = torch.unflatten(values, 0, (len(inputs), -1)).movedim(1, 2)  # [N, H, groups, 1 or C, ...]
        return groups.flatten(2, 3)[:, : self.horizon]
