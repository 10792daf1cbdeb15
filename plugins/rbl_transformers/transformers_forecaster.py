"""A forecaster of transformers from a local folder or the Hugging Face hub: safetensors only, no code of others."""

from typing import Any, Literal

import transformers
from torch import nn
from transformers import AutoConfig

from rbl_transformers.loading import folder_or_repository, loaded, network
from rbl_transformers.patch_forecaster import PatchForecaster
from rbl_transformers.sampling_forecaster import SamplingForecaster
from rbl_transformers.timesfm_forecaster import TimesFm
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.local_files import listed
from robustbench_lab.plugin_tools.series_channels import Count, Known, SeriesChannels

FILES = ("config.json", "model.safetensors")
CLASSES = {
    "autoformer": "AutoformerForPrediction",
    "informer": "InformerForPrediction",
    "patchtsmixer": "PatchTSMixerForPrediction",
    "patchtst": "PatchTSTForPrediction",
    "time_series_transformer": "TimeSeriesTransformerForPrediction",
    "timesfm": "TimesFmModelForPrediction",
    "timesfm2_5": "TimesFm2_5ModelForPrediction",
}
"""What a configuration calls the kind of model, to the library's class."""


def transformers_forecaster(
    name: str,
    *,
    revision: str | None = None,
    horizon: Count | None = None,
    series: Count | None = None,
    known: Known = (),
    paths: Count | None = None,
    score: bool = False,
    frequency: Literal[0, 1, 2] = 0,
) -> nn.Module:
    """The forecaster of a folder or hub repository `name`.

    A folder holds `config.json` and `model.safetensors`. revision: of the repository, best a commit. horizon: steps of
    the forecast; None: all. series, known: see `SeriesChannels`. paths: how many are drawn from a distribution; None:
    as its configuration says. score: give log-probabilities of paths that are drawn step by step. frequency: of
    TimesFM. Raises UsageError.
    """
    source = f"transformers:{name}"
    where = folder_or_repository(name, revision, source, FILES, "google/timesfm-2.0-500m-pytorch")
    config = loaded(AutoConfig.from_pretrained, where, source)
    if config.model_type not in CLASSES:
        raise UsageError(f"{source} is a '{config.model_type}'; forecasters are {listed(sorted(CLASSES), 9)}")
    net: Any = network(getattr(transformers, CLASSES[config.model_type]), config, where, source)
    channels = SeriesChannels(source, series, tuple(known))
    if config.model_type.startswith("timesfm"):
        return TimesFm(net, channels, horizon, frequency).eval()
    if config.model_type.startswith("patch"):
        return PatchForecaster(net, channels, horizon, paths).eval()
    return SamplingForecaster(net, channels, horizon, paths, score=score).eval()
