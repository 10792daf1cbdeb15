"""PatchTST and PatchTSMixer: points, or a distribution of each value."""

from typing import Any

from torch import Tensor, nn

from rbl_transformers.drawn_paths import draw, log_density, uniform
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.series_channels import SeriesChannels, chosen_horizon, latest
from robustbench_lab.tasks.forecast_output import Forecast, Paths


class PatchForecaster(nn.Module):
    """A network of all channels at once, which scales each window by itself."""

    numbers: Tensor

    def __init__(self, net: Any, channels: SeriesChannels, horizon: int | None, paths: int | None) -> None:
        super().__init__()
        self.net = net
        self.channels = channels
        config = net.config
        self.horizon = chosen_horizon(horizon, config.prediction_length, channels.source)
        self.forecast = getattr(config, "prediction_channel_indices", None) or range(config.num_input_channels)
        count = paths or config.num_parallel_samples
        self.register_buffer("numbers", uniform(count, self.horizon, len(self.forecast)), persistent=False)

    def forward(self, inputs: Tensor) -> Forecast:
        """Windows `[N, L, channels]` to points `[N, H, C]`, or `Paths` of these."""
        history = self.channels.history(inputs, self.horizon)
        config, source = self.net.config, self.channels.source
        alone = self.channels.forecast_series(history)
        if alone.shape[2] == config.num_input_channels:  # it sees no covariates
            history = alone
        if history.shape[2] != config.num_input_channels:
            text = f"takes {config.num_input_channels} channels, the data have {history.shape[2]}"
            raise UsageError(f"{source}: {text}: name a dataset of as many")
        made = self.net(past_values=latest(history, config.context_length, source))
        series = slice(self.channels.series)
        if self.net.distribution_output is None:
            points: Tensor = made.prediction_outputs[:, : self.horizon, series]
            return points
        # [N, 1, H, C] each
        parameters = tuple(one[:, None, : self.horizon, series] for one in made.prediction_outputs)
        loc, scale = made.loc[:, None, :, series], made.scale[:, None, :, series]
        kind = self.net.distribution_output.distribution_class
        values = draw(kind, parameters, loc, scale, self.numbers[..., series])
        density = log_density(kind, parameters, loc, scale, values.detach())
        return Paths(values.permute(0, 2, 3, 1), density.flatten(2).sum(2))
