"""An autoregressive LSTM with a Gaussian output (DeepAR, Salinas et al. 2020, https://arxiv.org/abs/1704.04110).

On standardised series. It draws the same paths for the same history: the noise of each path is fixed, and the same for
every history, whatever else is in the batch.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LAGS = (1, 24, 48, 72, 96, 120, 144)
"""Steps back that each step is forecast from: the one before, and the same hour of six days."""
CONTEXT = 24
"""Steps of the history that the LSTM runs over before it forecasts."""
SMALLEST_STD = 1e-3
Memory = tuple[Tensor, Tensor]
"""An LSTM's hidden and cell states."""


class DeepAR(nn.Module):
    """Each step is Gaussian, given the steps before it."""

    noise: Tensor

    def __init__(self, horizon: int, *, paths: int = 20, width: int = 32) -> None:
        super().__init__()
        self.horizon, self.paths = horizon, paths
        self.lstm = nn.LSTM(len(LAGS), width, batch_first=True)
        self.head = nn.Linear(width, 2)
        # Every path has a mirror image, so that few of them have the distribution's own mean.
        half = torch.randn(-(-paths // 2), horizon, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", torch.cat([half, -half])[:paths], persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """`[N, L]` to paths `[N, H, S]`, and the logarithms of their densities `[N, S]` where `x` has a gradient.

        Paths are drawn by reparameterisation: their gradient is that of each value with its noise held fixed. The
        gradient of the densities is that with the path held fixed.
        """
        past = x.repeat_interleave(self.paths, 0)
        first, memory = self._encode(x)
        drawn = self._draw(past, first, memory)
        paths = drawn.unflatten(0, (-1, self.paths)).transpose(1, 2)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return paths, None
        series = torch.cat([past, drawn.detach()], 1)
        states, _ = self.lstm(_lagged(series, self.horizon - 1), memory)
        density = self._log_density(series[:, -self.horizon :], torch.cat([first[:, None], states], 1))
        return paths, density.sum(1).unflatten(0, (-1, self.paths))

    def log_density(self, series: Tensor) -> Tensor:
        """`[M, L + H]` to the logarithm of the density of each of the last `CONTEXT + H` values given those before."""
        steps = CONTEXT + self.horizon
        states, _ = self.lstm(_lagged(series, steps))
        return self._log_density(series[:, -steps:], states)

    def _encode(self, x: Tensor) -> tuple[Tensor, Memory]:
        """What forecasts the first step, `[N * S, width]`, and the LSTM's memory, the same for all paths."""
        # The input of the step after the last: its lags are counted from there.
        states, memory = self.lstm(_lagged(functional.pad(x, (0, 1)), CONTEXT + 1))
        hidden, cell = (one.repeat_interleave(self.paths, 1) for one in memory)
        return states[:, -1].repeat_interleave(self.paths, 0), (hidden, cell)

    def _draw(self, past: Tensor, state: Tensor, memory: Memory) -> Tensor:
        """Histories `[N * S, L]`, one for each path, to paths `[N * S, H]`."""
        noise = self.noise.repeat(len(past) // self.paths, 1)
        values = list(past.unbind(1))
        for step in range(self.horizon):
            if step > 0:
                lags = torch.stack([values[-lag] for lag in LAGS], 1)
                states, memory = self.lstm(lags[:, None], memory)
                state = states[:, -1]
            mean, std = self._distribution(state)
            values.append(mean + std * noise[:, step])
        return torch.stack(values[-self.horizon :], 1)

    def _log_density(self, values: Tensor, states: Tensor) -> Tensor:
        mean, std = self._distribution(states)
        return -0.5 * ((values - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)

    def _distribution(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, `[...]` each, of the next value."""
        mean, spread = self.head(states).unbind(-1)
        return mean, functional.softplus(spread) + SMALLEST_STD


def _lagged(series: Tensor, steps: int) -> Tensor:
    """`[M, T]` to what each of the last steps is forecast from, `[M, steps, lags]`."""
    end = series.shape[1]
    return torch.stack([series[:, end - steps - lag : end - lag] for lag in LAGS], 2)
