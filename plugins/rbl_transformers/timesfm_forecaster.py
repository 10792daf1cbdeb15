"""TimesFM, versions 1, 2 and 2.5: quantiles of one series at a time (Das et al. 2024, https://arxiv.org/abs/2310.10688)."""

from typing import Any

import torch
from torch import Tensor

from robustbench_lab.plugin_tools.series_channels import SeriesChannels, Univariate


class TimesFm(Univariate):
    """The quantiles of its configuration; the mean that it gives as well is left out."""

    def __init__(self, net: Any, channels: SeriesChannels, horizon: int | None, frequency: int) -> None:
        """frequency: of versions 1 and 2: 0 up to days, 1 weeks and months, 2 above."""
        own = net.config.horizon_length
        super().__init__(channels, horizon, tuple(net.config.quantiles), usual=own, most=own)
        self.net = net
        self.frequency = frequency

    def one_series(self, history: Tensor) -> Tensor:
        """`[B, L]` to `[B, H, Q]`."""
        config = self.net.config
        if config.model_type == "timesfm":
            made = self.net(past_values=history, freq=[self.frequency] * len(history))
            quantiles: Tensor = made.full_predictions[:, : self.horizon, 1:]
            return quantiles
        # The library's own clipping looks at the whole batch; here each series is clipped for itself.
        quantiles = self.net(past_values=history, truncate_negative=False).full_predictions[:, : self.horizon, 1:]
        if config.infer_is_positive:
            positive = history[:, -config.context_length :].amin(1) >= 0
            quantiles = torch.where(positive[:, None, None], quantiles.clamp(min=0), quantiles)
        return quantiles
