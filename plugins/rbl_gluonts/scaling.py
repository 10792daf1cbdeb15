"""Scaling of each window, with gradient: an adversary who changes a window changes its mean and spread."""

from typing import Any

from gluonts.torch.scaler import MeanScaler, StdScaler
from torch import Tensor


class StdWithGradient(StdScaler):  # type: ignore[misc]
    """The library's, which cuts the gradient off."""

    def __call__(self, data: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled values, mean and standard deviation, over the values of weight 1."""
        count = weights.sum(self.dim, keepdim=self.keepdim).clamp_min(1.0)
        loc = (data * weights).sum(self.dim, keepdim=self.keepdim) / count
        squares = (data.double() - loc.double()).square() * weights
        variance = squares.sum(self.dim, keepdim=self.keepdim) / count
        scale = (variance + self.minimum_scale).sqrt().to(data.dtype)
        return (data - loc) / scale, loc, scale


def scale_each_alone(net: Any) -> None:
    """Give the network scaling with gradient, by which no window depends on the others of its batch."""
    scaler = getattr(net, "scaler", None)
    if isinstance(scaler, StdScaler):
        net.scaler = StdWithGradient(scaler.dim, scaler.keepdim, scaler.minimum_scale)
    elif isinstance(scaler, MeanScaler) and scaler.default_scale is None:
        scaler.default_scale = 0.0  # of a window without any observation; else the mean scale of the batch
