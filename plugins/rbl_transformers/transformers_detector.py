"""A detector of transformers from a local folder or from the Hugging Face hub: safetensors only, no code of others."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection
from transformers.utils import logging

from rbl_transformers.detection_transformer import FAMILIES, DetectionTransformer
from rbl_transformers.preparation import Preparation
from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.plugin_tools.batch_norm import right_gradients
from robustbench_lab.plugin_tools.class_numbers import ClassNumbers, numbers_of
from robustbench_lab.plugin_tools.local_files import existing_folder, listed

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
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
    where = _where(name, revision, source)
    config = _loaded(AutoConfig.from_pretrained, where, source)
    if config.model_type not in FAMILIES:
        raise UsageError(f"{source} is a '{config.model_type}'; offered are {listed(sorted(FAMILIES), 9)}")
    net = _net(config, where, source)
    preparation = Preparation(_loaded(AutoImageProcessor.from_pretrained, where, source), source)
    in_use = [number for number in range(config.num_labels) if config.id2label.get(number) != NOT_IN_USE]
    numbers = numbers_of(in_use if labels is None else labels, config.num_labels, source)
    classes = ClassNumbers(numbers, config.num_labels)
    return DetectionTransformer(right_gradients(net), preparation, classes, score_threshold).eval()


def _where(name: str, revision: str | None, source: str) -> dict[str, Any]:
    """What to give to `from_pretrained`."""
    folder = Path(name).expanduser()
    if not (folder.is_dir() or name.startswith(("/", ".", "~"))):
        if not HUB_NAME.fullmatch(name):
            raise UsageError(
                f"{source}: neither a folder nor the name of a repository, such as facebook/detr-resnet-50"
            )
        return {"pretrained_model_name_or_path": name, "revision": revision or "main"}
    folder = existing_folder(name, "transformers")
    if revision is not None:
        raise UsageError(f"{source}: a folder has no revisions; leave revision out")
    missing = [file for file in FILES if not (folder / file).is_file()]
    if "model.safetensors" in missing and (folder / "model.safetensors.index.json").is_file():
        missing.remove("model.safetensors")
    if missing:
        raise UsageError(
            f"{source}: the folder has no {listed(missing)}; save_pretrained of model and processor writes them"
        )
    return {"pretrained_model_name_or_path": str(folder), "local_files_only": True}


def _net(config: Any, where: dict[str, Any], source: str) -> Any:
    given = {**where, "config": config, "dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    with _without_bars():
        net, info = _loaded(AutoModelForObjectDetection.from_pretrained, given, source)
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise UsageError(f"{source}: its weights lack {len(names)} tensors of the model: {listed(names)}")
    return net


def _loaded(load: Any, given: dict[str, Any], source: str) -> Any:
    try:
        return load(**given, trust_remote_code=False)
    except Exception as error:  # no network, damaged files, code of others asked for, no safetensors
        advice = "" if "local_files_only" in given else "; without internet, name a local folder"
        raise UsageError(f"{source}: transformers cannot load it ({describe_error(error)}){advice}") from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of transformers beside the run's own."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
