"""An LSTM that reads a series a day at a time, on standardised series.

Hochreiter & Schmidhuber 1997; segments of the series as its steps as in SegRNN (Lin et al. 2023,
https://arxiv.org/abs/2308.11200), which makes it 24 times fewer of them.
"""

from torch import Tensor, nn

SEGMENT = 24


class SegmentLstm(nn.Module):
    """The state after the last day, by a linear map, is the forecast."""

    def __init__(self, horizon: int, *, width: int = 128) -> None:
        super().__init__()
        self.lstm = nn.LSTM(SEGMENT, width, batch_first=True)
        self.head = nn.Linear(width, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, L]` to `[N, H]`; L is a multiple of 24."""
        states, _ = self.lstm(x.unflatten(1, (-1, SEGMENT)))
        forecast: Tensor = self.head(states[:, -1])
        return forecast
