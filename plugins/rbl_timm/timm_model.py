"""A timm architecture with weights from a local file or from the hub."""

from typing import Any

import timm
from huggingface_hub import get_session, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
from torch import nn

from robustbench_lab.errors import UsageError, describe_error, did_you_mean
from robustbench_lab.global_randomness import seeded
from robustbench_lab.plugin_tools.local_files import ExistingFile
from robustbench_lab.plugin_tools.normalization import Normalized
from robustbench_lab.plugin_tools.weights import MatchBy, apply_weights, only_tensors, require_weights

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_TIMEOUT = 10.0
"""Seconds for the hub to answer; timm itself tries for about a minute."""


def timm_model(
    name: str,
    *,
    weights: ExistingFile | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    num_classes: int | None = None,
    pretrained: bool = False,
    random_weights: bool = False,
    weights_by: MatchBy = "name",
) -> nn.Module:
    """`timm.create_model(name)` for images `[N, 3, H, W]` in [0, 1], to logits.

    weights: a local `.safetensors` or state_dict file; weights_by: see `apply_weights`. pretrained: timm's own weights,
    from the hub or its cache. random_weights: neither, the same random weights every time. num_classes: as the
    architecture's pretrained weights, if not given. mean, std: normalisation; by default what timm's pretrained weights
    of this name were trained with. Raises UsageError.
    """
    source = f"timm:{name}"
    if not timm.is_model(name):
        raise UsageError(f"timm knows no model '{name}'.{did_you_mean(name, timm.list_models())}")
    require_weights(source, weights=weights, pretrained=pretrained, random_weights=random_weights)
    if pretrained:
        _check_pretrained(name, source, num_classes)
    net = _create(name, source, pretrained, num_classes)
    if weights is not None:
        apply_weights(net, weights, source, weights_by)
    usual = net.pretrained_cfg
    return Normalized(net, usual["mean"] if mean is None else mean, usual["std"] if std is None else std).eval()


def _create(name: str, source: str, pretrained: bool, num_classes: int | None) -> Any:
    chosen: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    try:
        with seeded("initial weights"), only_tensors():
            return timm.create_model(name, pretrained=pretrained, **chosen)
    except Exception as error:  # timm, the hub client and the network each raise their own
        raise UsageError(f"{source}: timm cannot make it ({describe_error(error)})") from error


def _check_pretrained(name: str, source: str, num_classes: int | None) -> None:
    """Fail within seconds where neither the cache nor the hub can give the weights of every layer."""
    trained = timm.get_pretrained_cfg(name)
    if trained is None or not trained.has_weights:
        raise UsageError(f"{source}: timm has no pretrained weights for it; add weights='file.safetensors'")
    if num_classes not in (None, trained.num_classes):
        raise UsageError(
            f"{source}: its pretrained weights are for {trained.num_classes} classes; for num_classes={num_classes}, "
            "the last layer would be random, so add weights='file.safetensors'"
        )
    if not trained.hf_hub_id:
        return
    files = (trained.hf_hub_filename,) if trained.hf_hub_filename else HUB_FILES
    if any(isinstance(try_to_load_from_cache(trained.hf_hub_id, file), str) for file in files):
        return
    advice = "connect to the internet once, or download the file elsewhere and add weights='file.safetensors'"
    if HF_HUB_OFFLINE:
        raise UsageError(f"{source}: its weights are not in the cache and HF_HUB_OFFLINE is set; {advice}")
    try:
        get_session().head(ENDPOINT, timeout=HUB_TIMEOUT)
    except Exception as error:  # depends on the hub client's HTTP library, which differs between its versions
        raise UsageError(f"{source}: cannot reach {ENDPOINT} for its weights; {advice}") from error
