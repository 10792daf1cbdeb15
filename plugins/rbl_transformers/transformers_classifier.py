"""An image classifier of transformers from a folder or the Hugging Face hub: safetensors only, no code of others."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from rbl_transformers.loading import folder_or_repository, loaded, network
from rbl_transformers.pixelwise_preparation import PixelwisePreparation
from robustbench_lab.errors import UsageError, did_you_mean
from robustbench_lab.plugin_tools.class_numbers import numbers_of

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
NOT_IMAGES = frozenset({"imagegpt", "shieldgemma2", "siglip2", "timm_wrapper"})
"""Kinds that take something else than images: colour clusters, a prompt, patches; and timm's, which `timm:` loads."""


class TransformersClassifier(nn.Module):
    """A classifier behind its own preparation of images."""

    def __init__(self, net: Any, preparation: nn.Module, numbers: list[int]) -> None:
        super().__init__()
        self.net = net
        self.preparation = preparation
        self.numbers = numbers
        self.class_names = tuple(str(net.config.id2label.get(number, number)) for number in numbers)

    def forward(self, images: Tensor) -> Tensor:
        """Images `[N, 3, H, W]` in [0, 1] to logits `[N, K]`. Raises UsageError for another size than it takes."""
        logits: Tensor = self.net(pixel_values=self.preparation(images)).logits
        return logits if self.numbers == list(range(logits.shape[1])) else logits[:, self.numbers]


def transformers_classifier(
    name: str, *, revision: str | None = None, labels: list[int] | list[str] | None = None, resize: bool = False
) -> nn.Module:
    """The image classifier of a folder or hub repository `name`, for images `[N, 3, H, W]` in [0, 1], to logits.

    A folder holds `config.json`, `model.safetensors` and `preprocessor_config.json`, whose normalisation is part of
    the model. revision: of the repository, best a commit. labels: the output of each of the dataset's classes, by
    number or by the name that the configuration has for it; by default all. resize: whether images of another size are
    resized and cropped inside, as its image processor does it. Raises UsageError.
    """
    source = f"transformers:{name}"
    where = folder_or_repository(name, revision, source, FILES, "google/vit-base-patch16-224")
    config = loaded(AutoConfig.from_pretrained, where, source)
    if config.model_type not in set(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES) - NOT_IMAGES:
        raise UsageError(f"{source} is a '{config.model_type}', which is not offered for classification of images")
    numbers = _numbers(labels, config, source)
    net = network(AutoModelForImageClassification, config, where, source)
    processor = loaded(AutoImageProcessor.from_pretrained, where, source)
    preparation = PixelwisePreparation(processor, source, resize=resize)
    return TransformersClassifier(net, preparation, numbers).eval()


def _numbers(labels: list[int] | list[str] | None, config: Any, source: str) -> list[int]:
    known = {str(label): number for number, label in config.id2label.items()}
    unknown = [one for one in labels or () if isinstance(one, str) and one not in known]
    if unknown:
        raise UsageError(f"{source} has no class '{unknown[0]}'.{did_you_mean(unknown[0], known)}")
    numbers = [known[one] if isinstance(one, str) else one for one in labels or ()]
    return numbers_of("from-0" if labels is None else numbers, config.num_labels, source)
