"""Chronos-2: quantiles of several series with covariates (Ansari et al. 2025, https://arxiv.org/abs/2510.15821)."""

from typing import Any

import torch
from torch import Tensor

from robustbench_lab.plugin_tools.series_channels import AnyHorizon, SeriesChannels
from robustbench_lab.tasks.forecast_output import Quantiles


class Chronos2(AnyHorizon):
    """As the library's pipeline, but with gradient. The network scales each channel by itself."""

    def __init__(self, net: Any, channels: SeriesChannels, horizon: int | None, *, joint: bool) -> None:
        """joint: whether it looks at all channels of a window together, or at each alone."""
        config = net.chronos_config
        most = config.max_output_patches * config.output_patch_size
        super().__init__(channels.source, horizon, usual=most, most=most)
        self.net = net
        self.channels = channels
        self.joint = joint
        self.patch = config.output_patch_size

    def forward(self, inputs: Tensor) -> Quantiles:
        """Windows `[N, L, channels]`, with known covariates `[N, L + H, channels]`, to `Quantiles` `[N, H, C, Q]`."""
        history = self.channels.history(inputs, self.horizon)
        windows, _, count = history.shape
        window = torch.arange(windows, device=inputs.device).repeat_interleave(count)
        made = self.net(
            context=history.transpose(1, 2).flatten(0, 1),
            group_ids=window if self.joint else None,
            num_output_patches=-(-self.horizon // self.patch),
            **self._known(inputs, count),
        )
        by_channel = made.quantile_preds[:, :, : self.horizon].unflatten(0, (windows, count))  # [N, channels, Q, H]
        series = self.channels.forecast_series(by_channel.permute(0, 3, 1, 2))
        return Quantiles(series, tuple(self.net.chronos_config.quantiles))

    def _known(self, inputs: Tensor, count: int) -> dict[str, Tensor]:
        """Values to come `[N * channels, H]`, and which of them are known: the library's NaN has no gradient."""
        known = list(self.channels.known)
        if not known:
            return {}
        mask = inputs.new_zeros(count).index_fill(0, torch.tensor(known, device=inputs.device), 1.0)
        rows = inputs[:, -self.horizon :] * mask
        values = rows.transpose(1, 2).flatten(0, 1)
        return {
            "future_covariates": values,
            "future_covariates_mask": mask.repeat(len(inputs))[:, None].expand_as(values),
        }
