"""The bundled forecasters: small networks, from a week of one hourly series to the day that follows."""

from importlib.resources import files

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from rbl_reference.victoria_demand import HISTORY, HORIZON

KERNEL = 25
"""Steps of the moving average that is DLinear's trend: the authors' own."""
HIDDEN = 128


class Forecaster(nn.Module):
    """Histories `[N, 168, 1]` to forecasts `[N, 24, 1]`, in the data's own units: normalisation is inside.

    What is inside takes and gives standardised series, `[N, 168]` to `[N, 24]`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, history: Tensor) -> Tensor:
        forecast: Tensor = self.net((history.squeeze(2) - self.mean) / self.std)
        return (forecast * self.std + self.mean).unsqueeze(2)


class DLinear(nn.Module):
    """A linear map of the trend and one of what is left (Zeng et al. 2023, https://arxiv.org/abs/2205.13504)."""

    def __init__(self, history: int = HISTORY, horizon: int = HORIZON) -> None:
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
    """A linear map of the series less its last value, which is added again (Zeng et al. 2023)."""

    def __init__(self, history: int = HISTORY, horizon: int = HORIZON) -> None:
        super().__init__()
        self.linear = nn.Linear(history, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, L]` to `[N, H]`."""
        last = x[:, -1:]
        forecast: Tensor = self.linear(x - last) + last
        return forecast


def mlp() -> nn.Sequential:
    """Two hidden layers: 40 984 parameters."""
    return nn.Sequential(
        nn.Linear(HISTORY, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HORIZON)
    )


def demand_dlinear() -> Forecaster:
    """DLinear on Victoria's demand."""
    return _with_weights(DLinear(), "demand-dlinear")


def demand_nlinear() -> Forecaster:
    """NLinear on Victoria's demand."""
    return _with_weights(NLinear(), "demand-nlinear")


def demand_mlp() -> Forecaster:
    """A multilayer perceptron on Victoria's demand."""
    return _with_weights(mlp(), "demand-mlp")


def demand_mlp_at() -> Forecaster:
    """The same, trained on PGD adversarial examples (Madry et al. 2018, https://arxiv.org/abs/1706.06083)."""
    return _with_weights(mlp(), "demand-mlp-at")


def _with_weights(net: nn.Module, name: str) -> Forecaster:
    model = Forecaster(net)
    model.load_state_dict(load((files("rbl_reference") / "weights" / f"{name}.safetensors").read_bytes()))
    return model.eval()
