"""A predictor as `predictor.serialize(folder)` wrote it: JSON and tensors, of which nothing is executed.

GluonTS's own reader makes objects of whatever class the JSON names. Here the JSON is read as data: a class is only made
where it is one of those below, and everything else is numbers, texts and lists.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gluonts.torch.distributions import (
    LaplaceOutput,
    NegativeBinomialOutput,
    NormalOutput,
    PoissonOutput,
    QuantileOutput,
    StudentTOutput,
)
from gluonts.torch.model.d_linear import DLinearLightningModule, DLinearModel
from gluonts.torch.model.deepar import DeepARLightningModule, DeepARModel
from gluonts.torch.model.i_transformer import ITransformerLightningModule, ITransformerModel
from gluonts.torch.model.lag_tst import LagTSTLightningModule, LagTSTModel
from gluonts.torch.model.patch_tst import PatchTSTLightningModule, PatchTSTModel
from gluonts.torch.model.simple_feedforward import SimpleFeedForwardLightningModule, SimpleFeedForwardModel
from gluonts.torch.model.tft import TemporalFusionTransformerLightningModule, TemporalFusionTransformerModel
from gluonts.torch.model.tide import TiDELightningModule, TiDEModel
from gluonts.torch.model.wavenet import WaveNet, WaveNetLightningModule

from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.plugin_tools.local_files import existing_folder, listed
from robustbench_lab.plugin_tools.weights import load_state_dict, name_problem

# Of lags, at every first forecast: nothing that a user could change.
warnings.filterwarnings("ignore", message="Using a non-tuple sequence", module="gluonts")

DESCRIPTION = "predictor.json"
WEIGHTS = "prediction-net-state.pt"
PREFIX = "model."
"""Of the tensors' names: what is saved is a Lightning module around the network."""


def _name(kind: type) -> str:
    """As the JSON names a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


NETWORKS = {
    _name(saved): network
    for saved, network in (
        (DLinearLightningModule, DLinearModel),
        (DeepARLightningModule, DeepARModel),
        (ITransformerLightningModule, ITransformerModel),
        (LagTSTLightningModule, LagTSTModel),
        (PatchTSTLightningModule, PatchTSTModel),
        (SimpleFeedForwardLightningModule, SimpleFeedForwardModel),
        (TemporalFusionTransformerLightningModule, TemporalFusionTransformerModel),
        (TiDELightningModule, TiDEModel),
        (WaveNetLightningModule, WaveNet),
    )
}
"""What is saved, to the network in it."""
OUTPUTS = {
    _name(one): one
    for one in (
        LaplaceOutput,
        NegativeBinomialOutput,
        NormalOutput,
        PoissonOutput,
        QuantileOutput,
        StudentTOutput,
    )
}
TUPLE = _name(tuple)


@dataclass(frozen=True)
class SavedPredictor:
    """The network, and what the library does to a series before the network sees it."""

    net: Any
    """With its weights, in evaluation mode."""
    horizon: int
    """Steps of its forecasts."""
    shapes: Mapping[str, Sequence[int]]
    """Of the network's inputs, of one series; `past_target` has a third dimension where it sees several at once."""
    paths: int
    """How many futures it draws."""
    transformations: Mapping[str, Mapping[str, Any]]
    """By the name of their class, such as `AddTimeFeatures`: their parameters, as in the JSON."""
    constant_fields: Mapping[str, Any]
    """Inputs that are the same for all series."""
    cardinality: tuple[int, ...]
    """How many values its static categories have."""


