"""A torchvision segmentation network with weights from a local file or from torchvision."""

from typing import Any

import torchvision
from torch import Tensor, nn

from robustbench_lab.errors import UsageError, describe_error, did_you_mean
from robustbench_lab.global_randomness import seeded
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
    tensors = {} if weights is None else load_state_dict(weights)
    second_head = {"aux_loss": True} if any(tensor.startswith(SECOND_HEAD) for tensor in tensors) else {}
    net = _create(name, source, trained if pretrained else None, {"num_classes": num_classes, **second_head})
    if weights is not None:
        apply_weights(net, weights, source, weights_by)
    usual = trained.transforms()
    return Normalized(Maps(net), usual.mean if mean is None else mean, usual.std if std is None else std).eval()


def _create(name: str, source: str, trained: Any, given: dict[str, Any]) -> nn.Module:
    try:
        with seeded("initial weights"):
            net: nn.Module = torchvision.models.get_model(name, weights=trained, weights_backbone=None, **given)
            return net
    except Exception as error:  # a wrong number of classes, no network, a damaged download
        advice = "; without internet, add weights='file.pth'" if isinstance(error, OSError) else ""
        raise UsageError(f"{source}: torchvision cannot make it ({describe_error(error)}){advice}") from error
