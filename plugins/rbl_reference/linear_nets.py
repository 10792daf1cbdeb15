"""The linear forecasters of Zeng et al. 2023 (https://arxiv.org/abs/2205.13504), on standardised series."""

from torch import Tensor, nn
from torch.nn import functional

KERNEL = 25
"""Steps of the moving average that is DLinear's trend: the authors' own."""


class DLinear(nn.Module):
    """A linear map of the trend and one of what is left."""

    def __init__(self, history: int, horizon: int) -> None:
        super().__init__()
        self.trend = nn.Linear(history, horizon)
        self.rest = nn.Linear(history, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, L]` to `[N, H]`."""
        padded = functional.pad(x[:, None], (KERNEL // 2, KERNEL // 2), mode="replicate")
        trend = functional.avg_pool1d(padded, KERNEL, stride=1).squeeze(1)
        forecast: Tensor = self.trend(trend) + self.rest(x - trend)
        return forecast


class NLinear(nn.Module):
    """A linear map of the series less its last value, which is added again."""

    def __init__(self, history: int, horizon: int) -> None:
        super().__init__()
        self.linear = nn.Linear(history, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, L]` to `[N, H]`."""
        last = x[:, -1:]
        forecast: Tensor = self.linear(x - last) + last
        return forecast
