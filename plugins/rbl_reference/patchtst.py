"""A transformer over patches of a series, after PatchTST (Nie et al. 2023, https://arxiv.org/abs/2211.14730).

Each window is brought to mean 0 and standard deviation 1 and its forecast back again (RevIN, Kim et al. 2022,
https://openreview.net/forum?id=cGDAkQo1C0p, without its affine map). Layers normalise each patch, not the batch.
"""

import torch
from torch import Tensor, nn

SMALLEST_STD = 1e-5
"""RevIN's, added to the variance."""


class PatchTst(nn.Module):
    """Overlapping patches as tokens, a transformer's encoder, and a linear map of all tokens together."""

    def __init__(
        self,
        history: int,
        horizon: int,
        *,
        quantiles: int | None = None,
        patch: int = 24,
        stride: int = 12,
        width: int = 48,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        """quantiles: how many of them it forecasts of each step; None: points."""
        super().__init__()
        self.patch, self.stride, self.horizon, self.quantiles = patch, stride, horizon, quantiles
        tokens = (history - patch) // stride + 1
        self.embedding = nn.Linear(patch, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(tokens * width, horizon * (quantiles or 1))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, L]` to `[N, H]`, or to `[N, H, Q]` in rising order."""
        mean = x.mean(1, keepdim=True)
        std = (x.var(1, keepdim=True, correction=0) + SMALLEST_STD).sqrt()
        patches = ((x - mean) / std).unfold(1, self.patch, self.stride)
        tokens = self.encoder(self.embedding(patches) + self.position)
        forecast: Tensor = self.head(tokens.flatten(1)) * std + mean
        if self.quantiles is None:
            return forecast
        # Sorted, so that no two quantiles cross (Chernozhukov et al. 2010, https://arxiv.org/abs/0704.3649).
        return forecast.unflatten(1, (self.horizon, self.quantiles)).sort(2).values
