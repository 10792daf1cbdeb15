"""A model of neuralforecast from a checkpoint of the library: safetensors and JSON, nothing is unpickled."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

from neuralforecast.core import MODEL_FILENAME_DICT
from neuralforecast.losses.pytorch import IQLoss, MQLoss
from torch import nn

from rbl_neuralforecast.library_model import LibraryModel
from robustbench_lab.errors import UsageError, describe_error, did_you_mean
from robustbench_lab.plugin_tools.local_files import ExistingFile, existing_file, listed
from robustbench_lab.plugin_tools.series_channels import Count, Known, SeriesChannels

SUFFIX = ".safetensors"


def neuralforecast_forecaster(
    name: str, *, path: ExistingFile, past: Known = (), known: Known = (), series: Count | None = None
) -> nn.Module:
    """The model of class `name`, such as `NHITS`, from `<folder>/NHITS_0.safetensors`, as `NeuralForecast.save` writes.

    past, known: the channels of its historical and its future covariates, in its own order. series: how many of the
    first channels are forecast; None: all that are no covariate. Raises UsageError.
    """
    source = f"neuralforecast:{name}"
    kind = MODEL_FILENAME_DICT.get(name.lower())
    if kind is None:
        near = did_you_mean(name, [one.__name__ for one in MODEL_FILENAME_DICT.values()])
        raise UsageError(f"{source}: neuralforecast has no such model.{near}")
    file = existing_file(path, "neuralforecast")
    if file.suffix != SUFFIX:
        text = "older checkpoints are pickled programs; load it where you trust it, and save it with neuralforecast 3.3"
        raise UsageError(f"{source}: '{path}' is no {SUFFIX} file: {text}")
    _check_scaling(file, source)
    net = _loaded(kind, file, source)
    if net.stat_exog_list:
        raise UsageError(f"{source}: it needs static features, which are not offered: train it without them")
    for what, given, names in (("past", past, net.hist_exog_list), ("known", known, net.futr_exog_list)):
        if len(given) != len(names):
            raise UsageError(f"{source}: it needs {what}=[...], the channels of {listed(names, 6) or 'no covariates'}")
    covariates = SeriesChannels(source, series, tuple(known))
    return LibraryModel(net, _levels(net, source), covariates, tuple(past)).eval()


def _check_scaling(file: Path, source: str) -> None:
    """UsageError where series were scaled one by one outside of the model."""
    configuration = file.with_name("configuration.json")
    if not configuration.is_file():
        return
    saved = json.loads(configuration.read_text())["configuration"]
    if saved.get("local_scaler_type"):
        text = "its series were scaled outside of the model (local_scaler_type): train it with scaler_type instead"
        raise UsageError(f"{source}: {text}")


def _loaded(kind: Any, file: Path, source: str) -> Any:
    logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # settings of the trainer that are not restored
            return kind.load(str(file), allow_pickle=False)
    except Exception as error:  # another class, damaged, a loss of its own
        raise UsageError(f"{source}: neuralforecast cannot load '{file}' ({describe_error(error)})") from error


def _levels(net: Any, source: str) -> tuple[float, ...] | None:
    """Of the quantiles that it was trained for; None: points. UsageError where it draws from a distribution."""
    if net.loss.is_distribution_output:
        text = f"its loss is {type(net.loss).__name__}, whose forecasts the library draws at random without gradient"
        raise UsageError(f"{source}: {text}: train it with MQLoss, HuberMQLoss or a point loss")
    if isinstance(net.loss, IQLoss):
        return (0.5,)
    if not isinstance(net.loss, MQLoss) and not hasattr(net.loss, "quantiles"):
        return None
    return tuple(round(float(one), 6) for one in net.loss.quantiles)
