"""A segmentation network of transformers from a folder or the Hugging Face hub: safetensors only, no code of others."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from rbl_transformers.loading import folder_or_repository, loaded, network
from rbl_transformers.preparation import Preparation
from robustbench_lab.errors import UsageError
from robustbench_lab.plugin_tools.class_numbers import numbers_of

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")


class TransformersSegmenter(nn.Module):
    """A network behind its own preparation of images; its maps are enlarged as the library's post-processing does."""

    def __init__(self, net: Any, preparation: Preparation, numbers: list[int]) -> None:
        super().__init__()
        self.net = net
        self.preparation = preparation
        self.numbers = numbers

    def forward(self, images: Tensor) -> Tensor:
        """Images `[N, 3, H, W]` in [0, 1] to logits `[N, K, H, W]`."""
        small = self.net(pixel_values=self.preparation(images)).logits
        logits = functional.interpolate(small, size=images.shape[2:], mode="bilinear", align_corners=False)
        return logits if self.numbers == list(range(logits.shape[1])) else logits[:, self.numbers]


def transformers_segmenter(name: str, *, revision: str | None = None, labels: list[int] | None = None) -> nn.Module:
    """The network of a folder or hub repository `name`, for images `[N, 3, H, W]` in [0, 1], to logits `[N, K, H, W]`.

    A folder holds `config.json`, `model.safetensors` and `preprocessor_config.json`: resizing and normalisation are
    part of the model. revision: of the repository, best a commit. labels: the output of each of the dataset's classes;
    by default all in their order. Raises UsageError.
    """
    source = f"transformers:{name}"
    where = folder_or_repository(name, revision, source, FILES, "nvidia/segformer-b0-finetuned-ade-512-512")
    config = loaded(AutoConfig.from_pretrained, where, source)
    if config.model_type not in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES:
        raise UsageError(f"{source} is a '{config.model_type}', which is not offered for segmentation")
    numbers = numbers_of("from-0" if labels is None else labels, config.num_labels, source)
    net = network(AutoModelForSemanticSegmentation, config, where, source)
    preparation = Preparation(loaded(AutoImageProcessor.from_pretrained, where, source), source)
    return TransformersSegmenter(net, preparation, numbers).eval()
