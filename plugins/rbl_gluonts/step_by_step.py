"""DeepAR: paths, drawn by the library's own loop (Salinas et al. 2020, https://arxiv.org/abs/1704.04110)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from rbl_gluonts.drawn_paths import WITHOUT_GRADIENT, drawn
from rbl_gluonts.saved_predictor import SavedPredictor
from rbl_gluonts.window_inputs import WindowInputs
from rbl_transformers.drawn_paths import uniform
from robustbench_lab.tasks.forecast_output import Paths


class StepByStep(nn.Module):
    """Each step is drawn from a distribution, given the steps before it."""

    numbers: Tensor

    def __init__(self, saved: SavedPredictor, inputs: WindowInputs, horizon: int, paths: int, *, score: bool) -> None:
        """score: also give the log-probabilities of paths."""
        super().__init__()
        self.net = saved.net
        self.inputs = inputs
        self.horizon = horizon
        self.own_output = saved.net.distr_output
        self.score = score or issubclass(self.own_output.distr_cls, WITHOUT_GRADIENT)
        self.register_buffer("numbers", uniform(paths, saved.horizon, 1).squeeze(3), persistent=False)

    def forward(self, inputs: Tensor) -> Paths:
        """Windows `[N, L, channels]`, with features `[N, L + H, channels]`, to `Paths` `[N, H, C, S]`."""
        given = self.inputs(inputs)
        place = _PathsInPlace(self.own_output, self.numbers)
        values = self._walk(given, place)  # [N * C, S, H]
        paths = torch.unflatten(values, 0, (len(inputs), -1)).permute(0, 3, 1, 2)[:, : self.horizon]
        if not (self.score and torch.is_grad_enabled()):
            return Paths(paths)
        # Once more along the same paths, held fixed: their density as a function of the history alone.
        again = _PathsInPlace(self.own_output, self.numbers, [one.detach() for one in place.steps])
        self._walk(given, again)
        density = torch.cat(again.log_density[: self.horizon], 1).sum(1)
        return Paths(paths, torch.unflatten(density, 0, (len(inputs), -1, self.numbers.shape[1])).sum(1))

    def _walk(self, given: dict[str, Tensor], place: _PathsInPlace) -> Tensor:
        self.net.distr_output = place
        try:
            made: Tensor = self.net(**given, num_parallel_samples=self.numbers.shape[1])
        finally:
            self.net.distr_output = self.own_output
        return made


class _PathsInPlace:
    """Takes the place of the network's output while the library's loop draws paths.

    With `given`, the values of each step, these are walked along instead of new ones.
    """

    def __init__(self, own: Any, numbers: Tensor, given: list[Tensor] | None = None) -> None:
        """numbers: `[2, S, H]`."""
        self.own = own
        self.numbers = numbers
        self.given = given
        self.steps: list[Tensor] = []
        """The values of each step, `[B * S, 1]`."""
        self.log_density: list[Tensor] = []

    def distribution(self, parameters: Any, scale: Tensor) -> _Step:
        """Of the next step."""
        # Copied, since some outputs overwrite what they are given.
        return _Step(self, self.own.distribution([one.clone() for one in parameters], scale=scale))

    def next_values(self, distribution: Distribution) -> Tensor:
        """The next step of all paths."""
        step = len(self.steps)
        if self.given is None:
            numbers = self.numbers[:, :, step, None]
            batch = distribution.batch_shape[0] // numbers.shape[1]
            self.steps.append(drawn(distribution, numbers.repeat(1, batch, 1)))
        else:
            self.steps.append(self.given[step])
            self.log_density.append(distribution.log_prob(self.given[step]))
        return self.steps[-1]


class _Step:
    """What the library's loop asks of a distribution."""

    def __init__(self, paths: _PathsInPlace, distribution: Distribution) -> None:
        self.paths = paths
        self.of = distribution

    def sample(self) -> Tensor:
        return self.paths.next_values(self.of)
