"""The bundled forecasters: small networks, from a week of one hourly series to the day that follows."""

from importlib.resources import files
from typing import Annotated

from pydantic import Field
from safetensors.torch import load
from torch import nn

from rbl_reference.channelwise import Channelwise, PathForecaster, PointForecaster, QuantileForecaster
from rbl_reference.deepar import DeepAR
from rbl_reference.linear_nets import DLinear, NLinear
from rbl_reference.nbeats import NBeats
from rbl_reference.patchtst import PatchTst
from rbl_reference.segment_lstm import SegmentLstm
from rbl_reference.victoria_demand import HISTORY, HORIZON
from robustbench_lab.tasks.forecast_output import LEVELS

HIDDEN = 128


def mlp() -> nn.Sequential:
    """Two hidden layers: 41 240 parameters."""
    return nn.Sequential(
        nn.Linear(HISTORY, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HORIZON)
    )


def untrained(name: str, **params: int) -> Channelwise:
    """The forecaster of that name with random weights; params: its network's own."""
    if name == "demand-patchtst":
        return QuantileForecaster(PatchTst(HISTORY, HORIZON, quantiles=len(LEVELS)), LEVELS)
    if name == "demand-deepar":
        return PathForecaster(DeepAR(HORIZON, **params))
    nets = {
        "demand-dlinear": lambda: DLinear(HISTORY, HORIZON),
        "demand-nlinear": lambda: NLinear(HISTORY, HORIZON),
        "demand-mlp": mlp,
        "demand-mlp-at": mlp,
        "demand-mlp-noise": mlp,
        "demand-nbeats": lambda: NBeats(HISTORY, HORIZON),
        "demand-lstm": lambda: SegmentLstm(HORIZON),
    }
    return PointForecaster(nets[name]())


def demand_dlinear() -> Channelwise:
    """DLinear on Victoria's demand."""
    return _trained("demand-dlinear")


def demand_nlinear() -> Channelwise:
    """NLinear on Victoria's demand."""
    return _trained("demand-nlinear")


def demand_mlp() -> Channelwise:
    """A multilayer perceptron on Victoria's demand."""
    return _trained("demand-mlp")


def demand_mlp_at() -> Channelwise:
    """The same, trained on PGD adversarial examples (Madry et al. 2018, https://arxiv.org/abs/1706.06083)."""
    return _trained("demand-mlp-at")


def demand_mlp_noise() -> Channelwise:
    """The same, trained on histories with normal noise."""
    return _trained("demand-mlp-noise")


def demand_nbeats() -> Channelwise:
    """N-BEATS on Victoria's demand."""
    return _trained("demand-nbeats")


def demand_lstm() -> Channelwise:
    """An LSTM over days on Victoria's demand."""
    return _trained("demand-lstm")


def demand_patchtst() -> Channelwise:
    """A transformer over patches on Victoria's demand, which forecasts the quantiles 0.1, 0.2, ... 0.9."""
    return _trained("demand-patchtst")


def demand_deepar(*, paths: Annotated[int, Field(ge=2)] = 20) -> Channelwise:
    """An autoregressive LSTM on Victoria's demand, which draws so many paths for each history."""
    return _trained("demand-deepar", paths=paths)


def _trained(name: str, **params: int) -> Channelwise:
    model = untrained(name, **params)
    model.load_state_dict(load((files("rbl_reference") / "weights" / f"{name}.safetensors").read_bytes()))
    return model.eval()
