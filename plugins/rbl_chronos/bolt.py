"""Chronos-Bolt: quantiles of one series at a time (Ansari et al. 2024, https://github.com/amazon-science/chronos-forecasting)."""

from typing import Any

import torch
from torch import Tensor

from robustbench_lab.plugin_tools.series_channels import SeriesChannels, Univariate


class Bolt(Univariate):
    """As the library's pipeline, but with gradient. The network scales each history by itself."""

    def __init__(self, net: Any, channels: SeriesChannels, horizon: int | None) -> None:
        config = net.chronos_config
        super().__init__(channels, horizon, tuple(config.quantiles), usual=config.prediction_length)
        self.net = net

    def one_series(self, history: Tensor) -> Tensor:
        """`[B, L]` to `[B, H, Q]`.

        Beyond the steps it was trained for, each quantile in turn is taken for what came, and the quantiles of the
        Q x Q forecasts that this gives are the next steps: the pipeline's own rule.
        """
        context = self.net.chronos_config.context_length
        made = [self.net(context=history[:, -context:]).quantile_preds]  # [B, Q, steps]
        count = made[0].shape[1]
        levels = self.net.quantiles.to(made[0])
        seen = history[:, None, -context:].expand(-1, count, -1)
        while sum(one.shape[2] for one in made) < self.horizon:
            seen = torch.cat([seen, made[-1]], dim=2)[:, :, -context:]
            every = self.net(context=seen.flatten(0, 1)).quantile_preds.unflatten(0, (-1, count)).flatten(1, 2)
            made.append(every.quantile(levels, dim=1).transpose(0, 1))
        quantiles: Tensor = torch.cat(made, dim=2)[:, :, : self.horizon]
        return quantiles.transpose(1, 2)