def read_predictor(path: str, source: str) -> SavedPredictor:
    """The predictor of a folder. Raises UsageError."""
    folder = existing_folder(path, source.partition(":")[0])
    missing = [name for name in (DESCRIPTION, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        text = "predictor.serialize(folder) of a PyTorch predictor writes them"
        raise UsageError(f"{source}: the folder has no {listed(missing)}; {text}")
    try:
        return _read(folder, source)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise UsageError(f"{source}: {DESCRIPTION} is not GluonTS's ({describe_error(error)})") from error


def _read(folder: Path, source: str) -> SavedPredictor:
    given = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["kwargs"]
    if given["lead_time"] or given["output_transform"] is not None:
        text = "a lead time, or a transformation of its forecasts"
        raise UsageError(f"{source}: it has {text}, which is not offered: train it without")
    saved = given["prediction_net"]
    if saved["class"] not in NETWORKS:
        known = listed((one.removesuffix("LightningModule").rpartition(".")[2] for one in NETWORKS), 9)
        raise UsageError(f"{source}: it is a '{saved['class']}'; known are {known}")
    parameters = {name: _decoded(one, source) for name, one in saved["kwargs"]["model_kwargs"].items()}
    transformations = list(_every(given["input_transform"]))
    net = _network(NETWORKS[saved["class"]], parameters, folder, source)
    return SavedPredictor(
        net=net,
        shapes=_shapes(net, parameters),
        horizon=int(given["prediction_length"]),
        paths=int(saved["kwargs"].get("num_parallel_samples") or parameters.get("num_parallel_samples") or 100),
        transformations={one["class"].rpartition(".")[2]: one["kwargs"] for one in transformations},
        constant_fields={
            one["kwargs"]["output_field"]: one["kwargs"]["value"]
            for one in transformations
            if one["class"].endswith(".SetField")
        },
        cardinality=tuple(parameters.get("cardinality") or parameters.get("c_feat_static_cat") or ()),
    )


def _decoded(value: Any, source: str) -> Any:
    """A parameter of a network: plain, or one of `OUTPUTS`. Raises UsageError for any other class."""
    if isinstance(value, list):
        return [_decoded(one, source) for one in value]
    if not isinstance(value, dict):
        return value
    kind, named = value.get("__kind__"), value.get("class")
    if kind == "instance" and named == TUPLE:
        return tuple(_decoded(value["args"][0], source))
    if kind == "instance" and named in OUTPUTS and not value.get("args"):
        return OUTPUTS[named](**{name: _decoded(one, source) for name, one in value["kwargs"].items()})
    known = listed((one.rpartition(".")[2] for one in OUTPUTS), 9)
    raise UsageError(f"{source}: it needs a '{named}', which is not made from a file; its output may be {known}")


def _every(transformation: Any) -> Iterator[dict[str, Any]]:
    """All transformations within chains of them."""
    if "transformations" in transformation["kwargs"]:
        for one in transformation["kwargs"]["transformations"]:
            yield from _every(one)
    else:
        yield transformation


def _network(kind: Any, parameters: Mapping[str, Any], folder: Path, source: str) -> Any:
    try:
        net = kind(**parameters)
    except Exception as error:  # parameters of another version, or sizes that no memory holds
        raise UsageError(f"{source}: gluonts cannot make its network ({describe_error(error)})") from error
    tensors = {name.removeprefix(PREFIX): one for name, one in load_state_dict(str(folder / WEIGHTS)).items()}
    if problem := name_problem(net.state_dict(), tensors):
        raise UsageError(f"{source}: {WEIGHTS} does not fit {DESCRIPTION}: {problem}")
    net.load_state_dict(tensors, strict=False)
    return net.eval()


def _shapes(net: Any, parameters: Mapping[str, Any]) -> dict[str, Sequence[int]]:
    if not isinstance(net, WaveNet):
        return {name: one.shape for name, one in net.describe_inputs().items()}
    features = (1, net.receptive_field, parameters["num_feat_dynamic_real"])
    return {
        "past_target": (1, net.receptive_field),
        "past_observed_values": (1, net.receptive_field),
        "past_time_feat": features,
        "future_time_feat": features,
        "feat_static_real": (1, parameters["num_feat_static_real"]),
        "feat_static_cat": (1, len(parameters["cardinality"])),
    }
