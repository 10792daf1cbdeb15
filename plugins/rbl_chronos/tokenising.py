"""The first generation of Chronos, which turns values into tokens: paths, without gradient (https://arxiv.org/abs/2403.07815)."""

from collections.abc import Callable
from typing import Any

import torch
from chronos import ChronosConfig, ChronosModel, ChronosPipeline, MeanScaleUniformBins
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.series_channels import SeriesChannels, as_black_box
from robustbench_lab.tasks.forecast_output import Paths

NETWORKS = {"seq2seq": AutoModelForSeq2SeqLM, "causal": AutoModelForCausalLM}


def with_tokens(load: Callable[[Any], Any], config: Any, source: str) -> ChronosPipeline:
    """The library's pipeline around the network that `load` makes. Raises UsageError."""
    own = ChronosConfig(**config.chronos_config)
    if own.tokenizer_class != MeanScaleUniformBins.__name__ or own.model_type not in NETWORKS:
        raise UsageError(f"{source}: its tokeniser '{own.tokenizer_class}' or type '{own.model_type}' is not known")
    net = load(NETWORKS[own.model_type])
    return ChronosPipeline(MeanScaleUniformBins(**own.tokenizer_kwargs, config=own), ChronosModel(own, net))


class Tokenising(nn.Module):
    """A black box: rounding to tokens has no gradient.

    Each series is forecast alone, from the same random numbers, so that its paths are the same in every batch.
    """

    def __init__(
        self, pipeline: ChronosPipeline, channels: SeriesChannels, horizon: int | None, paths: int | None
    ) -> None:
        super().__init__()
        self.net = pipeline.model
        self.pipeline = pipeline
        self.channels = channels
        self.horizon = horizon or pipeline.model.config.prediction_length
        self.paths = paths or pipeline.model.config.num_samples

    def forward(self, inputs: Tensor) -> Paths:
        """Windows `[N, L, channels]` to `Paths` `[N, H, C, S]`."""
        history = self.channels.forecast_series(self.channels.history(inputs, self.horizon)).detach()
        flat = history.transpose(1, 2).flatten(0, 1).cpu()
        made = torch.cat([self._drawn(one) for one in flat])  # [N * C, S, H]
        values = torch.unflatten(made, 0, (len(inputs), -1)).permute(0, 3, 1, 2)
        return Paths(as_black_box(values, inputs))

    def _drawn(self, history: Tensor) -> Tensor:
        device = self.net.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            drawn: Tensor = self.pipeline.predict(history, prediction_length=self.horizon, num_samples=self.paths)
            return drawn
