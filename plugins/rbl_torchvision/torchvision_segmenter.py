"""A torchvision segmentation network with weights from a local file or from torchvision."""

from typing import Any

import torchvision
from torch import Tensor, nn

from rbl_torchvision.networks import network, published_copy
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.local_files import ExistingFile
from robustbench_lab.plugin_tools.normalization import Normalized
from robustbench_lab.plugin_tools.weights import MatchBy, apply_weights, load_state_dict, require_weights

VOC_CLASSES = 21
SECOND_HEAD = "aux_classifier."
"""Begins the names of tensors that are there for training only; files of weights may have them or not."""


class Maps(nn.Module):
    """The logits `[N, K, H, W]` among what a network of torchvision returns, at the size of the images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `[N, 3, H, W]` to logits."""
        logits: Tensor = self.net(images)["out"]
        return logits


def torchvision_segmenter(
    name: str,
    *,
    weights: ExistingFile | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    num_classes: int = VOC_CLASSES,
    pretrained: bool = False,
    random_weights: bool = False,
    weights_by: MatchBy = "name",
) -> nn.Module:
    """The torchvision network `name` for images `[N, 3, H, W]` in [0, 1], to logits `[N, K, H, W]`.

    Parameters are those of classifiers. Images are taken at their own size. num_classes: with the background.
    Raises UsageError.
    """
    source = f"torchvision:{name}"
    known = torchvision.models.list_models(module=torchvision.models.segmentation)
    if name not in known:
        raise UsageError(f"torchvision knows no segmentation network '{name}'.{did_you_mean(name, known)}")
    require_weights(source, weights=weights, pretrained=pretrained, random_weights=random_weights)
    trained = torchvision.models.get_model_weights(name).DEFAULT
    published = trained if pretrained else published_copy(name, weights) if weights else None
    tensors = load_state_dict(weights) if weights and published is None else {}
    given: dict[str, Any] = {"num_classes": num_classes, "weights_backbone": None}
    if any(tensor.startswith(SECOND_HEAD) for tensor in tensors):
        given["aux_loss"] = True
    net = network(name, source, published, weights, **given)
    if weights is not None and published is None:
        apply_weights(net, weights, source, weights_by)
    usual = trained.transforms()
    return Normalized(Maps(net), usual.mean if mean is None else mean, usual.std if std is None else std).eval()
