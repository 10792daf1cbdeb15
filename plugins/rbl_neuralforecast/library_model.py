"""The library's own prediction step, with gradient: scaling of each window, network, and back."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robustbench_lab.plugin_tools.series_channels import SeriesChannels, latest
from robustbench_lab.tasks.forecast_output import Forecast, Quantiles


class _WithoutStops(TorchFunctionMode):
    """Lets gradient through where the library cuts it off: at the mean and spread of a window (RevIN).

    An adversary who changes the window changes these as well.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.detach else func(*args, **(kwargs or {}))


class LibraryModel(nn.Module):
    """Windows `[N, L, channels]` to points `[N, H, C]`, or `Quantiles` of the same."""

    def __init__(
        self, net: Any, levels: tuple[float, ...] | None, channels: SeriesChannels, past: tuple[int, ...]
    ) -> None:
        super().__init__()
        net.predict_step_size, net.n_predicts, net.predict_horizon = 1, 1, net.horizon_backup
        net.test_size = net.horizon_backup if net.futr_exog_list else 0
        net.decompose_forecast = False
        net._set_quantiles(None)
        self.net = net
        self.levels = None if levels is None else tuple(sorted(levels))
        self.order = sorted(range(len(levels or ())), key=lambda place: (levels or ())[place])
        self.channels = channels
        self.past = past
        self.columns = pd.Index(["y", "available_mask", *net.hist_exog_list, *net.futr_exog_list])

    def forward(self, inputs: Tensor) -> Forecast:
        """UsageError where the history is shorter than the network's."""
        history = self.channels.history(inputs, self.net.horizon_backup)
        steps = self.net.inference_input_size if self.net.RECURRENT else self.net.input_size
        history = latest(history, steps, self.channels.source)
        series = [one for one in range(history.shape[2]) if one not in (*self.past, *self.channels.known)]
        series = series[: self.channels.series]
        rows = self._rows(inputs, history, series)  # [N, C, columns, steps]
        if self.net.MULTIVARIATE:
            made = torch.cat([self._step(one) for one in rows])  # [N, H, C] or [N, H, C, Q]
            made = made if made.ndim == 4 else torch.unflatten(made, 2, (len(series), -1))
        else:
            made = torch.unflatten(self._step(rows.flatten(0, 1)), 0, rows.shape[:2])  # [N, C, H, 1] or with Q
            made = made.flatten(3).movedim(1, 2)
        return made.squeeze(3) if self.levels is None else Quantiles(made[..., self.order], self.levels)

    def _step(self, temporal: Tensor) -> Tensor:
        """`[series, columns, steps]`."""
        # The library overwrites numbers that the gradient is computed from, so copies of these are kept for it.
        with _WithoutStops(), torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda kept: kept):
            made: Tensor = self.net.predict_step({"temporal": temporal, "temporal_cols": self.columns, "y_idx": 0}, 0)
        return made

    def _rows(self, inputs: Tensor, history: Tensor, series: list[int]) -> Tensor:
        """What the library's datasets hold of each series: its values, which of them there are, and the covariates."""
        values = history[:, :, series].movedim(2, 1)
        parts = [values, torch.ones_like(values)]
        parts += [history[:, None, :, one].expand_as(values) for one in (*self.past, *self.channels.known)]
        rows = torch.stack(parts, 2)
        if not self.channels.known:
            return rows
        future = self.channels.future(inputs, self.net.horizon_backup).movedim(2, 1)[:, None]  # [N, 1, K, H]
        first = torch.zeros(*rows.shape[:2], 2 + len(self.past), future.shape[3]).to(rows)
        ahead = torch.cat([first, future.expand(-1, rows.shape[1], -1, -1)], 2)
        return torch.cat([rows, ahead], 3)
