"""A network of segmentation-models-pytorch with weights from a local file."""

from typing import Any

import segmentation_models_pytorch as smp
from torch import nn

from robustbench_lab.errors import UsageError, describe_error, did_you_mean
from robustbench_lab.global_randomness import seeded
from robustbench_lab.plugin_tools.local_files import ExistingFile
from robustbench_lab.plugin_tools.normalization import Normalized
from robustbench_lab.plugin_tools.weights import MatchBy, apply_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def smp_model(
    name: str,
    *,
    classes: int,
    encoder: str = "resnet34",
    weights: ExistingFile | None = None,
    args: dict[str, Any] | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    random_weights: bool = False,
    weights_by: MatchBy = "name",
) -> nn.Module:
    """`smp.create_model(name, encoder, classes=classes, **args)` for images `[N, 3, H, W]` in [0, 1], to logits.

    weights: a local `.safetensors` or state_dict file of the whole network; weights_by: see `apply_weights`.
    random_weights: none, the same random weights every time. mean, std: normalisation; by default ImageNet's, which
    nearly all its encoders were trained with. Raises UsageError.
    """
    source = f"smp:{name}"
    known = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    if name not in known:
        raise UsageError(f"segmentation-models-pytorch knows no '{name}'.{did_you_mean(name, known)}")
    if (weights is not None) == random_weights:
        raise UsageError(f"{source}: add either weights='file.safetensors' or random_weights=True")
    try:
        with seeded("initial weights"):
            net = smp.create_model(name, encoder, encoder_weights=None, classes=classes, **(args or {}))
    except Exception as error:  # an unknown encoder, one that the architecture cannot take, a wrong argument
        text = f"segmentation-models-pytorch cannot make it ({describe_error(error)[:200]})"
        raise UsageError(f"{source}: {text}") from error
    if weights is not None:
        apply_weights(net, weights, source, weights_by)
    return Normalized(net, mean or IMAGENET_MEAN, std or IMAGENET_STD).eval()
