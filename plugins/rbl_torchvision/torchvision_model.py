"""A torchvision classifier with weights from a local file or from torchvision."""

import torchvision
from torch import nn

from rbl_torchvision.networks import network, published_copy
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.local_files import ExistingFile
from robustbench_lab.plugin_tools.normalization import Normalized
from robustbench_lab.plugin_tools.weights import MatchBy, apply_weights, require_weights


def torchvision_model(
    name: str,
    *,
    weights: ExistingFile | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    num_classes: int = 1000,
    pretrained: bool = False,
    random_weights: bool = False,
    weights_by: MatchBy = "name",
) -> nn.Module:
    """The torchvision classifier `name` for images `[N, 3, H, W]` in [0, 1], to logits.

    weights: a local `.safetensors` or state_dict file; weights_by: see `apply_weights`. pretrained: torchvision's
    default weights, downloaded or from its cache. random_weights: neither, the same random weights every time.
    mean, std: normalisation; by default what torchvision's weights of this name were trained with. Raises UsageError.
    """
    source = f"torchvision:{name}"
    known = torchvision.models.list_models(module=torchvision.models)
    if name in torchvision.models.list_models(module=torchvision.models.detection):
        raise UsageError(f"torchvision knows no classifier '{name}': it is a detector, and the data is for classifiers")
    if name not in known:
        raise UsageError(f"torchvision knows no classifier '{name}'.{did_you_mean(name, known)}")
    require_weights(source, weights=weights, pretrained=pretrained, random_weights=random_weights)
    usual = torchvision.models.get_model_weights(name).DEFAULT
    published = usual if pretrained else published_copy(name, weights) if weights else None
    net = network(name, source, published, weights, num_classes=num_classes)
    if weights is not None and published is None:
        apply_weights(net, weights, source, weights_by)
    usual = (published or usual).transforms()
    return Normalized(net, usual.mean if mean is None else mean, usual.std if std is None else std).eval()
