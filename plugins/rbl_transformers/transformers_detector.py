"""A detector of transformers from a local folder or from the Hugging Face hub: safetensors only, no code of others."""

from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection

from rbl_transformers.detection_transformer import FAMILIES, DetectionTransformer
from rbl_transformers.loading import folder_or_repository, loaded, network
from rbl_transformers.preparation import Preparation
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.class_numbers import ClassNumbers, numbers_of
from robustbench_lab.plugin_tools.local_files import listed
from robustbench_lab.plugin_tools.right_gradients import right_gradients

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
NOT_IN_USE = "N/A"
"""What configurations of models trained on COCO's own category ids call the ids that no category has."""


def transformers_detector(
    name: str, *, revision: str | None = None, labels: list[int] | None = None, score_threshold: float = 0.05
) -> nn.Module:
    """The detector of a folder or hub repository `name`, for images `[B, 3, H, W]` in [0, 1], to a DetectorOutput.

    A folder holds `config.json`, `model.safetensors` and `preprocessor_config.json`. revision: of the repository, best
    a commit. labels: the detector's number of each class of the dataset; by default all that its configuration names,
    in its order, without those called N/A. score_threshold: of its detections. Raises UsageError.
    """
    source = f"transformers:{name}"
    if not 0 <= score_threshold <= 1:
        raise UsageError(f"{source}: score_threshold must be between 0 and 1, not {score_threshold:g}")
    where = folder_or_repository(name, revision, source, FILES, "facebook/detr-resnet-50")
    config = loaded(AutoConfig.from_pretrained, where, source)
    if config.model_type not in FAMILIES:
        raise UsageError(f"{source} is a '{config.model_type}'; offered are {listed(sorted(FAMILIES), 9)}")
    net = network(AutoModelForObjectDetection, config, where, source)
    preparation = Preparation(loaded(AutoImageProcessor.from_pretrained, where, source), source)
    in_use = [number for number in range(config.num_labels) if config.id2label.get(number) != NOT_IN_USE]
    numbers = numbers_of(in_use if labels is None else labels, config.num_labels, source)
    classes = ClassNumbers(numbers, config.num_labels)
    return DetectionTransformer(right_gradients(net), preparation, classes, score_threshold).eval()
