"""A Chronos from a local folder or from the Hugging Face hub: safetensors only, no code of others."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import AutoConfig

from rbl_chronos.bolt import Bolt
from rbl_chronos.chronos_2 import Chronos2
from rbl_chronos.tokenising import Tokenising, with_tokens
from rbl_transformers.loading import folder_or_repository, loaded, network
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.local_files import listed
from robustbench_lab.plugin_tools.series_channels import Count, Known, SeriesChannels

FILES = ("config.json", "model.safetensors")
PIPELINES = ("Chronos2Pipeline", "ChronosBoltPipeline", "ChronosPipeline")


@dataclass(frozen=True)
class _Source:
    """Where a network comes from."""

    where: dict[str, Any]
    source: str

    def network(self, kind: Any) -> Any:
        """With the configuration that the class reads; configurations of all generations claim to be T5's."""
        config = loaded(kind.config_class.from_pretrained, self.where, self.source)
        return network(kind, config, self.where, self.source)


def chronos_forecaster(
    name: str,
    *,
    horizon: Count | None = None,
    revision: str | None = None,
    series: Count | None = None,
    known: Known = (),
    joint: bool = True,
    paths: Count | None = None,
) -> nn.Module:
    """The forecaster of a folder or hub repository `name`, such as `amazon/chronos-bolt-small`.

    horizon: steps of the forecast; None: the data's (of the first Chronos: as trained). revision: of the repository,
    best a commit.
    series, known: see `SeriesChannels`. joint: whether Chronos-2 looks at all channels of a window together. paths: how
    many the first generation draws; None: as its configuration says. Raises UsageError.
    """
    source = f"chronos:{name}"
    where = folder_or_repository(name, revision, source, FILES, "amazon/chronos-bolt-small")
    config = loaded(AutoConfig.from_pretrained, where, source)
    pipeline = getattr(config, "chronos_pipeline_class", "ChronosPipeline")
    if not isinstance(getattr(config, "chronos_config", None), dict) or pipeline not in PIPELINES:
        raise UsageError(f"{source}: its configuration is not one of {listed(PIPELINES)}")
    origin, channels = _Source(where, source), SeriesChannels(source, series, tuple(known))
    if pipeline == "Chronos2Pipeline":
        from chronos import Chronos2Model

        return Chronos2(origin.network(Chronos2Model), channels, horizon, joint=joint).eval()
    if pipeline == "ChronosBoltPipeline":
        from chronos.chronos_bolt import ChronosBoltModelForForecasting

        return Bolt(origin.network(ChronosBoltModelForForecasting), channels, horizon).eval()
    made = with_tokens(lambda kind: network(kind, config, where, source), config, source)
    return Tokenising(made, channels, horizon, paths).eval()
