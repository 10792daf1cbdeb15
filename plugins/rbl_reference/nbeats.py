"""Generic N-BEATS (Oreshkin et al. 2020, https://arxiv.org/abs/1905.10437), on standardised series."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Four fully connected layers, then what it explains of the history and what it adds to the forecast.

    The generic basis: both are linear in the last layer (section 3.3 of the paper).
    """

    def __init__(self, history: int, horizon: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (history, width, width, width):
            layers += [nn.Linear(before, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.backcast = nn.Linear(width, history)
        self.forecast = nn.Linear(width, horizon)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[N, L]` to `[N, L]` and `[N, H]`."""
        hidden = self.layers(x)
        return self.backcast(hidden), self.forecast(hidden)


class NBeats(nn.Module):
    """Blocks that each forecast from what those before have left of the history; the forecast is the sum."""

    def __init__(self, history: int, horizon: int, *, blocks: int = 6, width: int = 64) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(history, horizon, width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, L]` to `[N, H]`."""
        forecasts = []
        for block in self.blocks:
            backcast, forecast = block(x)
            x = x - backcast
            forecasts.append(forecast)
        return torch.stack(forecasts).sum(0)
