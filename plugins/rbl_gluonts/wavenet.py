"""WaveNet, which cuts values into bins: paths, without gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rbl_gluonts.saved_predictor import SavedPredictor
from rbl_gluonts.window_inputs import WindowInputs
from robustbench_lab.plugin_tools.series_channels import as_black_box
from robustbench_lab.tasks.forecast_output import Paths


class BinnedPaths(nn.Module):
    """A black box.

    Each series is forecast alone, from the same random numbers, so that its paths are the same in every batch.
    """

    edges: Tensor

    def __init__(self, saved: SavedPredictor, inputs: WindowInputs, horizon: int, paths: int) -> None:
        super().__init__()
        self.net = saved.net
        self.inputs = inputs
        self.horizon = horizon
        self.paths = paths
        edges = torch.tensor(saved.transformations["QuantizeMeanScaled"]["bin_edges"], dtype=torch.float64)
        self.register_buffer("edges", edges, persistent=False)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Paths:
        """Windows `[N, L, channels]`, with features `[N, L + H, channels]`, to `Paths` `[N, H, C, S]`."""
        given = self.inputs(inputs)
        values, seen = given["past_target"].double(), given["past_observed_values"]
        mean = (values.abs() * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True)
        scale = torch.where(mean > 0, mean, 1.0)
        given["past_target"] = torch.bucketize(values / scale, self.edges, right=True)
        given["scale"] = scale.to(inputs)
        for name in ("past_time_feat", "future_time_feat"):
            given[name] = given[name].transpose(1, 2)
        rows = [{name: one[row : row + 1] for name, one in given.items()} for row in range(len(values))]
        made = torch.unflatten(torch.cat([self._drawn(one) for one in rows]), 0, (len(inputs), -1))  # [N, C, S, H]
        return Paths(as_black_box(made.permute(0, 3, 1, 2)[:, : self.horizon], inputs))

    def _drawn(self, given: dict[str, Tensor]) -> Tensor:
        device = given["past_target"].device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            made: Tensor = self.net(**given, num_parallel_samples=self.paths)
            return made
