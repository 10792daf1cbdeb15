"""The time-series transformer, Informer and Autoformer: paths, drawn by the library's own loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rbl_transformers.drawn_paths import PathsInPlace, has_gradient, uniform
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.series_channels import SeriesChannels, chosen_horizon, latest
from robustbench_lab.tasks.forecast_output import Paths


class SamplingForecaster(nn.Module):
    """Each step is drawn from a distribution, given the steps before it (Autoformer: all steps at once)."""

    numbers: Tensor

    def __init__(
        self, net: Any, channels: SeriesChannels, horizon: int | None, paths: int | None, *, score: bool
    ) -> None:
        """score: also give the log-probabilities of paths."""
        super().__init__()
        config, source = net.config, channels.source
        if config.num_static_categorical_features or config.num_static_real_features:
            raise UsageError(f"{source}: it needs static features, which are not offered: train it without them")
        features = config.num_time_features + config.num_dynamic_real_features
        if len(channels.known) != features:
            text = f"it needs {features} features of each step: name their channels with known=[...]"
            raise UsageError(f"{source}: {text}" if features else f"{source}: it takes no features; leave known out")
        self.net = net
        self.own_output = net.distribution_output
        self.channels = channels
        self.horizon = chosen_horizon(horizon, config.prediction_length, source)
        self.score = score or not has_gradient(self.own_output.distribution_class)
        config.num_parallel_samples = paths or config.num_parallel_samples
        self.register_buffer(
            "numbers",
            uniform(config.num_parallel_samples, config.prediction_length, config.input_size),
            persistent=False,
        )

    def forward(self, inputs: Tensor) -> Paths:
        """Windows `[N, L, channels]`, with features `[N, L + H, channels]`, to `Paths` `[N, H, C, S]`."""
        steps = self.net.config.prediction_length  # the library's loop knows no other
        history = self.channels.history(inputs, steps)
        series = self.channels.forecast_series(history)
        past = history[:, :, list(self.channels.known)]
        future = self.channels.future(inputs, steps) if self.channels.known else past.new_zeros(len(past), steps, 0)
        size = self.net.config.input_size
        if size not in (1, series.shape[2]):
            text = f"it forecasts {size} series, the data have {series.shape[2]}"
            raise UsageError(f"{self.channels.source}: {text}: name a dataset of as many")
        groups = series.shape[2] // size
        batch = torch.unflatten(series, 2, (groups, size)).transpose(1, 2).flatten(0, 1)  # [N * groups, L, size]
        length = self.net.model._past_length
        given = {
            "past_values": latest(batch if size > 1 else batch.squeeze(2), length, self.channels.source),
            "past_time_features": latest(past, length, self.channels.source).repeat_interleave(groups, 0),
            "future_time_features": future.repeat_interleave(groups, 0),
        }
        given["past_observed_mask"] = torch.ones_like(given["past_values"])
        values, density = self._paths(given)
        paths = torch.unflatten(values, 0, (len(inputs), groups, -1))[
            :, :, :, : self.horizon
        ]  # [N, groups, S, H, size]
        by_path = None if density is None else torch.unflatten(density, 0, (len(inputs), groups, -1)).sum(1)
        return Paths(paths.permute(0, 3, 1, 4, 2).flatten(2, 3), by_path)

    def _paths(self, given: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """`[B * S, H, C]` and, where asked for, the logarithm of each path's density `[B * S]`."""
        wanted = self.score and torch.is_grad_enabled()
        drawn, _ = self._walk(given, None)
        if not wanted:
            return drawn, None
        # Once more along the same paths, held fixed: their density as a function of the history alone.
        _, density = self._walk(given, drawn.detach())
        return drawn, density

    def _walk(self, given: dict[str, Tensor], paths: Tensor | None) -> tuple[Tensor, Any]:
        if self.net.config.model_type != "autoformer":
            return self._walk_together(given, paths)
        # The library's Autoformer gives the heads of one history the delays of another, so there must be only one.
        count = self.numbers.shape[1]
        alone = [{name: one[row : row + 1] for name, one in given.items()} for row in range(len(given["past_values"]))]
        parts = [None] * len(alone) if paths is None else torch.split(paths, count)
        walked = [self._walk_together(one, part) for one, part in zip(alone, parts, strict=True)]
        values, densities = zip(*walked, strict=True)
        return torch.cat(values), None if paths is None else torch.cat(densities)

    def _walk_together(self, given: dict[str, Tensor], paths: Tensor | None) -> tuple[Tensor, Any]:
        place = PathsInPlace(self.own_output, self.numbers, paths)
        self.net.distribution_output = place
        try:
            with _same_random_numbers():
                # Without torch.no_grad, which the library puts around its loop.
                made = type(self.net).generate.__wrapped__(self.net, **given)
        finally:
            self.net.distribution_output = self.own_output
        sequences = made.sequences.flatten(0, 1)  # [B * S, H(, C)]
        return sequences if sequences.ndim == 3 else sequences.unsqueeze(2), place.log_density


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """For Informer, whose attention looks at some keys only, drawn at random."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
